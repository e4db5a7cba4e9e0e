"""Operations on parts of a tensor: what they keep, and what their backward makes."""

from __future__ import annotations

from advisor.tape.engine import run_backward
from advisor.tape.graph import Tensor
from advisor.tape.pieces import cumulated, difference, joined_last, padded, placed, solved, summed_last
from advisor.tape.tape import Tape

ROWS = 2048
BYTES = ROWS * 64 * 4


def leaf(*shape: int) -> Tensor:
    return Tensor(shape, "float32", needs_grad=True)


def held(t: Tape) -> int:
    """Bytes that are there now."""
    sizes = list(t.slots)
    return sum(-sizes[event >> 3] if event & 1 else sizes[event >> 3] for event in t.events)


def peak(t: Tape, out: Tensor) -> int:
    """The most bytes that the backward of `out` holds, its gradient among them."""
    before, start = held(t), len(t.events)
    run_backward(t, out, t.empty(out.shape, out.dtype))
    sizes, most, live = list(t.slots), 0, 0
    for event in t.events[start:]:
        live += -sizes[event >> 3] if event & 1 else sizes[event >> 3]
        most = max(most, live)
    assert before >= 0
    return most


def test_writing_a_piece_keeps_nothing_and_copies_the_whole_gradient() -> None:
    t = Tape("cpu")
    zeros = t.empty((4, ROWS, 64), "float32")
    out = placed(t, zeros, leaf(ROWS, 64))
    assert held(t) == 4 * BYTES
    assert out.buffer is zeros.buffer
    assert peak(t, out) == 4 * BYTES + 4 * BYTES + BYTES  # the gradient, its copy, the piece


def test_a_piece_written_over_what_has_a_gradient_leaves_zeros() -> None:
    t = Tape("cpu")
    out = placed(t, placed(t, t.empty((4, ROWS, 64), "float32"), leaf(ROWS, 64)), leaf(ROWS, 64))
    assert len([event for event in t.events if not event & 1]) == 1
    assert peak(t, out) == 4 * BYTES + 4 * BYTES + 2 * BYTES


def test_padding_copies_even_where_it_adds_nothing() -> None:
    for rows, launched in ((ROWS, 1), (ROWS + 64, 2)):
        t = Tape("cpu")
        out = padded(t, leaf(ROWS, 64), (rows, 64), pads=rows > ROWS)
        assert held(t) == rows * 64 * 4 == out.bytes
        assert len(t.kernels) == launched


def test_a_sum_spreads_its_gradient_without_a_copy() -> None:
    t = Tape("cpu")
    assert peak(t, summed_last(t, leaf(ROWS, 64))) == ROWS * 4


def test_a_running_sum_turns_its_gradient_around_twice() -> None:
    t = Tape("cpu")
    assert peak(t, cumulated(t, leaf(ROWS, 64))) == 3 * BYTES


def test_a_difference_keeps_nothing() -> None:
    t = Tape("cpu")
    out = difference(t, leaf(ROWS, 1), leaf(1, 64), (ROWS, 64))
    assert held(t) == out.bytes == BYTES


def test_a_solved_system_is_counted_as_half_a_product_and_keeps_both() -> None:
    t = Tape("cpu")
    system, right = leaf(8, 64, 64), leaf(8, 64, 128)
    out = solved(t, system, right)
    assert [kernel[2] for kernel in t.kernels] == [8 * 64 * 64 * 128]
    assert out.node is not None
    t.kernels.clear()
    run_backward(t, out, t.empty(out.shape, out.dtype))
    assert sum(kernel[2] for kernel in t.kernels) == 8 * 64 * 64 * 128 * 3  # a system, and a whole product


def test_joined_parts_get_views_of_their_gradient() -> None:
    t = Tape("cpu")
    out = joined_last(t, [leaf(ROWS, 32), leaf(ROWS, 16), leaf(ROWS, 16)])
    assert held(t) == out.bytes == BYTES
    assert peak(t, out) == BYTES
