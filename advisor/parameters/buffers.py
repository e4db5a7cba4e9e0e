"""Tensors of a model that are neither trained nor weights: rotary frequencies, masks, biases that balance experts."""

from __future__ import annotations

from advisor.architectures import architecture_of
from advisor.blocks import ITEM_BYTES
from advisor.libraries import libraries_of
from advisor.parameters.layers import layer_groups
from advisor.parameters.modules import layer_linears
from advisor.parameters.own_weights import embedding_name, trained_groups
from advisor.parameters.replacing import shared_dtype
from advisor.parameters.rotations import INDEX_BYTES
from advisor.parameters.targets import outer_adapters, targets_in
from advisor.specs import ModelSpec, Recipe


def rope_kinds(m: ModelSpec) -> frozenset[bool]:
    """For which kinds of layers, sliding or not, the model makes separate tables: {False} is one for all."""
    made = architecture_of(m.architecture).rope_made
    if (m.position != "rope" and made != "always") or made == "in_layers":
        return frozenset()
    if made == "by_kind" and m.sliding_window:
        return frozenset(m.sliding_layers or (True,))
    return frozenset({False})


def rope_width(m: ModelSpec, sliding: bool) -> int:
    """How many features of a head the tables of such layers rotate."""
    if m.sliding_rotary_dim and sliding:
        return m.sliding_rotary_dim
    return m.global_head_dim if m.global_head_dim not in (0, m.head_dim) and not sliding else m.rotary_dim or m.head_dim


def buffer_bytes(m: ModelSpec, recipe: Recipe) -> list[tuple[int, int]]:
    """(bytes of a buffer, how many of that size) for all of the model's buffers."""
    quirks, version = architecture_of(m.architecture), libraries_of(recipe.stack).transformers
    copies = 2 if version >= (5, 0) else 1  # frequencies, and what they were at first
    found = [(4 * (rope_width(m, sliding) // 2), copies) for sliding in sorted(rope_kinds(m))]
    if quirks.rope_caches_before_4_48 and version < (4, 48):
        width, layers = rope_width(m, False), m.num_hidden_layers
        cached = ITEM_BYTES[recipe.base_dtype] * m.max_position_embeddings * width
        found = [(4 * (width // 2), layers), (cached, 2 * layers)]
    if quirks.position_buffers:
        found.append((8 * m.position_rows, 2))
    if quirks.causal_mask_buffer:
        found.append((m.max_position_embeddings**2, 1))
    if quirks.causal_mask_in_layers and version < (5, 2):
        found.append((m.max_position_embeddings**2, m.num_hidden_layers))
        found.append((ITEM_BYTES["float32"], m.num_hidden_layers * (version < (5, 0))))  # what is masked
    if quirks.balancing_bias in ("buffer", "base_buffer"):
        size = ITEM_BYTES[recipe.base_dtype if quirks.balancing_bias == "base_buffer" else "float32"]
        found += [(size * part.num_experts, layers) for part, layers in layer_groups(m) if part.num_experts]
    if quirks.rope_made == "in_layers":  # sines and cosines of every position
        found.append((4 * m.max_position_embeddings * (m.rotary_dim or m.head_dim), m.num_hidden_layers))
    if quirks.embedding_scales_itself:
        copied = embedding_name(m) in recipe.modules_to_save and recipe.has_adapters  # in the copy, too
        found.append((4, 1 + copied + (m.layer_input_size > 0)))
    if m.streams is not None:  # scales of the embeddings of layers, and of what each layer routes by
        found.append((4, 2 + m.num_hidden_layers))
    if quirks.layer_scalar:
        found.append((ITEM_BYTES[recipe.base_dtype], m.num_hidden_layers))
    if quirks.scales_state_space:  # a vector on what goes into the layer
        size = ITEM_BYTES[recipe.base_dtype]
        found += [(size * layer_linears(part)["in_proj"].out_features, layers) for part, layers in layer_groups(m)]
    if m.recurrence is not None and m.recurrence.step_norms == "unit":  # weights that its norms do not use
        widths = m.recurrence.value_size, m.recurrence.key_dim, m.recurrence.key_dim
        found += [(ITEM_BYTES[recipe.base_dtype] * width, m.num_hidden_layers) for width in widths]
    if m.activation == "xielu":  # its beta and eps
        found.append((ITEM_BYTES[recipe.base_dtype], 2 * m.num_hidden_layers))
    return found + (_of_adapters(m, recipe) if recipe.replaces_lora else [])


def _of_adapters(m: ModelSpec, recipe: Recipe) -> list[tuple[int, int]]:
    """The same of adapters in LoRA's place: OFT's indices, and the matrices that all of VeRA's share.

    Those are as wide as the widest layer reads and the widest writes. Source: peft 0.21, tuners/vera/model.py,
    _find_dim and _init_vera_A_vera_B.
    """
    adapted = [(shape, 1) for shape in outer_adapters(m, recipe)]
    for part, layers in trained_groups(m, recipe):
        targets = targets_in(part, recipe.target_modules)
        adapted += [(shape, layers) for name, shape in layer_linears(part).items() if name in targets]
    if recipe.variant == "oft":
        return [(INDEX_BYTES, 2 * sum(times for _, times in adapted))]
    if recipe.variant != "vera":
        return []
    widest = max(shape.in_features for shape, _ in adapted), max(shape.out_features for shape, _ in adapted)
    return [(ITEM_BYTES[shared_dtype(recipe)] * recipe.rank * width, 1) for width in widest]
