"""PyTorch's DistributedDataParallel as accelerate and the Trainer set it up.

Sources: PyTorch 2.13, nn/parallel/distributed.py and csrc/distributed/c10d/reducer.cpp; accelerate 1.15 leaves
`gradient_as_bucket_view` off.
"""

from __future__ import annotations

from collections.abc import Iterator

from advisor.engines.engine import Engine, Held, trained_pieces
from advisor.terms import TermName


class Ddp(Engine):
    """A copy of all on every rank, and buckets for all gradients, which stand beside the gradients themselves."""

    name = "DistributedDataParallel"

    def beside(self) -> Iterator[Held]:
        """The buckets: as many bytes as the trained parameters have. Their sizes change with the first step."""
        size = sum(piece.bytes * unit.copies for unit in self.units.all for piece in trained_pieces(unit))
        yield Held(TermName.REDUCTION, size, 1)
