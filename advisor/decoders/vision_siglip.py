"""SigLIP's tower and Gemma 3's projector.

Source: transformers 5.23, models/{siglip,gemma3}/modeling_*.py. Locals live as long as they do there.
"""

from __future__ import annotations

from advisor.decoders.norms import rms_norm_unit_offset
from advisor.decoders.vision import Seen, Tower
from advisor.decoders.vision_clip import clip_block
from advisor.decoders.vision_patches import begun, embedded_patches, pixels_of
from advisor.decoders.vision_tiles import run_blocks, tile_count, tile_patches
from advisor.tape.graph import Tensor
from advisor.tape.layout import copy
from advisor.tape.ops import add, batched_matmul, cast, embedding
from advisor.tape.tape import Tape


def siglip_embedded(d: Tower, leaf: bool) -> Tensor:
    """Patches of tiles with their places: (N, P, H), laid out feature by feature, as the convolution leaves them.

    Source: models/siglip/modeling_siglip.py, SiglipVisionEmbeddings.forward.
    """
    t, table = d.t, d.weights.tensors[1]
    patches = embedded_patches(d, pixels_of(d))
    begun(d, patches, leaf)
    tiles = t.view(patches, (tile_count(d), tile_patches(d), d.v.hidden_size))
    return add(t, tiles, embedding(t, table, 1, tile_patches(d)))


def gemma3_tower(d: Tower, leaf: bool) -> Seen:
    """The tokens of a micro-batch's images; `leaf`: checkpointing makes embedded inputs require gradients.

    Source: models/gemma3/modeling_gemma3.py, Gemma3Model.get_image_features.
    """
    t = d.t
    _, last = run_blocks(d, siglip_embedded(d, leaf), clip_block)
    state = d.weights.norms["post"](t, last)
    del last
    tokens = _projected(d, state)
    return Seen(tokens, [], [state, tokens])


def _projected(d: Tower, x: Tensor) -> Tensor:
    """Squares of patches averaged, normed and projected: x (N, P, H) -> (F, O).

    Source: models/gemma3/modeling_gemma3.py, Gemma3MultiModalProjector.forward.
    """
    t, v = d.t, d.v
    pooled = _averaged(t, copy(t, x, x.shape), (d.features, v.hidden_size))
    normed = rms_norm_unit_offset(t, pooled, d.weights.loose["soft"])
    out = batched_matmul(t, normed, d.weights.tensors[2], (d.features, v.output_size), v.hidden_size)
    return cast(t, out, x.dtype)


def _averaged(t: Tape, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`nn.AvgPool2d`: keeps its input."""
    full, dtype = x.shape, x.dtype
    t.kernel("reduce", dtype, 0, x.bytes)

    def backward(g: Tensor) -> tuple[Tensor]:
        out = t.empty(full, dtype)
        t.kernel("elementwise", dtype, 0, g.bytes + out.bytes)
        return (out,)

    return t.op((x,), shape, dtype, backward, (x,))
