"""DeepSpeed's ZeRO stages 1 and 2: whole weights in 16 bits, each rank updates its part of them.

Source: DeepSpeed 0.19.8, runtime/zero/stage_1_and_2.py, DeepSpeedZeroOptimizer.

Not counted: gradients that stay in a tensor of their own because they are larger than the bucket, between two layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from advisor.blocks import ITEM_BYTES, block_bytes
from advisor.decoders.recorder import EMBEDDING
from advisor.engines.deepspeed import NORM_BYTES, DeepSpeed
from advisor.engines.engine import Height, Held, Phase, Transfer, trained_pieces
from advisor.engines.parts import Parts
from advisor.parameters.trained import Trained
from advisor.specs import Recipe
from advisor.terms import TermName


class Zero2(DeepSpeed):
    """Gradients leave for a bucket as they are made; what a rank updates of them is copied out of it."""

    name = "DeepSpeed ZeRO-2"

    @property
    def overlaps(self) -> bool:  # type: ignore[override]
        """Whether reductions run beside the kernels: overlap_comm."""
        return self.config.overlap_comm

    def computed(self) -> Recipe:
        """Gradients do not stay where they were made."""
        return self.dropping()

    def weights(self) -> Iterator[Held]:
        """Frozen parameters as they are, trained ones in a flat tensor for each sort."""
        for unit in self.units.all:
            for piece in unit.pieces:
                if not piece.trained:
                    yield Held(TermName.BASE_WEIGHTS, self.bytes_of(piece), unit.copies)
        term = TermName.ADAPTERS if self.recipe.has_adapters else TermName.BASE_WEIGHTS
        for group in self.groups:
            yield Held(term, self.ranks * group.part * ITEM_BYTES[self.dtype], 1)

    def beside(self) -> Iterator[Held]:
        """The fp32 copies that the optimizer updates; where they are on the host, a buffer for the largest gradient.

        Source: temp_grad_buffer_for_gpu_offload.
        """
        yield from self.masters()
        if self.on_host:
            yield Held(TermName.REDUCTION, self.largest * ITEM_BYTES[self.dtype], 1)

    def host_bytes(self) -> int:
        """Also a buffer for the largest gradient, and gradients that accumulate there.

        Source: temp_grad_buffer_for_cpu_offload, accumulated_grads_in_cpu.
        """
        if not self.on_host:
            return 0
        waiting = self._touching if self.recipe.gradient_accumulation > 1 else 0
        return super().host_bytes() + (self.largest + waiting) * ITEM_BYTES[self.dtype]

    @property
    def bucket_bytes(self) -> int:
        """The tensor that gradients wait in, and a second one that fills while the first is reduced."""
        return super().bucket_bytes * (2 if self.config.overlap_comm else 1)

    @cached_property
    def partition_bytes(self) -> int:
        """grads_in_partition: the gradients of all parameters that the rank's part touches; none if on the host."""
        return 0 if self.on_host else block_bytes(self._touching * ITEM_BYTES[self.dtype])

    @cached_property
    def _touching(self) -> int:
        return sum(group.touching() for group in self.groups)

    def gradients_bytes(self) -> int:
        """Those of the rank's part."""
        return self.partition_bytes

    def accumulated_bytes(self) -> int:
        """Those of the rank's part: later micro-batches make a second copy and add it."""
        return self.partition_bytes

    def optimizer_beside(self) -> int:
        """The norm in fp64 of one gradient after the other; a flat copy and its fp32 copy; the step of each sort.

        Minus the temporaries of all sorts, which are counted already. The gradients stand until the last sort's step.
        """
        if self.on_host:
            return 0
        item = ITEM_BYTES[self.dtype]
        most = 0
        for index, group in enumerate(self.groups):
            part = Trained(group.part, 0, 1, "float32")
            norm = block_bytes(NORM_BYTES * min(group.part, max(group.elements)))
            flat = block_bytes(item * group.part) + (0 if item == 4 else block_bytes(4 * group.part))
            gone = self.partition_bytes if index == len(self.groups) - 1 else 0
            step = block_bytes(4 * group.part) + self.temporary(part) - gone
            most = max(most, norm, flat, step)
        return most - sum(self.temporary(part) for part in self.updated())

    def heights(self, parts: Parts) -> Iterator[Height]:
        """Backward: the bucket, what is kept of it from the first reduction on, and the copy that is reduced.

        A bucket with gradients for several ranks is reduced as a copy (allreduce_bucket, flatten). A parameter larger
        than the bucket waits in its own gradient for the next one.
        """
        item, seen = ITEM_BYTES[self.dtype], 0
        for turn in parts.forward_turns():
            yield Height(turn, "peak", 0)
        for turn in parts.backward_turns():
            place = turn.part.place
            sizes = [piece.elements for piece in trained_pieces(self.by_place[place])]
            kept = self.partition_bytes if seen > self.bucket_elements else 0
            seen += sum(sizes) * self.by_place[place].copies
            yield Height(turn, "peak", 0, (self.bucket_bytes if seen else 0) + kept)
            waiting = max((size for size in sizes if size > self.bucket_elements), default=0)
            if seen > self.bucket_elements or place == EMBEDDING:
                copy = waiting * (1 + self.cut(waiting)) or min(seen, self.bucket_elements)
                copy = max(block_bytes(item * copy), self.norm_bytes(max(sizes, default=0)))
                yield Height(turn, "after", 0, self.bucket_bytes + self.partition_bytes + copy)

    def transfers(self, place: int, phase: Phase, syncs: bool) -> tuple[Transfer, ...]:
        """The gradients of a layer are summed over all ranks, in every micro-batch; each rank keeps its part."""
        elements = (
            sum(piece.elements for piece in trained_pieces(self.by_place[place])) if place in self.by_place else 0
        )
        if not elements or phase == "forward" or not syncs:
            return ()
        calls = max(1, round(elements / self.bucket_elements))
        return (Transfer("reduce", elements * ITEM_BYTES[self.dtype], calls, "all"),)

    def closing(self) -> tuple[Transfer, ...]:
        """The updated weights of all ranks, beside nothing."""
        size = sum(self.ranks * group.part for group in self.groups) * ITEM_BYTES[self.dtype]
        return (Transfer("gather", size, len(self.groups)),)

    def copied_bytes(self, place: int, phase: Phase, syncs: bool) -> float:
        """Into the bucket, into the copy that is reduced, and this rank's part out of it; each read and written."""
        moved = sum(one.bytes for one in self.transfers(place, phase, syncs))
        return 2.0 * moved * (2 + 1 / self.ranks)


class Zero1(Zero2):
    """Gradients stay whole to the end of the last micro-batch, then go through the bucket."""

    name = "DeepSpeed ZeRO-1"

    def computed(self) -> Recipe:
        """Gradients stay where they were made."""
        return DeepSpeed.computed(self)

    def accumulated_bytes(self) -> int:
        """Whole."""
        item = ITEM_BYTES[self.dtype]
        return sum(block_bytes(p.elements * item) * u.copies for u in self.units.all for p in trained_pieces(u))

    def heights(self, parts: Parts) -> Iterator[Height]:
        """The bucket from the first gradient on; at the end it is filled and reduced, and the rank's part copied.

        What is filled into it is freed, and copied once more to be reduced: the two even out. A parameter larger than
        the bucket is only copied.
        """
        standing = self.recipe.gradient_accumulation > 1
        for turn in parts.forward_turns():
            yield Height(turn, "peak", 0, self.bucket_bytes if standing else 0)
        last = None
        for turn in parts.backward_turns():
            yield Height(turn, "peak", 0, self.bucket_bytes)
            last = turn
        if last is not None:
            copied = self.largest if self.largest > self.bucket_elements and self.cut(self.largest) else 0
            copy = max(block_bytes(copied * ITEM_BYTES[self.dtype]), self.norm_bytes(self.largest))
            yield Height(last, "after", 0, self.bucket_bytes + self.partition_bytes + copy)

    def syncs(self, index: int) -> bool:
        """Only the last micro-batch reduces."""
        return index == self.recipe.gradient_accumulation - 1
