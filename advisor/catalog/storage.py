"""Endings of a model's name that say how its weights are stored: '-bnb-4bit', '-GPTQ-Int4', '-FP8', '-GGUF' and others.

An ending is never dropped silently: the name is that of another model with a checkpoint of its own, or is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from advisor.checkpoints import STORES, UNKNOWN_EXPERTS, Checkpoint
from advisor.specs import ModelSpec

DYNAMIC_GROWTH = 1.81 / 1.36
"""The most that Unsloth states for a dynamic 4-bit checkpoint over a plain one: 1.81 GB against 1.36 (Qwen2-VL 2B).

Source: https://unsloth.ai/blog/dynamic-4bit (which speaks of less than 10 % for larger models).
"""
DYNAMIC_UNKNOWN = "which layers this dynamic 4-bit checkpoint has in 16 bits (only its config.json says)"


class Stored(NamedTuple):
    """A name without its ending of storage, and what the ending means."""

    base: str
    ending: str
    checkpoint: Checkpoint | None = None
    refusal: str = ""
    """Why nothing is trained on such a checkpoint, where `checkpoint` is None."""


def bitsandbytes(quant: str = "nf4", **fields: object) -> Checkpoint:
    """A checkpoint that bitsandbytes wrote."""
    double = bool(fields.get("double_quant", quant != "int8"))
    words = "int8" if quant == "int8" else f"{quant} with{'' if double else 'out'} double quantization"
    given = {"stored": f"bitsandbytes {words}", "method": "bitsandbytes", "quant": quant, "double_quant": double}
    return Checkpoint.model_validate({**given, **fields})


def grouped(quant: str, bits: int, group: int, **fields: object) -> Checkpoint:
    """A GPTQ, AWQ or HQQ checkpoint: `bits` a weight, `group` weights to a scale."""
    scales = f"in groups of {group:,}" if group else "with a scale a row"
    given = {"stored": f"{quant.upper()}, {bits} bits {scales}", "method": quant, "quant": quant}
    return Checkpoint.model_validate({**given, "bits": bits, "group": group, **fields})


def fp8(block: int = 128, **fields: object) -> Checkpoint:
    """A checkpoint in FP8 with a scale for each square of `block` weights; 0 for one scale a weight tensor."""
    scales = f"squares of {block}" if block else "one scale a tensor"
    given = {"stored": f"FP8, {scales}", "method": "fp8", "quant": "fp8", "bits": 8, "group": block}
    return Checkpoint.model_validate({**given, **fields})


def dequantized(stored: str, method: str, **fields: object) -> Checkpoint:
    """A checkpoint that is dequantized to 16 bits while it is loaded."""
    return Checkpoint.model_validate({"stored": stored, "method": method, "quant": "none", **fields})


INFERENCE = "{} is for inference: no trainer here trains on it"
NOT_MIRRORED = "what training does with {} is not known here"

REFUSED = {
    "gguf": INFERENCE.format("a GGUF file"),
    "nvfp4": "transformers 5.23 does not train on NVFP4 (quantizers/quantizer_nvfp4.py)",
    "modelopt": "transformers 5.23 does not read ModelOpt's FP8 checkpoints (quantizers/auto.py)",
    "aqlm": NOT_MIRRORED.format("AQLM"),
    "mlx": INFERENCE.format("an MLX checkpoint on a CUDA card"),
    "bits": "the name does not say in which format; a path to its config.json does",
}
"""Why nothing is trained on a checkpoint, by its kind."""

Meaning = Callable[[re.Match[str]], "Checkpoint | str"]


def _of_fp8(found: re.Match[str]) -> Checkpoint | str:
    """Whose FP8: the owner says which library wrote it."""
    owner, how = found["base"].rpartition("/")[0].lower(), found["how"] or ""
    if owner == "nvidia":
        return "modelopt"
    if how or owner in ("redhatai", "neuralmagic"):
        return dequantized(f"FP8{f' ({how})' if how else ''}, by compressed-tensors", "compressed-tensors")
    return fp8()


def _of_gptq(found: re.Match[str]) -> Checkpoint:
    return grouped("gptq", int(found["bits"] or 4), int(found["group"] or 128))


_FORMS: tuple[tuple[str, Meaning], ...] = (
    (
        r"unsloth-bnb-4bit",
        lambda _: bitsandbytes(growth=DYNAMIC_GROWTH, unknown=(DYNAMIC_UNKNOWN,)),
    ),
    (r"bnb-(?:4bit|nf4)(?:-(?:bf16|fp16))?", lambda _: bitsandbytes()),
    (r"bnb-(?:8bit|int8)(?:-(?:bf16|fp16))?", lambda _: bitsandbytes("int8")),
    (r"gptq(?:[-_]?(?:int|w)?(?P<bits>[2348])(?:-?bits?)?)?(?:[-_]g?(?P<group>32|64|128|1024)g?)?", _of_gptq),
    (r"awq(?:[-_]?(?:int4|w4|4bit))?(?:[-_]g128)?", lambda _: grouped("awq", 4, 128)),
    (r"hqq(?:[-_]?(?:int|w)?(?P<bits>[2348])(?:-?bits?)?)?", lambda found: grouped("hqq", int(found["bits"] or 4), 64)),
    (r"fp8(?:-(?P<how>dynamic|block|static|kv)(?:-per-?tensor)?)?", _of_fp8),
    (r"nvfp4(?:a16)?", lambda _: "nvfp4"),
    (r"mxfp4", lambda _: dequantized("MXFP4", "mxfp4")),
    (r"aqlm(?:[-_][\w-]{1,40})?", lambda _: "aqlm"),
    (r"(?:i?q\d_[k0-9](?:_[smlx]+)?-)?(?:i1-)?gguf|i?q\d_[k0-9](?:_[smlx]+)?", lambda _: "gguf"),
    (
        r"(?:quantized[.-])?w(?P<bits>4|8)a(?:4|8|16)(?:-g?\d+)?",
        lambda found: dequantized(f"{found['bits']} bits, by compressed-tensors", "compressed-tensors"),
    ),
    (r"mlx(?:-[\w.]{1,20}){0,4}", lambda _: "mlx"),
    (
        r"(?:int[48]|[2-8]-?bits?|qat)",
        lambda found: "mlx" if found["base"].lower().startswith("mlx-community/") else "bits",
    ),
)
_ENDINGS = tuple((re.compile(rf"(?P<base>.+?)[-_.:](?P<ending>{form})", re.IGNORECASE), what) for form, what in _FORMS)


def read_ending(label: str) -> Stored | None:
    """The name without its ending of storage, and what that means; None for a name that has none.

    The longest ending counts: '-unsloth-bnb-4bit' is one.
    """
    name = label.strip().rstrip("/")
    found = [(match, what) for pattern, what in _ENDINGS if (match := pattern.fullmatch(name))]
    if not found:
        return None
    match, what = min(found, key=lambda one: len(one[0]["base"]))
    meaning = what(match)
    if isinstance(meaning, str):
        return Stored(match["base"], match["ending"], refusal=REFUSED[meaning])
    return Stored(match["base"], match["ending"], meaning)


def refused_mixture(checkpoint: Checkpoint, m: ModelSpec) -> str:
    """Why nothing here trains on this checkpoint of a mixture of experts; '' where it does, or `m` is none."""
    loaded = checkpoint.dequantized or checkpoint.quant == "fp8" or STORES[checkpoint.quant].by_bitsandbytes
    if not m.num_experts or loaded:
        return ""
    return (
        f"{NOT_MIRRORED.format(f'the {STORES[checkpoint.quant].title} experts of a mixture')}: take the 16-bit original"
    )


def with_experts(checkpoint: Checkpoint, m: ModelSpec) -> Checkpoint:
    """The checkpoint of a mixture with what is not known of its experts: bitsandbytes quantized them one by one.

    transformers 5.23 has all experts of a layer in one tensor, which bitsandbytes passes over. Experts in FP8 are not
    mirrored: the base is dequantized, as it is loaded on request. Source: transformers 5.23,
    utils/quantization_config.py, FineGrainedFP8Config(dequantize=True).
    """
    if not m.num_experts or checkpoint.dequantized:
        return checkpoint
    if checkpoint.quant == "fp8":
        return dequantized(checkpoint.stored, "fp8", original=checkpoint.original)
    return checkpoint.model_copy(update={"unknown": (*checkpoint.unknown, UNKNOWN_EXPERTS)})
