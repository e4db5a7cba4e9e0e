"""DeepSeek's sparse attention (DSA): an indexer without gradients chooses the tokens, and a mask leaves out the others.

Every score is made, in each layer and again where it is recomputed: (B, S, heads, S) numbers twice, and for several
rows the keys once per query, (B, S, D, S), because the batched product wants them side by side. The attention itself
runs over all tokens with the mask: nothing is saved by it.

Source: transformers 5.23, models/{deepseek_v32,glm_moe_dsa}/modeling_*.py: `forward` of the indexer and the attention.
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.architectures import architecture_of
from advisor.blocks import ITEM_BYTES
from advisor.decoders.adapters import linear
from advisor.decoders.norms import layer_norm
from advisor.decoders.rope import Rope, turned, turned_pairs
from advisor.decoders.step_inputs import LayerInputs
from advisor.decoders.weights import Weights
from advisor.parameters.modules import INDEX_WEIGHTS
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.layout import cat_last, slice_last
from advisor.tape.ops import add, batched_matmul, cast, scale, unary
from advisor.tape.tape import Tape


class Choice(NamedTuple):
    """Which tokens each token attends to: int32 indices (B, S, K), and the attention's mask (B, 1, S, S)."""

    indices: Tensor
    mask: Tensor
    masked: Tensor
    """Which are left out (B, S, S); the attention keeps a name for it."""


def chosen(t: Tape, x: Tensor, latent: Tensor, w: Weights, given: LayerInputs, single_row: bool) -> Choice:
    """The choice of a layer with hidden states x (B, S, H) and queries' latent (B, S, R), or the one it takes over."""
    assert given.mask is not None
    indices = given.choice
    if w.m.index_heads:
        was_enabled, t.grad_enabled = t.grad_enabled, False
        indices = _best(t, x, latent, w, given, single_row)
        t.grad_enabled = was_enabled
    assert indices is not None, "the first layer has an indexer"
    t.label("attention")
    masked = _masked(t, indices, x.shape[1])
    return Choice(indices, _joined(t, given.mask, masked), masked)


def _best(t: Tape, x: Tensor, latent: Tensor, w: Weights, given: LayerInputs, single_row: bool) -> Tensor:
    """The indices (B, S, K) of the tokens with the best scores."""
    m, rope = w.m, given.rope
    assert rope is not None
    batch, length, _ = x.shape
    heads, width = m.index_heads, m.index_head_dim
    q = t.view(linear(t, latent, w.linears["wq_b"]), (batch, length, heads, width))
    k = layer_norm(t, linear(t, x, w.linears["wk"]), w.own["index_norm"], w.own["index_norm_bias"])
    k = t.view(k, (batch, length, 1, width))
    q_turned, k_turned = _turned(t, m, q, rope), _turned(t, m, k, rope)
    q_rest, k_rest = slice_last(t, q, width - rope.width), slice_last(t, k, width - rope.width)
    q, k = cat_last(t, q_turned, q_rest), cat_last(t, k_turned, k_rest)
    scores = _scores(t, q, k, single_row)
    weighing = w.linears[INDEX_WEIGHTS]
    weights = linear(t, cast(t, x, weighing.weight.dtype), weighing)
    weights = scale(t, cast(t, weights, "float32"))
    summed = batched_matmul(t, t.view(weights, (batch, length, 1, heads)), scores, (batch, length, 1, length), heads)
    summed = t.view(summed, (batch, length, length))
    summed = _hidden(t, summed, given.mask)
    return _top(t, summed, given.chosen or length)


def _turned(t: Tape, m: ModelSpec, x: Tensor, rope: Rope) -> Tensor:
    """The first features of x (B, S, heads, D), rotated: by halves, or as GLM does by neighbors."""
    part = slice_last(t, x, rope.width)
    if not architecture_of(m.architecture).indexer_turns_pairs:
        return turned(t, part, rope)
    half = rope.width // 2
    shape = (*rope.cos.shape[:-1], half)
    cos, sin = Tensor(shape, rope.cos.dtype, rope.cos.buffer), Tensor(shape, rope.sin.dtype, rope.sin.buffer)
    return turned_pairs(t, slice_last(t, part, half), slice_last(t, part, half), cos, sin)


def _scores(t: Tape, q: Tensor, k: Tensor, single_row: bool) -> Tensor:
    """`relu(q @ k^T * scale)` of q (B, S, heads, D), k (B, S, 1, D): (B, S, heads, S), in fp32 or autocasted."""
    batch, length, heads, width = q.shape
    q, k = cast(t, q, "float32"), cast(t, k, "float32")
    products = [_products(t, q, k, (batch, length, heads, length), width, single_row)]
    del q, k
    scores = scale(t, products.pop())
    return unary(t, scores, "nothing")


def _products(t: Tape, q: Tensor, k: Tensor, shape: tuple[int, int, int, int], width: int, single_row: bool) -> Tensor:
    batch, length, _, _ = shape
    if t.autocast:
        k, q = cast(t, k, t.autocast), cast(t, q, t.autocast)
    if not single_row:
        k = _repeated(t, k, (batch, length, width, length))
    return batched_matmul(t, q, k, shape, width, autocast=False)


def _repeated(t: Tape, k: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    """The keys of a row once for every query."""
    out = t.empty(shape, k.dtype)
    t.kernel("elementwise", k.dtype, 0, k.bytes + out.bytes)
    return out


def _hidden(t: Tape, scores: Tensor, mask: Tensor | None) -> Tensor:
    """Scores (B, S, S) with those of later tokens and of padding at minus infinity."""
    assert mask is not None
    if mask.dtype != "bool":
        return add(t, scores, mask)
    hides = t.empty(scores.shape, "bool")
    t.kernel("elementwise", "bool", 0, 2 * hides.bytes)
    out = t.empty(scores.shape, scores.dtype)
    t.kernel("elementwise", scores.dtype, 0, scores.bytes + out.bytes + hides.bytes)
    return out


def _top(t: Tape, scores: Tensor, count: int) -> Tensor:
    """`topk(...).indices.to(torch.int32)`: (B, S, K)."""
    shape = (*scores.shape[:-1], count)
    _values, indices = t.empty(shape, scores.dtype), t.empty(shape, "int64")
    t.kernel("reduce", scores.dtype, 0, scores.bytes + _values.bytes + indices.bytes)
    del _values
    out = t.empty(shape, "int32")
    t.kernel("elementwise", "int64", 0, indices.bytes + out.bytes)
    return out


def _masked(t: Tape, indices: Tensor, length: int) -> Tensor:
    """True (B, S, S) where a token was not chosen: ones, into a copy of which zeros are scattered."""
    shape = (*indices.shape[:-1], length)
    ones = t.empty(shape, "bool")
    t.kernel("elementwise", "bool", 0, ones.bytes)
    wide = t.empty(indices.shape, "int64")
    t.kernel("elementwise", "int64", 0, indices.bytes + wide.bytes)
    out = t.empty(shape, "bool")
    t.kernel("elementwise", "bool", 0, 2 * out.bytes)
    t.kernel("gather", "bool", 0, wide.bytes + wide.count)
    return out


def _joined(t: Tape, mask: Tensor, masked: Tensor) -> Tensor:
    """The attention's mask, closed where a token was not chosen: (B, 1, S, S)."""
    batch, length, _ = masked.shape
    shape = (batch, 1, length, length)
    if mask.dtype != "bool":
        out = t.empty(shape, mask.dtype)
        t.kernel("elementwise", mask.dtype, 0, out.bytes * 2 + masked.bytes)
        return out
    chosen_ones = t.empty(shape, "bool")
    t.kernel("elementwise", "bool", 0, 2 * chosen_ones.bytes)
    out = t.empty(shape, "bool")
    t.kernel("elementwise", "bool", 0, 2 * out.count + ITEM_BYTES["bool"] * mask.count)
    return out
