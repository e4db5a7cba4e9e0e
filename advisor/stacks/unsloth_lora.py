"""Unsloth's autograd functions for linear layers with LoRA, which work in the dtype of their input.

They keep their input alone (the MLP also its gate and up), make the rest again in backward, and write the gradient
into the input that they kept. A and B are kept as the parameters that they are, and cast wherever they are used.
Source: unsloth 2026.10.9, kernels/fast_lora.py (LoRA_QKV, LoRA_W, LoRA_MLP), kernels/utils.py (matmul_lora,
fast_dequantize).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from advisor.blocks import ITEM_BYTES
from advisor.decoders.linear import Linear
from advisor.specs import Recipe
from advisor.tape.graph import BackwardFunction, Buffer, ManyNode, Output, Tensor
from advisor.tape.tape import Tape


def fuses(t: Tape, x: Tensor, layers: Sequence[Linear], drops_inside: bool) -> bool:
    """Whether a group of layers runs fused; else peft's code runs for all of them, silently.

    All must have LoRA without a magnitude, no bias of their own, and 16 bits to compute in, those of x and of
    autocast. `drops_inside`: the version that takes dropout.
    Source: unsloth 2026.10.9, models/llama.py, patch_peft_model; kernels/fast_lora.py, _lora_dropout_and_bias.
    """
    computes = t.autocast or x.dtype
    return x.dtype == computes != "float32" and all(
        layer.lora_a is not None
        and layer.magnitude is None
        and layer.bias is None
        and layer.quant != "int8"
        and layer.weight.dtype == x.dtype
        and (drops_inside or not layer.recipe.dropout)
        for layer in layers
    )


def scratch_bytes(weights: Iterable[int], recipe: Recipe) -> int:
    """The buffer that every decoded nf4 weight goes through in forward, as large as the largest of these `weights`.

    With dropout each call makes a tensor of its own. Source: kernels/utils.py, `_scratch`.
    """
    return 0 if _decodes_afresh(recipe) else ITEM_BYTES[recipe.base_dtype] * max(weights, default=0)


def _decodes_afresh(recipe: Recipe) -> bool:
    return recipe.quant != "nf4" or recipe.dropout > 0


def lora_many(t: Tape, x: Tensor, layers: Sequence[Linear], copied: int = 0) -> list[Tensor]:
    """LoRA_QKV: x (B, S, I) through layers that share it, each (B, S, O). Keeps x once, and one mask a layer.

    Gradients of the first `copied` outputs come head by head, and are copied token by token.
    """
    t.label(f"{layers[0].name} to {layers[-1].name}")
    made, masks, dropped = list[Tensor](), list[Tensor](), list[Tensor]()
    for layer in layers:
        out, mask = _forward(t, x, layer, dropped)
        made.append(out)
        masks += mask
    dropped.clear()
    if not t.grad_enabled:
        return made
    adapters = _adapters(layers)
    kept: list[Buffer | None] = [x.buffer]
    shape, dtype = x.shape, x.dtype
    parts: list[Tensor | None] = [None] * len(layers)

    def backward(_: Tensor) -> tuple[Tensor | None, ...]:
        given = [part for part in parts if part is not None]
        assert len(given) == len(layers), "attention uses queries, keys and values"
        parts[:] = [None] * len(layers)
        copies = [_copied(t, one) for one in given[:copied]]
        casts = [_as(t, p, dtype) for p in adapters]
        grads = [t.empty(p.shape, dtype) for p in adapters]
        source = Tensor(shape, dtype, kept.pop())
        narrow = [_narrow(t, g, layer) for g, layer in zip(given, layers, strict=True)]
        again: list[Tensor] = []
        for layer in layers:
            _adapter_gradients(t, layer, dtype, _rows(source, layer), again)
        again.clear()
        for layer in layers:
            _into(t, source, layer)
        del casts, narrow, given, copies
        return (source, *grads)

    node = ManyNode(t, (x, *adapters), backward)
    node.parts = parts
    t.save(node, (x, *masks))
    for index, out in enumerate(made):
        out.node, out.needs_grad = Output(node, index), True
    return made


def lora_one(t: Tape, x: Tensor, layer: Linear) -> Tensor:
    """LoRA_W: x (B, S, I) -> (B, S, O). Its gradient is a new tensor."""
    t.label(layer.name)
    out, mask = _forward(t, x, layer, [])
    adapters = _adapters([layer])
    shape, dtype = x.shape, x.dtype

    def backward(g: Tensor) -> tuple[Tensor, ...]:
        casts = [_as(t, p, dtype) for p in adapters]
        grads = [t.empty(p.shape, dtype) for p in adapters]
        narrow = _narrow(t, g, layer)
        _adapter_gradients(t, layer, dtype, g.count // layer.out_features, [])
        weight = _decoded(t, layer, fresh=True)
        source = t.empty(shape, dtype)
        _note_product(t, layer, dtype, _rows(source, layer))
        del weight
        _add_update(t, source, layer)
        del casts, narrow
        return (source, *grads)

    return _recorded(t, out, (x, *adapters), backward, (x, *mask))


def lora_mlp(t: Tape, x: Tensor, gate: Linear, up: Linear, down: Linear) -> Tensor:
    """LoRA_MLP: x (B, S, H) -> (B, S, H). Keeps x, gate and up; backward overwrites all three."""
    t.label(f"{gate.name} to {down.name}")
    layers, dropped = (gate, up, down), list[Tensor]()
    e, gate_mask = _forward(t, x, gate, dropped)
    g, up_mask = _forward(t, x, up, dropped)
    dropped.clear()
    h = t.empty(e.shape, e.dtype)
    t.kernel("elementwise", e.dtype, 0, 3 * e.bytes)
    out, down_mask = _forward(t, h, down, dropped)
    masks = (*gate_mask, *up_mask, *down_mask)
    dropped.clear()
    del h
    adapters = _adapters(layers)
    kept: list[Buffer | None] = [x.buffer, e.buffer, g.buffer]
    shape, wide, dtype = x.shape, e.shape, x.dtype
    drops, afresh = gate.recipe.dropout > 0, _decodes_afresh(gate.recipe)

    def backward(dy: Tensor) -> tuple[Tensor, ...]:
        source, de, df = Tensor(shape, dtype), Tensor(wide, dtype), Tensor(wide, dtype)
        source.buffer, de.buffer, df.buffer = kept
        kept.clear()
        rows = _rows(source, gate)
        casts = [_as(t, p, dtype) for p in adapters]
        weight = _decoded(t, down, afresh)
        h = t.empty(wide, dtype)  # the gradient of down's input, then that input
        _note_product(t, down, dtype, rows)
        del weight
        narrow = [_narrow(t, dy, down)]
        _add_update(t, h, down, narrow)
        narrow.clear()
        t.kernel("elementwise", dtype, 0, 6 * h.bytes)
        again = [t.empty(wide, dtype)] if drops else []  # h, dropped again
        grads = [t.empty(p.shape, dtype) for p in adapters]
        narrow.append(_narrow(t, dy, down))
        _note_gradient_of_a(t, down, dtype, rows)
        narrow.clear()
        _note_gradient_of_b(t, down, dtype, rows)
        narrow += [_narrow(t, df, up), _narrow(t, de, gate)]
        again_x: list[Tensor] = []
        for layer in (up, gate):
            _adapter_gradients(t, layer, dtype, rows, again_x)
        again_x.clear()
        for layer in (up, gate):
            _into(t, source, layer)
        del casts, narrow, h, de, df, again
        return (source, *grads)

    return _recorded(t, out, (x, *adapters), backward, (x, e, g, *masks))


def _recorded(
    t: Tape, out: Tensor, inputs: tuple[Tensor, ...], backward: BackwardFunction, saved: tuple[Tensor, ...]
) -> Tensor:
    """`out`, which is there already, as the output of a node."""
    if t.grad_enabled:
        hollow = t.op(inputs, (0,), out.dtype, backward, saved)
        out.node, out.needs_grad = hollow.node, True
    return out


def _adapters(layers: Sequence[Linear]) -> list[Tensor]:
    return [p for layer in layers for p in (layer.lora_a, layer.lora_b) if p is not None]


def _copied(t: Tape, g: Tensor) -> Tensor:
    t.kernel("elementwise", g.dtype, 0, 2 * g.bytes)
    return t.empty(g.shape, g.dtype)


def _rows(x: Tensor, layer: Linear) -> int:
    return x.count // layer.in_features


def _as(t: Tape, p: Tensor, dtype: str) -> Tensor:
    """A or B in `dtype`, outside the graph."""
    if p.dtype == dtype:
        return p
    out = t.empty(p.shape, dtype)
    t.kernel("elementwise", dtype, 0, p.bytes + out.bytes)
    return out


def _decoded(t: Tape, layer: Linear, fresh: bool) -> Tensor | None:
    """A 4-bit weight in 16 bits: a `fresh` tensor, or the buffer that is always there. One kernel decodes all."""
    if layer.quant == "none":
        return None
    count = layer.weight.count
    constants = count // 64 + count // 4096 if layer.recipe.double_quant else count // 16
    t.kernel("dequantize", layer.weight.dtype, 0, count // 2 + constants + layer.weight.bytes)
    return t.empty(layer.weight.shape, layer.weight.dtype) if fresh else None


def _note_product(t: Tape, layer: Linear, dtype: str, rows: int) -> None:
    """A product with the base weight, forward or backward."""
    ins, outs = layer.in_features, layer.out_features
    t.matmul(dtype, rows, outs, ins, ITEM_BYTES[dtype] * (rows * (ins + outs) + ins * outs))


def _forward(t: Tape, x: Tensor, layer: Linear, dropped: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """x W + s (x A) B, the update added in place; and the mask of its dropout, if any.

    `dropped` is the name under which x after dropout lives until the next one is made.
    """
    assert layer.lora_a is not None and layer.lora_b is not None
    dtype, rows = x.dtype, _rows(x, layer)
    masks: list[Tensor] = []
    if layer.recipe.dropout:
        dropped[:], masks = [t.empty(x.shape, dtype)], [t.empty(x.shape, "bool")]
        t.kernel("elementwise", dtype, 0, 2 * x.bytes + masks[0].bytes)
    weight = _decoded(t, layer, _decodes_afresh(layer.recipe))
    out = t.empty((*x.shape[:-1], layer.out_features), dtype)
    _note_product(t, layer, dtype, rows)
    del weight
    rank = layer.lora_a.shape[0]
    a = _as(t, layer.lora_a, dtype)
    xa = t.empty((*x.shape[:-1], rank), dtype)
    t.matmul(dtype, rows, rank, layer.in_features, x.bytes + a.bytes + xa.bytes)
    del a
    b = _as(t, layer.lora_b, dtype)
    t.matmul(dtype, rows, layer.out_features, rank, 2 * out.bytes + b.bytes + xa.bytes)
    return out, masks


def _narrow(t: Tape, g: Tensor, layer: Linear) -> Tensor:
    """`g @ B`: (..., r)."""
    assert layer.lora_b is not None
    rank = layer.lora_b.shape[1]
    out = t.empty((*g.shape[:-1], rank), g.dtype)
    t.matmul(g.dtype, g.count // layer.out_features, rank, layer.out_features, g.bytes + out.bytes)
    return out


def _adapter_gradients(t: Tape, layer: Linear, dtype: str, rows: int, again: list[Tensor]) -> None:
    """The gradients of A and B, into tensors that exist; `again` is the name of x dropped again, if it is dropped."""
    if layer.recipe.dropout:
        again[:] = [t.empty((rows, layer.in_features), dtype)]
    _note_gradient_of_a(t, layer, dtype, rows)
    _note_gradient_of_b(t, layer, dtype, rows)


def _note_gradient_of_a(t: Tape, layer: Linear, dtype: str, rows: int) -> None:
    """`x^T (g B)`."""
    assert layer.lora_a is not None
    rank, ins = layer.lora_a.shape
    t.matmul(dtype, ins, rank, rows, ITEM_BYTES[dtype] * (rows * (ins + rank) + ins * rank))


def _note_gradient_of_b(t: Tape, layer: Linear, dtype: str, rows: int) -> None:
    """`(A x^T) g`, of which the first product is a tensor (r, rows)."""
    assert layer.lora_b is not None
    (outs, rank), ins, size = layer.lora_b.shape, layer.in_features, ITEM_BYTES[dtype]
    first = t.empty((rank, rows), dtype)
    t.matmul(dtype, rank, rows, ins, size * rows * (ins + rank))
    t.matmul(dtype, rank, outs, rows, size * (rows * (outs + rank) + outs * rank))
    del first


def _add_update(t: Tape, source: Tensor, layer: Linear, narrow: list[Tensor] | None = None) -> None:
    """`source += s (g B) A`; through dropout the update is made apart, and dropped.

    `narrow`: g B, which has no name of its own, and in the latter case dies when it has been used.
    """
    assert layer.lora_a is not None
    rank, ins = layer.lora_a.shape[0], layer.in_features
    rows = source.count // ins
    made: list[Tensor] = []
    if layer.recipe.dropout:
        made.append(t.empty((rows, ins), source.dtype))
        if narrow:
            narrow.clear()
        made.append(t.empty((rows, ins), source.dtype))
        t.kernel("elementwise", source.dtype, 0, 5 * source.bytes)
    t.matmul(source.dtype, rows, ins, rank, 2 * source.bytes + ITEM_BYTES[source.dtype] * rank * (rows + ins))
    made.clear()


def _into(t: Tape, source: Tensor, layer: Linear) -> None:
    """The gradient that comes through one layer, written into (or added to) `source`."""
    weight = _decoded(t, layer, fresh=True)
    _note_product(t, layer, source.dtype, _rows(source, layer))
    del weight
    _add_update(t, source, layer)
