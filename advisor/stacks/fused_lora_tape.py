"""LoRA and DoRA of several linear layers in one autograd function, as axolotl writes them.

Source: axolotl 0.19.0, kernels/lora.py: matmul_lora, LoRA_QKV, LoRA_O, LoRA_MLP, _compute_dora_scale; the activations
are in kernels/swiglu.py and geglu.py. Everything runs in the dtype of the input; the adapters are cast to it, kept so,
and their gradients come in it. Ignores: DoRA's norms of weights between steps, one number a row of a weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from advisor.blocks import ITEM_BYTES
from advisor.decoders.dequantized import dequantized
from advisor.decoders.linear import Linear
from advisor.tape.graph import ManyNode, Output, Tensor
from advisor.tape.ops import cast
from advisor.tape.ops import dropout as dropped
from advisor.tape.tape import Tape


class _Kept(NamedTuple):
    """What one layer's forward leaves for backward."""

    out: Tensor
    adapters: tuple[Tensor, ...]  # A and B in the input's dtype
    scale: Tensor | None = None  # DoRA's, (O,)
    combined: Tensor | None = None  # DoRA's unscaled product with the update, (..., O)


def _multiply(t: Tape, dtype: str, rows: int, columns: int, inner: int) -> None:
    """Note one product (rows, inner) x (inner, columns)."""
    t.matmul(dtype, rows, columns, inner, ITEM_BYTES[dtype] * (rows * (columns + inner) + columns * inner))


def _scaled_update(t: Tape, x: Tensor, layer: Linear, out: Tensor, adapters: Sequence[Tensor]) -> None:
    """`out += s * (x A) B` in place; the narrow product lives meanwhile."""
    rows, rank = x.count // layer.in_features, adapters[0].shape[0]
    narrow = t.empty((rows, rank), x.dtype)
    _multiply(t, x.dtype, rows, rank, layer.in_features)
    _multiply(t, x.dtype, rows, layer.out_features, rank)
    t.kernel("elementwise", x.dtype, 0, out.bytes)
    del narrow


def _base(t: Tape, x: Tensor, layer: Linear) -> Tensor:
    """The product with the frozen weight, which is dequantized for it."""
    rows = x.count // layer.in_features
    weight = dequantized(t, layer) if layer.quant != "none" else None
    out = t.empty((*x.shape[:-1], layer.out_features), x.dtype)
    _multiply(t, x.dtype, rows, layer.out_features, layer.in_features)
    del weight
    return out


def _adapters(t: Tape, layer: Linear, dtype: str) -> tuple[Tensor, ...]:
    """Copies of A and B in `dtype`, or they themselves."""
    assert layer.lora_a is not None and layer.lora_b is not None
    enabled, t.grad_enabled = t.grad_enabled, False
    made = cast(t, layer.lora_a, dtype), cast(t, layer.lora_b, dtype)
    t.grad_enabled = enabled
    return made


def _add_bias(t: Tape, out: Tensor, layer: Linear) -> None:
    if layer.bias is not None:
        t.kernel("elementwise", out.dtype, 0, 2 * out.bytes + layer.bias.bytes)


def _forward(t: Tape, x: Tensor, for_update: Tensor, layer: Linear) -> list[Tensor]:
    """[output] of one layer without DoRA; `for_update`: the input that dropout has been applied to."""
    out = _base(t, x, layer)
    adapters = _adapters(t, layer, x.dtype)
    _scaled_update(t, for_update, layer, out, adapters)
    _add_bias(t, out, layer)
    return [out]


def _update(t: Tape, x: Tensor, layer: Linear) -> Tensor:
    """`s * x @ A @ B`: scales the input first."""
    rows = x.count // layer.in_features
    adapters = _adapters(t, layer, x.dtype)
    scaled = t.empty(x.shape, x.dtype)
    t.kernel("elementwise", x.dtype, 0, 2 * x.bytes)
    rank = adapters[0].shape[0]
    narrow = t.empty((rows, rank), x.dtype)
    _multiply(t, x.dtype, rows, rank, layer.in_features)
    del scaled
    out = t.empty((*x.shape[:-1], layer.out_features), x.dtype)
    _multiply(t, x.dtype, rows, layer.out_features, rank)
    del narrow
    return out


def dora_scale(t: Tape, layer: Linear, dtype: str) -> Tensor:
    """DoRA's magnitudes over the norms (O,): the norms are computed in the first forward of a step, then cached.

    On CUDA one kernel reads the weight in `dtype` and both adapters; the CPU adds up products of the weight's size.
    """
    if not (t.replaying or t.rerunning):
        weight = dequantized(t, layer) if layer.quant != "none" else layer.weight
        adapters = _adapters(t, layer, dtype)
        if t.device == "cpu":
            update, scaled = t.empty(weight.shape, dtype), t.empty(weight.shape, dtype)
            summed = t.empty(weight.shape, dtype)
            del update, scaled, summed
        t.kernel("reduce", dtype, 0, layer.weight.bytes)
        _multiply(t, dtype, layer.out_features, layer.in_features, adapters[0].shape[0])
        del weight, adapters
    out = t.empty((layer.out_features,), dtype)
    t.kernel("elementwise", dtype, 0, 2 * out.bytes)
    return out


def _forward_dora(t: Tape, x: Tensor, for_update: Tensor, layer: Linear, names: list[Tensor]) -> _Kept:
    """One layer with DoRA. `names` gets what its caller holds until it returns: base product and update."""
    base = _base(t, x, layer)
    update = _update(t, for_update, layer)
    names += [base, update]
    scale = dora_scale(t, layer, x.dtype)
    summed = t.empty(base.shape, base.dtype)
    out = t.empty(base.shape, base.dtype)
    for _ in range(2):
        t.kernel("elementwise", base.dtype, 0, 3 * base.bytes)
    del summed
    _add_bias(t, out, layer)
    return _Kept(out, (), scale)


def _combined(t: Tape, base: Tensor) -> Tensor:
    t.kernel("elementwise", base.dtype, 0, 3 * base.bytes)
    return t.empty(base.shape, base.dtype)


def _adapter_gradients(t: Tape, layer: Linear, rows: int, dtype: str) -> list[Tensor]:
    """[g B (N, r), dA, dB]: the first is used for the input's gradient as well; x A is computed again."""
    assert layer.lora_a is not None and layer.lora_b is not None
    rank = layer.lora_a.shape[0]
    narrow = t.empty((rows, rank), dtype)
    _multiply(t, dtype, rows, rank, layer.out_features)
    made = [narrow, t.empty(layer.lora_a.shape, dtype), t.empty(layer.lora_b.shape, dtype)]
    _multiply(t, dtype, layer.in_features, rank, rows)
    again = t.empty((rank, rows), dtype)
    _multiply(t, dtype, rank, rows, layer.in_features)
    _multiply(t, dtype, rank, layer.out_features, rows)
    del again
    return made


def _base_gradient(t: Tape, layer: Linear, rows: int, dtype: str) -> None:
    """A product of a gradient with the frozen weight, added to what exists."""
    weight = dequantized(t, layer) if layer.quant != "none" else None
    _multiply(t, dtype, rows, layer.in_features, layer.out_features)
    del weight


def _magnitude_gradient(t: Tape, layer: Linear, g: Tensor) -> tuple[Tensor, Tensor]:
    """(gradient of the magnitudes, that of the unscaled product (N, O))."""
    assert layer.magnitude is not None
    product = t.empty(g.shape, g.dtype)
    t.kernel("elementwise", g.dtype, 0, 3 * g.bytes)
    t.kernel("reduce", g.dtype, 0, g.bytes)
    del product
    magnitude = t.empty((layer.out_features,), layer.magnitude.dtype)
    scaled = t.empty(g.shape, g.dtype)
    t.kernel("elementwise", g.dtype, 0, 2 * g.bytes)
    return magnitude, scaled


def _input_of_update(t: Tape, x: Tensor, layer: Linear) -> Tensor:
    """x, or x after dropout, which is outside the function."""
    return dropped(t, x) if layer.recipe.dropout else x


def _update_gradients(t: Tape, layers: Sequence[Linear], rows: int, x: Tensor) -> Tensor | None:
    """What the adapters add to the input's gradient: into it, or with dropout into one of their own.

    That is zeros first, or for a single layer the product that is then scaled.
    """
    product = t.empty(x.shape, x.dtype) if layers[0].recipe.dropout and len(layers) == 1 else None
    own = t.empty(x.shape, x.dtype) if layers[0].recipe.dropout else None
    del product
    if own is not None:
        t.kernel("elementwise", x.dtype, 0, own.bytes)
    for layer in layers:
        assert layer.lora_a is not None
        _multiply(t, x.dtype, rows, layer.in_features, layer.lora_a.shape[0])
    return own


def _leaves(layers: Sequence[Linear]) -> list[Tensor]:
    """Adapters and magnitudes of the layers, layer by layer."""
    parts = (part for layer in layers for part in (layer.lora_a, layer.lora_b, layer.magnitude))
    return [part for part in parts if part is not None]


def projections(t: Tape, x: Tensor, layers: Sequence[Linear]) -> list[Tensor]:
    """Queries, keys and values, or attention's output: the layers of one input x (B, S, I), in one function."""
    dtype, shape, rows, dora = x.dtype, x.shape, x.count // x.shape[-1], layers[0].magnitude is not None
    like, for_update = Tensor(shape, dtype), _input_of_update(t, x, layers[0])
    names: list[Tensor] = []
    outs, kept = [], [x, for_update] if for_update is not x else [x]
    for layer in layers:
        if not dora:
            outs += _forward(t, x, for_update, layer)
            continue
        made = _forward_dora(t, x, for_update, layer, names)
        assert made.scale is not None
        outs.append(made.out)
        kept.append(made.scale)
    if dora:
        kept += [_combined(t, one) for one in outs]
    kept += [part for layer in layers for part in _adapters(t, layer, dtype)]
    parts: list[Tensor | None] = [None] * len(layers)

    def backward(g: Tensor) -> tuple[Tensor | None, ...]:
        grads = [one for one in (parts if len(layers) > 1 else [g]) if one is not None]
        parts[:] = [None] * len(layers)
        magnitudes: list[Tensor] = []
        if dora:
            found = [_magnitude_gradient(t, layer, one) for layer, one in zip(layers, grads, strict=True)]
            magnitudes = [one for one, _ in found]
            grads = [one for _, one in found]
            found.clear()
        made = [_adapter_gradients(t, layer, rows, dtype) for layer in layers]
        gx = t.empty(shape, dtype)
        for layer in layers:
            _base_gradient(t, layer, rows, dtype)
        own = _update_gradients(t, layers, rows, like)
        grads.clear()
        trained = [one for i, (_, a, b) in enumerate(made) for one in (a, b, *magnitudes[i : i + 1])]
        return (gx, own, *trained) if own is not None else (gx, *trained)

    inputs = (x, for_update, *_leaves(layers)) if for_update is not x else (x, *_leaves(layers))
    if len(layers) == 1:
        return [t.function(outs[0], inputs, backward, tuple(kept))]
    if t.grad_enabled:
        node = ManyNode(t, inputs, backward)
        node.parts = parts
        t.save(node, tuple(kept))
        for index, one in enumerate(outs):
            one.node, one.needs_grad = Output(node, index), True
    return outs


def gated_mlp(t: Tape, x: Tensor, layers: Sequence[Linear]) -> Tensor:
    """`down(activation(gate(x)) * up(x))` in one function: backward writes over gate and up; down sees no dropout."""
    gate_layer, up_layer, down_layer = layers
    dtype, shape, rows, dora = x.dtype, x.shape, x.count // x.shape[-1], gate_layer.magnitude is not None
    like, for_update = Tensor(shape, dtype), _input_of_update(t, x, gate_layer)
    names: list[Tensor] = []
    scales: list[Tensor] = []

    def run(source: Tensor, updated: Tensor, layer: Linear) -> Tensor:
        if not dora:
            return _forward(t, source, updated, layer)[0]
        made = _forward_dora(t, source, updated, layer, names)
        assert made.scale is not None
        scales.append(made.scale)
        return made.out

    gate = run(x, for_update, gate_layer)
    up = run(x, for_update, up_layer)
    combined = [_combined(t, gate), _combined(t, up)] if dora else []
    inner = t.empty(gate.shape, dtype)
    t.kernel("elementwise", dtype, 0, 3 * gate.bytes)
    out = run(inner, inner, down_layer)
    if dora:
        combined.append(_combined(t, out))
    kept = [x, *([for_update] if for_update is not x else []), gate, up]
    at = len(kept) - 2
    kept += [part for layer in layers for part in _adapters(t, layer, dtype)] + scales + combined
    wide = Tensor(gate.shape, dtype)
    del gate, up

    def backward(g: Tensor) -> tuple[Tensor | None, ...]:
        magnitudes: dict[int, Tensor] = {}
        if dora:
            magnitudes[2], g = _magnitude_gradient(t, down_layer, g)
        hidden = t.empty(wide.shape, dtype)
        _base_gradient(t, down_layer, rows, dtype)
        t.kernel("elementwise", dtype, 0, 6 * hidden.bytes)
        grads = [t.overwritten(wide, at + index) for index in range(2)]
        if dora:
            for index, layer in enumerate((gate_layer, up_layer)):
                magnitudes[index], grads[index] = _magnitude_gradient(t, layer, grads[index])
        made = [_adapter_gradients(t, layer, rows, dtype) for layer in (down_layer, up_layer, gate_layer)][::-1]
        gx = t.empty(shape, dtype)
        _base_gradient(t, up_layer, rows, dtype)
        _base_gradient(t, gate_layer, rows, dtype)
        own = _update_gradients(t, (up_layer, gate_layer), rows, like)
        trained = [
            one for index, (_, a, b) in enumerate(made) for one in ((a, b, magnitudes[index]) if dora else (a, b))
        ]
        return (gx, own, *trained) if own is not None else (gx, *trained)

    inputs = (x, for_update, *_leaves(layers)) if for_update is not x else (x, *_leaves(layers))
    return t.function(out, inputs, backward, tuple(kept))
