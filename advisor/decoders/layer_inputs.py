"""Embeddings for each layer (Gemma 3n, Gemma 4 E): made once per step for all layers, and what each does with its own.

Source: transformers 5.23, models/gemma4/modeling_gemma4.py, `Gemma4TextModel.get_per_layer_inputs`,
`project_per_layer_inputs`, `Gemma4TextDecoderLayer.forward`; models/gemma3n/modeling_gemma3n.py, the same of `Gemma3n`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from advisor.decoders.adapters import linear
from advisor.decoders.linear import Linear
from advisor.decoders.mlp import activation
from advisor.decoders.norms import Norm
from advisor.decoders.stack import Stack
from advisor.decoders.weights import Weights
from advisor.parameters.layer_inputs import GATE, INPUT_NORM, MODEL_PROJECTION, PROJECTION, layer_table
from advisor.parameters.own_weights import OwnWeights
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.ops import add, embedding, mul, scale
from advisor.tape.tape import Tape


class LayerTable(NamedTuple):
    """The table of what every layer gets of each token, (V, L * P), and the norm over P of what is added to it."""

    table: Tensor
    norm: Norm

    @property
    def trained(self) -> list[Tensor]:
        """The tensors that get gradients."""
        return [*([self.table] if self.table.needs_grad else []), *self.norm.trained]


def layer_table_of(m: ModelSpec, own: OwnWeights, other: str, norm_dtype: str, stack: Stack) -> LayerTable | None:
    """The table's weights, where the model has one; `other`: the dtype of what is not quantized."""
    if not m.layer_input_size:
        return None
    table = Tensor(layer_table(m), own.dtype if own.rest else other, needs_grad=own.rest)
    norm = Norm(m.norm, m.layer_input_size, norm_dtype, own.norms, False, code=stack.norm(m, "further"))
    return LayerTable(table, norm)


def layer_inputs(
    t: Tape, m: ModelSpec, w: LayerTable | None, projections: Mapping[str, Linear], x: Tensor, batch: int, length: int
) -> Tensor | None:
    """What all layers get of the embedded tokens x (B, S, H), if anything: (B, S, L * P)."""
    if w is None:
        return None
    ids: tuple[Tensor, ...] = ()
    if m.streams is not None:  # those beyond the table become 0
        ids = (t.empty((batch, length), "int64"),)
        for moved in (9, 9, 3, 17):
            t.kernel("elementwise", "int64", 0, moved * batch * length)
    tokens = scale(t, embedding(t, w.table, batch, length, ids))
    del ids
    by_layer = (batch, length, m.num_hidden_layers, m.layer_input_size)
    projected = scale(t, linear(t, x, projections[MODEL_PROJECTION]))
    projected = t.view(projected, by_layer)
    projected = w.norm(t, projected)
    t.label("embedding")
    return t.view(scale(t, add(t, projected, t.view(tokens, by_layer))), (batch, length, layer_table(m)[1]))


def gated_input(t: Tape, made: list[Tensor], own: Tensor, w: Weights) -> Tensor:
    """What a layer makes of its own embedding (B, S, P), let through as a hidden state (B, S, H) says: (B, S, H).

    That is alone in `made`, and popped: the real code may give its name to the result.
    """
    h = linear(t, made.pop(), w.linears[GATE])
    h = activation(t, w.m.activation, h)
    h = mul(t, h, own)
    h = linear(t, h, w.linears[PROJECTION])
    return w.further_norms[INPUT_NORM](t, h)
