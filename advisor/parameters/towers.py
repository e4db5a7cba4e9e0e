"""Which parameters a vision tower and its projector have, and what a recipe does with them.

Names are those of transformers 5.23, models/*/modeling_*.py; peft matches the end of a module's path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from math import prod
from typing import NamedTuple

from advisor.checkpoints import STORES, Quantization
from advisor.libraries import libraries_of
from advisor.specs import LinearShape, ModelSpec, Recipe, VisionSpec


class TowerParts(NamedTuple):
    """What a tower and its projector consist of."""

    block: Mapping[str, LinearShape]  # of each block, in the order of the forward
    around: Mapping[str, LinearShape]  # before and after the blocks
    block_vectors: tuple[int, ...]  # widths of the norms' and other vectors of each block
    vectors: tuple[int, ...]  # of the norms around, and biases outside linear layers
    tensors: tuple[tuple[int, ...], ...]  # kernels of patches, tables of positions
    buffers: tuple[int, ...] = ()  # bytes of each
    base_buffers: tuple[int, ...] = ()  # numbers of each, in the base's dtype
    whole: str = ""  # a linear layer that no quantization reaches
    norms: Mapping[str, int] = {}  # around the blocks, by their width; their vectors are among `vectors`
    loose: Mapping[str, int] = {}  # other vectors around: the convolution's bias, a class's token
    block_norms: tuple[int, ...] = ()  # widths of the norms of each block, in the order of the forward
    block_loose: Mapping[str, int] = {}  # other vectors of each block
    unread: frozenset[str] = frozenset()  # norms whose output nothing reads


def vectors_of_norm(v: VisionSpec) -> int:
    """A weight, and a bias unless the tower's norms are RMSNorms."""
    return 2 if v.code.norm == "layer" else 1


def _with_vectors(v: VisionSpec, parts: TowerParts) -> TowerParts:
    """`parts` with the vectors of its norms, two a block unless they are listed, and of what else has one."""
    parts = parts if parts.block_norms else parts._replace(block_norms=(v.hidden_size,) * 2)
    each = vectors_of_norm(v)
    inside = (*(width for width in parts.block_norms for _ in range(each)), *parts.block_loose.values())
    around = (*(width for width in parts.norms.values() for _ in range(each)), *parts.loose.values())
    return parts._replace(block_vectors=inside, vectors=around)


def _linear(name: str, in_features: int, out_features: int, bias: bool = True) -> LinearShape:
    return LinearShape(name=name, in_features=in_features, out_features=out_features, bias=bias)


def _named(*shapes: LinearShape) -> dict[str, LinearShape]:
    return {shape.name: shape for shape in shapes}


def _frequencies(v: VisionSpec) -> tuple[int, int]:
    """The frequencies of rotary positions on two axes, in fp32, and what they were at first."""
    return (4 * (v.head_dim // 4),) * 2


def _qwen_merger(v: VisionSpec, path: str, first: str, second: str) -> list[LinearShape]:
    return [
        _linear(f"{path}.{first}", v.merged_size, v.merged_size),
        _linear(f"{path}.{second}", v.merged_size, v.output_size),
    ]


def _qwen2(v: VisionSpec) -> TowerParts:
    h, inner = v.hidden_size, v.intermediate_size
    attention = (_linear("qkv", h, 3 * h), _linear("proj", h, h))
    mlp = (_linear("fc1", h, inner), _linear("fc2", inner, h))
    kernel = (h, v.patch_width)
    merger = _named(*_qwen_merger(v, "mlp", "0", "2"))
    parts = TowerParts(_named(*attention, *mlp), merger, (), (), (kernel,), _frequencies(v), norms={"merger": h})
    return _with_vectors(v, parts)


def _qwen2_5(v: VisionSpec) -> TowerParts:
    h, inner = v.hidden_size, v.intermediate_size
    attention = (_linear("qkv", h, 3 * h), _linear("proj", h, h))
    mlp = (_linear("gate_proj", h, inner), _linear("up_proj", h, inner), _linear("down_proj", inner, h))
    kernel = (h, v.patch_width)
    merger = _named(*_qwen_merger(v, "mlp", "0", "2"))
    parts = TowerParts(_named(*attention, *mlp), merger, (), (), (kernel,), _frequencies(v), norms={"merger": h})
    return _with_vectors(v, parts)


def _qwen3(v: VisionSpec) -> TowerParts:
    h, inner = v.hidden_size, v.intermediate_size
    attention = (_linear("qkv", h, 3 * h), _linear("proj", h, h))
    mlp = (_linear("linear_fc1", h, inner), _linear("linear_fc2", inner, h))
    paths = ["merger", *(f"deepstack_merger_list.{index}" for index in range(len(v.deepstack_layers)))]
    around = [shape for path in paths for shape in _qwen_merger(v, path, "linear_fc1", "linear_fc2")]
    norms = {"merger": h, **dict.fromkeys(paths[1:], v.merged_size)}
    tensors, block, loose = ((h, v.patch_width), (v.position_rows, h)), _named(*attention, *mlp), {"bias": h}
    parts = TowerParts(block, _named(*around), (), (), tensors, _frequencies(v), norms=norms, loose=loose)
    return _with_vectors(v, parts)


def _clip_block(v: VisionSpec) -> dict[str, LinearShape]:
    """Attention with separate projections and a plain MLP, all with biases: CLIP and SigLIP."""
    h, inner = v.hidden_size, v.intermediate_size
    attention = (_linear(name, h, h) for name in ("q_proj", "k_proj", "v_proj", "out_proj"))
    return _named(*attention, _linear("fc1", h, inner), _linear("fc2", inner, h))


def _gemma3(v: VisionSpec) -> TowerParts:
    h, tensors = v.hidden_size, ((v.hidden_size, v.patch_width), (v.position_rows, v.hidden_size))
    parts = TowerParts(_clip_block(v), {}, (), (), (*tensors, (h, v.output_size)), (8 * v.position_rows,))
    return _with_vectors(v, parts._replace(norms={"post": h}, loose={"bias": h, "soft": h}))


def _llava(v: VisionSpec) -> TowerParts:
    h, out = v.hidden_size, v.output_size
    around = _named(_linear("linear_1", h, out), _linear("linear_2", out, out))
    tensors, norms = ((h, v.patch_width), (v.position_rows, h)), {"pre": h, "pooled": h}
    parts = TowerParts(_clip_block(v), around, (), (), tensors, (8 * v.position_rows,))
    return _with_vectors(v, parts._replace(norms=norms, loose={"class": h}, unread=frozenset(("pooled",))))


def _llava_next(v: VisionSpec) -> TowerParts:
    parts = _llava(v)
    return _with_vectors(v, parts._replace(loose={**parts.loose, "line": v.output_size}))  # ends a row of patches


def _smolvlm(v: VisionSpec) -> TowerParts:
    h = v.hidden_size
    around = _named(_linear("proj", v.merged_size, v.output_size, bias=False))
    tensors = ((h, v.patch_width), (v.position_rows, h))
    parts = TowerParts(_clip_block(v), around, (), (), tensors, norms={"post": h}, loose={"bias": h})
    return _with_vectors(v, parts)


def _pixtral(v: VisionSpec) -> TowerParts:
    h, inner, out = v.hidden_size, v.intermediate_size, v.output_size
    attention = [_linear(name, h, h, bias=False) for name in ("q_proj", "k_proj", "v_proj", "o_proj")]
    mlp = [_linear(name, h, inner, bias=False) for name in ("gate_proj", "up_proj")]
    block = _named(*attention, *mlp, _linear("down_proj", inner, h, bias=False))
    around = _named(_linear("linear_1", h, out), _linear("linear_2", out, out))
    parts = TowerParts(block, around, (), (), ((h, v.patch_width),), (2 * v.head_dim,) * 2, norms={"pre": h})
    return _with_vectors(v, parts)


def _mistral3(v: VisionSpec) -> TowerParts:
    h, out, parts = v.hidden_size, v.output_size, _pixtral(v)
    merging = _linear("patch_merger.merging_layer", v.merged_size, h, bias=False)
    around = _named(merging, _linear("linear_1", h, out, bias=False), _linear("linear_2", out, out, bias=False))
    return _with_vectors(v, parts._replace(around=around, norms={**parts.norms, "merger": h}))


def _internvl(v: VisionSpec) -> TowerParts:
    h, inner, out = v.hidden_size, v.intermediate_size, v.output_size
    attention = [_linear(name, h, h, bias=v.qkv_bias) for name in ("q_proj", "k_proj", "v_proj")]
    mlp = (_linear("fc1", h, inner), _linear("fc2", inner, h))
    block = _named(*attention, _linear("projection_layer", h, h), *mlp)
    around = _named(_linear("linear_1", v.merged_size, out), _linear("linear_2", out, out))
    tensors, loose = ((h, v.patch_width), (v.position_rows, h)), {"class": h, "bias": h}
    scales, norms = {"lambda_1": h, "lambda_2": h}, {"merger": v.merged_size}
    parts = TowerParts(block, around, (), (), tensors, norms=norms, loose=loose, block_loose=scales)
    return _with_vectors(v, parts)


def _gemma4(v: VisionSpec) -> TowerParts:
    h, inner, head = v.hidden_size, v.intermediate_size, v.head_dim
    sizes = {**dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), (h, h)), "gate_proj": (h, inner)}
    sizes |= {"up_proj": (h, inner), "down_proj": (inner, h)}
    block = _named(*(_linear(f"{name}.linear", *pair, bias=False) for name, pair in sizes.items()))
    projections = (("input_proj", v.patch_width, h), ("embedding_projection", h, v.output_size))
    around = _named(*(_linear(*one, bias=False) for one in projections))
    clipped = (1,) * 4 * len(block) * v.num_hidden_layers if v.clips else ()
    parts = TowerParts(
        block,
        around,
        (),
        (),
        ((2, v.position_rows, h),),
        _frequencies(v),
        (*clipped, *((h, h) if v.standardizes else ())),
        "embedding_projection",  # the model's last parameter: transformers/quantizers/base.py, get_keys_to_not_convert
        block_norms=(h, head, head, h, h, h),
    )
    return _with_vectors(v, parts)


def _mllama(v: VisionSpec) -> TowerParts:
    h, inner, places = v.hidden_size, v.intermediate_size, v.position_rows
    attention = [_linear(name, h, h, bias=False) for name in ("q_proj", "k_proj", "v_proj", "o_proj")]
    block = _named(*attention, _linear("fc1", h, inner), _linear("fc2", inner, h))
    around = _named(_linear("multi_modal_projector", (1 + len(v.joined_blocks)) * h, v.output_size))
    shapes, tiles = v.tile_shapes + 1, v.most_tiles * h
    tables = (shapes, tiles * places), (shapes, tiles), (shapes, tiles)
    gates = ["places", "before", "after"]
    gates += [f"{part}_{index}" for index in range(v.global_blocks) for part in ("attention", "mlp")]
    parts = TowerParts(block, around, (), (), ((h, v.patch_width), (places, h), *tables), norms={"pre": h, "post": h})
    return _with_vectors(v, parts._replace(loose={"class": h, **dict.fromkeys(gates, 1)}))


PARTS: dict[str, Callable[[VisionSpec], TowerParts]] = {
    "gemma3": _gemma3,
    "gemma4": _gemma4,
    "internvl": _internvl,
    "llava": _llava,
    "llava_next": _llava_next,
    "mistral3": _mistral3,
    "mllama": _mllama,
    "pixtral": _pixtral,
    "qwen2": _qwen2,
    "qwen2_5": _qwen2_5,
    "qwen3": _qwen3,
    "smolvlm": _smolvlm,
}
"""By TowerRow.parts."""


@lru_cache(maxsize=64)
def tower_parts(v: VisionSpec) -> TowerParts:
    """The parts of a tower: the same whatever images it reads."""
    return PARTS[v.code.parts](v)


def tower_parameter_count(v: VisionSpec) -> int:
    """All parameters of a tower and its projector."""
    parts = tower_parts(v)
    block = sum(map(_count, parts.block.values())) + sum(parts.block_vectors)
    around = sum(map(_count, parts.around.values())) + sum(parts.vectors) + sum(map(prod, parts.tensors))
    return v.num_hidden_layers * block + around


def _count(shape: LinearShape) -> int:
    return shape.weight_count + (shape.out_features if shape.bias else 0)


def tower_quant(v: VisionSpec, recipe: Recipe, name: str) -> Quantization:
    """How a linear layer of a tower is stored: bitsandbytes takes all but the head, Unsloth leaves towers out.

    Checkpoints that are quantized already are taken to leave them in 16 bits. Source: unsloth_zoo 2026.10.9,
    peft_utils.py, SKIP_QUANTIZATION_MODULES.
    """
    if not recipe.is_quantized or libraries_of(recipe.stack).code == "unsloth" or name == tower_parts(v).whole:
        return "none"
    return recipe.quant if STORES[recipe.quant].by_bitsandbytes else "none"


def tower_trained(recipe: Recipe) -> bool:
    """Whether all of the tower is trained: by full fine-tuning of the whole model, unless it is frozen."""
    return recipe.method == "full" and recipe.train_tower and not recipe.trained_layers


def tower_linears(v: VisionSpec, read: bool = False) -> list[tuple[LinearShape, int]]:
    """Every linear layer, or those that tokens are made of, and how often it occurs."""
    parts, blocks = tower_parts(v), v.num_hidden_layers - v.unread_blocks * read
    return [(one, blocks) for one in parts.block.values()] + [(one, 1) for one in parts.around.values()]


def tower_shapes(v: VisionSpec, read: bool = False) -> list[tuple[tuple[int, ...], int]]:
    """Every other parameter, or those that tokens are made of, and how often it occurs."""
    parts, blocks = tower_parts(v), v.num_hidden_layers - v.unread_blocks * read
    around = list(parts.vectors)
    for name in parts.unread if read else ():
        for _ in range(vectors_of_norm(v)):
            around.remove(parts.norms[name])
    vectors = [((width,), blocks) for width in parts.block_vectors]
    return [*vectors, *(((width,), 1) for width in around), *((shape, 1) for shape in parts.tensors)]


def sees_images(m: ModelSpec) -> bool:
    """Whether the rows of the job have images."""
    return m.vision is not None and bool(m.vision.row)


def picture_bytes(m: ModelSpec, batch: int, length: int) -> list[int]:
    """Sizes of what a batch holds beside its tokens: pixels in fp32, and what TowerRow.beside says, in int64.

    Source: transformers 5.23, models/qwen2_vl/processing_qwen2_vl.py: pixel_values, image_grid_thw, mm_token_type_ids;
    models/{pixtral,llava_next,smolvlm}/image_processing_*.py: image_sizes, pixel_attention_mask;
    models/gemma3/processing_gemma3.py: token_type_ids; models/gemma4/image_processing_gemma4.py: image_position_ids.
    """
    v = m.vision
    if v is None or not v.row:
        return []
    images, pixels = batch * len(v.row), batch * v.row_pixels
    beside = {
        "grids": [24 * images, 8 * batch * length],
        "sizes": [16 * images],
        "mask": [8 * pixels // v.channels],
        "kinds": [8 * batch * length],
        "tiles": [8 * images, 8 * images * v.most_tiles, 8 * images * v.most_tiles * length],
        "places": [16 * images * v.most_patches, 8 * batch * length],
    }
    return [4 * pixels, *beside.get(v.code.beside, [])]
