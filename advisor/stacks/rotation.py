"""Rotary positions as trainers' own models compute them."""

from __future__ import annotations

from advisor.tape.graph import Tensor
from advisor.tape.layout import cat_last, slice_last
from advisor.tape.ops import add, cast, mul, subtract
from advisor.tape.tape import Tape


def turned_in_pairs(t: Tape, x: Tensor) -> Tensor:
    """x (B, heads, S, D) turned in fp32, even features against odd ones, by a table that is held for good.

    Every use of the even or the odd features cuts them out anew, and gives them back in a tensor of zeros.
    """
    wide, half, length = cast(t, x, "float32"), x.shape[-1] // 2, x.shape[2]
    table = Tensor((1, 1, length, half), "float32")

    def part() -> Tensor:
        return slice_last(t, wide, half)

    parts = [subtract(t, mul(t, part(), table), mul(t, part(), table))]
    parts.append(add(t, mul(t, part(), table), mul(t, part(), table)))
    joined = cat_last(t, *parts)
    parts.clear()
    return cast(t, joined, x.dtype)
