"""Tensors of a model that are neither trained nor weights: rotary frequencies, masks, what balances experts."""

from __future__ import annotations

from advisor.layers import layer_groups
from advisor.specs import DTYPE_BYTES, ModelSpec, Recipe
from advisor.tape.rope import rope_kinds, rope_width

BALANCED = frozenset({"deepseek_v3", "dots1", "glm4_moe", "glm4_moe_lite"})
"""Their routers add a number for each expert to the scores by which experts are picked."""


def buffer_bytes(m: ModelSpec, recipe: Recipe) -> list[tuple[int, int]]:
    """(bytes of a buffer, how many of that size) for all of the model's buffers."""
    found = [(4 * (rope_width(m, sliding) // 2), 2) for sliding in sorted(rope_kinds(m))]
    if m.architecture == "gpt_bigcode":  # a causal mask that its attention no longer reads
        found.append((m.max_position_embeddings**2, 1))
    if m.architecture in BALANCED:
        found += [(4 * part.num_experts, layers) for part, layers in layer_groups(m) if part.num_experts]
    if m.architecture == "gptj":  # sines and cosines of every position, in every layer
        found.append((4 * m.max_position_embeddings * (m.rotary_dim or m.head_dim), m.num_hidden_layers))
    if m.embedding_multiplier and m.architecture.startswith("gemma"):
        found.append((4, 1))
    if m.architecture == "gemma4_text":  # what each layer's output is multiplied with
        found.append((DTYPE_BYTES[recipe.base_dtype], m.num_hidden_layers))
    if m.activation == "xielu":  # its beta and eps
        found.append((DTYPE_BYTES[recipe.base_dtype], 2 * m.num_hidden_layers))
    return found
