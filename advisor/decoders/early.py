"""The layers of early models with their own code: OPT, GPT-J, BLOOM, MPT. All but OPT's support only eager attention.

Sources: transformers 5.23, models/{opt,gptj,bloom,mpt}/modeling_*.py; locals live as long as they do there.
"""

from __future__ import annotations

from advisor.decoders.adapters import linear
from advisor.decoders.attention import Layout, scores_of, weighted_sum
from advisor.decoders.decoder import Decoder
from advisor.decoders.mlp import activation
from advisor.decoders.rope import rotate_half
from advisor.decoders.step_inputs import LayerInputs
from advisor.decoders.weights import Weights
from advisor.tape.graph import Shape, Tensor
from advisor.tape.layout import cat_last, chunk_last, copy, regathered, slice_last
from advisor.tape.ops import add, batched_matmul, cast, masked_fill, mul, scale, softmax
from advisor.tape.tape import Tape


def _turned(t: Tape, x: Tensor, width: int, length: int, dtype: str) -> Tensor:
    """GPT-J's rotation of x (B, heads, S, width), by tables (1, S, 1, width) spread for queries and for keys."""
    sin, cos = t.empty((1, length, 1, width), dtype), t.empty((1, length, 1, width), dtype)
    for table in (sin, cos):
        t.kernel("elementwise", dtype, 0, 3 * table.bytes // 2)
    first = [mul(t, x, cos)]  # popped: no operand outlives its operation
    return add(t, first.pop(), mul(t, rotate_half(t, x), sin))


def _gptj_attention(d: Decoder, x: Tensor, w: Weights, given: LayerInputs) -> tuple[Tensor, Tensor]:
    """GPT-J's attention of x (B, S, H): its own copy of all sines and cosines, scores in fp32; and the weights."""
    t, m = d.t, d.m
    batch, length, _ = x.shape
    shape, width = (batch, m.num_attention_heads, length, m.head_dim), m.rotary_dim or m.head_dim
    q, k, v = (t.view(linear(t, x, w.linears[name]), shape) for name in m.qkv_names)
    t.label("attention")
    _table = t.empty((1, m.max_position_embeddings, width), "float32")
    _ids = t.empty((1, length, width), "int64")
    for moved in (2 * _table.bytes, _ids.bytes + 8 * length, 2 * _ids.bytes):  # repeated, repeated, picked
        t.kernel("elementwise", "float32", 0, moved)
    _sincos = cast(t, t.empty((1, length, width), "float32"), k.dtype)
    k_turned, k_rest = slice_last(t, k, width), slice_last(t, k, m.head_dim - width)
    q_turned, q_rest = slice_last(t, q, width), slice_last(t, q, m.head_dim - width)
    k_turned = _turned(t, k_turned, width, length, k.dtype)
    q_turned = _turned(t, q_turned, width, length, k.dtype)
    k = cat_last(t, k_turned, k_rest)
    q = cat_last(t, q_turned, q_rest)
    out, weights = _gptj_products(t, q, k, v, given.mask, d.single_row)
    out = copy(t, out, (batch, length, m.q_size))
    out = linear(t, out, w.linears[m.out_name])
    return out, weights


def _gptj_products(
    t: Tape, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, single_row: bool
) -> tuple[Tensor, Tensor]:
    layout = Layout(single_row, single_row, single_row, False, single_row)
    batch, heads, length, _ = q.shape
    q, k = cast(t, q, "float32"), cast(t, k, "float32")
    weights = scores_of(t, q, k, (batch, heads, length, length), layout)
    weights = scale(t, weights)
    if mask is not None:
        weights = add(t, weights, mask)
    weights = softmax(t, weights, "float32" if t.autocast and t.device == "cuda" else weights.dtype)
    weights = cast(t, weights, v.dtype)
    return weighted_sum(t, weights, v, layout), weights


def gptj_layer(d: Decoder, x: Tensor, w: Weights, given: LayerInputs) -> Tensor:
    """GPT-J: attention and MLP on the same normed input."""
    t = d.t
    normed = w.norms[0](t, x)
    attended, weights = _gptj_attention(d, normed, w, given)
    mixed = d.mlp(normed, w)
    out = add(t, add(t, attended, mixed), x)
    d.hold(weights)
    return out


def opt_layer(d: Decoder, x: Tensor, w: Weights, given: LayerInputs) -> Tensor:
    """OPT: the MLP is inlined in the layer and reuses one name. 350M norms after its blocks."""
    t, names, before = d.t, d.m.mlp_names, d.m.norm_placement == "pre"
    kept: list[Tensor] = []
    h = w.norms[0](t, x) if before else x
    h = d.attention(h, w, given, kept)
    h = d.dropped(h)
    h = add(t, x, h)
    h = h if before else w.norms[0](t, h)
    x = h
    h = w.norms[1](t, h) if before else h
    h = linear(t, h, w.linears[names[0]])
    h = activation(t, d.m.activation, h)
    h = linear(t, h, w.linears[names[1]])
    h = d.dropped(h)
    h = add(t, x, h)
    return h if before else w.norms[1](t, h)


def _head_major(t: Tape, x: Tensor, shape: Shape, single_row: bool) -> Tensor:
    """(B, heads, S, D) as one matrix per head: a copy, unless there is a single row."""
    return x if single_row else copy(t, x, shape)


def _biased_scores(t: Tape, q: Tensor, k: Tensor, alibi: Tensor, square: Shape) -> Tensor:
    """`alibi.baddbmm(q, k)`: a scaled product plus a bias; backward scales each gradient in a new tensor."""
    if t.autocast:
        alibi, q, k = cast(t, alibi, t.autocast), cast(t, q, t.autocast), cast(t, k, t.autocast)
    batch, heads, length, width = q.shape
    dtype, matrices, shape = q.dtype, batch * heads, q.shape
    out_count = matrices * length * length
    moved = q.bytes + k.bytes + alibi.bytes + out_count * q.bytes // q.count
    t.matmul(dtype, length, length, width, moved, matrices)
    q_needs, k_needs = q.needs_grad, k.needs_grad

    def gradient() -> Tensor:
        t.matmul(dtype, length, width, length, moved, matrices)
        unscaled = t.empty(shape, dtype)
        t.kernel("elementwise", dtype, 0, 2 * unscaled.bytes)
        out = t.empty(shape, dtype)
        del unscaled
        return out

    def backward(g: Tensor) -> tuple[Tensor | None, ...]:
        return (gradient() if q_needs else None), (gradient() if k_needs else None)

    return t.op((q, k), square, dtype, backward, ((k,) if q_needs else ()) + ((q,) if k_needs else ()))


def _bloom_attention(d: Decoder, x: Tensor, residual: Tensor, w: Weights, given: LayerInputs) -> tuple[Tensor, Tensor]:
    """BLOOM's attention of x (B, S, H), added to the residual inside it, and the weights."""
    t, m = d.t, d.m
    batch, length, _ = x.shape
    shape = (batch, m.num_attention_heads, length, m.head_dim)
    fused = linear(t, x, w.linears[m.qkv_names[0]])
    t.label("attention")
    q, k, v = (t.view(slice_last(t, fused, m.q_size), shape) for _ in range(3))
    q = _head_major(t, q, shape, d.single_row)
    k = _head_major(t, k, shape, d.single_row)
    v = _head_major(t, v, shape, d.single_row)
    assert given.alibi is not None and given.mask is not None
    scores = _biased_scores(t, q, k, given.alibi, (*shape[:3], length))
    weights = add(t, scores, given.mask)
    probabilities = cast(t, softmax(t, weights, "float32"), q.dtype)
    out = batched_matmul(t, probabilities, v, shape, length)
    out = copy(t, out, (batch, length, m.q_size))
    out = linear(t, out, w.linears[m.out_name])
    out = add(t, residual, out)
    return out, probabilities


def bloom_layer(d: Decoder, x: Tensor, w: Weights, given: LayerInputs) -> Tensor:
    """BLOOM: every block adds the residual itself."""
    t, names = d.t, d.m.mlp_names
    normed = w.norms[0](t, x)
    attended, weights = _bloom_attention(d, normed, x, w, given)
    normed = w.norms[1](t, attended)
    up = activation(t, d.m.activation, linear(t, normed, w.linears[names[0]]))
    out = linear(t, up, w.linears[names[1]])
    out = add(t, attended, out)
    d.hold(weights)
    return out


def _mpt_attention(d: Decoder, x: Tensor, w: Weights, given: LayerInputs) -> tuple[Tensor, Tensor]:
    """MPT's attention of x (B, S, H): an fp32 bias makes the scores fp32, a mask is filled in; and the weights."""
    t, m = d.t, d.m
    batch, length, _ = x.shape
    shape = (batch, m.num_attention_heads, length, m.head_dim)
    fused = linear(t, x, w.linears[m.qkv_names[0]])
    t.label("attention")
    q, k, v = (regathered(t, t.view(part, shape)) for part in chunk_last(t, fused, (m.q_size,) * 3))
    single = d.single_row
    layout = Layout(single, single, single, False, single)
    assert given.alibi is not None and given.mask is not None
    scores = scale(t, scores_of(t, q, k, (*shape[:3], length), layout))
    scores = add(t, scores, given.alibi)
    scores = masked_fill(t, scores, given.mask)
    weights = cast(t, softmax(t, cast(t, scores, "float32"), "float32"), v.dtype)
    out = weighted_sum(t, weights, v, layout)
    out = copy(t, out, (batch, length, m.q_size))
    out = linear(t, out, w.linears[m.out_name])
    return out, weights


def mpt_layer(d: Decoder, x: Tensor, w: Weights, given: LayerInputs) -> Tensor:
    """MPT: the attention's output and weights keep their names to the end, the MLP adds the residual."""
    t = d.t
    normed = w.norms[0](t, x)
    attended, weights = _mpt_attention(d, normed, w, given)
    x = add(t, attended, x)
    normed = w.norms[1](t, x)
    out = d.mlp(normed, w)
    out = add(t, out, x)
    d.hold(weights)
    return out
