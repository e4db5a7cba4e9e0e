"""Numbers, stash and return of saved tensors, one event after the other."""

from __future__ import annotations

from advisor.tape.graph import Buffer, Hosted, Tensor
from advisor.tape.offloading import LEAST_BYTES, STASH, Offloader
from advisor.tape.tape import Tape


def saved(t: Tape, offloader: Offloader, size: int = LEAST_BYTES) -> Buffer | Hosted:
    return offloader.packed(t, (t.empty((size,), "uint8"),))[0]


def test_small_tensors_and_parameters_stay() -> None:
    t, offloader = Tape("cuda"), Offloader()
    assert isinstance(saved(t, offloader, LEAST_BYTES - 1), Buffer)
    assert offloader.packed(t, (Tensor((4096,), "float32"),)) == []
    assert isinstance(saved(t, offloader), Hosted)
    assert t.hosted_bytes == LEAST_BYTES
    assert offloader.number == 3, "each has a number"


def test_the_stash_keeps_the_last_ones_on_the_card() -> None:
    t, offloader = Tape("cuda"), Offloader()
    for _ in range(STASH + 3):
        saved(t, offloader)
    assert list(offloader.stash) == [4, 5, 6, 7, 8]


def test_what_is_saved_twice_stays() -> None:
    t, offloader = Tape("cuda"), Offloader()
    x = t.empty((4096,), "uint8")
    first, second = offloader.packed(t, (x, x))
    assert isinstance(first, Hosted)
    assert second is x.buffer
    assert t.hosted_bytes == 4096


def test_what_came_back_lives_until_the_next_node_is_done() -> None:
    t, offloader = Tape("cuda"), Offloader()
    waiting = [saved(t, offloader) for _ in range(STASH + 2)]
    for number, one in enumerate(waiting[:2], 1):
        held = offloader.unpacked(t, [one])
        assert held[0] is offloader.back[number]
        del held
        offloader.finish_node(t)
        assert list(offloader.back) == [number]
    assert offloader.stash == {}
