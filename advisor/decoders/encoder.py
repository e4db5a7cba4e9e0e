"""BERT and its kin: embeddings with token types, layers with norms after each sum, the transformation before the head.

Source: transformers 5.23, models/{bert,roberta,xlm_roberta}/modeling_*.py; locals live as long as they do there.
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.architectures import architecture_of
from advisor.decoders.adapters import linear
from advisor.decoders.decoder import Decoder
from advisor.decoders.ends import Embedded, noised
from advisor.decoders.heads import queries_keys_values
from advisor.decoders.linear import Linear
from advisor.decoders.mlp import activation
from advisor.decoders.norms import Norm
from advisor.decoders.step_inputs import LayerInputs
from advisor.decoders.weights import Weights
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.ops import add, dropout, embedding
from advisor.tape.tape import Tape


class Tables(NamedTuple):
    """The tables of an encoder's embedding, and the norm after their sum."""

    tokens: Tensor
    positions: Tensor
    types: Tensor
    norm: Norm


def encoder_embedding(
    t: Tape, m: ModelSpec, w: Tables, batch: int, length: int, leaf: bool, packed: bool, noise: bool
) -> Embedded:
    """`BertEmbeddings.forward`. `leaf`, `packed` and `noise` as `ends.embed` has them."""
    rows = batch if packed or architecture_of(m.architecture).position_ids == "by_row" else 1
    places = Tensor((rows, length), "int64") if packed or rows == 1 else _counted_positions(t, batch, length)
    kinds = t.empty((rows, length), "int64")
    t.kernel("gather", "int64", 0, 3 * kinds.bytes)
    x = embedding(t, w.tokens, batch, length)
    if leaf and not x.needs_grad:
        x.needs_grad = True
    if noise:
        x = noised(t, x)
    typed = embedding(t, w.types, batch, length, (kinds,))
    summed = add(t, x, typed)
    placed = embedding(t, w.positions, rows, length, (places,))
    summed = add(t, summed, placed)
    summed = w.norm(t, summed)
    if m.embedding_dropout:
        summed = dropout(t, summed)
    return Embedded(Tensor(places.shape, "int64"), [summed], summed)  # layers are given the caller's positions alone


def _counted_positions(t: Tape, batch: int, length: int) -> Tensor:
    """`create_position_ids_from_input_ids`: tokens that are no padding are counted, and the count moved by two."""
    shape = (batch, length)
    seen = t.empty(shape, "bool")
    narrow = Tensor(shape, "int32").bytes
    t.kernel("elementwise", "int64", 0, 2 * narrow + seen.bytes)
    mask = t.empty(shape, "int32")
    t.kernel("elementwise", "int32", 0, seen.bytes + narrow)
    del seen
    # counted, as int32, moved, masked, as int64, moved: each is made before the one before it goes
    steps = (("int64", 3), ("int32", 3), ("int32", 2), ("int32", 3), ("int64", 3), ("int64", 4))
    made = [mask]
    for dtype, passes in steps:
        t.kernel("elementwise", dtype, 0, passes * narrow)
        made[:] = [t.empty(shape, dtype)]
    del mask
    return made.pop()


def encoder_layer(d: Decoder, x: Tensor, w: Weights, given: LayerInputs) -> Tensor:
    """`BertLayer.forward`: x (B, S, H) -> (B, S, H)."""
    t, m = d.t, d.m
    kept: list[Tensor] = []
    attended = _attended(d, x, w, given, kept)
    attended = _joined(d, attended, x, w.linears[m.out_name], w.norms[0])
    inner = activation(t, m.activation, linear(t, attended, w.linears[m.mlp_names[0]]))
    return _joined(d, inner, attended, w.linears[m.mlp_names[1]], w.norms[1])


def _attended(d: Decoder, x: Tensor, w: Weights, given: LayerInputs, kept: list[Tensor]) -> Tensor:
    """`BertSelfAttention.forward`: (B, S, H), without the output projection."""
    t, m = d.t, d.m
    q, k, v = queries_keys_values(t, x, m, w.linears, ())
    t.label("attention")
    out = d.attend(q, k, v, w, given, x.dtype, kept)
    return t.view(out, (*x.shape[:2], m.attended_size))


def _joined(d: Decoder, h: Tensor, x: Tensor, layer: Linear, norm: Norm) -> Tensor:
    """`BertSelfOutput.forward`, and `BertOutput.forward`."""
    h = linear(d.t, h, layer)
    h = d.dropped(h)
    return norm(d.t, add(d.t, h, x))


class HeadTransform:
    """The layer and the norm before an encoder's output embedding."""

    __slots__ = ("activation", "dense", "norm")

    def __init__(self, dense: Linear, activation: str, norm: Norm) -> None:
        self.dense, self.activation, self.norm = dense, activation, norm

    def __call__(self, t: Tape, x: Tensor) -> Tensor:
        """`BertPredictionHeadTransform.forward`: x (B, S, H) -> (B, S, H)."""
        t.label("head transform")
        x = linear(t, x, self.dense)
        x = activation(t, self.activation, x)
        return self.norm(t, x)

    @property
    def trained(self) -> list[Tensor]:
        """The tensors that get gradients."""
        return [*self.dense.trained, *self.norm.trained]
