"""The tower of Gemma 4: images filled up to the most patches that one may have, pooled by their places.

Source: transformers 5.23, models/gemma4/modeling_gemma4.py. Locals live as long as they do there.
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.decoders.adapters import linear
from advisor.decoders.mlp import activation
from advisor.decoders.norms import rms_norm_power
from advisor.decoders.rope import rotate_half
from advisor.decoders.vision import BlockWeights, Seen, Tower
from advisor.decoders.vision_attention import attended_heads
from advisor.decoders.vision_join import picked_places
from advisor.decoders.vision_tiles import run_blocks
from advisor.tape.graph import Tensor
from advisor.tape.layout import cat_last, chunk_last, copy, part, regathered
from advisor.tape.ops import (
    add,
    batched_matmul,
    cast,
    embedding,
    masked_fill,
    mul,
    promoted,
    scale,
    shift,
    subtract,
)
from advisor.tape.program import BATCH, LENGTH
from advisor.tape.tape import Tape


class _Beside(NamedTuple):
    """What all blocks are called with."""

    mask: Tensor | None  # (N, 1, P, P); none where every image has all patches
    cos: Tensor  # (N, P, D)
    sin: Tensor


def _images(d: Tower) -> int:
    """Of a micro-batch, in the powers of the tape."""
    return BATCH * len(d.v.row)


def gemma4_tower(d: Tower, leaf: bool) -> Seen:
    """The tokens of a micro-batch's images. Source: Gemma4Model.forward and get_image_features.

    Beside them live token ids without marks, and where images, videos, sounds and any of these are in the text.
    """
    t = d.t
    marks = [t.empty((BATCH, LENGTH), kind) for kind in ("int64", "bool", "bool", "bool", "bool")]
    for moved in (9, 9, 9, 3, 3, 16, 17):
        t.kernel("elementwise", "int64", 0, moved * BATCH * LENGTH)
    last = _tower(d)
    tokens = linear(t, rms_norm_power(t, last, None), d.weights.around["embedding_projection"])
    pieces = regathered(t, tokens)  # cut into images and joined
    del marks[-1]  # it becomes the mask of the images' tokens
    return Seen(copy(t, pieces, pieces.shape), [], [last, tokens, *marks])


def _tower(d: Tower) -> Tensor:
    """Tokens before the projection: (F, H). Source: Gemma4VisionModel.forward."""
    t, v, count, patches = d.t, d.v, _images(d), d.v.most_patches
    padding = t.empty((count, patches), "bool")
    for moved in (18, 3):
        t.kernel("elementwise", "int64", 0, moved * padding.count)
    first = _embedded(d, padding)
    last = _encoded(d, first)
    pooled, kept = _pooled(d, masked_fill(t, last, padding))
    pooled = scale(t, cast(t, pooled, "float32"))
    x = picked_places(t, pooled, kept, (d.features, v.hidden_size))
    if v.standardizes:
        shown = [Tensor((v.hidden_size,), d.recipe.base_dtype) for _ in range(2)]
        x = subtract(t, x, cast(t, shown[0], "float32"))
        x = mul(t, x, cast(t, shown[1], "float32"))
    return cast(t, x, first.dtype)


def _encoded(d: Tower, x: Tensor) -> Tensor:
    """x (N, P, H) after all blocks. Source: Gemma4VisionEncoder.forward."""
    beside = _made(d, x.dtype)
    return run_blocks(d, x, lambda d, h, w: _block(d, h, w, beside))[1]


def _embedded(d: Tower, padding: Tensor) -> Tensor:
    """Patches with their places on two axes: (N, P, H). Source: Gemma4VisionPatchEmbedder.forward."""
    t, shape, first = d.t, (*padding.shape, d.v.patch_width), d.weights.around["input_proj"]
    t.label("patches")
    pixels = scale(t, shift(t, Tensor(shape, "float32")))
    if first.quant == "none":
        pixels = cast(t, pixels, first.weight.dtype)
    x = linear(t, pixels, first)
    return add(t, x, cast(t, _places(d, padding), promoted(x.dtype, d.weights.tensors[0].dtype)))


def _places(d: Tower, padding: Tensor) -> Tensor:
    """The learned places of patches, zeros for those that fill up. Source: _position_embeddings."""
    t, (count, patches), table = d.t, padding.shape, d.weights.tensors[0]
    clamped = t.empty((count, patches, 2), "int64")
    t.kernel("elementwise", "int64", 0, 2 * clamped.bytes)
    rows = table.shape[1:]
    x, y = (embedding(t, t.view(part(t, table, (1, *rows)), rows), count, patches, (clamped,)) for _ in range(2))
    return masked_fill(t, add(t, x, y), padding)


def _made(d: Tower, dtype: str) -> _Beside:
    """The mask of patches that fill up, and tables of places. Source: Gemma4VisionRotaryEmbedding.forward."""
    t, v, count, patches = d.t, d.v, _images(d), d.v.most_patches
    mask = t.empty((count, 1, patches, patches), "bool") if v.masks_patches else None
    if mask is not None:
        t.kernel("elementwise", "bool", 0, 2 * mask.bytes)
    for moved in (12, 4 + 2 * v.head_dim, *(4 * v.head_dim,) * 4, *(8 * v.head_dim,) * 2):
        t.kernel("elementwise", "float32", 0, moved * count * patches)
    shape = (count, patches, v.head_dim)
    return _Beside(mask, t.empty(shape, dtype), t.empty(shape, dtype))


def _block(d: Tower, x: Tensor, w: BlockWeights, beside: _Beside) -> Tensor:
    """x (N, P, H) -> (N, P, H). Source: Gemma4VisionEncoderLayer.forward."""
    t, (before, _, _, after, before_mlp, after_mlp) = d.t, w.norms
    h = before(t, x)
    h = after(t, _attention(d, h, w, beside))
    x = add(t, x, h)
    del h
    h = before_mlp(t, x)
    h = after_mlp(t, _mlp(d, h, w))
    return add(t, x, h)


def _attention(d: Tower, x: Tensor, w: BlockWeights, beside: _Beside) -> Tensor:
    """Source: Gemma4VisionAttention.forward."""
    t, v, (count, patches, width) = d.t, d.v, x.shape
    shape, heads = (
        (count, patches, v.num_attention_heads, v.head_dim),
        (count, v.num_attention_heads, patches, v.head_dim),
    )
    q = w.norms[1](t, t.view(_product(d, x, w, "q_proj"), shape))
    q = _turned(t, q, beside)
    k = w.norms[2](t, t.view(_product(d, x, w, "k_proj"), shape))
    k = _turned(t, k, beside)
    values = rms_norm_power(t, t.view(_product(d, x, w, "v_proj"), shape), None)
    t.label("attention")
    q, k, values = (t.view(one, heads) for one in (q, k, values))
    out = attended_heads(d, q, k, values, beside.mask)
    return _product(d, t.view(out, (count, patches, width)), w, "o_proj")


def _turned(t: Tape, x: Tensor, beside: _Beside) -> Tensor:
    """x (N, P, heads, D), each half of a head by the places on one axis. Source: apply_multidimensional_rope."""
    half = x.shape[-1] // 2
    cos, sin = (Tensor((*table.shape[:-1], half), table.dtype, table.buffer) for table in (beside.cos, beside.sin))
    parts = chunk_last(t, x, (half, half))
    first, second = (add(t, mul(t, one, cos), mul(t, rotate_half(t, one), sin)) for one in parts)
    return cat_last(t, first, second)


def _mlp(d: Tower, x: Tensor, w: BlockWeights) -> Tensor:
    """Source: Gemma4VisionMLP.forward."""
    t = d.t
    gate = [activation(t, d.v.activation, _product(d, x, w, "gate_proj"))]
    return _product(d, mul(t, gate.pop(), _product(d, x, w, "up_proj")), w, "down_proj")


def _product(d: Tower, x: Tensor, w: BlockWeights, name: str) -> Tensor:
    """A linear layer whose input and output are held between bounds in some models. Source: Gemma4ClippableLinear."""
    if not d.v.clips:
        return linear(d.t, x, w.linears[f"{name}.linear"])
    return _held(d.t, linear(d.t, _held(d.t, x), w.linears[f"{name}.linear"]))


def _held(t: Tape, x: Tensor) -> Tensor:
    """`clamp(x, lowest, highest)` with bounds that are tensors: keeps x."""
    shape, dtype = x.shape, x.dtype
    t.kernel("elementwise", dtype, 0, 2 * x.bytes)

    def backward(g: Tensor) -> tuple[Tensor]:
        inside, below = t.empty(shape, "bool"), t.empty(shape, "bool")
        t.kernel("elementwise", dtype, 0, 2 * g.bytes)
        out = t.empty(shape, g.dtype)
        del inside, below
        return (out,)

    return t.op((x,), shape, dtype, backward, (x,))


def _pooled(d: Tower, x: Tensor) -> tuple[Tensor, Tensor]:
    """Squares of patches averaged, by a product with weights: (N, T, H), and which are tokens: (N, T).

    Source: Gemma4VisionPooler._avg_pool_by_positions.
    """
    t, v, (count, patches, width) = d.t, d.v, x.shape
    clamped = t.empty((count, patches, 2), "int64")
    places = t.empty((count, patches), "int64")
    tokens = (count, v.image_tokens)
    chosen = [t.empty((*tokens, patches), "int64")]
    wide = t.empty((*tokens, patches), "float32")
    chosen.clear()
    weights = t.empty((*tokens, patches), "float32")
    del wide
    for moved in (16 * v.image_tokens, 12 * v.image_tokens, 8 * v.image_tokens):
        t.kernel("elementwise", "float32", 0, moved * count * patches)
    out = batched_matmul(t, weights, cast(t, x, "float32"), (*tokens, width), patches)
    zero, kept = t.empty((*tokens, patches), "bool"), t.empty(tokens, "bool")
    t.kernel("elementwise", "float32", 0, weights.bytes + zero.bytes)
    t.kernel("reduce", "bool", 0, zero.bytes)
    del clamped, places, zero
    return cast(t, out, x.dtype), kept
