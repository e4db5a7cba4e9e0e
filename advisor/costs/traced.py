"""Memory and time of a model that was traced, from the polynomials and events that its profile holds.

A profile has, for every recipe that was traced, one or more regimes: ranges of micro-batch and sequence length in
which the step makes the same tensors in the same order. In a regime each tensor's size is an exact polynomial in
micro-batch, length and rank; the events are replayed at the shape asked for, so that the peak is the maximum of what
the step itself would do there and not a fit of maxima.

What the step trains is stored as shapes, so that every optimizer's states follow by the formula's own rules, and
accumulation by the moments at which gradients are complete.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from advisor.blocks import block_bytes
from advisor.costs.device import DeviceProfile
from advisor.costs.memory import StepMemory
from advisor.costs.micro_batches import average
from advisor.costs.optimizer import kept_tensors, optimizer_work, temporary_bytes
from advisor.costs.power import energy
from advisor.costs.roofline import peak_flop_per_s
from advisor.costs.steptime import step_count
from advisor.errors import InputError
from advisor.files.traced import EVALUATED, read_profile, structure_of, unpack
from advisor.interval import Interval
from advisor.parameters.trained import Trained
from advisor.recipes import flag
from advisor.specs import GpuSpec, Placement, Recipe, TimeEstimate, TracedModel, Workload
from advisor.tape.program import Polynomials, basis
from advisor.terms import TermName

KEPT, TEMPORARY, GRADIENT = range(3)
CATEGORIES = (TermName.SAVED_ACTIVATIONS, TermName.TEMPORARIES, TermName.GRADIENTS)
MADE, GIVEN_BACK, COMPLETE, CLEARED = range(4)
"""What an event says: a tensor is made; given back; a gradient is complete; a gradient is cleared after the step."""

TIME_SPREAD = Interval(0.45, 1.0, 2.5)
"""The time comes from sums of FLOP and memory traffic: no shapes of products, no CUDA-specific kernels."""


class NotTraced(InputError):
    """A recipe or a shape that no trace covers; the message says how to trace it."""

    def __init__(self, model: TracedModel, asked: str, flags: str) -> None:
        """Name what was `asked` for, and the `flags` that trace it."""
        super().__init__(
            f"{asked}: not among the traces of {model.name}; `calibrate --dry-run --model {model.source} "
            f"{flags}` adds it"
        )


class Regime(NamedTuple):
    """The step in one range of shapes. `batch` and `length` are (lowest, highest); events are slot * 4 + what."""

    batch: tuple[int, int]
    length: tuple[int, int]
    slots: list[tuple[tuple[int, int], ...]]
    categories: list[int]
    static: dict[TermName, list[tuple[int, int]]]
    events: Sequence[int]
    marks: tuple[int, int]
    flop: tuple[tuple[int, int], ...]
    moved: tuple[tuple[int, int], ...]  # bytes of the kernels without FLOP
    launches: int
    peak_op: str

    def holds(self, batch: int, length: int) -> bool:
        """Whether the shape lies in the regime."""
        return self.batch[0] <= batch <= self.batch[1] and self.length[0] <= length <= self.length[1]


class Structure(NamedTuple):
    """All regimes of one recipe's structure; `rank` is 0 where the sizes hold for every rank."""

    rank: int
    trained: tuple[tuple[tuple[tuple[int, bool], ...], str, int], ...]
    regimes: tuple[Regime, ...]
    unfused: bool

    def trained_at(self, rank: int) -> tuple[Trained, ...]:
        """The trained tensors; further dimensions are taken as rows."""
        found = []
        for dims, dtype, times in self.trained:
            sizes = [size * rank if scales else size for size, scales in dims] or [1]
            rows = 1
            for size in sizes[:-1] if len(sizes) > 1 else sizes:
                rows *= size
            found.append(Trained(rows, sizes[-1] if len(sizes) > 1 else 0, times, dtype))
        return tuple(found)


@lru_cache(maxsize=8)
def _structures(path: str, checksum: str, name: str) -> tuple[tuple[Mapping[str, Any], Mapping[str, Any]], ...]:
    found, profile = read_profile(Path(path), name)
    assert found == checksum, "the profile changed while it was in use"
    return tuple((one["recipe"], one) for one in profile["structures"])


@lru_cache(maxsize=64)
def _structure(model: TracedModel, key: str) -> Structure | None:
    for recipe, one in _structures(model.profile, model.checksum, model.name):
        if _key(recipe) == key:
            return Structure(
                rank=one["rank"],
                unfused=one["unfused"],
                trained=tuple(
                    (tuple((size, scales) for size, scales in dims), dtype, times)
                    for dims, dtype, times in one["trained"]
                ),
                regimes=tuple(_regime(regime) for regime in one["regimes"]),
            )
    return None


def _regime(one: Mapping[str, Any]) -> Regime:
    return Regime(
        batch=tuple(one["batch"]),
        length=tuple(one["length"]),
        slots=[tuple((coefficient, digit) for coefficient, digit in slot) for slot in one["slots"]],
        categories=one["categories"],
        static={TermName(name): [tuple(pair) for pair in pairs] for name, pairs in one["static"].items()},
        events=unpack(one["events"]),
        marks=tuple(one["marks"]),
        flop=tuple((coefficient, digit) for coefficient, digit in one["flop"]),
        moved=tuple((coefficient, digit) for coefficient, digit in one["moved"]),
        launches=one["launches"],
        peak_op=one["peak_op"],
    )


_EVALUATED = frozenset(EVALUATED) - {"method"}
"""Profiles of earlier versions also store these."""


def _key(recipe: Mapping[str, Any]) -> str:
    return repr(sorted((name, value) for name, value in recipe.items() if name not in _EVALUATED))


def traced_ways(model: TracedModel, recipe: Recipe) -> tuple[bool, ...]:
    """The settings of checkpointing (False, True) with which the recipe was traced."""
    ways = ((on, recipe.model_copy(update={"gradient_checkpointing": on})) for on in (False, True))
    return tuple(on for on, one in ways if _structure(model, _key(structure_of(one))) is not None)


def _find(model: TracedModel, recipe: Recipe, batch: int, length: int) -> tuple[Structure, Regime]:
    wanted = structure_of(recipe)
    structure = _structure(model, _key(wanted))
    if structure is None:
        raise _untraced(model, recipe, wanted)
    if structure.rank and recipe.has_adapters and structure.rank != recipe.rank:
        raise NotTraced(model, f"--rank {recipe.rank}", f"--method {recipe.method} --rank {recipe.rank}")
    for regime in structure.regimes:
        if regime.holds(batch, length):
            return structure, regime
    lengths = sorted({regime.length for regime in structure.regimes if regime.batch[0] <= batch <= regime.batch[1]})
    spans = ", ".join(f"{low:,}" if low == high else f"{low:,} to {high:,}" for low, high in lengths)
    asked = f"micro-batches of {batch} x {length:,} tokens (traced: {spans or 'none'})"
    raise NotTraced(model, asked, f"--method {recipe.method} --seq-len {length}")


def _untraced(model: TracedModel, recipe: Recipe, wanted: Mapping[str, Any]) -> NotTraced:
    """Names the knob that differs from a traced recipe, if only one does."""
    flags = f"--method {recipe.method}"
    for known, _ in _structures(model.profile, model.checksum, model.name):
        different = [name for name, value in wanted.items() if known.get(name) != value]
        if known.get("method") == recipe.method and len(different) == 1:
            shown = flag(different[0], getattr(recipe, different[0]))
            return NotTraced(model, shown, f"{flags} {shown}")
    return NotTraced(model, f"this recipe of {recipe.method}", f"{flags} with the same flags")


class _Replay(NamedTuple):
    """Heights of the two phases above the static part, in bytes, and what makes up the highest point."""

    forward: int
    backward: int
    after_forward: int
    after_backward: int
    moving: dict[TermName, int]
    in_backward: bool


def _replay(regime: Regime, sizes: Sequence[int], accumulating: bool) -> _Replay:
    """Run the events at one shape. With accumulation a complete gradient is added to an older one and given back."""
    deltas: list[int] = []
    for size in sizes:
        deltas += (size, -size, -size if accumulating else 0, 0 if accumulating else -size)
    steps = [deltas[event] for event in regime.events]
    running = list(accumulate(steps, initial=0))
    middle, end = regime.marks
    forward, backward = max(running[: middle + 1]), max(running[middle : end + 1])
    top = running.index(max(forward, backward), 0 if forward >= backward else middle)
    moving = dict.fromkeys(CATEGORIES, 0)
    for event, count in Counter(regime.events[:top]).items():
        moving[CATEGORIES[regime.categories[event >> 2]]] += deltas[event] * count
    return _Replay(forward, backward, running[middle], running[end], moving, backward > forward)


@lru_cache(maxsize=256)
def traced_step_memory(model: TracedModel, recipe: Recipe, seq_len: int) -> StepMemory:
    """Peak memory of a step with rows of `seq_len` tokens. Raises NotTraced."""
    structure, regime = _find(model, recipe, recipe.micro_batch, seq_len)
    values = basis(recipe.micro_batch, seq_len, recipe.rank)
    sizes = [block_bytes(size) for size in Polynomials(regime.slots).at(values)]
    static = {name: sum(sizes[slot] * times for slot, times in pairs) for name, pairs in regime.static.items()}
    shapes = structure.trained_at(recipe.rank)
    for term, size, times in kept_tensors(shapes, recipe.optimizer):
        static[term] = static.get(term, 0) + block_bytes(size) * times
    base = sum(static.values())
    gradients = sum(block_bytes(p.bytes) * p.times for p in shapes)
    accumulating = recipe.gradient_accumulation > 1
    standing = gradients if accumulating else 0
    found = _replay(regime, sizes, accumulating)
    peaks = {
        "forward": found.forward + standing,
        "backward": found.backward + standing,
        "optimizer": found.after_backward + standing + temporary_bytes(shapes, recipe.optimizer),
    }
    if peaks["optimizer"] > max(peaks["forward"], peaks["backward"]):
        moving = {TermName.GRADIENTS: gradients, TermName.TEMPORARIES: peaks["optimizer"] - gradients}
        where = "optimizer step"
    else:
        moving = found.moving | {TermName.GRADIENTS: found.moving[TermName.GRADIENTS] + standing}
        where = "backward" if found.in_backward else "forward"
        where = regime.peak_op if regime.peak_op.startswith(where) else where
    return StepMemory(
        peak_bytes=base + sum(moving.values()),
        peak_at=where,
        static=static,
        static_blocks=static,
        moving=moving,
        after_forward_bytes=base + standing + found.after_forward,
        after_backward_bytes=base + standing + found.after_backward,
        phase_peaks={phase: base + height for phase, height in peaks.items()},
        part_peaks=(base + sum(moving.values()),) * 2,  # a trace does not say where the head begins
    )


def traced_parameter_count(model: TracedModel, recipe: Recipe, seq_len: int) -> int:
    """Elements that the recipe trains."""
    structure, _ = _find(model, recipe, recipe.micro_batch, seq_len)
    return sum(p.elements * p.times for p in structure.trained_at(recipe.rank))


def keeps_more_than_cuda(model: TracedModel, recipe: Recipe) -> bool:
    """Whether the CPU step that was traced has dropout or attention whose CUDA kernels keep less."""
    structure = _structure(model, _key(structure_of(recipe)))
    return structure is not None and structure.unfused


def traced_time(
    model: TracedModel,
    recipe: Recipe,
    workload: Workload,
    gpu: GpuSpec,
    placement: Placement,
    profile: DeviceProfile,
) -> TimeEstimate | None:
    """A rough time: FLOP and memory traffic at the card's rates, or the CPU's launches, whichever is longer.

    None when the mean row is outside of what was traced. Ignores: the shapes of products, kernels that CUDA fuses
    and a CPU does not, and kernels of other packages that replace a slow path of transformers.
    """
    batch, length, *_ = average(workload, recipe)
    try:
        structure, regime = _find(model, recipe, batch, length)
    except NotTraced:
        return None
    flop, moved = Polynomials((regime.flop, regime.moved)).at(basis(batch, length, recipe.rank))
    bandwidth = gpu.memory_bytes_per_s * profile.elementwise_bandwidth
    dtype = "float16" if recipe.autocast and recipe.base_dtype == "float32" else recipe.base_dtype
    peak = peak_flop_per_s(gpu)[dtype]
    rate = peak * (profile.matrix_efficiency if dtype != "float32" else profile.vector_efficiency)
    compute_s, memory_s = flop / rate, moved / bandwidth
    launch_s = regime.launches * (profile.forward_launch_s + profile.backward_launch_s) / 2
    trained = structure.trained_at(recipe.rank)
    work = optimizer_work(trained, recipe.optimizer)
    in_place = gpu.memory_bytes_per_s * profile.optimizer_bandwidth
    optimizer_s = max(work.moved_bytes / in_place, work.launches * profile.backward_launch_s + work.host_s)
    busy_s = compute_s + memory_s
    micro = TIME_SPREAD.times(max(busy_s, launch_s) + profile.micro_step_s)
    step = micro.times(recipe.gradient_accumulation).plus(TIME_SPREAD.times(optimizer_s))
    if placement.gpus > 1:
        from advisor.costs.collectives import gradient_seconds  # loaded where several cards share a job

        step = step.plus(gradient_seconds(sum(p.bytes * p.times for p in trained), placement, gpu))
    steps = step_count(workload, recipe, placement)
    tokens = workload.seq_len if workload.packing else min(workload.mean_seq_len, workload.seq_len)
    total = step.times(steps)
    flop_per_step = float(flop * recipe.gradient_accumulation)
    return TimeEstimate(
        micro_step_s=micro,
        step_s=step,
        total_s=total,
        steps=steps,
        tokens_per_s=recipe.micro_batch * recipe.gradient_accumulation * placement.gpus * tokens / step.likely,
        bound="launch" if launch_s > busy_s else "compute" if compute_s > memory_s else "memory",
        flop_per_step=flop_per_step,
        mfu=flop_per_step / (step.likely * peak),
        energy_j=energy(total, min(1.0, busy_s / micro.likely), gpu).times(placement.gpus) if gpu.power_w else None,
    )
