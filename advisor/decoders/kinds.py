"""Which attention a recipe runs, and how the layers of one model differ."""

from __future__ import annotations

from typing import NamedTuple

from advisor.architectures import architecture_of
from advisor.parameters.layers import Kind, dense_flags, sliding_flags
from advisor.parameters.storage import unquantized_name
from advisor.specs import ModelSpec, Recipe
from advisor.tape.graph import Device


def attention_kind(m: ModelSpec, recipe: Recipe) -> str:
    """'eager', 'sdpa' or 'flash': what was asked for, unless the model's code has only eager attention."""
    return "eager" if m.default_attention == "eager" and recipe.attention != "flash" else recipe.attention


def composes_attention(m: ModelSpec, recipe: Recipe, device: Device) -> bool:
    """Whether attention runs as batched products: no fused kernel supports its dropout, heads or soft cap."""
    kind = attention_kind(m, recipe)
    ungrouped = architecture_of(m.architecture).attention == "own"
    one_key_head = ungrouped and m.num_key_value_heads == 1 < m.num_attention_heads
    odd = m.attention_dropout > 0 or m.value_dim != m.head_dim  # what the CPU's fused kernel does not support
    return kind == "eager" or (kind == "sdpa" and (one_key_head or (odd and device == "cpu")))


class LayerKind(NamedTuple):
    """What may differ between the layers of one model; `last`: its last layer has an unquantized linear layer."""

    rotated: bool
    last: bool
    parameters: Kind

    @property
    def sliding(self) -> bool:
        """Whether it uses the sliding window."""
        return self.parameters.sliding


def layer_kinds(m: ModelSpec) -> list[LayerKind]:
    """The kind of every layer, in order."""
    rotates, odd_end, end = m.position == "rope", bool(unquantized_name(m)), m.num_hidden_layers - 1
    kinds = map(Kind, dense_flags(m), sliding_flags(m))
    return [
        LayerKind(rotates and not (m.nope_every and (i + 1) % m.nope_every == 0), odd_end and i == end, kind)
        for i, kind in enumerate(kinds)
    ]
