"""Recorded programs: identical layers extend linearly, polynomials hold any shape, and more never needs less."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from advisor.costs.memory import StepMemory, predict_step_memory
from advisor.decoders import forward, step
from advisor.decoders.kinds import layer_kinds
from advisor.decoders.step import step_program
from advisor.parameters.stored import as_linears
from advisor.specs import METHODS, ModelSpec, Recipe
from advisor.tape.program import (
    BATCH,
    CHUNKS,
    COEFFICIENT_BITS,
    LENGTH,
    RANK,
    SHARE,
    Launches,
    PartKernels,
    Polynomials,
    basis,
    polynomial,
)
from tests.decoders.tiny import CONFIGS, recipe, spec

NAMES = ("llama", "gemma3-sliding", "gpt2", "falcon-7b", "cohere2", "smollm3-sliding", "gemma2", "starcoder2-dropout")


@pytest.fixture
def unrecorded() -> Iterator[None]:
    """Programs are kept for a whole process: record anew here, and forget it afterwards."""
    step.forget_recordings()
    yield
    step.forget_recordings()


def every_layer(m: ModelSpec, chosen: Recipe, last_apart: bool = False, early: int = 0) -> list[tuple[Any, int]]:
    """A plan that leaves no layer out."""
    return [(kind, 1) for kind in layer_kinds(m, chosen)]


def moving(memory: StepMemory) -> tuple[Any, ...]:
    return memory.peak_bytes, memory.phase_peaks, memory.after_forward_bytes, memory.after_backward_bytes


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", METHODS)
def test_running_one_layer_of_each_kind_equals_running_all(
    name: str, method: Any, monkeypatch: pytest.MonkeyPatch, unrecorded: None
) -> None:
    chosen = [
        (spec(name, layers), knobs)
        for layers in (3, 5, 8)
        for knobs in ({"gradient_checkpointing": False}, {"gradient_checkpointing": True, "autocast": False})
    ]

    def predicted() -> list[tuple[Any, ...]]:
        return [moving(predict_step_memory(m, recipe(m, method, **knobs), 2, 48, "cpu")) for m, knobs in chosen]

    short = predicted()
    monkeypatch.setattr(step, "layer_plan", every_layer)
    step.forget_recordings()
    assert short == predicted()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["full", "qdora"])
def test_a_program_at_a_shape_equals_recording_that_shape(
    name: str, method: Any, monkeypatch: pytest.MonkeyPatch, unrecorded: None
) -> None:
    m = spec(name)
    shape = (3, 51, 5)
    chosen = recipe(m, method, rank=5)
    symbolic = step_program(m, chosen, *shape[:2], "cuda")
    kernels, peaks = symbolic.kernels(*shape), [s.peak_bytes for s in symbolic.memory(*shape)]
    for module, symbol, number in zip((forward, forward, step), ("BATCH", "LENGTH", "RANK"), shape, strict=True):
        monkeypatch.setattr(module, symbol, number)
    step.forget_recordings()
    numeric = step_program(m, chosen, *shape[:2], "cuda")
    assert peaks == [s.peak_bytes for s in numeric.memory(1, 1, 1)]
    assert total(kernels) == total(numeric.kernels(1, 1, 1))


def test_equal_kernels_of_a_program_are_one_object() -> None:
    found = step_program(spec(NAMES[0]), recipe(spec(NAMES[0]), "lora"), 3, 51, "cuda").kernels(3, 51, 5)
    kernels = [kernel for run in found for kernel, _ in run.kernels]
    assert len({id(kernel) for kernel in kernels}) == len(set(kernels)) < len(kernels)


def total(runs: list[PartKernels]) -> list[tuple[float, float, int, Launches, float]]:
    """FLOP, bytes and launches of each part; equal kernels may be counted together in one and not in the other."""
    return [
        (
            sum(k[2] * n for k, n in run.kernels),
            sum(k[3] * n for k, n in run.kernels),
            sum(n for _, n in run.kernels),
            run.launches,
            run.recomputed_flop,
        )
        for run in runs
    ]


LARGEST = (1 << COEFFICIENT_BITS) - 1
coefficients = st.integers(-LARGEST, LARGEST)
sizes = st.integers(1, 10_000)


@given(terms=st.lists(coefficients, min_size=12, max_size=12), batch=sizes, length=sizes, rank=sizes)
def test_a_number_made_of_symbols_is_its_polynomial(terms: list[int], batch: int, length: int, rank: int) -> None:
    def value(b: int, s: int, r: int) -> int:
        powers = [(i, j, k) for k in range(2) for j in range(3) for i in range(2)]
        return sum(c * b**i * s**j * r**k for c, (i, j, k) in zip(terms, powers, strict=True))

    found = polynomial(value(BATCH, LENGTH, RANK))
    assert Polynomials([found]).at(basis(batch, length, rank)) == [value(batch, length, rank)]


IN_BASIS = set(product(range(2), range(3), range(2)))


def test_the_digits_of_a_polynomial_are_those_of_traced_profiles() -> None:
    """Files hold (coefficient, digit) with digit = batch power + 2 * length power + 6 * rank power."""
    for b, s, r in IN_BASIS:
        assert polynomial(7 * BATCH**b * LENGTH**s * RANK**r) == ((7, b + 2 * s + 6 * r),)


def symbols(batch: int, length: int, rank: int) -> Fraction:
    return Fraction(BATCH) ** batch * Fraction(LENGTH) ** length * Fraction(RANK) ** rank


NEARBY = set(product(range(-1, 4), range(-2, 5), range(-1, 3)))


@pytest.mark.parametrize("powers", sorted(p for p in NEARBY - IN_BASIS if symbols(*p) > 1))
def test_products_and_quotients_of_sizes_outside_the_basis_are_refused(powers: tuple[int, int, int]) -> None:
    with pytest.raises(AssertionError, match=r"^5 .* in a recorded size: only"):
        polynomial(int(5 * symbols(*powers)) + 3 * BATCH)


@pytest.mark.parametrize(
    ("number", "named"),
    [
        (BATCH * BATCH, r"^1 batch\^2 in a recorded size: only"),
        (24 * BATCH**2 * LENGTH + 8, r"24 batch\^2 length\^1 "),
        (LENGTH**3, r"^1 .*length\^3 in"),
        (2 * RANK * RANK, r"2 rank\^2 "),
        (LENGTH // BATCH, r"^1 batch\^-1 length\^1 "),
        (3 * BATCH // 2, r"for the constant .* division"),
        (BATCH * LENGTH // 3, r"for the constant .* division|1 .* in a recorded size"),
        (5 * BATCH * LENGTH // 4, r"for length\^1 .* division"),
    ],
)
def test_a_refusal_names_the_power(number: int, named: str) -> None:
    with pytest.raises(AssertionError, match=named):
        polynomial(number)


@given(st.integers(1, 10**9), st.integers(2, 1 << 16), st.sampled_from(sorted(IN_BASIS - {(0, 0, 0)})))
def test_a_division_that_leaves_a_remainder_is_refused(times: int, divisor: int, powers: tuple[int, int, int]) -> None:
    assume(times % divisor)
    with pytest.raises(AssertionError, match="in a recorded size"):
        polynomial(int(times * symbols(*powers) / divisor))


SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 300), st.integers(1, 64), st.integers(2, 9))
"""Rows, tokens, rank and layers, of which hybrids have one of each kind."""


@settings(max_examples=60)
@given(
    name=st.sampled_from(sorted(CONFIGS)),
    method=st.sampled_from(METHODS),
    device=st.sampled_from(("cpu", "cuda")),
    knobs=st.tuples(st.booleans(), st.booleans()),
    small=SHAPES,
    more=st.tuples(*[st.integers(0, 40)] * 4),
)
def test_more_of_anything_never_needs_less(
    name: str, method: Any, device: Any, knobs: tuple[bool, bool], small: tuple[int, ...], more: tuple[int, ...]
) -> None:
    """Rows, tokens, rank and layers."""

    def peak(batch: int, length: int, rank: int, layers: int) -> int:
        m = spec(name, layers)
        chosen: Recipe = recipe(m, method, rank=rank, gradient_checkpointing=knobs[0], autocast=knobs[1])
        return predict_step_memory(m, chosen, batch, length, device).peak_bytes

    large = [a + b for a, b in zip(small, more, strict=True)]
    assert peak(*small) <= peak(*large)


def test_the_last_chunk_of_a_row_counts_as_a_whole_one() -> None:
    assert polynomial(CHUNKS * 3 + BATCH * CHUNKS**2 * 5) == ((3, 14), (5, 17))
    assert basis(2, 25, 4, chunks=3)[14:] == [3, 6, 9, 18]
    m = spec("granitemoehybrid")
    program = step_program(m, recipe(m, "lora"), 2, 49, "cpu")
    assert program.chunk == 16
    assert program is step_program(m, recipe(m, "lora"), 3, 1000, "cpu"), "their number is no part of what is recorded"
    assert program is not step_program(m, recipe(m, "lora"), 2, 48, "cpu"), "the last chunk is not filled up"
    with pytest.raises(AssertionError, match="in a recorded size"):
        polynomial(CHUNKS * LENGTH)


def test_an_experts_share_of_the_tokens_is_rounded_up() -> None:
    program = step_program(as_linears(spec("mixtral")), recipe(spec("mixtral"), "full"), 1, 25, "cpu")
    assert program.choices == (2, 4)
    assert polynomial(SHARE * 3 + BATCH) == ((1, 1), (3, 12))
    assert polynomial(SHARE * RANK * 5) == ((5, 13),)
    assert basis(1, 25, 4, share=13)[12:14] == [13, 52]
    with pytest.raises(AssertionError, match="in a recorded size"):
        polynomial(SHARE * BATCH)
    shapes = {shape for part in program.kernels(1, 25, 4) for (_, _, _, _, shape), _ in part.kernels}
    assert 13 in {rows for rows, _, _ in shapes}  # 25 tokens x 2 experts each, over 4 experts
