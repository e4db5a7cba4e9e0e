"""The parameters of a model as an engine for several cards takes them: by unit, each tensor with its rows.

A unit is what one collective gathers: the embedding, a decoder layer, or what comes after the layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from math import prod
from typing import NamedTuple

from advisor.blocks import ITEM_BYTES
from advisor.decoders.experts import Experts
from advisor.decoders.kinds import layer_plan
from advisor.decoders.linear import Linear
from advisor.decoders.norms import HeadNorms, Norm
from advisor.decoders.stack import Stack
from advisor.decoders.weights import Weights, projections
from advisor.parameters.layers import layer_groups, part_of
from advisor.parameters.modules import head_linear
from advisor.parameters.own_weights import outer_tensors
from advisor.parameters.storage import store_bytes
from advisor.parameters.targets import outer_adapters
from advisor.specs import ModelSpec, Recipe
from advisor.tape.graph import Tensor


class Piece(NamedTuple):
    """A parameter: so many rows of so many elements. `packed`: a quantized weight, whose elements are its bytes."""

    rows: int
    columns: int
    dtype: str
    trained: bool
    packed: bool = False

    @property
    def elements(self) -> int:
        """Elements of all rows."""
        return self.rows * self.columns

    @property
    def bytes(self) -> int:
        """Bytes of the whole parameter."""
        return self.elements * ITEM_BYTES[self.dtype]


class Unit(NamedTuple):
    """Parameters that are gathered together, and how many units are like it."""

    pieces: tuple[Piece, ...]
    copies: int = 1


class Units(NamedTuple):
    """A model's units: `layers` in the order of the layer plan; `last`: the norm before the head, and the head."""

    embedding: Unit
    layers: tuple[Unit, ...]
    last: Unit
    rest: Unit  # what belongs to neither: positions, projections around the layers

    @property
    def all(self) -> tuple[Unit, ...]:
        """Every unit."""
        return (self.embedding, *self.layers, self.last, self.rest)


@lru_cache(maxsize=64)
def units_of(m: ModelSpec, recipe: Recipe, stack: Stack) -> Units:
    """The units of a model under a recipe. A tied embedding is in `last`, where the head is."""
    layers = tuple(
        Unit(
            tuple(_of_layer(Weights(part_of(m, kind.parameters), recipe, recipe.rank, stack, kind.whole, frozen))),
            copies,
        )
        for kind, copies, frozen in (
            (kind, copies, kind.training == "frozen")
            for kind, copies in layer_plan(m, recipe, stack.keeps_last_apart(recipe), stack.unsteady_layers(recipe))
        )
    )
    idle = [piece for part, count in layer_groups(m) if part.passed_over for piece in _idle(part, recipe, stack, count)]
    tokens: list[Piece] = []
    others: list[Piece] = []
    for shape, times, dtype, trained in outer_tensors(m, recipe):
        piece = Piece(shape[0], prod(shape[1:]), dtype, trained)
        (tokens if shape in ((m.embedding_rows, m.token_size), (m.vocab_size, m.token_size)) else others).extend(
            [piece] * times
        )
    tied = m.tie_word_embeddings and len(tokens) == 1
    rest = [piece for linear in projections(m, recipe, recipe.rank, stack).values() for piece in of_linear(linear)]
    rest += [piece for piece in others if piece.columns > 1]
    head = head_linear(m)
    adapted = (
        Linear(head, recipe, recipe.rank, "none", recipe.base_dtype) if head in outer_adapters(m, recipe) else None
    )
    beside = [piece for piece in of_linear(adapted) if piece.trained][:3] if adapted is not None else []
    vectors = [piece for piece in others if piece.columns == 1]
    return Units(
        Unit(() if tied else tuple(tokens[:1])),
        layers,
        Unit((*vectors, *(tokens if tied else tokens[1:]), *beside)),
        Unit((*rest, *idle)),
    )


def _idle(m: ModelSpec, recipe: Recipe, stack: Stack, layers: int) -> list[Piece]:
    """The parameters of layers that are passed over on rows of text: held, but neither gathered nor trained.

    Ignores that full fine-tuning keeps them in fp32, as it does what is trained.
    """
    return [piece._replace(trained=False) for piece in _of_layer(Weights(m, recipe, recipe.rank, stack))] * layers


def _of_layer(w: Weights) -> Iterator[Piece]:
    """The parameters of a decoder layer."""
    for linear in w.linears.values():
        yield from (one._replace(trained=one.trained and not linear.idle) for one in of_linear(linear))
    for norm in (*w.norms, *w.further_norms.values(), *w.qk_norms):
        for one in norm.norms if isinstance(norm, HeadNorms) else (norm,):
            yield from _of_norm(one)
    tensors = [*w.own.values()] + ([w.sinks] if w.sinks is not None else [])
    tensors += w.experts.adapted if isinstance(w.experts, Experts) else []
    yield from map(_piece, tensors)


def of_linear(m: Linear) -> Iterator[Piece]:
    """A linear layer's weight, bias and adapter."""
    if m.quant == "none":
        yield _piece(m.weight)
    else:
        packed, _constants = store_bytes(m.in_features, m.out_features, m.recipe)
        yield Piece(packed, 1, "uint8", False, True)
    yield from map(_piece, _there(m.bias, m.lora_a, m.lora_b, m.magnitude, *m.replacing))


def _of_norm(norm: Norm) -> Iterator[Piece]:
    yield from map(_piece, _there(norm.weight, norm.bias))


def _there(*tensors: Tensor | None) -> Iterable[Tensor]:
    return (one for one in tensors if one is not None)


def _piece(x: Tensor) -> Piece:
    rows, *columns = x.shape or (1,)
    return Piece(rows, prod(columns), x.dtype, x.needs_grad)
