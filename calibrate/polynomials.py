"""Sizes of traced tensors as polynomials in the micro-batch and the length, solved exactly from a few shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

from advisor.errors import AdvisorError

BatchLength = tuple[int, int]
"""(micro-batch, sequence length)."""
SizeTerms = tuple[tuple[int, int], ...]
"""(coefficient, digit) of each term; digit: batch power + 2 * length power, as in advisor.tape.program."""
Terms = dict[int, Fraction]
"""Coefficient by digit."""


class NotAligned(AdvisorError):
    """The step allocates different tensors at different shapes; the message says where."""


def solve(shapes: Sequence[BatchLength], sizes: Sequence[int]) -> Terms:
    """The polynomial through the sizes of a tensor at the shapes of a regime; the last shape is kept to check it.

    The number of shapes identifies the regime: 5 for many rows, 4 for one row, 3 for one length, 1 for one shape.
    """
    return {5: _solve_many, 4: _solve_one, 3: _solve_rows, 1: _solve_single}[len(shapes)](shapes, sizes)


def _in_length(lengths: Sequence[int], sizes: Sequence[int]) -> list[Fraction]:
    """Coefficients of the parabola through three points."""
    (x, y, z), (a, b, c) = lengths, sizes
    first, second = Fraction(b - a, y - x), Fraction(c - b, z - y)
    square = (second - first) / (z - x)
    slope = first - square * (x + y)
    return [a - slope * x - square * x * x, slope, square]


def _solve_many(shapes: Sequence[BatchLength], sizes: Sequence[int]) -> Terms:
    """Two rows at three lengths, three rows at the second of them."""
    rows_free = _in_length([n for _, n in shapes[:3]], sizes[:3])
    a, b = sizes[1], sizes[3]
    if a == b:
        return {2 * power: c for power, c in enumerate(rows_free)}
    per_row = b - a
    left = a - 2 * per_row  # what does not depend on the rows: nothing, or a constant
    return {0: Fraction(left)} | {
        2 * power + 1: (c - (left if power == 0 else 0)) / 2 for power, c in enumerate(rows_free)
    }


def _solve_one(shapes: Sequence[BatchLength], sizes: Sequence[int]) -> Terms:
    """One row at three lengths."""
    return {2 * power: c for power, c in enumerate(_in_length([n for _, n in shapes[:3]], sizes[:3]))}


def _solve_rows(shapes: Sequence[BatchLength], sizes: Sequence[int]) -> Terms:
    """Two and three rows at one length."""
    per_row = sizes[1] - sizes[0]
    return {0: Fraction(sizes[0] - 2 * per_row), 1: Fraction(per_row)}


def _solve_single(shapes: Sequence[BatchLength], sizes: Sequence[int]) -> Terms:
    """One shape."""
    return {0: Fraction(sizes[0])}


def whole(terms: Terms) -> SizeTerms:
    """The terms that are not zero. Raises NotAligned when a coefficient is not an integer."""
    found = tuple((int(c), digit) for digit, c in sorted(terms.items()) if c)
    if any(c.denominator != 1 for c in terms.values()):
        raise NotAligned("a tensor's size is not a polynomial with integer coefficients")
    return found


def at(polynomial: SizeTerms, batch: int, length: int) -> int:
    """The size at a shape."""
    return sum(c * batch ** (digit % 2) * length ** (digit // 2) for c, digit in polynomial)


def added(one: SizeTerms, other: SizeTerms) -> SizeTerms:
    """The sum of two polynomials, without terms that cancel."""
    total = Counter({digit: c for c, digit in one})
    for c, digit in other:
        total[digit] += c
    return tuple((c, digit) for digit, c in sorted(total.items()) if c)
