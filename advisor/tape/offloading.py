"""Saved tensors that wait in the host's memory: what a trainer's hooks on saved tensors do, in their order.

Source: trl 1.16, models/activation_offloading.py, OffloadActivations with streams; torchtune 0.6.1,
training/_activation_offloading.py, which it grew from and which copies a tensor as often as it is saved.
"""

from __future__ import annotations

from collections.abc import Sequence

from advisor.tape.graph import SAVED, TEMPORARY, Buffer, Hosted, Tensor
from advisor.tape.tape import Tape

STASH = 5
"""max_fwd_stash_size: how many saved tensors later the card's copy may go, since its copying must be done by then."""
LEAST_BYTES = 1024
"""min_offload_size."""


class Offloader:
    """Numbers every saved tensor; parameters and small tensors stay where they are.

    A tensor that is saved again while the stash holds it stays on the card. Back from the host, a tensor lives until
    the next node that brings one back is done. Ignores: copies of tensors that are not contiguous, which stand for
    them in the stash.
    """

    def __init__(self) -> None:
        self.number = 0
        self.stash: dict[int, Buffer] = {}
        self.known: dict[int, int] = {}  # numbers by the id of a buffer that is alive
        self.back: dict[int, Buffer] = {}
        self.leaving: list[int] | None = None  # what came back for earlier nodes, while a node brings more back

    def packed(self, t: Tape, tensors: Sequence[Tensor]) -> list[Buffer | Hosted]:
        """What a node holds in place of these."""
        found = (self._pack(t, tensor) for tensor in tensors)
        return [one for one in found if one is not None]

    def _pack(self, t: Tape, x: Tensor) -> Buffer | Hosted | None:
        self.number += 1
        buffer = x.buffer
        if buffer is None:
            return None
        if buffer.category == TEMPORARY:
            buffer.move_to(SAVED)
        if id(buffer) in self.known:
            self.known[id(buffer)] = self.number
            return buffer
        if x.bytes < LEAST_BYTES:
            return buffer
        for number in list(self.stash):
            if number > self.number - STASH:
                break
            self._forget(number)
        t.to_host(x)
        self.stash[self.number] = buffer
        self.known[id(buffer)] = self.number
        return Hosted(self.number, x.shape, x.dtype)

    def _forget(self, number: int) -> None:
        buffer = self.stash.pop(number)
        if self.known.get(id(buffer)) == number:
            del self.known[id(buffer)]

    def unpacked(self, t: Tape, saved: Sequence[Buffer | Hosted | None]) -> list[Buffer | None]:
        """What a node's backward works with."""
        return [self.returned(t, one) if isinstance(one, Hosted) else one for one in saved]

    def returned(self, t: Tape, one: Hosted) -> Buffer:
        """A tensor from the stash, or from the host."""
        if self.leaving is None:
            self.leaving = list(self.back)
            self.known.clear()
        buffer = self.stash.get(one.number)
        if buffer is None:
            buffer = t.from_host(one.shape, one.dtype).buffer
            assert buffer is not None
            self.back[one.number] = buffer
        return buffer

    def finish_node(self, t: Tape) -> None:
        """A node's backward has run: the stash goes, what came back for nodes before, and what others hold now.

        Whether others hold it shows when it is dropped: its memory is given back, and that is undone.
        """
        if self.leaving is None:
            return
        self.stash.clear()
        for number in self.leaving:
            del self.back[number]
        self.leaving = None
        for number in list(self.back):
            code, events = self.back[number].code, len(t.events)
            del self.back[number]
            if len(t.events) > events:
                t.events.pop()
                self.back[number] = Buffer.standing(t, code)

    def finish_backward(self) -> None:
        """The last of what came back goes."""
        self.back.clear()
