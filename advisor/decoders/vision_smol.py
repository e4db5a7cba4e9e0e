"""The tower and the projector of SmolVLM and SmolVLM2.

Source: transformers 5.23, models/smolvlm/modeling_smolvlm.py. Locals live as long as they do there.
"""

from __future__ import annotations

from advisor.decoders.adapters import linear
from advisor.decoders.vision import Seen, Tower
from advisor.decoders.vision_clip import clip_block
from advisor.decoders.vision_patches import begun, embedded_patches, pixels_of
from advisor.decoders.vision_tiles import run_blocks, shuffled, tile_count, tile_patches
from advisor.tape.graph import Tensor
from advisor.tape.layout import copy, regathered
from advisor.tape.ops import add, embedding


def smolvlm_tower(d: Tower, leaf: bool) -> Seen:
    """The tokens of a micro-batch's images; `leaf`: checkpointing makes embedded inputs require gradients.

    Source: SmolVLMModel.get_image_features, SmolVLMVisionTransformer.forward, SmolVLMConnector.forward.
    """
    t, tiles = d.t, tile_count(d)
    pixels = pixels_of(d)
    pixels = copy(t, pixels, pixels.shape)  # tiles that are not all zeros
    mask = t.empty((tiles, d.v.image_size, d.v.image_size), "int64")  # of the pixels of those tiles
    first = _embedded(d, pixels, leaf)
    _, last = run_blocks(d, first, clip_block)
    last = d.weights.norms["post"](t, last)
    del first
    x = shuffled(d, last)
    projected = linear(t, x, d.weights.around["proj"])
    del pixels, mask
    tokens = regathered(
        t, t.view(projected, (d.features, d.v.output_size))
    )  # a list of rows, whose gradients are joined
    return Seen(copy(t, tokens, tokens.shape), [], [last, projected])


def _embedded(d: Tower, pixels: Tensor, leaf: bool) -> Tensor:
    """Patches with their places: (N, P, H).

    Source: SmolVLMVisionEmbeddings.forward, whose whole output checkpointing makes require a gradient.
    """
    t, tiles, patches, width = d.t, tile_count(d), tile_patches(d), d.v.hidden_size
    x = t.view(embedded_patches(d, pixels), (tiles, patches, width))
    places = t.empty((tiles, patches), "int64")
    x = add(t, x, embedding(t, d.weights.tensors[1], tiles, patches, (places,)))
    begun(d, x, leaf)
    return x
