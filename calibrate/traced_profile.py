"""Traces of one step at several shapes -> the polynomials and events of a traced profile. Needs no torch.

Nothing is fitted to a peak. Each tensor of the step has a size at every traced shape. Where the step makes the same
tensors in the same order at every shape, that size is solved for as an exact polynomial: in the length from three
lengths, in the micro-batch from two (a tensor holds every row, does not depend on the rows, or is a sum of both), in
the rank from a second rank. The polynomials must then match one more, larger shape, tensor by tensor. A micro-batch of
one row is a separate regime: with one row there are views where two rows need copies.

A step whose tensors change with the length (a loop over tokens or chunks, windows) is traced at the one length asked
for, and its profile covers only that length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from advisor.costs.traced import CLEARED, COMPLETE, GIVEN_BACK, GRADIENT, KEPT, MADE, TEMPORARY
from advisor.errors import SourceUnavailable
from advisor.files.traced import pack, profile_text, structure_of
from advisor.files.written import replace_text
from advisor.specs import Recipe
from advisor.terms import TermName
from calibrate.measurement import Environment, ModelFacts, ShapeTraces, StepEvents, TrainedTensor
from calibrate.polynomials import BatchLength, NotAligned, SizeTerms, added, at, solve, whole
from calibrate.timeline import STATIC

Tracer = Callable[[Recipe, Sequence[BatchLength]], ShapeTraces]

LONGEST = 2048
MANY = 1_000_000
PILOT = (9, 14)
STATIC_TERMS = {category: term for category, term in STATIC.items() if term is not TermName.OPTIMIZER_STATES}
"""Static terms stored as traced; optimizer states are derived from the trained tensors instead."""


def lengths_of(facts: ModelFacts, seq_len: int) -> tuple[int, int, int, int]:
    """Three lengths to solve at and a longer one to check, up to the model's positions."""
    longest = max(LONGEST, seq_len, *(2 * size for size in facts.breaks if size <= LONGEST))
    if facts.max_position_embeddings:
        longest = min(longest, max(facts.max_position_embeddings, seq_len))
    shortest = max(4, longest // 50)
    return shortest, shortest + (longest - shortest) * 4 // 11, shortest + (longest - shortest) * 7 // 11, longest


def trace_structure(tracer: Tracer, recipe: Recipe, facts: ModelFacts, seq_len: int) -> dict[str, Any]:
    """Trace a recipe at a few shapes and solve: one structure of a profile.

    Raises NotAligned when not even the requested length alone gives a regime.
    """
    recipe = recipe.model_copy(update={"micro_batch": 1, "gradient_accumulation": 1})

    def trace(recipe: Recipe, shapes: Sequence[BatchLength]) -> ShapeTraces:
        found = tracer(recipe, shapes)
        return found.model_copy(update={"steps": tuple(canonical(step) for step in found.steps)})

    short, middle, long, longest = lengths_of(facts, seq_len)
    try:
        _aligned(trace(recipe, [(2, n) for n in PILOT]).steps)
        first = trace(recipe, [(2, short), (2, middle)])
        _aligned(first.steps)  # before spending time on longer ones
        many = trace(recipe, [(2, long), (3, middle), (7, longest)])
        many = many.model_copy(update={"steps": (*first.steps, *many.steps)})
        one = trace(recipe, [(1, short), (1, middle), (1, long), (1, longest)])
        found = [_regime(many, (2, MANY), (short, longest)), _regime(one, (1, 1), (short, longest))]
        at = middle
    except NotAligned:
        many = trace(recipe, [(2, seq_len), (3, seq_len), (7, seq_len)])
        one = trace(recipe, [(1, seq_len)])
        found = [_regime(many, (2, MANY), (seq_len, seq_len)), _regime(one, (1, 1), (seq_len, seq_len))]
        at = seq_len
    ranks = _second_rank(trace, recipe, at, found) if recipe.has_adapters else []
    return {
        "recipe": structure_of(recipe),
        "rank": 0 if ranks or not recipe.has_adapters else recipe.rank,
        "trained": _trained(many.trained, ranks, recipe.rank),
        "regimes": [regime.stored(recipe.rank if ranks else 0) for regime in found],
        "unfused": many.steps[0].unfused,
    }


def _second_rank(trace: Tracer, recipe: Recipe, length: int, regimes: Sequence[_Fit]) -> tuple[TrainedTensor, ...]:
    """Mark what scales with the rank; returns what is trained at twice the rank, or nothing if that is unknown."""
    other = recipe.model_copy(update={"rank": 2 * recipe.rank, "alpha": 2 * recipe.alpha})
    traces = trace(other, [(2, length), (1, length)])
    try:
        for fit, step in zip(regimes, traces.steps, strict=True):
            fit.mark_scaling(step, recipe.rank)
    except NotAligned:
        for fit in regimes:
            fit.scaling = []
        return ()
    return traces.trained


def _trained(tensors: Sequence[TrainedTensor], doubled: Sequence[TrainedTensor], rank: int) -> list[list[Any]]:
    """[[[size, scales with the rank], ...], dtype, count] of each kind of trained tensor."""
    found: Counter[tuple[tuple[tuple[int, bool], ...], str]] = Counter()
    for mine, other in zip(tensors, doubled or tensors, strict=True):
        dims = tuple((a // rank, True) if a != b else (a, False) for a, b in zip(mine.shape, other.shape, strict=True))
        found[dims, mine.dtype] += mine.count
    return [[[list(dim) for dim in dims], dtype, count] for (dims, dtype), count in found.items()]


class _Fit:
    """One regime while it is being solved: a polynomial for every allocation of the step."""

    def __init__(
        self,
        step: StepEvents,
        polynomials: list[SizeTerms],
        flop: SizeTerms,
        moved: SizeTerms,
        batch: BatchLength,
        length: BatchLength,
    ) -> None:
        self.step, self.polynomials, self.flop, self.moved = step, polynomials, flop, moved
        self.batch, self.length = batch, length
        self.scaling: list[bool] = []
        self.flop_scale: SizeTerms = ()

    def mark_scaling(self, other: StepEvents, rank: int) -> None:
        """Compare with the step at twice the rank: each size must stay or double. Raises NotAligned."""
        mine = [at(p, other.batch, other.seq_len) for p in self.polynomials]
        _same(self.step, other)
        scaling = []
        for number, (a, b) in enumerate(zip(mine, other.sizes, strict=True)):
            if b not in (a, 2 * a) or (b != a and any(c % rank for c, _ in self.polynomials[number])):
                raise NotAligned(f"allocation {number} does not scale with the rank")
            scaling.append(b != a)
        self.scaling = scaling
        more = sum(other.flop.values()) - at(self.flop, other.batch, other.seq_len)
        scale = other.batch * other.seq_len * rank
        # Products with adapters are linear in tokens and rank; DoRA's of weights are not in tokens: kept as they are.
        if more > 0 and more % scale == 0:
            per_token = more // scale
            self.flop_scale = ((per_token, 9), (-per_token * rank, 3))

    def stored(self, rank: int) -> dict[str, Any]:
        """The regime as a profile stores it; `rank` is the traced one, or 0 when sizes are valid only for that rank."""
        step = self.step
        numbers: dict[tuple[SizeTerms, int], int] = {}
        slot_of = []
        for index, polynomial in enumerate(self.polynomials):
            slot = polynomial
            if rank and self.scaling and self.scaling[index]:
                slot = tuple((c // rank, digit + 6) for c, digit in polynomial)
            slot_of.append(numbers.setdefault((slot, _category(step.categories[index])), len(numbers)))
        marks = {phase: position for position, phase in step.marks}
        start, end = marks["forward"], marks["optimizer"]
        static: dict[TermName, Counter[int]] = {}
        for move in step.moves[:start]:
            name = STATIC_TERMS.get(step.categories[move])
            if name is not None:
                static.setdefault(name, Counter())[slot_of[move]] += 1
        events, position_of = _events(step, slot_of, start, end)
        return {
            "batch": list(self.batch),
            "length": list(self.length),
            "slots": [[list(term) for term in slot] for slot, _ in numbers],
            "categories": [category for _, category in numbers],
            "static": {name: [list(pair) for pair in counts.items()] for name, counts in static.items()},
            "events": pack(events),
            "marks": [position_of(marks["backward"]), position_of(end)],
            "flop": [list(term) for term in added(self.flop, self.flop_scale if rank else ())],
            "moved": [list(term) for term in self.moved],
            "launches": _outside_optimizer(step.launches),
            "peak_op": step.peak_op,
        }


def _events(step: StepEvents, slot_of: Sequence[int], start: int, end: int) -> tuple[list[int], Callable[[int], int]]:
    """The events of forward and backward, and the index among them of a position in the moves."""
    complete: dict[int, list[int]] = {}
    for position, allocation in step.accumulated:
        complete.setdefault(position, []).append(allocation)
    gradients = {allocation for _, allocation in step.accumulated}
    events: list[int] = []
    positions = []
    for position in range(start, end + 1):
        events += [slot_of[a] * 4 + COMPLETE for a in complete.get(position, ())]
        positions.append(len(events))
        if position == end:
            break
        move = step.moves[position]
        if move >= 0:
            events.append(slot_of[move] * 4 + MADE)
        else:
            allocation = -move - 1
            events.append(slot_of[allocation] * 4 + (CLEARED if allocation in gradients else GIVEN_BACK))
    return events, lambda position: positions[position - start]


def _category(name: str) -> int:
    if name == "gradients":
        return GRADIENT
    return KEPT if name == "forward" or name in STATIC else TEMPORARY


def _regime(traces: ShapeTraces, batch: BatchLength, length: BatchLength) -> _Fit:
    """Solve every allocation and check it at the remaining shape. Raises NotAligned."""
    steps = traces.steps
    _aligned(steps)
    shapes = [(step.batch, step.seq_len) for step in steps]
    known: dict[tuple[int, ...], SizeTerms] = {}

    def polynomial(sizes: tuple[int, ...]) -> SizeTerms:
        if sizes not in known:
            found = known[sizes] = whole(solve(shapes, sizes))
            for (rows, tokens), size in zip(shapes, sizes, strict=True):
                if at(found, rows, tokens) != size:
                    raise NotAligned(f"a tensor of {size:,} bytes at {rows} x {tokens} is not polynomial in the shape")
        return known[sizes]

    polynomials = [polynomial(sizes) for sizes in zip(*(step.sizes for step in steps), strict=True)]
    flop = polynomial(tuple(sum(step.flop.values()) for step in steps))
    traffic = solve(shapes, tuple(_outside_optimizer(step.moved) for step in steps))  # a sum: close, not exact
    moved = tuple((round(c), digit) for digit, c in sorted(traffic.items()) if round(c))
    return _Fit(steps[-1], polynomials, flop, moved, batch, length)


def _outside_optimizer(amounts: Mapping[str, int]) -> int:
    return sum(amount for phase, amount in amounts.items() if phase != "optimizer")


def canonical(step: StepEvents) -> StepEvents:
    """The step, with simultaneous releases in a fixed order: autocast empties its cache in address order."""
    fences = {position for position, _ in (*step.marks, *step.accumulated)}
    moves: list[int] = []
    together: list[int] = []
    for position, move in enumerate(step.moves):
        if together and (move >= 0 or position in fences):
            moves += sorted(together, reverse=True)
            together = []
        (moves if move >= 0 else together).append(move)
    return step.model_copy(update={"moves": (*moves, *sorted(together, reverse=True))})


def _aligned(steps: Sequence[StepEvents]) -> None:
    for step in steps[1:]:
        _same(steps[0], step)


def _same(one: StepEvents, other: StepEvents) -> None:
    if (one.moves, one.categories, one.marks, one.accumulated) != (
        other.moves,
        other.categories,
        other.marks,
        other.accumulated,
    ):
        raise NotAligned(
            f"the step allocates different tensors at {one.batch} x {one.seq_len} and at "
            f"{other.batch} x {other.seq_len} tokens"
        )


def profile_of(
    name: str,
    config_sha256: str,
    facts: ModelFacts,
    environment: Environment,
    structures: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """A profile: the model, what it was traced with, and one structure for each traced recipe."""
    return {
        "model": {"name": name, "config_sha256": config_sha256, **facts.model_dump(mode="json")},
        "environment": environment.model_dump(),
        "structures": list(structures.values()),
    }


def store(path: Path, profile: Mapping[str, Any]) -> None:
    """Write a profile atomically. Raises SourceUnavailable when the folder cannot be written to."""
    try:
        replace_text(path, profile_text(profile))
    except SourceUnavailable as error:
        raise SourceUnavailable(
            f"cannot save the profile: {error}; set FINETUNE_ADVISOR_DATA to a writable folder"
        ) from None
