"""LoRA and DoRA on top of a linear layer.

Mirrors peft 0.21 (tuners/lora/layer.py, bnb.py, gptq.py, awq.py, hqq.py, dora.py, variants.py).
"""

from __future__ import annotations

from advisor.decoders.base_linear import base_linear
from advisor.decoders.dequantized import dequantized
from advisor.decoders.linear import Linear, autocast_operand, product
from advisor.decoders.replaced import COPIED, REPLACED
from advisor.tape.graph import Tensor
from advisor.tape.layout import copy
from advisor.tape.ops import add, batched_matmul, cast, dropout, mul, scale, shift
from advisor.tape.tape import Tape

OWN_VARIANTS = (0, 16)
"""The peft that gave DoRA's forward a function of its own."""

ADAPTER_LABELS = ("LoRA", "DoRA")
"""What follows a layer's name in a label while its adapter runs."""

PLAIN = ("none", "gptq", "fp8")
"""Bases whose adapters work as on a plain layer: tuners/lora/layer.py and gptq.py."""


def linear(t: Tape, x: Tensor, m: Linear) -> Tensor:
    """A linear layer as the recipe has it: x (B, S, I) -> (B, S, O)."""
    t.label(m.name)
    if m.replacing:
        return REPLACED[m.recipe.variant](t, x, m)
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
    if m.quant in PLAIN or m.code.dequantize is not None:
        dtype = result.dtype
        inner = cast(t, x, m.code.adapters_kept or m.lora_a.dtype)
        if m.magnitude is not None:
            inner = _dropped_by_name(t, inner, m)
            result = _dora(t, inner, result, m)
        else:
            dropped = dropout(t, inner) if m.recipe.dropout else inner
            result = add(t, result, _lora_update(t, dropped, m))
        return cast(t, result, dtype)
    if m.quant in COPIED:
        result = copy(t, result, result.shape)
    # peft asks torch.is_autocast_enabled(), which answers for CUDA only.
    convert = not (t.autocast and t.device == "cuda")
    expected = result.dtype
    inner = cast(t, x, m.code.adapters_kept or m.lora_a.dtype) if convert else x
    if m.magnitude is not None:
        inner = _dropped_by_name(t, inner, m)
        result = _dora(t, inner, result, m)
        return cast(t, result, expected) if convert else result
    dropped = dropout(t, inner) if m.recipe.dropout else inner
    if m.quant == "hqq":
        result = add(t, result, _lora_update(t, dropped, m))
        return cast(t, result, expected) if convert else result
    output = _lora_update(t, dropped, m)
    if convert:
        output = cast(t, output, expected)
    return add(t, result, output)


def _dropped_by_name(t: Tape, x: Tensor, m: Linear) -> Tensor:
    """DoRA's input after dropout, where the layer gives it the name of the one before, which that frees.

    Source: peft 0.15 and 0.16, tuners/lora/layer.py, Linear.forward, and variants.py, DoraLinearVariant.forward.
    """
    return dropout(t, x) if _drops(m) and m.code.libraries.peft < OWN_VARIANTS else x


def _drops(m: Linear) -> bool:
    """Whether DoRA's input goes through dropout: in a 4-bit layer of peft 0.10 and 0.11 it does not.

    Source: peft 0.11 and 0.12, tuners/lora/bnb.py, Linear4bit.forward.
    """
    return m.recipe.dropout > 0 and (m.quant == "none" or m.code.libraries.peft >= (0, 12))


def _lora_update(t: Tape, x: Tensor, m: Linear) -> Tensor:
    """What LoRA adds for x (B, S, I): (B, S, O). Only this function holds the product before it is scaled."""
    assert m.lora_a is not None and m.lora_b is not None
    update = product(t, product(t, x, m.lora_a, apart=m.apart), m.lora_b)
    if m.code.update is not None:
        update = m.code.update(t, update)
    return scale(t, update)


def _adapter_update(t: Tape, m: Linear, x: Tensor, kept: list[Tensor]) -> Tensor:
    """B A as a weight (O, I), in the dtype in which it joins the weight; the gradients it could have are unused.

    peft sends an identity matrix through both, since 0.19 in the adapter's dtype; before, it had a name to the end of
    DoRA's function: it is added to `kept`. Before 0.12 peft multiplied the two.
    Source: peft 0.11, tuners/lora/layer.py, LoraLayer._apply_dora; 0.13 to 0.19, tuners/lora/dora.py, DoraLinearLayer.
    """
    assert m.lora_a is not None and m.lora_b is not None
    peft = m.code.libraries.peft
    if peft < (0, 12):
        a, b = autocast_operand(t, m.lora_a), autocast_operand(t, m.lora_b)
        return batched_matmul(t, b, a, (m.out_features, m.in_features), b.shape[1])
    eye = t.empty((m.in_features, m.in_features), x.dtype if peft < (0, 19) else m.lora_a.dtype)
    t.kernel("elementwise", eye.dtype, 0, eye.bytes)
    update = product(t, product(t, eye, m.lora_a), m.lora_b)
    if peft < (0, 19):
        kept.append(eye)
        return update
    del eye
    return cast(t, update, x.dtype)


def _weight_norm(t: Tape, weight: Tensor, update: Tensor, m: Linear) -> Tensor:
    """`linalg.norm(weight + scaling * update, dim=1)`: (O,), detached.

    The update is the transposed view of an (I, O) product, so that the sum reads one operand across its rows. Ignores:
    GPT-2's weights, which are also stored transposed. Before 0.12 peft detached only the norm, which kept the sum.
    """
    attached = m.code.libraries.peft < (0, 12)
    update = update if attached else Tensor(weight.shape, update.dtype, update.buffer)
    summed = add(t, weight, scale(t, update), "elementwise" if attached else "strided")
    t.kernel("reduce", summed.dtype, 0, summed.bytes)
    if not attached:
        return t.empty((weight.shape[0],), summed.dtype)
    norm = t.op((summed,), (weight.shape[0],), summed.dtype, lambda g: (None,), (summed,), keep_output=True)
    return Tensor(norm.shape, norm.dtype, norm.buffer)


def _dora(t: Tape, x: Tensor, result: Tensor, m: Linear) -> Tensor:
    """peft's DoRA variant on top of the base layer's `result` (B, S, O).

    `update` and `weight` stay alive to the end of this function, as peft's locals do.
    """
    assert m.lora_a is not None and m.lora_b is not None and m.magnitude is not None
    base_result: Tensor | None = result
    if _drops(m):
        x = dropout(t, x) if m.code.libraries.peft >= OWN_VARIANTS else x
        base_result = None
    if m.code.libraries.peft < (0, 14):
        return add(t, result, _dora_extra_of_weight(t, x, m))
    extra = _dora_extra(t, x, base_result, m)
    return add(t, result, extra)


def _dora_extra(t: Tape, x: Tensor, base_result: Tensor | None, m: Linear) -> Tensor:
    """What DoRA adds to the base layer's result; with dropout the base product is made again from the weight."""
    assert m.lora_a is not None and m.lora_b is not None and m.magnitude is not None
    kept: list[Tensor] = []
    update = _adapter_update(t, m, x, kept)
    weight = m.weight if m.quant == "none" else dequantized(t, m)
    weight = cast(t, weight, x.dtype)
    norm = _weight_norm(t, weight, update, m)
    ratio = mul(t, m.magnitude, norm)
    lora_result = product(t, product(t, x, m.lora_a, apart=m.apart), m.lora_b)
    if base_result is None:
        base_result = product(t, x, weight)
    elif m.bias is not None:
        base_result = add(t, base_result, m.bias)
    extra = add(t, mul(t, shift(t, ratio), base_result), scale(t, mul(t, ratio, lora_result)))
    del update, weight
    return extra


def _dora_extra_of_weight(t: Tape, x: Tensor, m: Linear) -> Tensor:
    """The same before peft 0.14: the base product is always made again, by which autograd keeps the weight.

    0.12 and 0.13 run the adapter first; 0.9 leaves the weight in the base's dtype.
    Source: peft 0.9 and 0.11, tuners/lora/layer.py, LoraLayer._apply_dora; 0.13, tuners/lora/dora.py.
    """
    assert m.lora_a is not None and m.lora_b is not None and m.magnitude is not None
    peft = m.code.libraries.peft
    found, kept = list[Tensor](), list[Tensor]()
    if peft >= (0, 12):
        found.append(product(t, product(t, x, m.lora_a), m.lora_b))
    update = _adapter_update(t, m, x, kept)
    weight = m.weight if m.quant == "none" else dequantized(t, m)
    weight = cast(t, weight, x.dtype) if peft >= (0, 10) else weight
    norm = _weight_norm(t, weight, update, m)
    ratio = mul(t, m.magnitude, norm)
    first = mul(t, shift(t, ratio), product(t, x, weight))
    if not found:
        found.append(product(t, product(t, x, m.lora_a), m.lora_b))
    extra = add(t, first, scale(t, mul(t, ratio, found[0])))
    del update, weight
    return extra
