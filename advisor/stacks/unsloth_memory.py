"""What Unsloth asks of the card's free memory, and what its offloading takes of the host's."""

from __future__ import annotations

from math import prod

from advisor.blocks import ITEM_BYTES
from advisor.parameters.layers import layer_groups
from advisor.parameters.modules import layer_linears, outer_parameters, own_parameters
from advisor.parameters.storage import layer_quant, other_dtype, own_quant, quantized_store_bytes
from advisor.specs import ModelSpec, Recipe


def free_bytes(m: ModelSpec, recipe: Recipe, card_bytes: int) -> int:
    """The card's memory without the base weights: the most that can be free at the first loss, and at least 1 GiB.

    Ignores: the CUDA context, adapters and what the first forward pass holds. So splits are at most as large as here.
    """
    other = ITEM_BYTES[other_dtype(recipe)]
    held = sum(prod(one.shape) * other * one.times for one in outer_parameters(m))
    for part, layers in layer_groups(m):
        for own in own_parameters(part).values():
            held += layers * _stored(prod(own.shape), own_quant(own, part, recipe), recipe, other)
        for linear in layer_linears(part).values():
            held += layers * _stored(linear.weight_count, layer_quant(part, recipe), recipe, other)
    return max(1024**3, card_bytes - held)


def _stored(elements: int, quant: str, recipe: Recipe, item_bytes: int) -> int:
    """Bytes of one weight in its store."""
    if quant == "none":
        return elements * item_bytes
    packed, constants = quantized_store_bytes(elements, quant, recipe.double_quant)
    return packed + sum(constants)
