"""CLIP's tower and the projectors of LLaVA 1.5 and LLaVA-NeXT.

Source: transformers 5.23, models/{clip,llava,llava_next}/modeling_*.py. Locals live as long as they do there.
"""

from __future__ import annotations

from advisor.decoders.adapters import linear
from advisor.decoders.vision import BlockWeights, Seen, Tower
from advisor.decoders.vision_attention import attended_tiles
from advisor.decoders.vision_patches import pixels_of
from advisor.decoders.vision_tiles import plain_mlp, projected, run_blocks, tile_count, tile_patches, with_class
from advisor.images.llava import canvas_of
from advisor.specs import Picture
from advisor.tape.graph import Tensor
from advisor.tape.layout import alias, cat_last, copy, cut_first, join_first, part, regathered
from advisor.tape.ops import add, cast
from advisor.tape.program import BATCH
from advisor.tape.tape import Tape


def clip_block(d: Tower, x: Tensor, w: BlockWeights) -> Tensor:
    """x (N, P, H) -> (N, P, H): attention, then the MLP, each after a norm. SigLIP's blocks are the same.

    Source: models/clip/modeling_clip.py, CLIPEncoderLayer.forward and CLIPAttention.forward.
    """
    t = d.t
    h = w.norms[0](t, x)
    h = _attention(d, h, w)
    x = add(t, x, h)
    del h
    h = w.norms[1](t, x)
    h = plain_mlp(d, h, w)
    return add(t, x, h)


def _attention(d: Tower, x: Tensor, w: BlockWeights) -> Tensor:
    t, linears = d.t, w.linears
    q, k, v = (linear(t, x, linears[name]) for name in ("q_proj", "k_proj", "v_proj"))
    t.label("attention")
    out = attended_tiles(d, q, k, v)
    return linear(t, out, linears["out_proj"])


def _features(d: Tower, pixels: Tensor, leaf: bool) -> tuple[Tensor, list[Tensor]]:
    """What tokens are made of, and the tower's outputs: its last state and, of that, the class's, through a norm."""
    t, v, norms = d.t, d.v, d.weights.norms
    hidden = [with_class(d, pixels, leaf)]
    hidden.append(norms["pre"](t, hidden.pop()))
    read, last = run_blocks(d, hidden[0], clip_block)
    pooled = norms["pooled"](t, part(t, last, (tile_count(d), v.hidden_size)))
    return read, [read, last, pooled]


def _patches_alone(d: Tower, x: Tensor) -> Tensor:
    """x without the class's token: a view, which a product whose weight is trained copies and keeps.

    Casts to the product's dtype copy it as well. Source: PyTorch 2.13, aten/src/ATen/native/LinearAlgebra.cpp,
    should_fold.
    """
    t, first = d.t, d.weights.around["linear_1"]
    x = part(t, x, (tile_count(d), tile_patches(d), d.v.hidden_size))
    trained = first.lora_a if first.lora_a is not None else first.weight
    copied = trained.needs_grad and x.dtype == (t.autocast or trained.dtype)
    return copy(t, x, x.shape) if copied else x


def llava_tower(d: Tower, leaf: bool) -> Seen:
    """The tokens of a micro-batch's images; `leaf`: checkpointing makes embedded inputs require gradients.

    Source: models/llava/modeling_llava.py, LlavaModel.get_image_features and forward.
    """
    t = d.t
    read, outputs = _features(d, pixels_of(d), leaf)
    selected = _patches_alone(d, read)
    tokens = projected(d, selected)
    outputs[-1] = tokens
    tokens = regathered(t, tokens)  # a list of images, whose gradients are stacked
    return Seen(copy(t, tokens, (d.features, d.v.output_size)), [], outputs)


def llava_next_tower(d: Tower, leaf: bool) -> Seen:
    """The same for LLaVA-NeXT, whose tiles are joined, and their rows of patches ended by a learned token.

    Source: models/llava_next/modeling_llava_next.py, LlavaNextModel.get_image_features and forward.
    """
    t, v, row = d.t, d.v, d.v.row * d.rows
    batch = Tensor((BATCH * v.row_pixels,), "float32")
    pixels = copy(t, batch, batch.shape)  # the tiles of all images, without those that fill up an image's
    read, outputs = _features(d, cast(t, pixels, d.weights.tensors[0].dtype), leaf)
    selected = _patches_alone(d, read)
    tiles = cut_first(t, projected(d, selected), [one.tiles for one in row])
    packed = [_packed(d, tile, one) for tile, one in zip(tiles, row, strict=True)]
    del tiles
    outputs[-1:] = packed
    return Seen(join_first(t, packed), [], outputs)


def _packed(d: Tower, x: Tensor, one: Picture) -> Tensor:
    """An image's tiles (N, P, O), the overview first: tokens (T, O).

    The gradient of tiles that lie side by side, or are full, comes row by row and is copied.
    Source: the same file, pack_image_features and unpad_image.
    """
    t, canvas, (_, places, width) = d.t, canvas_of(d.v, one.height, one.width), x.shape
    overview = t.view(part(t, x, (1, places, width)), (places, width))
    x = part(t, x, (canvas.tiles, places, width))
    filled = (width, canvas.high, canvas.wide)
    padded = canvas.high * canvas.wide < canvas.tiles * places
    if canvas.columns > 1 or not padded:
        x = regathered(t, x)
    x = copy(t, x, filled) if not padded else part(t, copy(t, x, x.shape), filled)
    line = cast(t, _repeated(t, d.weights.loose["line"], canvas.high), x.dtype)
    x = t.view(cat_last(t, x, line), (canvas.high * (canvas.wide + 1), width))
    return join_first(t, [overview, x])


def _repeated(t: Tape, line: Tensor, rows: int) -> Tensor:
    """A vector at the end of every row: a view, whose gradient is summed."""
    own = line.shape

    def backward(g: Tensor) -> tuple[Tensor]:
        out = t.empty(own, g.dtype)
        t.kernel("reduce", g.dtype, 0, g.bytes + out.bytes)
        return (out,)

    return alias(t, (line,), backward, (*own, rows, 1))
