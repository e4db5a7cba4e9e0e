from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrate.polynomials import BatchLength, NotAligned, SizeTerms, added, at, solve, whole

MANY = ((2, 10), (2, 24), (2, 31), (3, 24), (7, 60))
ONE = ((1, 10), (1, 24), (1, 31), (1, 60))
ROWS = ((2, 24), (3, 24), (7, 24))
NUMBERS = st.integers(1, 10**6)


def sizes(slot: SizeTerms, shapes: Sequence[BatchLength]) -> list[int]:
    return [at(slot, *shape) for shape in shapes]


@given(NUMBERS, NUMBERS, NUMBERS)
def test_a_size_is_found_again(constant: int, linear: int, square: int) -> None:
    alone = ((constant, 0), (linear, 2), (square, 4))
    assert whole(solve(MANY, sizes(alone, MANY))) == alone
    assert whole(solve(ONE, sizes(alone, ONE))) == alone
    of_rows = ((constant, 0), (linear, 3), (square, 5))
    assert whole(solve(MANY, sizes(of_rows, MANY))) == of_rows
    assert whole(solve(ROWS, sizes(((constant, 0), (linear, 1)), ROWS))) == ((constant, 0), (linear, 1))
    assert whole(solve(ONE[:1], [constant])) == ((constant, 0),)


def test_a_size_with_broken_coefficients_is_refused() -> None:
    with pytest.raises(NotAligned, match="integer coefficients"):
        whole(solve(ONE, [1, 2, 4, 8]))


def test_a_size_by_hand() -> None:
    assert at(((5, 0), (3, 1), (2, 5)), 2, 10) == 5 + 3 * 2 + 2 * 2 * 100


def test_terms_that_cancel_are_left_out() -> None:
    assert added(((4, 0), (2, 3)), ((-2, 3), (7, 9))) == ((4, 0), (7, 9))
