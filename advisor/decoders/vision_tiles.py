"""What towers that read images as square tiles have in common: patches, a class's token, the run through the blocks.

N tiles of P places each are (N, P, H); a tile's places are its patches, after a class's token where the tower has one.
"""

from __future__ import annotations

from collections.abc import Callable

from advisor.decoders.adapters import linear
from advisor.decoders.mlp import activation
from advisor.decoders.vision import BlockWeights, Tower, block_plan
from advisor.decoders.vision_patches import begun, embedded_patches
from advisor.tape.graph import Tensor
from advisor.tape.layout import copy, regathered
from advisor.tape.ops import add, cast, mul, promoted, scale, unary
from advisor.tape.program import BATCH
from advisor.tape.tape import Tape

Block = Callable[[Tower, Tensor, BlockWeights], Tensor]
"""(tower, x (N, P, H), weights) -> (N, P, H)."""


def tile_count(d: Tower) -> int:
    """Tiles of a micro-batch, in the powers of the tape."""
    return BATCH * sum(one.tiles for one in d.v.row)


def tile_patches(d: Tower) -> int:
    """Patches of a tile."""
    return (d.v.image_size // d.v.patch_size) ** 2


def with_class(d: Tower, pixels: Tensor, leaf: bool) -> Tensor:
    """Patches of tiles after a class's token, with their places: (N, P, H).

    Source: transformers 5.23, models/clip/modeling_clip.py, CLIPVisionEmbeddings.forward.
    """
    t, width = d.t, d.v.hidden_size
    patches = embedded_patches(d, pixels)
    begun(d, patches, leaf)
    tiles = t.view(patches, (tile_count(d), tile_patches(d), width))
    joined = [class_first(t, d.weights.loose["class"], tiles)]
    t.kernel("gather", d.weights.tensors[1].dtype, 0, 2 * d.weights.tensors[1].bytes)
    return add(t, joined[0], d.weights.tensors[1])


def class_first(t: Tape, token: Tensor, tiles: Tensor) -> Tensor:
    """`cat([token.expand(N, 1, H), tiles], dim=1)`: its gradients are views; autocast casts both to the wider dtype."""
    dtype = promoted(token.dtype, tiles.dtype)
    if t.autocast:
        token, tiles = cast(t, token, dtype), cast(t, tiles, dtype)
    count, places, width = tiles.shape
    shape, inner, own = (count, places + 1, width), tiles.shape, token.shape
    t.kernel("elementwise", dtype, 0, 2 * tiles.bytes)
    needs = token.needs_grad, tiles.needs_grad

    def backward(g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        g_token = t.empty(own, g.dtype) if needs[0] else None
        g_tiles = Tensor(inner, g.dtype, g.buffer) if needs[1] else None
        return g_token, g_tiles

    return t.op((token, tiles), shape, dtype, backward)


def run_blocks(d: Tower, x: Tensor, block: Block) -> tuple[Tensor, Tensor]:
    """x (N, P, H) through all blocks: what tokens are made of, and what leaves the last block."""
    first = read = x  # the encoder's argument keeps its name
    for index, (kind, _) in enumerate(block_plan(d.v)):
        d.enter(index)
        x = _run(d, x, block, d.weights.blocks[index])
        if not kind.unread:
            read = x
    d.enter(-1)
    del first
    return read, x


def _run(d: Tower, x: Tensor, block: Block, w: BlockWeights) -> Tensor:
    """A block, checkpointed where the layers are."""
    t = d.t
    if d.recipe.gradient_checkpointing and t.grad_enabled:
        return d.stack.checkpoint(t, lambda h: block(d, h, w), x, d.recipe.reentrant, False)
    return block(d, x, w)


def activated(t: Tape, kind: str, x: Tensor) -> Tensor:
    """The activation of x; quick_gelu is `x * sigmoid(1.702 * x)`."""
    if kind == "quick_gelu":
        return mul(t, x, unary(t, scale(t, x), "output"))
    return activation(t, kind, x)


def plain_mlp(d: Tower, x: Tensor, w: BlockWeights) -> Tensor:
    """Two linear layers, an activation between them."""
    hidden = [linear(d.t, x, w.linears["fc1"])]
    hidden.append(activated(d.t, d.v.activation, hidden.pop()))
    return linear(d.t, hidden[0], w.linears["fc2"])


def projected(d: Tower, x: Tensor) -> Tensor:
    """The projector's two linear layers, GELU between them: (..., O)."""
    t, around = d.t, d.weights.around
    hidden = [linear(t, x, around["linear_1"])]
    hidden.append(activated(t, "gelu", hidden.pop()))
    return linear(t, hidden[0], around["linear_2"])


def shuffled(d: Tower, x: Tensor) -> Tensor:
    """Squares of a tile's patches (N, P, H) side by side: (N, tokens, squares); columns are merged, then rows.

    Source: models/internvl/modeling_internvl.py, InternVLModel.pixel_shuffle.
    """
    t, merge = d.t, d.v.merge_size
    tiles, patches, width = x.shape
    x = copy(t, regathered(t, x), (tiles, patches // merge, width * merge))
    return copy(t, regathered(t, x), (tiles, patches // merge**2, width * merge**2))
