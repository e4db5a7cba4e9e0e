"""The tower of Llama 3.2 Vision: tiles of an image attend to each other, and outputs of several blocks are joined.

Its blocks are not checkpointed. Tokens of images are no part of the row: layers of their own attend to them.
Source: transformers 5.23, models/mllama/modeling_mllama.py. Locals live as long as they do there.
"""

from __future__ import annotations

from advisor.decoders.adapters import linear
from advisor.decoders.mllama import gated
from advisor.decoders.vision import Across, BlockWeights, Seen, Tower
from advisor.decoders.vision_attention import attended_heads
from advisor.decoders.vision_patches import begun, embedded_patches, pixels_of
from advisor.decoders.vision_tiles import class_first, plain_mlp, tile_patches
from advisor.tape.graph import Tensor
from advisor.tape.layout import cat_last, part
from advisor.tape.ops import add, embedding, mul, negate, shift, unary
from advisor.tape.pieces import padded
from advisor.tape.program import BATCH, LENGTH
from advisor.tape.tape import Tape

ROUND_TO = 8
"""Places of a tile are filled up to a multiple of this."""


def mllama_tower(d: Tower, leaf: bool) -> Seen:
    """The tokens of a micro-batch's images; `leaf`: checkpointing makes embedded inputs require gradients.

    Source: MllamaModel.forward.
    """
    last = _tower(d, leaf)
    tokens = linear(d.t, last, d.weights.around["multi_modal_projector"])
    return Seen(tokens, [], [last], _across(d))


def _images(d: Tower) -> int:
    """Of a micro-batch, in the powers of the tape."""
    return BATCH * len(d.v.row)


def _tower(d: Tower, leaf: bool) -> Tensor:
    """What the outputs of blocks are joined to: (N, P, W). Source: MllamaVisionModel.forward."""
    t, v, count, tiles, width = d.t, d.v, _images(d), d.v.most_tiles, d.v.hidden_size
    patches = embedded_patches(d, pixels_of(d))
    begun(d, patches, leaf)
    x = _with_tiles(d, t.view(patches, (count, tiles * tile_patches(d), width)), 3, "before")
    x = class_first(t, d.weights.loose["class"], t.view(x, (count * tiles, tile_patches(d), width)))
    x = _with_places(d, x)
    x = d.weights.norms["pre"](t, x)
    places = tile_patches(d) + 1
    filled = -(-places // ROUND_TO) * ROUND_TO
    x = padded(t, x, (x.shape[0], filled, x.shape[2]), pads=False)
    mask, last = _mask(d, filled), v.num_hidden_layers - v.global_blocks
    outputs = _encoded(d, t.view(x, (count, tiles * filled, width)), 0, last, mask)
    x = d.weights.norms["post"](t, outputs[-1])
    x = _with_tiles(d, x, 4, "after")
    ends = _encoded(d, x, last, v.num_hidden_layers, mask)
    d.enter(-1)
    x = _without_filling(t, ends[-1], (count * tiles, places, width), places < filled)
    inner = _stacked(t, [outputs[index] for index in v.joined_blocks])
    inner = _without_filling(t, inner, (count * tiles, places, inner.shape[-1]), places < filled)
    joined = cat_last(t, x, inner)
    del patches, mask
    return joined


def _with_tiles(d: Tower, x: Tensor, table: int, gate: str) -> Tensor:
    """x (images, T * P, H) with what is learned of each tile. Source: MllamaPrecomputedAspectRatioEmbedding."""
    t, (count, _, width) = d.t, x.shape
    own = embedding(t, d.weights.tensors[table], count, 1)
    own = gated(t, own, d.weights.loose[gate])
    return add(t, x, t.view(own, (count, d.v.most_tiles, width)))


def _with_places(d: Tower, x: Tensor) -> Tensor:
    """x (N, P, H) with learned places, of all tiles and of each. Source: MllamaPrecomputedPositionEmbedding."""
    t, gate, (_, places, width) = d.t, d.weights.loose["places"], x.shape
    shared = mul(t, d.weights.tensors[1], shift(t, negate(t, unary(t, gate, "output"))))
    x = add(t, x, shared)
    own = embedding(t, d.weights.tensors[2], _images(d), 1)
    own_gated = gated(t, own, gate)
    return add(t, x, t.view(own_gated, (_images(d) * d.v.most_tiles, places, width)))


def _without_filling(t: Tape, x: Tensor, shape: tuple[int, ...], cut: bool) -> Tensor:
    """x with the first places of each tile alone: a view."""
    return part(t, x, shape) if cut else t.view(x, shape)


def _mask(d: Tower, places: int) -> Tensor:
    """Which places of an image attend to which, as numbers. Source: _prepare_aspect_ratio_attention_mask."""
    t, length = d.t, d.v.most_tiles * places
    dtype = t.autocast or d.weights.dtype
    shape = (_images(d), 1, length, length)
    products = t.empty(shape, dtype)
    t.matmul(dtype, length, length, 1, products.bytes, _images(d))
    mask = t.empty(shape, dtype)
    t.kernel("elementwise", dtype, 0, 2 * mask.bytes)
    del products
    return mask


def _encoded(d: Tower, x: Tensor, begin: int, end: int, mask: Tensor) -> list[Tensor]:
    """The outputs of these blocks, which are all held. Source: MllamaVisionEncoder.forward."""
    outputs: list[Tensor] = []
    first_gated = d.v.num_hidden_layers - d.v.global_blocks
    for index in range(begin, end):
        d.enter(index)
        gates: tuple[Tensor, ...] = ()
        if index >= first_gated:
            gates = tuple(d.weights.loose[f"{name}_{index - first_gated}"] for name in ("attention", "mlp"))
        x = _block(d, x, d.weights.blocks[index], mask, gates)
        outputs.append(x)
    return outputs


def _block(d: Tower, x: Tensor, w: BlockWeights, mask: Tensor, gates: tuple[Tensor, ...]) -> Tensor:
    """x (images, L, H) -> (images, L, H). Source: MllamaVisionEncoderLayer.forward."""
    t = d.t
    h = w.norms[0](t, x)
    h = _attention(d, h, w, mask)
    if gates:
        h = gated(t, h, gates[0])
    x = add(t, x, h)
    del h
    h = w.norms[1](t, x)
    h = plain_mlp(d, h, w)
    if gates:
        h = gated(t, h, gates[1])
    return add(t, x, h)


def _attention(d: Tower, x: Tensor, w: BlockWeights, mask: Tensor) -> Tensor:
    """Source: MllamaVisionAttention.forward."""
    t, (count, length, width) = d.t, x.shape
    shape = (count, d.v.num_attention_heads, length, d.v.head_dim)
    q, k, v = (t.view(linear(t, x, w.linears[name]), shape) for name in ("q_proj", "k_proj", "v_proj"))
    t.label("attention")
    out = attended_heads(d, q, k, v, mask)
    return linear(t, t.view(out, (count, length, width)), w.linears["o_proj"])


def _stacked(t: Tape, parts: list[Tensor]) -> Tensor:
    """`stack(parts, dim=-1)` of (images, L, H) each, its last two axes as one; backward hands out views."""
    first, many = parts[0], len(parts)
    shape, dtype = (*first.shape[:-1], many * first.shape[-1]), first.dtype
    t.kernel("elementwise", dtype, 0, 2 * many * first.bytes)
    one = first.shape
    return t.op(tuple(parts), shape, dtype, lambda g: (Tensor(one, g.dtype, g.buffer),) * many)


def _across(d: Tower) -> Across:
    """Which tokens of the row attend to which of the images'. Source: _prepare_cross_attention_mask."""
    t, dtype = d.t, d.weights.dtype
    shape = (BATCH, 1, LENGTH, len(d.v.row) * d.v.most_tiles * (tile_patches(d) + 1))
    repeated = t.empty(shape, "int64")
    inverted = t.empty(shape, "float32")
    for moved in (repeated.bytes, repeated.bytes + inverted.bytes):
        t.kernel("elementwise", "int64", 0, moved)
    if dtype != "float32":
        wide, inverted = inverted, t.empty(shape, dtype)
        t.kernel("elementwise", dtype, 0, wide.bytes + inverted.bytes)
        del wide
    chosen = t.empty(shape, "bool")
    mask = t.empty(shape, dtype)
    del repeated, chosen
    differs = t.empty(shape, "bool")
    for moved in (inverted.bytes, 2 * mask.bytes, mask.bytes + differs.bytes, differs.bytes, 2 * mask.bytes):
        t.kernel("elementwise", dtype, 0, moved)
    del differs
    return Across(mask, t.empty((BATCH, LENGTH, 1), dtype))
