"""DeepSpeed's ZeRO stages 1 and 2: whole weights in 16 bits, each rank updates its part of them.

Sources: DeepSpeed 0.19.8, runtime/zero/stage_1_and_2.py, DeepSpeedZeroOptimizer; transformers 5.23, trainer.py, sorts
parameters into those with weight decay and the norms and biases without: each sort is a flat tensor of its own.

Not counted: gradients that stay in a tensor of their own because they are larger than the bucket, between two layers.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from advisor.blocks import ITEM_BYTES, block_bytes
from advisor.decoders.recorder import EMBEDDING
from advisor.decoders.units import Piece
from advisor.engines.engine import Engine, Height, Held, Phase, Transfer, trained_pieces
from advisor.engines.parts import Parts
from advisor.engines.zero_configs import ZeroConfig, config_of
from advisor.optimizers import optimizer_row
from advisor.parameters.trained import Trained
from advisor.specs import ModelSpec, Recipe
from advisor.terms import TermName

NORM_BYTES = 8
"""The norm of a gradient is taken in fp64. Source: DeepSpeed 0.19.8, runtime/zero/utils.py, get_norm_dtype."""


class Group(NamedTuple):
    """Trained parameters of one sort, one after the other in a flat tensor that is cut into a part for each rank."""

    elements: tuple[int, ...]
    part: int  # elements of one rank's part

    def touching(self) -> int:
        """Elements of the parameters that a rank's part touches: the first rank's, or more where another has more."""
        ends = list(accumulate(self.elements))
        most = 0
        for start in range(0, ends[-1], self.part) if ends[-1] // self.part < 1024 else (0,):
            first, last = bisect_right(ends, start), bisect_left(ends, start + self.part)
            most = max(most, ends[min(last, len(ends) - 1)] - (ends[first - 1] if first else 0))
        return most


class DeepSpeed(Engine):
    """What the three stages share: the module is cast to 16 bits, adapters too, and the optimizer works in fp32."""

    spreads = True

    @classmethod
    def refuses(cls, m: ModelSpec, recipe: Recipe) -> str:
        """DeepSpeed casts the whole module, or works in fp32."""
        if not recipe.autocast and recipe.base_dtype != "float32":
            return "DeepSpeed without bf16 or fp16 in its config expects fp32 weights; use mixed precision"
        return ""

    @property
    def dtype(self) -> str:
        """Of weights and gradients."""
        return self.half if self.recipe.autocast else "float32"

    @cached_property
    def config(self) -> ZeroConfig:
        """The sizes in the trainer's config."""
        return config_of(self.placement.configs, self.placement.sharding == "zero3")

    @property
    def bucket_elements(self) -> int:
        """reduce_bucket_size."""
        return self.placement.bucket_elements or self.config.bucket(self.m.hidden_size)

    @property
    def bucket_bytes(self) -> int:
        """The tensor that gradients wait in: whole, however few are trained."""
        return block_bytes(self.bucket_elements * ITEM_BYTES[self.dtype])

    def computed(self) -> Recipe:
        """All in 16 bits and no autocast: accelerate does not wrap the forward of a DeepSpeed engine."""
        same = dict.fromkeys(("base_dtype", "adapter_dtype", "magnitude_dtype"), self.dtype)
        return self.recipe.model_copy(update={**same, "autocast": False, "kbit_upcast": False})

    def dropping(self) -> Recipe:
        """As `computed`, with gradients that leave as soon as they are made: a hook copies each into the bucket."""
        update = {"optimizer_in_backward": True, "optimizer": "sgd", "gradient_accumulation": 1}
        return DeepSpeed.computed(self).model_copy(update=update)

    def bytes_of(self, piece: Piece) -> int:
        """A parameter in the dtype that the engine casts it to; packed ones keep theirs."""
        return piece.bytes if piece.packed else piece.elements * ITEM_BYTES[self.dtype]

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Those with weight decay, then norms and biases; DeepSpeed leaves an empty sort out."""
        sorts: tuple[list[int], list[int]] = ([], [])
        for unit in self.units.all:
            for _ in range(unit.copies):
                for piece in trained_pieces(unit):
                    sorts[piece.columns == 1 and not self.recipe.has_adapters].append(piece.elements)
        return tuple(Group(tuple(one), self.part_of(sum(one))) for one in sorts if one)

    def part_of(self, elements: int) -> int:
        """A rank's part of a flat tensor, which is padded to a multiple of two elements for each rank."""
        return 2 * -(-elements // (2 * self.ranks))

    def flat_parts(self) -> tuple[int, ...]:
        """Elements of each flat tensor of a rank that the optimizer updates."""
        return tuple(group.part for group in self.groups)

    def _copies(self) -> list[Trained]:
        return [Trained(part, 0, 1, "float32") for part in self.flat_parts()]

    def updated(self) -> list[Trained]:
        """The fp32 copies of the rank's parts, on the card."""
        return [] if self.on_host else self._copies()

    def updated_on_host(self) -> list[Trained]:
        """The same where they are on the host."""
        return self._copies() if self.on_host else []

    def host_bytes(self) -> int:
        """The fp32 copies and their gradients, and 16-bit copies on their way, in pinned memory (offload_config.py).

        Stages 1 and 2: initialize_optimizer_states, param_buffer_of_bit16_for_cpu_offload_groups; stage 3:
        fp32_partitioned_groups_flat, grad_partitions_flat_buffer.
        """
        return sum(part.elements * (4 + 4 + ITEM_BYTES[self.dtype]) for part in self.updated_on_host())

    def masters(self) -> Iterator[Held]:
        """The fp32 copies that the optimizer updates, and the norm of the last step's gradients."""
        yield Held(TermName.OPTIMIZER_STATES, NORM_BYTES, 1)
        for part in self.updated():
            yield Held(TermName.OPTIMIZER_STATES, part.bytes, 1)

    def norm_bytes(self, elements: int) -> int:
        """Beside the gradients that are reduced: the norm of one in fp64, taken there if the optimizer is on the host.

        Source: stage_1_and_2.py, set_norm_for_param_grad_in_gpu; stage3.py, partition_grads.
        """
        return block_bytes(NORM_BYTES * elements) if self.on_host else 0

    def cut(self, elements: int) -> bool:
        """Whether a parameter of that size lies in the parts of several ranks."""
        for group in self.groups:
            ends = list(accumulate(group.elements))
            starts = (end - size for end, size in zip(ends, group.elements, strict=True) if size == elements)
            if any(start // group.part != (start + elements - 1) // group.part for start in starts):
                return True
        return False

    @cached_property
    def largest(self) -> int:
        """Elements of the largest trained parameter."""
        return max(max(group.elements) for group in self.groups)

    def temporary(self, part: Trained) -> int:
        """What the optimizer's step of a sort allocates."""
        return sum(map(block_bytes, optimizer_row(self.recipe.optimizer).temporaries(part)))

    def syncs(self, index: int) -> bool:
        """Every micro-batch reduces its gradients."""
        return True


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
