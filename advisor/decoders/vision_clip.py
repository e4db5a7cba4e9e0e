"""CLIP's tower and the projectors of LLaVA 1.5 and LLaVA-NeXT.

Source: transformers 5.23, models/{clip,llava,llava_next}/modeling_*.py. Locals live as long as they do there.
"""

from __future__ import annotations

from advisor.decoders.adapters import linear
from advisor.decoders.vision import BlockWeights, Seen, Tower
from advisor.decoders.vision_attention import attended_tiles
from advisor.decoders.vision_patches import pixels_of
from advisor.decoders.vision_tiles import plain_mlp, projected, run_blocks, tile_count, tile_patches, with_class
from advisor.tape.graph import Tensor
from advisor.tape.layout import copy, part, regathered
from advisor.tape.ops import add


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
