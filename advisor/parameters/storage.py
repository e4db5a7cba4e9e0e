"""In which dtype or quantized form each tensor of a model is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from math import ceil, prod
from typing import Literal, NamedTuple

from advisor.architectures import architecture_of
from advisor.blocks import ITEM_BYTES
from advisor.checkpoints import Quantization
from advisor.libraries import Libraries, libraries_of
from advisor.parameters.layer_inputs import left_whole
from advisor.parameters.layers import choosing_flags, kinds_of, layer_groups, part_of
from advisor.parameters.modules import INDEX_WEIGHTS, layer_linears, own_parameters
from advisor.parameters.token_mixers import STEPS, Parameter
from advisor.specs import ModelSpec, Recipe

QUANTIZATION_BLOCK = 64
NESTED_BLOCK = 256


def other_dtype(recipe: Recipe) -> str:
    """The dtype of everything bitsandbytes does not quantize: fp32 after peft's k-bit preparation."""
    return "float32" if recipe.is_quantized and recipe.kbit_upcast else recipe.base_dtype


def layer_quant(m: ModelSpec, recipe: Recipe) -> Quantization:
    """How the linear layers of the decoder are stored.

    transformers replaces nn.Linear and Conv1D, since 5.5 no subclass of the former. Source: transformers 5.4, 5.5 and
    5.23, integrations/bitsandbytes.py, replace_with_bnb_linear.
    """
    own = architecture_of(m.architecture).linears_stay_unquantized
    return "none" if own and libraries_of(recipe.stack).transformers >= (5, 5) else recipe.quant


def quantized_bias_dtype(m: ModelSpec, recipe: Recipe, name: str) -> str:
    """The dtype that a quantized layer's bias takes in the first forward pass, for good.

    In 8 bits that of its first input: fp32 after k-bit preparation, but attention's output, and what Falcon Mamba's
    norms without weights make of a product. In 4 bits the one that it computes in, before bitsandbytes 0.50 as in 8.
    Source: bitsandbytes 0.49 and 0.50, nn/modules.py, Linear4bit.forward and Linear8bitLt.forward.
    """
    older = recipe.quant == "int8" or (
        recipe.quant in ("nf4", "fp4") and libraries_of(recipe.stack).bitsandbytes < (0, 50)
    )
    normed = name == STEPS and m.recurrence is not None and m.recurrence.step_norms == "unit"
    of_product = recipe.autocast and (name == m.out_name or normed)
    return "float32" if older and recipe.kbit_upcast and not of_product else recipe.base_dtype


def own_quant(p: Parameter, m: ModelSpec, recipe: Recipe) -> Quantization:
    """How a layer's own parameter is stored: stacks of experts in 4 bits where Unsloth loads them, or where asked.

    Source: unsloth_zoo 2026.10.9, temporary_patches/moe_utils_bnb4bit.py, and gpt_oss.py, GptOssExpertsBnb4bit (one
    linear layer an expert, of the same bytes but for the tables); bitsandbytes 0.50, nn/parametrize.py,
    replace_parameter_4bit; elsewhere bitsandbytes passes them over.
    """
    stacked = len(p.shape) == 3 and p.shape[1] > 1 and m.mlp in ("experts", "oss_experts")  # no convolution's (C, 1, K)
    stacked &= recipe.quant in ("nf4", "fp4")
    return recipe.quant if stacked and experts_made(recipe) != "never" else "none"


def experts_made(recipe: Recipe) -> Literal["never", "twice", "once"]:
    """How often 16-bit stacks of experts are made of those in 4 bits: for each product, or once in a forward pass."""
    if libraries_of(recipe.stack).code == "unsloth":
        return "twice"
    return "once" if recipe.quantize_experts else "never"


def loads_experts(libraries: Libraries) -> bool:
    """Whether experts that a checkpoint has in 4 or 8 bits are loaded so: one by one, or by Unsloth's own code."""
    return libraries.transformers < (5, 0) or libraries.code == "unsloth"


def unquantized_name(m: ModelSpec) -> str:
    """The linear layer of the last decoder layer that transformers leaves in 16 bits, or ''.

    It skips the module of the model's last parameter, meant to be the head. OLMo's norms have no parameters: where
    its head is tied, that is the last MLP. Source: transformers/quantizers/base.py, get_keys_to_not_convert.
    """
    return m.mlp_names[-1] if m.tie_word_embeddings and not m.norm_weight else ""


def whole_linears(m: ModelSpec) -> tuple[tuple[str, ...], ...]:
    """For each layer, the linear layers that a quantized base has in 16 bits: those of its checkpoint, or of the last.

    () for none in any layer. A list in a checkpoint replaces transformers' own choice. Source: transformers 5.23,
    quantizers/base.py, get_modules_to_not_convert.
    """
    if m.checkpoint is not None and m.checkpoint.whole:
        return m.checkpoint.whole
    if m.index_heads:  # GlmMoeDsaPreTrainedModel._keep_in_fp32_modules, whose names are left out whatever the dtype
        return tuple((INDEX_WEIGHTS,) if chooses else () for chooses in choosing_flags(m))
    if left := left_whole(m):
        return (left,) * m.num_hidden_layers
    name = unquantized_name(m)
    return (*((),) * (m.num_hidden_layers - 1), (name,)) if name else ()


@lru_cache(maxsize=256)
def whole_counts(m: ModelSpec) -> Mapping[tuple[ModelSpec, str], int]:
    """How many layers have a linear layer in 16 bits, by the model as they see it and the layer's name."""
    whole = whole_linears(m)
    parts = [part_of(m, kind) for kind in kinds_of(m)] if whole else []
    return Counter((part, name) for part, names in zip(parts, whole, strict=True) for name in names)


def quantized_store_bytes(elements: int, quant: str, double_quant: bool) -> tuple[int, list[int]]:
    """(packed weight bytes, sizes of the constants' tensors) of one weight that bitsandbytes stores.

    nf4/fp4: half a byte, one fp32 absmax per 64, or with double quantization one uint8 per 64, one fp32 per 256 of
    those and an fp32 offset; tables of 16 and (nested) 256 fp32. int8: one byte and one fp32 per output row (the
    rows are added by the caller). Source: bitsandbytes 0.50, functional.py, quantize_4bit.
    """
    if quant == "int8":
        return elements, []
    packed = -(-elements // 2)
    blocks = -(-elements // QUANTIZATION_BLOCK)
    if not double_quant:
        return packed, [4 * blocks, 16 * 4]
    return packed, [blocks, 4 * -(-blocks // NESTED_BLOCK), 256 * 4, 16 * 4, 4]


def store_bytes(in_features: int, out_features: int, recipe: Recipe) -> tuple[int, list[int]]:
    """(packed weight bytes, sizes of the constants' tensors) of one linear layer as the recipe's base stores it.

    gptq: int32 words of codes down each column and of zero points along each row of groups, fp16 scales, the group of
    each input, and two tables of shifts. Source: gptqmodel 7.7, nn_modules/qlinear/__init__.py, GPTQQuantLinear and
    PackableQuantLinear. awq: the same without groups and tables, codes along the rows (AWQuantLinear there).
    hqq: codes in bytes (3 bits: ten in 32), scale and zero of each group in the dtype it computes in. Source: hqq
    0.2.8, core/quantize.py, Quantizer.quantize, and bitpack.py. fp8: a byte, and an fp32 scale for each square of
    weights. Source: transformers 5.23, integrations/finegrained_fp8.py, FP8Linear.
    """
    elements, bits = in_features * out_features, recipe.quant_bits
    group = recipe.quant_group or in_features
    groups = ceil(in_features / group)
    words = 4 * ceil(out_features * bits / 32)
    if recipe.quant == "gptq":
        shifts = 4 * (36 if bits == 3 else 32 // bits)
        constants = [groups * words, 2 * groups * out_features, 4 * in_features, shifts, shifts]
        return 4 * ceil(in_features * bits / 32) * out_features, constants
    if recipe.quant == "awq":
        return in_features * words, [groups * words, 2 * groups * out_features]
    if recipe.quant == "hqq":
        blocks = ceil(elements / group)
        packed = 4 * ceil(blocks / 10) * group if bits == 3 else elements * _HQQ_BITS.get(bits, 8) // 8
        return packed, [blocks * ITEM_BYTES[recipe.base_dtype]] * 2
    if recipe.quant == "fp8":
        side = recipe.quant_group or max(in_features, out_features)
        return elements, [4 * ceil(in_features / side) * ceil(out_features / side)]
    packed, constants = quantized_store_bytes(elements, recipe.quant, recipe.double_quant)
    return packed, constants or [4 * out_features]


_HQQ_BITS = {1: 1, 2: 2, 4: 4}
"""Bits that a code takes where they are not 8: hqq 0.2.8, core/quantize.py, Quantizer.bit_to_packing."""


class Unquantized(NamedTuple):
    """Weights of the layers that bitsandbytes leaves alone: their bytes, and their share of the parameters there."""

    bytes: int
    share: float


def unquantized_layers(m: ModelSpec, recipe: Recipe) -> Unquantized:
    """What a quantized base has in 16 bits (fp32 after k-bit preparation): fused experts, special linear classes.

    And what its checkpoint leaves out.

    Ignores: biases and norms, which are vectors.
    """
    counts = whole_counts(m)
    left = every = size = 0
    for part, layers in layer_groups(m):
        shapes = layer_linears(part)
        linears = sum(shape.weight_count for shape in shapes.values())
        own = list(own_parameters(part).values())
        plain = [p for p in own if own_quant(p, part, recipe) == "none"]
        stays = layers * (sum(prod(p.shape) for p in plain) + (linears if layer_quant(part, recipe) == "none" else 0))
        if counts:
            stays += sum(shape.weight_count * counts.get((part, name), 0) for name, shape in shapes.items())
        left += stays
        size += stays * ITEM_BYTES[other_dtype(recipe)]
        every += layers * (linears + sum(prod(p.shape) for p in own))
    return Unquantized(size, left / every)
