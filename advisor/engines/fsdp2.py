"""PyTorch's `fully_shard` as accelerate sets it up: a unit for the embedding, each decoder layer, and norm with head.

Sources: PyTorch 2.13, distributed/fsdp/_fully_shard (_fsdp_param_group.py, _fsdp_collectives.py, _fsdp_param.py);
accelerate 1.15, utils/fsdp_utils.py, fsdp2_prepare_model.

A unit's weights are gathered into one buffer and copied out of it. Forward: the buffer of the unit before is freed only
after the next unit's copy-out. Backward: the unit before is gathered while a layer runs; the buffer of a unit's
gradients waits for the end of the next layer. The last unit keeps its weights from the forward on, and so does every
unit where nothing is resharded.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from advisor.blocks import ITEM_BYTES, block_bytes, pinned_bytes
from advisor.decoders.recorder import EMBEDDING, HEAD
from advisor.decoders.units import Piece, Unit
from advisor.engines.engine import (
    Engine,
    Height,
    Held,
    Phase,
    Transfer,
    as_trained,
    gradient_blocks,
    padded_elements,
    shard_rows,
    trained_pieces,
)
from advisor.engines.parts import Parts, Turn
from advisor.libraries import libraries_of
from advisor.parameters.trained import Trained
from advisor.specs import Recipe


class UnitBytes(NamedTuple):
    """A unit in each of its states, in blocks."""

    buffer: int  # gathered
    weights: int  # copied out of the buffer
    cast: int  # this rank's part in the dtype that is gathered
    gradients: int  # whole
    scattered: int  # the input of their reduction
    left: int  # this rank's part of them
    reducing: int  # at most, from their copy-in until that part is there; beside them, or in their place
    stored: int  # this rank's part of the weights
    copied: int  # this rank's part of the gradients as copies of the model exchange it, to the end of backward


NOTHING = UnitBytes(*[0] * 9)


class Fsdp2(Engine):
    """Everything that is a parameter is spread over the ranks by its rows."""

    name = "FSDP2"
    spreads = True

    @property
    def mixed(self) -> bool:
        """Whether accelerate's mixed precision is on: weights are gathered, and gradients reduced, in 16 bits.

        LitGPT calls fully_shard without a policy, under autocast. Source: litgpt 0.5.13, finetune/lora.py.
        """
        return self.recipe.autocast and libraries_of(self.recipe.stack).code != "litgpt"

    @property
    def gathers(self) -> str:
        """The dtype that is gathered; '' for each parameter's own."""
        return self.half if self.mixed else ""

    @property
    def gradient_dtype(self) -> str:  # type: ignore[override]
        """That of the gathered weights."""
        return self.gathers

    def computed(self) -> Recipe:
        """All weights in 16 bits and no autocast: MixedPrecisionPolicy casts, the forward is not wrapped.

        Source: accelerate 1.15, accelerator.py, _prepare_fsdp2.
        """
        if not self.mixed:
            return self.recipe
        same = dict.fromkeys(("base_dtype", "adapter_dtype", "magnitude_dtype"), self.half)
        return self.recipe.model_copy(update={**same, "autocast": False, "kbit_upcast": False})

    def stored_dtype(self, piece: Piece) -> str:
        """What a parameter's part is kept in: trained ones in fp32, unless the model has weights in 4 bits."""
        upcast = piece.trained and self.mixed and not self.recipe.is_quantized
        return "float32" if upcast else piece.dtype

    def weights(self) -> Iterator[Held]:
        """Each parameter's rows of this rank; none where they are on the host (CPUOffloadPolicy)."""
        return iter(()) if self.on_host else self._parts()

    def _parts(self) -> Iterator[Held]:
        for unit in self.units.all:
            for piece in unit.pieces:
                yield Held(self.term_of(piece), self._stored_bytes(piece), unit.copies)

    def _stored_bytes(self, piece: Piece) -> int:
        return shard_rows(piece, self.ranks) * piece.columns * ITEM_BYTES[self.stored_dtype(piece)]

    def updated(self) -> list[Trained]:
        """The trained parameters' rows of this rank, on the card."""
        return [] if self.on_host else self._updated()

    def updated_on_host(self) -> list[Trained]:
        """The same where they are on the host."""
        return self._updated() if self.on_host else []

    def host_bytes(self) -> int:
        """Parts of the weights and of their gradients, in pinned memory.

        Sources: PyTorch 2.13, distributed/fsdp/_fully_shard/_fsdp_api.py, CPUOffloadPolicy; _fsdp_collectives.py,
        foreach_reduce, copies gradients without blocking, for which ATen's _to_copy pins.
        """
        if not self.on_host:
            return 0
        tensors = [*((held.bytes, held.times) for held in self._parts())]
        tensors += [(one.bytes, one.times) for one in self.updated_on_host()]
        return sum(pinned_bytes(size) * times for size, times in tensors)

    def _updated(self) -> list[Trained]:
        return [self._part(piece, unit.copies) for unit in self.units.all for piece in trained_pieces(unit)]

    def _part(self, piece: Piece, times: int) -> Trained:
        return as_trained(piece, shard_rows(piece, self.ranks), self.stored_dtype(piece), times)

    def _bytes_of(self, unit: Unit) -> UnitBytes:
        """A unit in each of its states. Packed weights are gathered as they are.

        A reduction's input is filled beside all gradients; then they are freed but for the last one, which a loop's
        variable holds, and its output is made. That is the rank's part or, where that has another dtype, is cast to it,
        and held where copies of the model exchange it (_fsdp_collectives.py, foreach_reduce; AllReduceState).
        """
        n, dtype = self.ranks, self.gathers
        sizes = [padded_elements(p, n) * ITEM_BYTES[(not p.packed and dtype) or p.dtype] for p in unit.pieces]
        trained = trained_pieces(unit)
        scattered = sum(padded_elements(p, n) * ITEM_BYTES[dtype or self.stored_dtype(p)] for p in trained)
        left = block_bytes(sum(self._part(p, 1).bytes for p in trained))  # one tensor, of which gradients are views
        stored = sum(block_bytes(self._stored_bytes(p)) for p in unit.pieces)
        output = block_bytes(scattered // n) if any(dtype not in ("", self.stored_dtype(p)) for p in trained) else 0
        return UnitBytes(
            buffer=block_bytes(sum(sizes)),
            weights=sum(map(block_bytes, sizes)),
            cast=(block_bytes(sum(sizes) // n) if dtype else 0) + (stored if self.on_host else 0),
            gradients=gradient_blocks(unit.pieces, dtype),
            scattered=block_bytes(scattered),
            left=0 if self.on_host else left,
            reducing=block_bytes(scattered) + max(0, left + output - gradient_blocks(trained[:-1], dtype)),
            stored=stored,
            copied=output if self.placement.gpus > n else 0,
        )

    @cached_property
    def sizes(self) -> dict[int | None, UnitBytes]:
        """The bytes of each unit, by the place of its part; a tied embedding's are the last unit's."""
        return {None: NOTHING, **{place: self._bytes_of(unit) for place, unit in self.by_place.items()}}

    def gradients_bytes(self) -> int:
        """What is left of each unit's."""
        return sum(self._bytes_of(unit).left * unit.copies for unit in self.units.all)

    def accumulated_bytes(self) -> int:
        """Whole gradients, in the dtype of the gathered weights."""
        return sum(gradient_blocks(unit.pieces, self.gradient_dtype) * unit.copies for unit in self.units.all)

    def reduced(self) -> dict[int, int]:
        """A unit is reduced as soon as its layer has run backward; tied weights with the embedding."""
        waiting = {HEAD} if self.tied else set()
        return {
            p: one.left + one.copied - one.gradients
            for p, one in self.sizes.items()
            if p is not None and p not in waiting
        }

    def heights(self, parts: Parts) -> Iterator[Height]:
        """Around each part: its copy-out, its highest point, and the reduction of its gradients."""
        standing = self.sizes[HEAD].weights if self.tied else 0
        for turn in parts.forward_turns():
            yield from self._forward(turn, standing)
        for turn in parts.backward_turns():
            yield from self._backward(turn, standing if turn.part.place != HEAD else 0)

    @cached_property
    def kept(self) -> int:
        """What stands of gathered weights where nothing is resharded: all units, as at the end of the forward.

        Ignores: that fewer stand early in the forward and late in the backward, away from the highest point.
        """
        return 0 if self.placement.reshard else sum(self.sizes[p].weights * u.copies for p, u in self.by_place.items())

    def _forward(self, turn: Turn, standing: int) -> Iterator[Height]:
        place = turn.part.place
        me, before = self.sizes[place], self._exchanged(turn.earlier)
        if self.tied and place == HEAD:  # gathered since the embedding
            yield Height(turn, "peak", max(standing, self.kept) + before.buffer)
            return
        if self.tied and place == EMBEDDING:
            me = self.sizes[HEAD]
            standing = 0
        weights = max(standing + me.weights, self.kept if place != EMBEDDING else 0)
        yield Height(turn, "before", before.buffer + me.buffer + max(weights, standing + me.cast))
        yield Height(turn, "peak", me.buffer + weights)

    def _backward(self, turn: Turn, standing: int) -> Iterator[Height]:
        place = turn.part.place
        me, ahead = self.sizes[place], self.sizes[turn.later].buffer if self.placement.reshard else 0
        waiting = 0 if self.tied and turn.earlier == HEAD else self.sizes[turn.earlier].scattered
        if place == HEAD:  # the loss runs backward before the head is asked for
            weights = max(me.weights, self.kept)
            yield Height(turn, "peak", weights)
            yield Height(
                turn, "after", weights - (0 if self.tied else me.weights) + ahead, 0 if self.tied else me.reducing
            )
        elif place == EMBEDDING:
            last = self.sizes[HEAD] if self.tied else me
            yield Height(turn, "peak", standing + (0 if self.tied else me.buffer), waiting)
            yield Height(turn, "after", 0, max(waiting, last.reducing))
        else:
            weights = max(standing + me.weights, self.kept)
            if self.placement.reshard:
                yield Height(turn, "before", me.buffer + weights, waiting)
            yield Height(turn, "peak", weights + ahead, waiting)
            yield Height(turn, "after", weights - me.weights + ahead, me.reducing)

    def aside_bytes(self) -> int:
        """The buffers of two units, one after the other, with this rank's part of one.

        Source: PyTorch 2.13, distributed/fsdp/_fully_shard/_fsdp_collectives.py, foreach_all_gather.
        """
        places = sorted(self.by_place)
        units = [self.sizes[place] for place in places for _ in range(min(2, self.by_place[place].copies))]
        return max((one.buffer + two.buffer + max(one.cast, two.cast) for one, two in pairwise(units)), default=0)

    def transfers(self, place: int, phase: Phase, syncs: bool) -> tuple[Transfer, ...]:
        """A unit is gathered before its forward and, unless its weights stay, before its backward; then reduced.

        Between copies of the model, what is left of the gradients is reduced once more.
        """
        me = self._exchanged(place)
        found = []
        if me.buffer and (phase == "forward" or not self._stays(place)):
            found.append(Transfer("gather", me.buffer))
        if phase == "backward" and syncs and me.scattered:
            found.append(Transfer("scatter", me.scattered))
            if self.placement.gpus > self.ranks:
                found.append(Transfer("reduce", me.scattered // self.ranks, among="copies"))
        return tuple(found)

    def host_copies(self, place: int, phase: Phase, syncs: bool) -> tuple[int, int]:
        """A unit's part comes each time that it is gathered; what is left of its gradients goes."""
        if not self.on_host:
            return 0, 0
        kinds = {one.kind for one in self.transfers(place, phase, syncs)}
        unit = HEAD if self.tied and place == EMBEDDING else place
        down = (
            sum(self._part(piece, 1).bytes for piece in trained_pieces(self.by_place[unit]))
            if unit in self.by_place
            else 0
        )
        return self._exchanged(place).stored if "gather" in kinds else 0, down if "scatter" in kinds else 0

    def _exchanged(self, place: int | None) -> UnitBytes:
        """The unit that comes and goes with a part: tied weights with the embedding."""
        if self.tied and place in (EMBEDDING, HEAD):
            return self.sizes[HEAD] if place == EMBEDDING else NOTHING
        return self.sizes.get(place, NOTHING)

    def _stays(self, place: int) -> bool:
        """Whether a unit's weights are kept from its forward to its backward."""
        return not self.placement.reshard or place == (EMBEDDING if self.tied else HEAD)

    def copied_bytes(self, place: int, phase: Phase, syncs: bool) -> float:
        """Weights are copied out of their buffer, gradients into theirs, and what is left of them is cast."""
        me = self._exchanged(place)
        gathered = any(one.kind == "gather" for one in self.transfers(place, phase, syncs))
        out = 2.0 * me.weights + 2.0 * me.cast if gathered else 0.0
        if phase == "backward" and syncs:
            out += float(me.gradients + me.scattered + me.left + me.scattered // self.ranks)
        return out
