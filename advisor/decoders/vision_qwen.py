"""The towers of Qwen2-VL, Qwen2.5-VL, Qwen3-VL and Qwen3.5.

Source: transformers 5.23, models/{qwen2_vl,qwen2_5_vl,qwen3_vl}/modeling_*.py. Locals live as long as they do there.
"""

from __future__ import annotations

from math import ceil

from advisor.decoders.adapters import linear
from advisor.decoders.rope import rotate_half
from advisor.decoders.vision import BlockKind, BlockWeights, Seen, Tower, block_plan
from advisor.decoders.vision_attention import attended_pieces, kinds_of
from advisor.decoders.vision_patches import begun, embedded_patches, pixels_of
from advisor.decoders.vision_tiles import activated
from advisor.specs import Picture, VisionSpec
from advisor.tape.graph import Tensor
from advisor.tape.layout import chunk_last, copy, regathered
from advisor.tape.ops import add, cast, mul, unary
from advisor.tape.tape import Tape


def qwen_tower(d: Tower, leaf: bool) -> Seen:
    """The tokens of a micro-batch's images; `leaf`: checkpointing makes embedded inputs require gradients."""
    t, v, plan = d.t, d.v, block_plan(d.v)
    pixels = pixels_of(d)
    aside = [t.empty((d.patches, 2), "int64")]  # places of patches
    x = embedded_patches(d, pixels)
    begun(d, x, leaf)
    if v.position_rows:
        x = add(t, x, _positions(d, aside))
    tables = _tables(d)
    if v.window_size:
        order = t.empty((d.features,), "int64")
        aside.append(order)
        x = _reordered(t, x, order)
        tables = (_reordered(t, tables[0], order), _reordered(t, tables[1], order))
    bounds = {
        windowed: t.empty((1 + d.rows * len(_pieces(v, BlockKind(windowed, 0))),), "int32")
        for windowed in dict.fromkeys(kind.windowed for kind, _ in plan)
    }
    stacked: list[Tensor] = []
    for index, (kind, _) in enumerate(plan):
        d.enter(index)
        x = _run(d, x, d.weights.blocks[index], kind, tables, bounds[kind.windowed])
        if kind.stacked:
            stacked.append(_merged(d, x, f"deepstack_merger_list.{kind.stacked - 1}", kind.stacked))
    d.enter(-1)
    return _finished(d, x, stacked, aside)


def _finished(d: Tower, x: Tensor, stacked: list[Tensor], aside: list[Tensor]) -> Seen:
    """What the model's forward gets: its outputs object holds the tower's last state and its tokens to the end."""
    t = d.t
    if d.v.window_size:
        places = t.empty((d.features,), "int64")
        merged = [_merged(d, x, "mlp", 0)]
        merged.append(_reordered(t, merged.pop(), places))
    else:
        merged = [_merged(d, x, "merger" if d.v.position_rows else "mlp", 0)]
    aside.clear()
    tokens, *further = (copy(t, one, one.shape) for one in (merged[0], *stacked))
    return Seen(tokens, further, [x, merged[0], *stacked])


def _tables(d: Tower) -> tuple[Tensor, Tensor]:
    """Cosine and sine (P, 1, D) of the patches' places, in fp32."""
    t, width = d.t, d.v.head_dim
    shape, angles = (d.patches, 1, width), 2 * d.patches * 4 * (width // 4)
    t.kernel("elementwise", "float32", 0, 2 * d.patches * 12)
    t.kernel("elementwise", "float32", 0, angles)
    for _ in range(2):
        t.kernel("elementwise", "float32", 0, 2 * angles)
        t.kernel("elementwise", "float32", 0, 2 * angles)
    tables = t.empty(shape, "float32"), t.empty(shape, "float32")
    for one in tables:
        t.kernel("elementwise", "float32", 0, one.bytes)
        t.kernel("elementwise", "float32", 0, 2 * one.bytes)
    return tables


def _reordered(t: Tape, x: Tensor, order: Tensor) -> Tensor:
    """Groups of rows picked by `order`: a copy, whose gradient is written into zeros."""
    shape, dtype, size, order_bytes = x.shape, x.dtype, x.bytes, order.bytes
    t.kernel("gather", dtype, 0, 2 * size + order_bytes)

    def backward(g: Tensor) -> tuple[Tensor]:
        zeros = t.empty(shape, g.dtype)
        t.kernel("elementwise", g.dtype, 0, size)
        t.kernel("gather", g.dtype, 0, 2 * size + order_bytes)
        return (t.empty(shape, g.dtype) if t.device == "cpu" else zeros,)

    return t.op((x,), shape, dtype, backward, (order,))


def _positions(d: Tower, aside: list[Tensor]) -> Tensor:
    """Learned positions of a square, each patch's a weighted sum of its four neighbors there: (P, H).

    Source: models/qwen3_vl/modeling_qwen3_vl.py, Qwen3VLVisionModel.forward.
    """
    t, table, count = d.t, d.weights.tensors[1], d.patches
    width = d.v.hidden_size
    places, weights = t.empty((count, 4), "int64"), t.empty((count, 4), "float32")
    aside += [places, weights]
    rows, columns = table.shape
    picked_bytes = 4 * count * width * (table.bytes // table.count)
    t.kernel("gather", table.dtype, 0, 2 * picked_bytes + places.bytes)
    dtype, places_bytes = table.dtype, places.bytes

    def backward(g: Tensor) -> tuple[Tensor]:
        out = t.empty((rows, columns), g.dtype)
        t.kernel("elementwise", dtype, 0, out.bytes)
        t.kernel("gather", dtype, 0, 2 * g.bytes + places_bytes)
        return (out,)

    picked = [t.op((table,), (count, 4, width), dtype, backward, (places,))]
    weighted = [mul(t, picked.pop(), Tensor((count, 4, 1), "float32", weights.buffer))]
    summed = _summed(t, weighted.pop(), (count, width))
    aside.append(summed)
    return cast(t, summed, t.autocast or dtype)


def _summed(t: Tape, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`x.sum(1)`: its gradient is a view of the one that comes in."""
    t.kernel("reduce", x.dtype, 0, x.bytes)
    full = x.shape
    return t.op((x,), shape, x.dtype, lambda g: (Tensor(full, g.dtype, g.buffer),))


def _run(
    d: Tower, x: Tensor, w: BlockWeights, kind: BlockKind, tables: tuple[Tensor, Tensor], bounds: Tensor
) -> Tensor:
    """A block, checkpointed where the layers are: a region holds what it is called with, `bounds` of pieces, too."""
    t = d.t
    if d.recipe.gradient_checkpointing and t.grad_enabled:
        run = lambda h, _bounds=bounds: _block(d, h, w, kind, tables)  # noqa: E731 - a default holds them
        return d.stack.checkpoint(t, run, x, d.recipe.reentrant, False)
    return _block(d, x, w, kind, tables)


def _block(d: Tower, x: Tensor, w: BlockWeights, kind: BlockKind, tables: tuple[Tensor, Tensor]) -> Tensor:
    """x (P, H) -> (P, H): attention, then the MLP, each after a norm."""
    t = d.t
    h = w.norms[0](t, x)
    h = _attention(d, h, w, kind, tables)
    x = add(t, x, h)
    del h
    h = w.norms[1](t, x)
    h = _mlp(d, h, w)
    return add(t, x, h)


def _attention(d: Tower, x: Tensor, w: BlockWeights, kind: BlockKind, tables: tuple[Tensor, Tensor]) -> Tensor:
    t, v = d.t, d.v
    shape = (d.patches, v.num_attention_heads, v.head_dim)
    joined = regathered(t, linear(t, x, w.linears["qkv"]))  # its gradient is stacked, then laid out patch by patch
    q, k, values = (t.view(part, shape) for part in chunk_last(t, joined, (v.hidden_size,) * 3))
    del joined
    t.label("attention")
    q, k = _turned(t, q, k, tables)
    pieces = [size for size in _pieces(v, kind) for _ in range(d.rows)]
    out = attended_pieces(t, q, k, values, pieces, kinds_of(t, q, d.stack, d.card))
    out = t.view(out, (d.patches, v.hidden_size))
    return linear(t, out, w.linears["proj"])


def _turned(t: Tape, q: Tensor, k: Tensor, tables: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Queries and keys (P, heads, D), rotated in fp32 and cast back one after the other."""
    dtype, (cos, sin) = q.dtype, tables
    q, k = cast(t, q, "float32"), cast(t, k, "float32")
    q_turned = add(t, mul(t, q, cos), mul(t, rotate_half(t, q), sin))
    k_turned = add(t, mul(t, k, cos), mul(t, rotate_half(t, k), sin))
    q_turned = cast(t, q_turned, dtype)
    return q_turned, cast(t, k_turned, dtype)


def _mlp(d: Tower, x: Tensor, w: BlockWeights) -> Tensor:
    t, v, linears = d.t, d.v, w.linears
    if "gate_proj" in linears:
        gate = [activated(t, v.activation, linear(t, x, linears["gate_proj"]))]
        return linear(t, mul(t, gate.pop(), linear(t, x, linears["up_proj"])), linears["down_proj"])
    first, second = ("fc1", "fc2") if "fc1" in linears else ("linear_fc1", "linear_fc2")
    return linear(t, activated(t, v.activation, linear(t, x, linears[first])), linears[second])


def _merged(d: Tower, x: Tensor, path: str, stacked: int) -> Tensor:
    """Squares of patches as tokens of the decoder: (F, H). The norm of stacked ones is over a whole square."""
    t, v, around = d.t, d.v, d.weights.around
    first, second = ("0", "2") if path == "mlp" else ("linear_fc1", "linear_fc2")
    if stacked:
        x = d.weights.norms[path](t, t.view(x, (d.features, v.merged_size)))
    else:
        x = t.view(d.weights.norms["merger"](t, x), (d.features, v.merged_size))
    hidden = [linear(t, x, around[f"{path}.{first}"])]
    hidden.append(unary(t, hidden.pop(), "input"))
    return linear(t, hidden.pop(), around[f"{path}.{second}"])


def _pieces(v: VisionSpec, kind: BlockKind) -> list[int]:
    """How many patches attend to each other, for each piece of a row's images: a window, or all of an image.

    Source: transformers 5.23, vision_utils.py, get_vision_window_index, whose empty windows are left out.
    """
    if not kind.windowed:
        return [one.patches for one in v.row]
    return [size for one in v.row for size in _windows(v, one)]


def _windows(v: VisionSpec, one: Picture) -> list[int]:
    side = v.window_size // v.merge_size // v.patch_size
    high, wide = one.high // v.merge_size, one.wide // v.merge_size
    rows, columns = ([min(side, size - begin * side) for begin in range(ceil(size / side))] for size in (high, wide))
    return [h * w * v.merge_size**2 for h in rows for w in columns]
