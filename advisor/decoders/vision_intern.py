"""The tower and the projector of InternVL 3 and 3.5.

Source: transformers 5.23, models/internvl/modeling_internvl.py. Locals live as long as they do there.
"""

from __future__ import annotations

from advisor.decoders.adapters import linear
from advisor.decoders.vision import BlockWeights, Seen, Tower
from advisor.decoders.vision_attention import attended_tiles
from advisor.decoders.vision_patches import pixels_of
from advisor.decoders.vision_tiles import (
    plain_mlp,
    projected,
    run_blocks,
    shuffled,
    tile_count,
    tile_patches,
    with_class,
)
from advisor.tape.graph import Tensor
from advisor.tape.layout import part
from advisor.tape.ops import add, mul


def internvl_tower(d: Tower, leaf: bool) -> Seen:
    """The tokens of a micro-batch's images; `leaf`: checkpointing makes embedded inputs require gradients.

    Source: InternVLModel.get_image_features.
    """
    pixels = pixels_of(d)
    first = with_class(d, pixels, leaf)
    _, last = run_blocks(d, first, _block)
    del first
    x = part(d.t, last, (tile_count(d), tile_patches(d), d.v.hidden_size))
    x = shuffled(d, x)
    x = d.weights.norms["merger"](d.t, x)
    tokens = projected(d, x)
    return Seen(tokens, [], [last, tokens])


def _block(d: Tower, x: Tensor, w: BlockWeights) -> Tensor:
    """x (N, P, H) -> (N, P, H): what attention and MLP make is scaled by a learned vector each.

    Source: InternVLVisionLayer.forward.
    """
    t, loose = d.t, w.loose
    attended = _attention(d, w.norms[0](t, x), w)
    attended = mul(t, loose["lambda_1"], attended)
    x = add(t, attended, x)
    h = w.norms[1](t, x)
    h = plain_mlp(d, h, w)
    h = mul(t, loose["lambda_2"], h)
    out = add(t, h, x)
    del attended
    return out


def _attention(d: Tower, x: Tensor, w: BlockWeights) -> Tensor:
    """Source: InternVLVisionAttention.forward."""
    t, linears = d.t, w.linears
    q, k, v = (linear(t, x, linears[name]) for name in ("q_proj", "k_proj", "v_proj"))
    t.label("attention")
    out = attended_tiles(d, q, k, v)
    return linear(t, out, linears["projection_layer"])
