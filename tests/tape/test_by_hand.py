"""One linear layer, its LoRA and its DoRA: every byte worked out by hand from PyTorch's and peft's code.

The layer turns x (2, 128, 256) into (2, 128, 512) on a card, its adapter of rank 16 in bf16 where nothing else is said.
x is made by an operation before the layer, whose backward makes one more gradient of x's size. Nobody but the layer
holds x; the caller holds the output and its gradient through backward. Weights are not counted.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any, NamedTuple

import pytest

from advisor.decoders.adapters import linear
from advisor.decoders.linear import Linear
from advisor.specs import LinearShape, Recipe
from advisor.tape.engine import checkpoint, run_backward
from advisor.tape.graph import Tensor
from advisor.tape.ops import scale
from advisor.tape.tape import Tape

X = 131_072  # 2 * 128 * 256 * 2 bytes: x and its gradient
Y = 262_144  # 2 * 128 * 512 * 2: the output, the base layer's result, the update
W = 262_144  # 512 * 256 * 2: the weight's gradient; DoRA's B A
M = 8_192  # 2 * 128 * 16 * 2: between A and B
A, B = 8_192, 16_384  # 16 * 256 * 2 and 512 * 16 * 2: the adapter's gradients
V = 1_024  # 512 * 2: one number for each output feature
EYE, EYE_A = 131_072, 8_192  # 256 * 256 * 2 and 256 * 16 * 2: the identity that DoRA sends through A and B


class Bytes(NamedTuple):
    """What is live at the highest point, between forward and backward, and after both."""

    peak: int
    after_forward: int
    after_backward: int


EXPECTED = {
    # Forward keeps x; the output stands. Backward holds x, the output and its gradient, and makes the gradients of x
    # and of the weight. Left: the gradient of what x was made from, and the weight's.
    "linear": Bytes(X + 2 * Y + X + W, X + Y, X + W),
    # The region's input is held in place of the saved x, which is the same; the run again stops before the product.
    "linear, checkpointed": Bytes(X + 2 * Y + X + W, X + Y, X + W),
    # Forward keeps x and what lies between A and B. Backward's highest point is that of B: x, what is between, the
    # output, its gradient, the scaled gradient, and the gradients of what is between and of B.
    # (Forward's: x, what is between, the base layer's result, the update scaled and not: X + M + 3 Y.)
    "LoRA": Bytes(X + M + 3 * Y + M + B, X + M + Y, X + A + B),
    # Forward keeps x. B's backward runs the layer again while x, the output, its gradient and the scaled one are live:
    # the base layer's result and what is between A and B are made, then the run stops.
    "LoRA, checkpointed": Bytes(X + 3 * Y + Y + M, X + Y, X + A + B),
    # Forward keeps x, what is between A and B, the base layer's result, the update, the norm, the magnitude over the
    # norm, and that less one. Backward's highest point is where the product of ratio and update hands out its
    # gradients: all that was kept, the output, its gradient, the scaled one, those of ratio and update at full size,
    # and the ratio's once reduced.
    # (Forward's, at the last sum: x, B A with the identity and what it became behind A, what is between, three vectors,
    # and the base layer's result, the update, both times their ratio and the sum: X + W + EYE + EYE_A + M + 3 V + 5 Y.)
    "DoRA": Bytes((X + M + 2 * Y + 3 * V) + 2 * Y + Y + 2 * Y + V, X + M + 2 * Y + 3 * V + Y, X + A + B + V),
    # Forward keeps x. Run again while x, the output, its gradient and the scaled one are live, until the product of
    # ratio and update would be made: B A with its identity, what is between, three vectors, the base layer's result,
    # the update, and the first product.
    "DoRA, checkpointed": Bytes((X + 3 * Y) + (W + EYE + EYE_A) + (M + 3 * V) + 3 * Y, X + Y, X + A + B + V),
    # An adapter in fp32 under autocast: peft casts x to fp32, and autocast back to bf16 and A and B to bf16.
    # Forward's highest point: x three times (6 bytes in fp32 and bf16, and x itself), the casts of A and B, what is
    # between, the base layer's result, the update scaled and not. Kept: x, A and B as cast, what is between.
    # Left: the gradients of A and B in fp32.
    "LoRA in fp32, autocast": Bytes((X + 2 * X + X) + (A + B) + M + 3 * Y, X + (A + B) + M + Y, X + 2 * A + 2 * B),
}


def recipe_of(case: str) -> Recipe:
    """The recipe that the case names."""
    layer = case.partition(",")[0].split()[0].lower()
    knobs: dict[str, Any] = {
        "method": "full" if layer == "linear" else layer,
        "adapter_dtype": "float32" if "fp32" in case else "bfloat16",
        "magnitude_dtype": "bfloat16",
        "autocast": "autocast" in case,
        "dropout": 0.0,
    }
    return Recipe(**knobs)


def live_bytes(t: Tape) -> list[int]:
    """What is live after each event, from none at the start."""
    sizes = list(t.slots)
    assert all(size % 512 == 0 for size in sizes)  # the allocator's blocks, so that nothing is rounded
    return list(accumulate((-sizes[e >> 3] if e % 2 else sizes[e >> 3] for e in t.events), initial=0))


def measured(case: str) -> Bytes:
    """What the tape says."""
    recipe = recipe_of(case)
    t = Tape("cuda", "bfloat16" if recipe.autocast else "")
    rank = 16 if recipe.has_adapters else 0
    m = Linear(LinearShape(name="q_proj", in_features=256, out_features=512), recipe, rank, "none", "bfloat16")
    before = Tensor((2, 128, 256), "bfloat16", needs_grad=True)
    if "checkpointed" in case:
        out = checkpoint(t, lambda x: linear(t, x, m), scale(t, before), reentrant=False)
    else:
        out = linear(t, scale(t, before), m)
    t.autocast = ""
    t.autocast_cache.clear()
    forward = len(t.events)
    gradient = t.empty(out.shape, out.dtype)
    run_backward(t, out, gradient)
    del out, gradient
    live = live_bytes(t)
    return Bytes(max(live), live[forward], live[-1])


@pytest.mark.parametrize("case", EXPECTED)
def test_a_layer_needs_what_was_worked_out_by_hand(case: str) -> None:
    assert measured(case) == EXPECTED[case], case
