"""Hand-made programs as requests to the allocator."""

from __future__ import annotations

from advisor.costs.requests import micro_step
from advisor.tape.graph import GRADIENT, LOGITS, SAVED, TEMPORARY
from advisor.tape.program import Part, Program


def _event(slot: int, category: int, freed: bool = False) -> int:
    return slot * 8 + category * 2 + freed


def _program(*parts: tuple[str, int, list[int]]) -> Program:
    """A program of (phase, copies, events) parts with two sizes."""
    program = Program([event for _, _, events in parts for event in events], {100: 0, 200: 1}, [])
    start = 0
    for place, (phase, copies, events) in enumerate(parts):
        part = Part(phase, place, copies, start)
        start = part.end = start + len(events)
        program.add(part, [])
    return program


def test_a_layer_that_stands_for_three_is_played_three_times() -> None:
    made = micro_step(
        _program(
            ("forward", 3, [_event(0, TEMPORARY), _event(1, TEMPORARY), _event(1, TEMPORARY, True)]),
            ("backward", 3, [_event(0, TEMPORARY, True), _event(1, GRADIENT)]),
        )
    )
    # 0, 2 and 4 stay until the backward pass, which frees the youngest first
    assert list(made.forward.codes) == [0, 2, 3, 4, 6, 7, 8, 10, 11]
    assert list(made.backward.codes) == [9, 12, 5, 14, 1, 16]
    assert (list(made.gradients), list(made.carried), made.registers) == ([6, 7, 8], [], 9)


def test_moving_bytes_to_another_category_asks_for_nothing() -> None:
    events = [_event(0, TEMPORARY), _event(0, TEMPORARY, True), _event(0, SAVED)]
    made = micro_step(_program(("forward", 1, events), ("backward", 1, [_event(0, SAVED, True)])))
    assert (list(made.forward.codes), list(made.backward.codes)) == ([0], [1])


def test_what_is_left_is_carried_and_what_stood_before_is_not_released() -> None:
    made = micro_step(_program(("forward", 1, [_event(0, LOGITS)]), ("backward", 1, [_event(1, SAVED, True)])))
    assert (list(made.carried), list(made.backward.codes)) == ([0], [])


def test_an_evaluation_is_a_forward_alone() -> None:
    made = micro_step(_program(("forward", 2, [_event(0, TEMPORARY), _event(0, TEMPORARY, True)])))
    assert (list(made.forward.codes), list(made.backward.codes)) == ([0, 1, 2, 3], [])
