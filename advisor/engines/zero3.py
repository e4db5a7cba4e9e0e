"""DeepSpeed's ZeRO stage 3: weights are spread too, gathered a module at a time, ahead and for as long as allowed.

Sources: DeepSpeed 0.19.8, runtime/zero/stage3.py, partitioned_param_coordinator.py and partition_parameters.py;
transformers 5.23, integrations/deepspeed.py, trainer_config_finalize, fills in the sizes that a config leaves "auto",
as those of LLaMA-Factory, axolotl and ms-swift do.

What is gathered is bounded, not known: weights that are needed again within stage3_max_reuse_distance stay, and each
module's start fetches more, until stage3_max_live_parameters are there. The bound is what is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

from advisor.blocks import ITEM_BYTES, block_bytes
from advisor.decoders.recorder import EMBEDDING, HEAD
from advisor.decoders.units import Piece, Unit
from advisor.engines.engine import Height, Held, Phase, Transfer, trained_pieces
from advisor.engines.parts import Parts
from advisor.engines.zero import NORM_BYTES, DeepSpeed
from advisor.specs import ModelSpec, Recipe
from advisor.terms import TermName

FLAG_BYTES = 1
"""Whether a gradient was no number. Source: DeepSpeed 0.19.8, runtime/zero/stage3.py, inf_or_nan_tracker."""


class Zero3(DeepSpeed):
    """Every parameter is spread element by element; small ones stay whole beside their part."""

    name = "DeepSpeed ZeRO-3"
    gathers_at_most = True

    @classmethod
    def refuses(cls, m: ModelSpec, recipe: Recipe) -> str:
        """peft's DoRA asks packed weights for what DeepSpeed keeps of parameters, and fails: seen with peft 0.21.2."""
        if recipe.method == "qdora":
            return "peft's DoRA fails on 4-bit weights that are spread by ZeRO-3; use zero2 or qlora"
        return super().refuses(m, recipe)

    def computed(self) -> Recipe:
        """Gradients leave for the bucket as they are made."""
        return self.dropping()

    def _part_elements(self, piece: Piece) -> int:
        """Of one rank. Source: partition_parameters.py, _aligned_size."""
        return -(-piece.elements // self.ranks)

    def _item_bytes(self, piece: Piece) -> int:
        return ITEM_BYTES[piece.dtype if piece.packed else self.dtype]

    def _stays_whole(self, piece: Piece) -> bool:
        return piece.elements <= self.config.persistent(self.m.hidden_size)

    def weights(self) -> Iterator[Held]:
        """A rank's part of each, unless parameters are on the host, and small parameters whole."""
        if self.placement.offload != "parameters":
            yield from self._parts()
        for unit in self.units.all:
            for piece in unit.pieces:
                if self._stays_whole(piece):
                    yield Held(self.term_of(piece), piece.elements * self._item_bytes(piece), unit.copies)

    def _parts(self) -> Iterator[Held]:
        for unit in self.units.all:
            for piece in unit.pieces:
                if not piece.trained:
                    yield Held(self.term_of(piece), self._part_elements(piece) * self._item_bytes(piece), unit.copies)
        term = TermName.ADAPTERS if self.recipe.has_adapters else TermName.BASE_WEIGHTS
        for part in self.sub_groups:
            yield Held(term, part * ITEM_BYTES[self.dtype], 1)

    def host_bytes(self) -> int:
        """Also the rank's parts of all parameters, where they are offloaded.

        Source: param_groups_fp16_flat_cpu_memory; partition_parameters.py, _partition_param.
        """
        held = self._parts() if self.placement.offload == "parameters" else ()
        return super().host_bytes() + sum(one.bytes * one.times for one in held)

    def beside(self) -> Iterator[Held]:
        """The fp32 copies that the optimizer updates and the rank's part of all gradients, on the card; the bucket."""
        yield from self.masters()
        yield Held(TermName.OPTIMIZER_STATES, FLAG_BYTES, 1)
        if not self.on_host:
            yield Held(TermName.GRADIENTS, sum(self.sub_groups) * ITEM_BYTES[self.dtype], 1)
        yield Held(TermName.REDUCTION, self.bucket_bytes, 1)

    @cached_property
    def sub_groups(self) -> tuple[int, ...]:
        """Elements of a rank's part of each sort of parameters, cut after so many.

        Source: stage3.py, _create_fp16_sub_groups.
        """
        found = []
        for group in self.groups:
            filled = 0
            for elements in group.elements:
                filled += -(-elements // self.ranks)
                if filled >= self.config.sub_group_size:
                    found.append(filled)
                    filled = 0
            if filled:
                found.append(filled)
        return tuple(found)

    def flat_parts(self) -> tuple[int, ...]:
        """Elements of each sub-group."""
        return self.sub_groups

    def gradients_bytes(self) -> int:
        """None beside those that always stand."""
        return 0

    def accumulated_bytes(self) -> int:
        """None beside those that always stand."""
        return 0

    def optimizer_beside(self) -> int:
        """The norm in fp64 of one gradient's part after the other, or a sub-group's flat copy and its fp32 copy.

        Minus the temporaries of all sub-groups, which are counted already.
        """
        if self.on_host:
            return 0
        most = block_bytes(NORM_BYTES * -(-self.largest // self.ranks))
        for part in self.updated():
            copy = block_bytes(part.bytes)
            flat = 0 if self.dtype == "float32" else block_bytes(part.elements * ITEM_BYTES[self.dtype])
            most = max(most, copy + flat, copy + self.temporary(part))
        return most - sum(map(self.temporary, self.updated()))

    def _gathered(self, unit: Unit) -> tuple[int, int]:
        """Elements and bytes of a unit that come and go."""
        pieces = [piece for piece in unit.pieces if not self._stays_whole(piece)]
        return sum(p.elements for p in pieces), sum(block_bytes(p.elements * self._item_bytes(p)) for p in pieces)

    @cached_property
    def most_gathered(self) -> dict[int, int]:
        """By place: the most bytes gathered while a part runs backward; in the forward it is that of the head."""
        found, elements, size = {}, 0, 0
        for place in sorted(self.by_place):
            unit = self.by_place[place]
            more, bytes_ = self._gathered(unit)
            elements, size = elements + more * unit.copies, size + bytes_ * unit.copies
            found[place] = self._bounded(elements, size)
        return found

    def _bounded(self, elements: int, size: int) -> int:
        """What may be live of so many elements: all, or the most allowed, which the last one prefetched goes beyond.

        Several weights are gathered in one buffer, from which all are copied when the first is asked for, and which
        stays until the last is: a prefetch's worth more, which its last one goes beyond, too.
        Source: partitioned_param_coordinator.py, _fetch_sub_module_impl; AllGatherCoalescedHandle.wait.
        """
        flat = min(elements, self.config.prefetch(self.m.hidden_size) + self._largest_of(self._gathered_together))
        if self.placement.offload == "parameters":  # the rank's parts are copied up first
            flat += flat // self.ranks
        most = self.config.max_live_parameters + self._largest_of(self.units.all)
        share = min(1.0, most / elements) if elements else 0.0
        return int(size * share) + (size * flat // elements if elements else 0)

    @staticmethod
    def _largest_of(units: Iterable[Unit]) -> int:
        return max((piece.elements for unit in units for piece in unit.pieces), default=0)

    @cached_property
    def _stays(self) -> bool:
        """Whether all of the model may be live, so that each weight is gathered once a micro-batch."""
        total = sum(self._gathered(unit)[0] * unit.copies for unit in self.units.all)
        return total <= self.config.max_live_parameters

    @property
    def _gathered_together(self) -> list[Unit]:
        """Units whose weights may share a buffer: not an embedding where all stays: asked for first, it comes alone."""
        first = self.units.last if self.tied else self.units.embedding
        return [unit for unit in self.units.all if not (self._stays and unit is first)]

    def heights(self, parts: Parts) -> Iterator[Height]:
        """All that may be gathered; backward, gradients that wait for the next one, or the copy that is reduced."""
        for turn in parts.forward_turns():
            yield Height(turn, "peak", self.most_gathered[HEAD])
        for turn in parts.backward_turns():
            sizes = [piece.elements for piece in trained_pieces(self.by_place[turn.part.place])]
            waiting = max((size for size in sizes if size > self.bucket_elements), default=0)
            waiting = waiting or min(sum(sizes), self.bucket_elements)
            reduction = block_bytes(waiting * ITEM_BYTES[self.dtype])
            reduction += self.norm_bytes(-(-max(sizes, default=0) // self.ranks))
            gathered, last = self.most_gathered[turn.part.place], turn.part.place == HEAD
            yield Height(turn, "peak", gathered, 0 if last else reduction)
            if last:  # the head's gradient is the first
                yield Height(turn, "after", gathered, reduction)

    def transfers(self, place: int, phase: Phase, syncs: bool) -> tuple[Transfer, ...]:
        """A call a weight: gathered forward and, unless all of the model may stay, backward; gradients scattered."""
        if place not in self.by_place:
            return ()
        unit, found = self.by_place[place], []
        elements, size = self._gathered(unit)
        calls = max(1, sum(not self._stays_whole(piece) for piece in unit.pieces))
        if elements and (phase == "forward" or not self._stays):
            found.append(Transfer("gather", size, calls))
        trained = sum(piece.elements for piece in trained_pieces(unit))
        if phase == "backward" and syncs and trained and place >= EMBEDDING:
            times = max(1, round(trained / self.bucket_elements))
            found.append(Transfer("scatter", trained * ITEM_BYTES[self.dtype], times))
        return tuple(found)

    def copied_bytes(self, place: int, phase: Phase, syncs: bool) -> float:
        """Gathered weights out of their buffer; gradients into the bucket, interleaved, and the rank's part out."""
        moved = 0.0
        for one in self.transfers(place, phase, syncs):
            moved += 2.0 * one.bytes * (1 if one.kind == "gather" else 2 + 1 / self.ranks)
        return moved
