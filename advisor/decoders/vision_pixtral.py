"""Pixtral's tower, and the projectors of Mistral 3 and of Pixtral 12B: images of a micro-batch are one sequence.

Source: transformers 5.23, models/{pixtral,mistral3,llava}/modeling_*.py. Locals live as long as they do there. Memory
grows with the square of the patches of a micro-batch, so their number enters as it is.
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.decoders.adapters import linear
from advisor.decoders.mlp import activation
from advisor.decoders.rope import turned_by
from advisor.decoders.vision import BlockWeights, Seen, Tower
from advisor.decoders.vision_attention import attended_heads
from advisor.decoders.vision_patches import begun, embedded_patches, pixels_of
from advisor.decoders.vision_tiles import projected, run_blocks
from advisor.tape.graph import Tensor
from advisor.tape.layout import copy, regathered
from advisor.tape.ops import add, mul


class _Beside(NamedTuple):
    """What all blocks are called with."""

    mask: Tensor  # (1, 1, P, P), numbers: nothing between patches of one image
    cos: Tensor  # (1, P, D)
    sin: Tensor


def _patches(d: Tower) -> int:
    """Of a micro-batch."""
    return d.rows * d.v.row_patches


def mistral3_tower(d: Tower, leaf: bool) -> Seen:
    """The tokens of a micro-batch's images; `leaf`: checkpointing makes embedded inputs require gradients.

    Source: models/mistral3/modeling_mistral3.py, Mistral3Model.get_image_features.
    """
    last = _tower(d, leaf)
    x = d.weights.norms["merger"](d.t, last)
    merged = _merged(d, x)
    del x
    return _split(d, last, projected(d, merged))


def pixtral_tower(d: Tower, leaf: bool) -> Seen:
    """The same for Pixtral 12B. Source: models/llava/modeling_llava.py, LlavaModel.get_image_features."""
    last = _tower(d, leaf)
    return _split(d, last, projected(d, last))


def _split(d: Tower, last: Tensor, tokens: Tensor) -> Seen:
    """Tokens, cut into images and joined again; `last` is what the tower made."""
    t = d.t
    pieces = regathered(t, tokens)
    return Seen(copy(t, pieces, pieces.shape), [], [last, tokens])


def _tower(d: Tower, leaf: bool) -> Tensor:
    """Patches after all blocks: (P, H). Source: models/pixtral/modeling_pixtral.py, PixtralVisionModel.forward."""
    t, count = d.t, _patches(d)
    convolved = embedded_patches(d, pixels_of(d))  # cut into images, which keep names
    begun(d, convolved, leaf)
    x = copy(t, regathered(t, convolved), (count, d.v.hidden_size))
    x = d.weights.norms["pre"](t, x)
    beside, _places = _made(d, x.dtype), t.empty((count, 2), "int64")
    _, last = run_blocks(d, x, lambda d, h, w: _block(d, h, w, beside))
    del convolved
    return last


def _made(d: Tower, dtype: str) -> _Beside:
    """Tables of places on two axes, and the mask. Source: the same file, generate_block_attention_mask."""
    t, count, width = d.t, _patches(d), d.v.head_dim
    for moved in (16 * count, 2 * count * 4, *(4 * count * width,) * 3):
        t.kernel("elementwise", "float32", 0, moved)
    tables = t.empty((1, count, width), dtype), t.empty((1, count, width), dtype)
    for one in tables:
        for _ in range(4):
            t.kernel("elementwise", "float32", 0, 8 * one.count)
    mask = t.empty((1, 1, count, count), dtype)
    t.kernel("elementwise", dtype, 0, mask.bytes)
    for picture in d.v.row * d.rows:
        t.kernel("elementwise", dtype, 0, picture.patches**2 * mask.bytes // mask.count)
    return _Beside(mask, *tables)


def _block(d: Tower, x: Tensor, w: BlockWeights, beside: _Beside) -> Tensor:
    """x (P, H) -> (P, H). Source: PixtralAttentionLayer.forward."""
    t = d.t
    h = w.norms[0](t, x)
    h = _attention(d, h, w, beside)
    x = add(t, x, h)
    del h
    h = w.norms[1](t, x)
    h = _mlp(d, h, w)
    return add(t, x, h)


def _attention(d: Tower, x: Tensor, w: BlockWeights, beside: _Beside) -> Tensor:
    """Source: PixtralAttention.forward."""
    t, linears, (count, width) = d.t, w.linears, x.shape
    shape = (1, d.v.num_attention_heads, count, d.v.head_dim)
    q, k, v = (t.view(linear(t, x, linears[name]), shape) for name in ("q_proj", "k_proj", "v_proj"))
    t.label("attention")
    q_turned = turned_by(t, q, beside.cos, beside.sin)
    q, k = q_turned, turned_by(t, k, beside.cos, beside.sin)
    out = attended_heads(d, q, k, v, beside.mask)
    return linear(t, t.view(out, (count, width)), linears["o_proj"])


def _mlp(d: Tower, x: Tensor, w: BlockWeights) -> Tensor:
    """Source: PixtralMLP.forward."""
    t, linears = d.t, w.linears
    gate = [activation(t, d.v.activation, linear(t, x, linears["gate_proj"]))]
    return linear(t, mul(t, gate.pop(), linear(t, x, linears["up_proj"])), linears["down_proj"])


def _merged(d: Tower, x: Tensor) -> Tensor:
    """Squares of patches through one linear layer: (P, H) -> (F, H). Source: Mistral3PatchMerger.forward."""
    t, v = d.t, d.v
    shape = (d.rows * v.row_features, v.merged_size)
    columns = t.empty(shape, x.dtype)  # `unfold` of each image; the list of them is kept
    t.kernel("gather", x.dtype, 0, 2 * columns.bytes)
    t.kernel("elementwise", x.dtype, 0, 2 * columns.bytes)
    before, dtype = x.shape, x.dtype

    def backward(g: Tensor) -> tuple[Tensor]:
        images = t.empty(before, g.dtype)
        t.kernel("gather", g.dtype, 0, 2 * g.bytes)
        t.kernel("elementwise", g.dtype, 0, 2 * g.bytes)
        joined = t.empty(before, g.dtype)
        del images
        return (joined,)

    squares = t.op((x,), shape, dtype, backward)
    out = linear(t, squares, d.weights.around["patch_merger.merging_layer"])
    del columns
    return out
