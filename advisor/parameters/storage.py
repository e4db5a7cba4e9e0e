"""In which dtype or quantized form each tensor of a model is stored."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from advisor.architectures import architecture_of
from advisor.blocks import ITEM_BYTES
from advisor.libraries import libraries_of
from advisor.parameters.layers import layer_groups
from advisor.parameters.modules import Parameter, layer_linears, own_parameters
from advisor.specs import ModelSpec, Quantization, Recipe

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
    """The dtype that a 4-bit layer's bias takes in the first forward pass, for good: the one that it computes in.

    Before bitsandbytes 0.50 that of the first input: fp32 after k-bit preparation, but attention's output.
    Source: bitsandbytes 0.49 and 0.50, nn/modules.py, Linear4bit.forward.
    """
    older = recipe.quant != "int8" and libraries_of(recipe.stack).bitsandbytes < (0, 50)
    attended = name == m.out_name and recipe.autocast
    return "float32" if older and recipe.kbit_upcast and not attended else recipe.base_dtype


def own_quant(p: Parameter, m: ModelSpec, recipe: Recipe) -> Quantization:
    """How a layer's own parameter is stored: the stacks of experts in 4 bits where Unsloth's code loads them.

    Source: unsloth_zoo 2026.10.9, temporary_patches/moe_utils_bnb4bit.py, and gpt_oss.py, GptOssExpertsBnb4bit (one
    linear layer an expert, of the same bytes but for the tables); elsewhere bitsandbytes passes them over.
    """
    stacked = len(p.shape) == 3 and m.mlp in ("experts", "oss_experts") and recipe.quant in ("nf4", "fp4")
    return recipe.quant if stacked and libraries_of(recipe.stack).code == "unsloth" else "none"


def unquantized_name(m: ModelSpec) -> str:
    """The linear layer of the last decoder layer that transformers leaves in 16 bits, or ''.

    It skips the module of the model's last parameter, meant to be the head. OLMo's norms have no parameters: where
    its head is tied, that is the last MLP. Source: transformers/quantizers/base.py, get_keys_to_not_convert.
    """
    return m.mlp_names[-1] if m.tie_word_embeddings and not m.norm_weight else ""


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


class Unquantized(NamedTuple):
    """Weights of the layers that bitsandbytes leaves alone: their bytes, and their share of the parameters there."""

    bytes: int
    share: float


def unquantized_layers(m: ModelSpec, recipe: Recipe) -> Unquantized:
    """What a quantized recipe leaves in 16 bits (fp32 after k-bit preparation): fused experts, special linear classes.

    Ignores: biases and norms, which are vectors.
    """
    left = whole = size = 0
    for part, layers in layer_groups(m):
        linears = sum(shape.weight_count for shape in layer_linears(part).values())
        own = list(own_parameters(part).values())
        plain = [p for p in own if own_quant(p, part, recipe) == "none"]
        stays = sum(prod(p.shape) for p in plain) + (linears if layer_quant(part, recipe) == "none" else 0)
        left += layers * stays
        whole += layers * (linears + sum(prod(p.shape) for p in own))
        size += layers * stays * ITEM_BYTES[other_dtype(recipe)]
    return Unquantized(size, left / whole)
