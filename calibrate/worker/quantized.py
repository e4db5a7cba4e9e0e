"""bitsandbytes' layers in place of a model's linear ones, filled or fake; fake CPU storages for tensors on meta."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from advisor.specs import Recipe
from calibrate.worker.older import kept_linears, replace_linears
from calibrate.worker.place import random_like

META = torch.device("meta")


CLAMPED = ("altup.prediction_coefs", "altup.correction_coefs")
"""Modules whose weights Gemma 3n clamps, which fails on packed ones: a run must name them in llm_int8_skip_modules,
which replaces the list that transformers makes itself (transformers 5.23, quantizers/base.py)."""


def quantize(model: Any, recipe: Recipe, fake: bool, device: str = "") -> None:
    """Replace the linear layers that transformers would quantize by bitsandbytes' own, on `device` if given.

    Fake ones get meta tensors of the shapes that bitsandbytes' quantization makes: a plain parameter and its
    quantization state, which is all that the layer reads.
    """
    from transformers import BitsAndBytesConfig

    before = dict(model.named_modules())
    int8 = recipe.quant == "int8"
    options = (
        {"load_in_8bit": True}
        if int8
        else {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": recipe.quant,
            "bnb_4bit_use_double_quant": recipe.double_quant,
            "bnb_4bit_compute_dtype": getattr(torch, recipe.base_dtype),
        }
    )
    clamped = [path for path in before if path.endswith(CLAMPED)]
    kept = ["lm_head", *clamped] if clamped else kept_linears(model)
    replace_linears(model, kept, BitsAndBytesConfig(**options))
    for name, layer in model.named_modules():
        old = before.get(name)
        if old is None or old is layer:
            continue
        # transformers' Conv1D keeps its weight as (in, out).
        weight = old.weight.data if isinstance(old, nn.Linear) else old.weight.data.T.contiguous()
        if device:
            weight = random_like(weight, device)
        layer.bias = old.bias
        convert = (_fill_fake_int8 if int8 else _fill_fake_4bit) if fake else (_fill_int8 if int8 else _fill_4bit)
        convert(layer, weight, recipe)
    if recipe.quantize_experts:
        quantize_experts(model, recipe, fake)
    model.is_loaded_in_8bit, model.is_loaded_in_4bit = int8, not int8
    model.quantization_method = "bitsandbytes"
    model.config._is_quantized = True  # transformers 5.23, quantizers/base.py, _assign_is_quantized


def _fill_4bit(layer: Any, weight: torch.Tensor, recipe: Recipe) -> None:
    import bitsandbytes as bnb

    layer.weight = bnb.nn.Params4bit(
        weight, requires_grad=False, quant_type=recipe.quant, compress_statistics=recipe.double_quant, module=layer
    ).to(weight.device)


def _fill_int8(layer: Any, weight: torch.Tensor, recipe: Recipe) -> None:
    import bitsandbytes as bnb

    # `to` quantizes only what comes from a CPU; a weight created on the card is already there.
    layer.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)._quantize(weight.device)


def quantize_experts(model: Any, recipe: Recipe, fake: bool) -> None:
    """Stacks of experts in 4 bits behind bitsandbytes' parametrization, as axolotl's monkeypatch/moe_quant.py does."""
    from bitsandbytes.nn import parametrize as bnb
    from torch.nn.utils.parametrize import register_parametrization

    for path, module in list(model.named_modules()):
        stacks = [name for name, p in module.named_parameters(recurse=False) if p.ndim >= 3]
        for name in stacks if "expert" in path.lower() else ():
            if not fake:
                bnb.replace_parameter_4bit(module, name, recipe.double_quant, recipe.quant)
                continue
            state = _fake_state(getattr(module, name), recipe)
            elements = getattr(module, name).numel()
            packed = torch.empty((elements + 1) // 2, 1, dtype=torch.uint8, device=META)
            setattr(module, name, nn.Parameter(packed, False))
            register_parametrization(module, name, bnb.Bnb4bitParametrization(state), unsafe=True)
            bnb._register_parametrization_hooks(module, name)


def _fill_fake_4bit(layer: Any, weight: torch.Tensor, recipe: Recipe) -> None:
    """A packed weight and what `bitsandbytes.functional.quantize_4bit` makes beside it."""
    layer.quant_state = _fake_state(weight, recipe)
    layer.weight = nn.Parameter(torch.empty((weight.numel() + 1) // 2, 1, dtype=torch.uint8, device=META), False)
    # What peft reads from bitsandbytes' parameter class, which can hold neither a fake nor a copied meta tensor.
    layer.weight.quant_type, layer.weight.compress_statistics = recipe.quant, recipe.double_quant


def _fake_state(weight: torch.Tensor, recipe: Recipe) -> Any:
    """Shapes as `bitsandbytes.functional.quantize_4bit` makes them: blocks of 64, of 256 for the second stage."""
    from bitsandbytes.functional import QuantState

    elements = weight.numel()
    blocks = -(-elements // 64)
    nested = (
        QuantState(
            absmax=torch.empty(-(-blocks // 256), device=META),
            code=torch.empty(256, device=META),
            blocksize=256,
            dtype=torch.float32,
        )
        if recipe.double_quant
        else None
    )
    return QuantState(
        absmax=torch.empty(blocks, dtype=torch.uint8 if nested else torch.float32, device=META),
        shape=weight.shape,
        code=torch.empty(16, device=META),
        blocksize=64,
        quant_type=recipe.quant,
        dtype=weight.dtype,
        offset=torch.empty((), device=META) if nested else None,
        state2=nested,
    )


def _fill_fake_int8(layer: Any, weight: torch.Tensor, recipe: Recipe) -> None:
    """One int8 per weight and one fp32 scale per row, as after the first forward pass."""
    layer.weight = nn.Parameter(torch.empty(weight.shape, dtype=torch.int8, device=META), False)
    layer.state.SCB = torch.empty(weight.shape[0], device=META)


def quantization_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """The constants of a quantized layer by name; empty for any other module."""
    found: dict[str, Any] = {}
    if (state := getattr(module, "quant_state", None)) is not None:
        found = {"absmax": state.absmax, "code": state.code, "offset": state.offset}
        if state.state2 is not None:
            found |= {"state2.absmax": state.state2.absmax, "state2.code": state.state2.code}
    elif (state := getattr(module, "state", None)) is not None:
        found = {"SCB": state.SCB if state.SCB is not None else getattr(module.weight, "SCB", None)}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def materialize(model: nn.Module) -> None:
    """Give every meta tensor of the model a fake CPU storage; call inside a FakeTensorMode. Tied weights stay tied."""
    made: dict[int, tuple[Any, Any]] = {}

    def fake(tensor: Any) -> Any:
        if id(tensor) not in made:
            new = torch.empty(tensor.shape, dtype=tensor.dtype)
            if isinstance(tensor, nn.Parameter):
                new = nn.Parameter(new, requires_grad=tensor.requires_grad)
            made[id(tensor)] = (new, tensor)
        return made[id(tensor)][0]

    for module in model.modules():
        for register in (module._parameters, module._buffers, vars(module)):
            for name, tensor in list(register.items()):
                if isinstance(tensor, torch.Tensor) and tensor.device == META:
                    register[name] = fake(tensor)
        _materialize_quantization(module, fake)


def _materialize_quantization(module: Any, fake: Any) -> None:
    if (state := getattr(module, "quant_state", None)) is not None:
        for owner in (state, state.state2):
            for name in ("absmax", "code", "offset"):
                if isinstance(value := getattr(owner, name, None), torch.Tensor):
                    setattr(owner, name, fake(value))
        if hasattr(module, "weight"):
            module.weight.quant_state = state
    elif (state := getattr(module, "state", None)) is not None and type(module).__name__ == "Linear8bitLt":
        state.CB, state.SCB = module.weight.data, fake(state.SCB)
        module.weight.CB = module.weight.SCB = None
