"""Backward's engine: two gradients of one node are added in place exactly where nobody else holds the first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from advisor.catalog import find_model
from advisor.costs.memory import predict_step_memory
from advisor.decoders import step
from advisor.specs import Recipe
from advisor.tape import engine
from advisor.tape.engine import run_backward
from advisor.tape.graph import Device, Tensor
from advisor.tape.layout import chunk_last
from advisor.tape.ops import add, scale, shift
from advisor.tape.tape import Tape

FLOAT32 = 4
SHAPE = (3, 256)
SIZE = 3 * 256 * FLOAT32

Sums = Counter[bool]
"""How many sums were made, by whether they were in place."""


@pytest.fixture
def sums(monkeypatch: pytest.MonkeyPatch) -> Sums:
    """Counts the engine's sums: one in place leaves the record of allocations as it was."""
    found: Sums = Counter()
    made = engine._sum

    def counted(t: Tape, held: list[Tensor], new: Tensor) -> Tensor:
        events = len(t.events)
        out = made(t, held, new)
        found[len(t.events) == events] += 1
        return out

    monkeypatch.setattr(engine, "_sum", counted)
    return found


def both_scaled(t: Tape, x: Tensor) -> Tensor:
    """x reaches the sum on two ways, and each makes a gradient of its own."""
    return add(t, scale(t, x), scale(t, x))


def one_passed_on(t: Tape, x: Tensor) -> Tensor:
    """x reaches the sum on two ways that hand on the gradient that came in: one tensor for both."""
    return add(t, shift(t, x), x)


def a_view_held(t: Tape, x: Tensor) -> Tensor:
    """One tensor for two sums: x gets it first, while the other still waits with a view of the same memory."""
    other = scale(t, x)
    return add(t, add(t, t.view(x, SHAPE), x), other)


def halves_twice(t: Tape, x: Tensor) -> Tensor:
    """Each half of x is used twice, each time with a gradient of its own.

    PyTorch adds both in place: torch.profiler counts two `aten::add_` and no `aten::add` in this graph's backward.
    """
    left, right = chunk_last(t, x, (128, 128))
    return add(t, both_scaled(t, left), both_scaled(t, right))


def graph(t: Tape, made: Callable[[Tape, Tensor], Tensor]) -> int:
    """Run `made` of a tensor with a node and then backward; how many allocations backward noted."""
    leaf = Tensor(SHAPE, "float32", needs_grad=True)
    out = made(t, scale(t, leaf))
    forward = len(t.events)
    run_backward(t, out, t.empty(out.shape, out.dtype))
    return sum(event % 2 == 0 for event in t.events[forward:])


@pytest.mark.parametrize(
    ("made", "device", "in_place", "thirds"),
    [
        (both_scaled, "cuda", 1, 0),
        (both_scaled, "cpu", 0, 1),
        (one_passed_on, "cuda", 0, 1),
        (one_passed_on, "cpu", 0, 1),
        (a_view_held, "cuda", 1, 1),
        (halves_twice, "cuda", 2, 0),
        (halves_twice, "cpu", 0, 2),
    ],
)
def test_a_sum_is_in_place_where_nobody_else_holds_the_first(
    made: Callable[[Tape, Tensor], Tensor], device: Device, in_place: int, thirds: int, sums: Sums
) -> None:
    graph(Tape(device), made)
    assert sums == Counter({True: in_place, False: thirds})


def test_a_sum_in_place_allocates_nothing() -> None:
    """The root's gradient, one for each of the two ways, and the leaf's; a shared one needs a third tensor."""
    assert graph(Tape("cuda"), both_scaled) == 1 + 2 + 1 + 1
    assert graph(Tape("cpu"), both_scaled) == 1 + 2 + 1 + 1 + 1


def test_memory_that_was_added_to_in_place_is_released_once() -> None:
    t = Tape("cuda")
    graph(t, both_scaled)
    balance = Counter(event & -2 for event in t.events if event % 2 == 0)
    balance.subtract(event & -2 for event in t.events if event % 2)
    assert not any(balance.values())


@pytest.mark.parametrize(("model", "shared"), [("gpt-neox-20b", True), ("gpt-oss-20b", False), ("llama-3-8b", False)])
def test_a_parallel_residual_shares_gradients_and_a_serial_one_does_not(model: str, shared: bool, sums: Sums) -> None:
    step.forget_recordings()
    predict_step_memory(find_model(model), Recipe(method="lora", target_modules=("attention",)), 1, 64, "cuda")
    step.forget_recordings()
    assert sums[True]
    assert bool(sums[False]) == shared
