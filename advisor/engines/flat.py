"""FSDP1's flat parameters: the tensors of a unit behind one another, cut into equal parts for the ranks.

Source: PyTorch 2.13, distributed/fsdp/_flat_param.py, FlatParamHandle._init_flat_param_and_metadata with
use_orig_params, which aligns each tensor to 16 bytes of the dtype that is gathered and pads the end to the ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from advisor.blocks import ITEM_BYTES, block_bytes
from advisor.decoders.units import Piece, Unit, Units
from advisor.libraries import libraries_of
from advisor.specs import Recipe

ALIGNED_BYTES = 16


class Flat(NamedTuple):
    """A flat parameter: what it was made of, and the dtypes in which it is gathered and kept."""

    pieces: tuple[Piece, ...]
    gathered: str
    stored: str
    ranks: int

    @property
    def trained(self) -> bool:
        """Whether it gets a gradient: all of it does, if any of its tensors is trained."""
        return any(piece.trained for piece in self.pieces)

    def spans(self) -> Iterator[tuple[Piece, int, int]]:
        """Its tensors, each with the first element and the one after its last."""
        aligned, end = ALIGNED_BYTES // ITEM_BYTES[self.gathered], 0
        for piece in self.pieces:
            start = -(-end // aligned) * aligned
            end = start + elements_of(piece, self.gathered)
            yield piece, start, end

    @property
    def part(self) -> int:
        """Elements of each rank's part."""
        return -(-max((end for _, _, end in self.spans()), default=0) // self.ranks)

    @property
    def elements(self) -> int:
        """Elements with the padding."""
        return self.part * self.ranks

    def first_part(self) -> Iterator[int]:
        """Elements of the trained tensors in the first rank's part, which has the least padding."""
        for piece, start, end in self.spans():
            if piece.trained and start < self.part:
                yield min(end, self.part) - start

    def bytes_of(self, elements: int, dtype: str) -> int:
        """Bytes of so many elements, in blocks."""
        return block_bytes(elements * ITEM_BYTES[dtype])


def elements_of(piece: Piece, gathered: str) -> int:
    """Elements of a tensor; packed bytes are stored as numbers of the dtype that is gathered."""
    return piece.elements // ITEM_BYTES[gathered] if piece.packed else piece.elements


class FlatUnit(NamedTuple):
    """A unit and the units inside it, which come and go by themselves."""

    own: Flat
    inner: tuple[Flat, ...]
    copies: int = 1

    @property
    def all(self) -> tuple[Flat, ...]:
        """Every flat parameter of it that has elements."""
        return (*((self.own,) if self.own.pieces else ()), *self.inner)


class FlatLayout(NamedTuple):
    """Which dtypes flat parameters have, and for how many ranks they are cut."""

    recipe: Recipe
    gathers: str  # '' for each flat parameter's own
    upcasts: bool  # trained ones are kept in fp32
    ranks: int

    def own_dtype(self, pieces: Iterable[Piece]) -> str:
        """Of the tensors as they are loaded; packed ones are stored as the base's dtype."""
        return next((self.dtype_of(piece) for piece in pieces), self.recipe.base_dtype)

    def dtype_of(self, piece: Piece) -> str:
        """Of a tensor as it is loaded."""
        return self.recipe.base_dtype if piece.packed else piece.dtype

    def flat(self, pieces: tuple[Piece, ...]) -> Flat:
        """The flat parameter of these tensors."""
        own = self.own_dtype(pieces)
        wide = self.upcasts and any(piece.trained for piece in pieces)
        return Flat(pieces, self.gathers or own, "float32" if wide else own, self.ranks)

    def unit(self, unit: Unit) -> FlatUnit:
        """A unit, with each adapter's matrix in a unit of its own: peft wraps every leaf module that is trained.

        LitGPT wraps its blocks alone. Source: peft 0.21, utils/other.py, fsdp_auto_wrap_policy; transformers 5.23,
        trainer.py asks for it; litgpt 0.5, finetune/lora.py, setup.
        """
        apart = self.recipe.has_adapters and libraries_of(self.recipe.stack).code != "litgpt"
        inside = [piece for piece in unit.pieces if piece.trained and apart]
        own = tuple(piece for piece in unit.pieces if not (piece.trained and apart))
        return FlatUnit(self.flat(own), tuple(self.flat((piece,)) for piece in inside), unit.copies)


def root_of(units: Units) -> Unit:
    """What no layer has: FSDP1's outermost unit."""
    return Unit((*units.embedding.pieces, *units.rest.pieces, *units.last.pieces))
