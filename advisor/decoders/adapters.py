"""LoRA and DoRA on top of a linear layer.

Mirrors peft 0.21 (tuners/lora/layer.py, bnb.py, dora.py, variants.py).
"""

from __future__ import annotations

from advisor.decoders.linear import Linear, base_linear, dequantized, product
from advisor.tape.graph import Tensor
from advisor.tape.layout import copy
from advisor.tape.ops import add, cast, dropout, mul, scale, shift
from advisor.tape.tape import Tape

ADAPTER_LABELS = ("LoRA", "DoRA")
"""What follows a layer's name in a label while its adapter runs."""


def linear(t: Tape, x: Tensor, m: Linear) -> Tensor:
    """A linear layer as the recipe has it: x (B, S, I) -> (B, S, O)."""
    t.label(m.name)
    if m.lora_a is None or m.lora_b is None:
        return base_linear(t, x, m)
    results = [base_linear(t, x, m)]  # popped: peft rebinds the name of the base layer's result
    t.label(f"{m.name}, {ADAPTER_LABELS[m.magnitude is not None]}")
    out = _adapted(t, x, results, m)
    t.label(m.name)
    return out


def _adapted(t: Tape, x: Tensor, results: list[Tensor], m: Linear) -> Tensor:
    """The base layer's result with what the adapter adds."""
    assert m.lora_a is not None and m.lora_b is not None
    result = results.pop()
    if m.quant == "none" or m.code.dequantize is not None:
        dtype = result.dtype
        inner = cast(t, x, m.lora_a.dtype)
        if m.magnitude is not None:
            result = _dora(t, inner, result, m)
        else:
            dropped = dropout(t, inner) if m.recipe.dropout else inner
            result = add(t, result, _lora_update(t, dropped, m))
        return cast(t, result, dtype)
    if m.quant != "int8":
        result = copy(t, result, result.shape)
    # peft asks torch.is_autocast_enabled(), which answers for CUDA only.
    convert = not (t.autocast and t.device == "cuda")
    expected = result.dtype
    inner = cast(t, x, m.lora_a.dtype) if convert else x
    if m.magnitude is not None:
        result = _dora(t, inner, result, m)
        return cast(t, result, expected) if convert else result
    dropped = dropout(t, inner) if m.recipe.dropout else inner
    output = _lora_update(t, dropped, m)
    if convert:
        output = cast(t, output, expected)
    return add(t, result, output)


def _lora_update(t: Tape, x: Tensor, m: Linear) -> Tensor:
    """What LoRA adds for x (B, S, I): (B, S, O). Only this function holds the product before it is scaled."""
    assert m.lora_a is not None and m.lora_b is not None
    update = product(t, product(t, x, m.lora_a), m.lora_b)
    if m.code.update is not None:
        update = m.code.update(t, update)
    return scale(t, update)


def _adapter_update(t: Tape, m: Linear) -> Tensor:
    """B A as a weight (O, I): peft sends an identity matrix through both, with gradients on and then unused."""
    assert m.lora_a is not None and m.lora_b is not None
    eye = t.empty((m.in_features, m.in_features), m.lora_a.dtype)
    t.kernel("elementwise", eye.dtype, 0, eye.bytes)
    update = product(t, product(t, eye, m.lora_a), m.lora_b)
    del eye
    return update


def _weight_norm(t: Tape, weight: Tensor, update: Tensor) -> Tensor:
    """`linalg.norm(weight + scaling * update, dim=1)`: (O,).

    The update is the transposed view of an (I, O) product, so that the sum reads one operand across its rows. Ignores:
    GPT-2's weights, which are also stored transposed.
    """
    summed = add(t, weight, scale(t, Tensor(weight.shape, update.dtype, update.buffer)), "strided")
    t.kernel("reduce", summed.dtype, 0, summed.bytes)
    return t.empty((weight.shape[0],), summed.dtype)


def _dora(t: Tape, x: Tensor, result: Tensor, m: Linear) -> Tensor:
    """peft's DoRA variant on top of the base layer's `result` (B, S, O).

    `update` and `weight` stay alive to the end of this function, as peft's locals do.
    """
    assert m.lora_a is not None and m.lora_b is not None and m.magnitude is not None
    base_result: Tensor | None = result
    if m.recipe.dropout:
        x = dropout(t, x)
        base_result = None
    extra = _dora_extra(t, x, base_result, m)
    return add(t, result, extra)


def _dora_extra(t: Tape, x: Tensor, base_result: Tensor | None, m: Linear) -> Tensor:
    """What DoRA adds to the base layer's result; with dropout the base product is made again from the weight."""
    assert m.lora_a is not None and m.lora_b is not None and m.magnitude is not None
    update = cast(t, _adapter_update(t, m), x.dtype)
    weight = m.weight if m.quant == "none" else dequantized(t, m)
    weight = cast(t, weight, x.dtype)
    norm = _weight_norm(t, weight, update)
    ratio = mul(t, m.magnitude, norm)
    lora_result = product(t, product(t, x, m.lora_a), m.lora_b)
    if base_result is None:
        base_result = product(t, x, weight)
    elif m.bias is not None:
        base_result = add(t, base_result, m.bias)
    extra = add(t, mul(t, shift(t, ratio), base_result), scale(t, mul(t, ratio, lora_result)))
    del update, weight
    return extra
