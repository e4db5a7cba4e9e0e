"""A window to both sides of each token, where no kernel of a CPU shows what it saves."""

from __future__ import annotations

import pytest

from advisor.decoders.fused import FLASH, fused_attention
from advisor.tape.graph import Tensor
from advisor.tape.tape import Tape


@pytest.mark.parametrize(("length", "window"), [(16, 4), (64, 1), (32, 16)])
def test_a_window_to_both_sides_counts_the_pairs_in_it(length: int, window: int) -> None:
    t = Tape("cuda", "")
    heads = [Tensor((2, 3, length, 8), "bfloat16") for _ in range(3)]
    fused_attention(t, *heads, None, window, FLASH, causal=False)
    pairs = sum(abs(i - j) <= window for i in range(length) for j in range(length))
    assert [flop for _, _, flop, *_ in t.kernels] == [2 * 3 * 2 * pairs * (8 + 8)]
