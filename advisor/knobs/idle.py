"""Knobs of a recipe that mean nothing beside others."""

from __future__ import annotations

from advisor.checkpoints import STORES, Quantization
from advisor.specs import (
    ADAPTER_METHODS,
    DORA_METHODS,
    QUANTIZED_METHODS,
    REPLACING,
    Method,
    Variant,
)

_ONLY_ADAPTERS = ("rank", "alpha", "target_modules", "variant", "dropout", "adapter_dtype", "magnitude_dtype")
_ONLY_PARTIAL = ("modules_to_save", "trained_dtype")
_ONLY_QUANTIZED = ("quant", "double_quant", "quant_bits", "quant_group", "kbit_upcast", "quantize_experts")


def idle_knobs(
    method: Method,
    quant: Quantization = "nf4",
    gradient_checkpointing: bool = True,
    trained_layers: int = 0,
    variant: Variant = "plain",
) -> dict[str, str]:
    """The recipe's knobs that mean nothing for `method`, each with why; `quant` is what a quantized base is stored in.

    Some mean nothing given another knob: re-entrant checkpointing without checkpointing, for example.
    """
    idle: dict[str, str] = {}
    if method != "full":
        idle["optimizer_in_backward"] = "with adapters: only recipes of full fine-tuning have it"
    if method not in ADAPTER_METHODS:
        idle |= dict.fromkeys(_ONLY_ADAPTERS, f"without adapters (--method {method})")
        if not trained_layers:
            idle |= dict.fromkeys(_ONLY_PARTIAL, "where all weights are trained (--method full)")
    elif method not in DORA_METHODS:
        idle["magnitude_dtype"] = "without DoRA's magnitudes"
    if method in ADAPTER_METHODS and variant in REPLACING:
        idle |= dict.fromkeys(("alpha",) if variant == "vera" else ("rank", "alpha"), f"with --variant {variant}")
    if method not in QUANTIZED_METHODS:
        idle |= dict.fromkeys(_ONLY_QUANTIZED, f"without a quantized base (--method {method})")
    else:
        idle |= _idle_of_store(quant)
    if not gradient_checkpointing:
        idle["reentrant"] = "without gradient checkpointing"
    return idle


def _idle_of_store(quant: Quantization) -> dict[str, str]:
    """Those that mean nothing for a base stored so."""
    store, idle = STORES[quant], {}
    if quant not in ("nf4", "fp4"):
        idle["double_quant"] = f"with --quant {quant}, which has no second level"
    if not store.bits:
        idle["quant_bits"] = f"with --quant {quant}, which has one width"
    if not store.group:
        idle["quant_group"] = f"with --quant {quant}, whose blocks are fixed"
    if not store.casts_the_rest:
        idle["kbit_upcast"] = f"with --quant {quant}, which peft's k-bit preparation passes over"
    return idle
