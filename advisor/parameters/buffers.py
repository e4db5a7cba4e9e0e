"""Tensors of a model that are neither trained nor weights: rotary frequencies, masks, what balances experts."""

from __future__ import annotations

from advisor.blocks import ITEM_BYTES
from advisor.parameters.layers import layer_groups
from advisor.specs import ModelSpec, Recipe

BALANCED = frozenset({"deepseek_v3", "dots1", "glm4_moe", "glm4_moe_lite"})
"""Their routers add a number for each expert to the scores by which experts are picked."""


def rope_kinds(m: ModelSpec) -> frozenset[bool]:
    """For which kinds of layers, sliding or not, there are tables of their own: {False} is one for all.

    Gemma 3 and OLMo 3 have tables for each kind; Falcon's code makes them with ALiBi too and does not read them,
    GPT-J's makes them in every layer.
    """
    if (m.position != "rope" and m.architecture != "falcon") or m.architecture == "gptj":
        return frozenset()
    if m.architecture.startswith(("gemma3", "gemma4", "olmo3")) and m.sliding_window:
        return frozenset(m.sliding_layers or (True,))
    return frozenset({False})


def rope_width(m: ModelSpec, sliding: bool) -> int:
    """How many features of a head the tables of such layers turn."""
    return m.global_head_dim if m.global_head_dim and not sliding else m.rotary_dim or m.head_dim


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
        found.append((ITEM_BYTES[recipe.base_dtype], m.num_hidden_layers))
    if m.activation == "xielu":  # its beta and eps
        found.append((ITEM_BYTES[recipe.base_dtype], 2 * m.num_hidden_layers))
    return found
