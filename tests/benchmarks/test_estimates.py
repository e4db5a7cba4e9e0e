"""What the thousand estimates are that benchmarks.estimates times."""

from __future__ import annotations

from benchmarks.estimates import drawn_questions

COUNT = 1000


def test_the_estimates_differ_in_every_knob_of_a_sweep() -> None:
    recipes = [recipe for _, recipe, _, _ in drawn_questions(COUNT, anything=False)]
    assert len(set(recipes)) > 0.99 * COUNT
    for knob, values in (
        ("method", 5),
        ("rank", 200),
        ("target_modules", 2),
        ("dropout", 2),
        ("optimizer", 7),
        ("gradient_checkpointing", 2),
        ("micro_batch", 32),
    ):
        assert len({getattr(recipe, knob) for recipe in recipes}) >= values, knob


def test_anything_takes_every_value_of_every_knob() -> None:
    recipes = [recipe for _, recipe, _, _ in drawn_questions(300, anything=True)]
    for knob, values in (
        ("base_dtype", 3),
        ("adapter_dtype", 3),
        ("quant", 4),
        ("attention", 3),
        ("loss", 2),
        ("autocast", 2),
        ("reentrant", 2),
    ):
        assert len({getattr(recipe, knob) for recipe in recipes}) == values, knob
