"""PyTorch's DistributedDataParallel as accelerate and the Trainer set it up.

Sources: PyTorch 2.13, nn/parallel/distributed.py and csrc/distributed/c10d/reducer.cpp; accelerate 1.15 leaves
`gradient_as_bucket_view` off.
"""

from __future__ import annotations

from collections.abc import Iterator

from advisor.decoders.recorder import EMBEDDING, HEAD
from advisor.engines.engine import Engine, Held, Phase, Transfer, trained_pieces
from advisor.terms import TermName

BUCKET_BYTES = 25 * 1024**2
"""bucket_cap_mb."""


class Ddp(Engine):
    """A copy of all on every rank, and buckets for all gradients, which stand beside the gradients themselves."""

    name = "DistributedDataParallel"

    def beside(self) -> Iterator[Held]:
        """The buckets: as many bytes as the trained parameters have. Their sizes change with the first step."""
        size = sum(one.bytes * one.times for one in self.updated())
        yield Held(TermName.REDUCTION, size, 1)

    def transfers(self, place: int, phase: Phase, syncs: bool) -> tuple[Transfer, ...]:
        """The gradients of a layer, in buckets that are reduced while backward goes on; tied weights' come last."""
        if self.tied and place in (EMBEDDING, HEAD):
            place = HEAD if place == EMBEDDING else EMBEDDING
        size = sum(piece.bytes for piece in trained_pieces(self.by_place[place])) if place in self.by_place else 0
        if not size or phase == "forward" or not syncs:
            return ()
        return (Transfer("reduce", size, max(1, round(size / BUCKET_BYTES)), "all"),)

    def copied_bytes(self, place: int, phase: Phase, syncs: bool) -> float:
        """Gradients are copied into their bucket and back: each is read and written twice."""
        return 4.0 * sum(one.bytes for one in self.transfers(place, phase, syncs))
