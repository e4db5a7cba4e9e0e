"""What an engine for several cards says of a rank: what it holds, and what comes and goes beside the tape's tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from advisor.blocks import ITEM_BYTES, block_bytes
from advisor.decoders.recorder import EMBEDDING, HEAD
from advisor.decoders.stack import Stack
from advisor.decoders.units import Piece, Unit, Units
from advisor.engines.parts import Parts, Turn
from advisor.parameters.trained import Trained, trained_shapes
from advisor.specs import ModelSpec, Placement, Recipe
from advisor.terms import TermName

Phase = Literal["forward", "backward"]
At = Literal["before", "peak", "after"]
"""Of a part: as it begins, at its highest, as it has ended."""


class Height(NamedTuple):
    """A point of the step that may be the highest: a part's turn, and the engine's bytes beside it."""

    turn: Turn
    at: At
    gathered: int
    reduction: int = 0


class Transfer(NamedTuple):
    """Calls of a collective, `calls` for `bytes` together: of what is gathered, or before what is reduced.

    `among`: the cards that shard one copy of the model, those that hold the same shard, or all of them.
    """

    kind: Literal["gather", "scatter", "reduce"]
    bytes: int
    calls: int = 1
    among: Literal["shards", "copies", "all"] = "shards"


class Held(NamedTuple):
    """A tensor that stands from step to step, and how often it occurs."""

    term: TermName
    bytes: int
    times: int


def shard_rows(piece: Piece, ranks: int) -> int:
    """Rows of the first rank, which has the most.

    Source: PyTorch 2.13, distributed/fsdp/_fully_shard/_fsdp_param.py, FSDPParam._init_sharded_param: torch.chunk.
    """
    return -(-piece.rows // ranks)


def padded_elements(piece: Piece, ranks: int) -> int:
    """Elements of a parameter whose rows are padded so that every rank has as many."""
    return ranks * shard_rows(piece, ranks) * piece.columns


def as_trained(piece: Piece, rows: int, dtype: str, times: int) -> Trained:
    """A trained parameter's part as optimizers see it."""
    return Trained(rows, 0 if piece.columns == 1 else piece.columns, times, dtype)


def trained_pieces(unit: Unit) -> tuple[Piece, ...]:
    """Those that get gradients."""
    return tuple(piece for piece in unit.pieces if piece.trained)


def gradient_blocks(pieces: Sequence[Piece], dtype: str) -> int:
    """Their gradients as a layer makes them, in `dtype` or, where that is '', in their own."""
    return sum(block_bytes(piece.elements * ITEM_BYTES[dtype or piece.dtype]) for piece in pieces if piece.trained)


class Engine:
    """The methods that engines override; as they are, every rank holds and does what one card would."""

    name = ""
    gradient_dtype = ""
    """Of the gradients that a layer makes; '' for that of each parameter."""
    spreads = False
    """Whether a rank holds parts of parameters; if not, it holds what one card would."""
    holds_inputs = False
    """Whether the inputs that checkpointing keeps of layers stay to the end of the backward, with their gradients."""
    joins = False
    """Whether a layer's gradients stand until all are there in every micro-batch, beside those of earlier ones."""
    gathers_at_most = False
    """Whether what is gathered is counted as the most that may be, because it is not known."""
    overlaps = True
    """Whether collectives run beside the kernels; gathers begin one unit ahead then."""

    def __init__(self, m: ModelSpec, recipe: Recipe, placement: Placement, units: Units) -> None:
        self.m, self.recipe, self.placement, self.units = m, recipe, placement, units
        self.ranks = placement.shards if placement.shards > 1 else placement.gpus
        self.half = recipe.base_dtype if recipe.base_dtype != "float32" else "bfloat16"
        self.tied = not units.embedding.pieces
        self.by_place = {EMBEDDING: units.embedding, HEAD: units.last, **dict(enumerate(units.layers))}

    @classmethod
    def refuses(cls, m: ModelSpec, recipe: Recipe) -> str:
        """Why this engine cannot run the recipe, and what to do; '' where it can."""
        return ""

    def unknown(self) -> tuple[str, ...]:
        """What runs under this engine and is not mirrored."""
        return ()

    @property
    def on_host(self) -> bool:
        """Whether the optimizer works on the host, where its states and what it updates are then."""
        return self.placement.offload != "none"

    def host_bytes(self) -> int:
        """What this rank holds of the host's memory for the whole run, without the optimizer's states."""
        return 0

    def updated_on_host(self) -> list[Trained]:
        """The tensors that the optimizer updates on the host."""
        return []

    def computed(self) -> Recipe:
        """The recipe as the layers compute it: which dtypes their weights have there."""
        return self.recipe

    def coded(self, stack: Stack) -> Stack:
        """The stack as it computes under this engine."""
        return stack

    def term_of(self, piece: Piece) -> TermName:
        """What a parameter counts as."""
        return TermName.ADAPTERS if piece.trained and self.recipe.has_adapters else TermName.BASE_WEIGHTS

    def weights(self) -> Iterator[Held]:
        """The parameters of a rank that `spreads` them."""
        return iter(())

    def beside(self) -> Iterator[Held]:
        """What the engine itself holds from step to step."""
        return iter(())

    def updated(self) -> list[Trained]:
        """The tensors that the optimizer of a rank updates."""
        return list(trained_shapes(self.m, self.recipe))

    def gradients_bytes(self) -> int:
        """What stands of the gradients when the optimizer begins."""
        return sum(block_bytes(p.bytes) * p.times for p in self.updated())

    def optimizer_beside(self) -> int:
        """What the engine allocates around the optimizer's step, beside the optimizer's own temporaries."""
        return 0

    def reduced(self) -> dict[int, int]:
        """By place: what is left of a part's gradients once they are reduced, minus what they were."""
        return {}

    def accumulated_bytes(self) -> int:
        """What stands of the gradients between two micro-batches of a step: whole, as the layers made them."""
        return self.gradients_bytes()

    def heights(self, parts: Parts) -> Iterator[Height]:
        """The points of forward and backward that may be the highest."""
        for turn in (*parts.forward_turns(), *parts.backward_turns()):
            yield Height(turn, "peak", 0)

    def aside_bytes(self) -> int:
        """The most that is gathered on a stream of its own, whose blocks PyTorch's allocator keeps for that stream.

        Source: PyTorch 2.13, c10/cuda/CUDACachingAllocator.cpp, get_free_block: a block of the same stream alone.
        """
        return 0

    def transfers(self, place: int, phase: Phase, syncs: bool) -> tuple[Transfer, ...]:
        """What one layer at `place` exchanges in `phase`. `syncs`: in a micro-batch whose gradients are reduced."""
        return ()

    def host_copies(self, place: int, phase: Phase, syncs: bool) -> tuple[int, int]:
        """Bytes that one layer at `place` brings from the host before it is gathered, and takes there once reduced."""
        return 0, 0

    def closing(self) -> tuple[Transfer, ...]:
        """What is exchanged once a step after the optimizer, beside nothing."""
        return ()

    def copied_bytes(self, place: int, phase: Phase, syncs: bool) -> float:
        """Traffic of the card's memory for copies into and out of what is exchanged, for one layer at `place`."""
        return 0.0

    def syncs(self, index: int) -> bool:
        """Whether micro-batch `index` of a step, from 0, reduces its gradients: the last one alone."""
        return index == self.recipe.gradient_accumulation - 1
