"""Where the time of a step goes: its most expensive kernels, and its parts side by side for several methods.

The step is recorded once more on a tape that notes where each kernel runs; the seconds are those of `micro_step`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import fsum
from typing import NamedTuple

from advisor.costs.attention_rates import ATTENTION
from advisor.costs.device import DeviceProfile, profile_for
from advisor.costs.host_link import HOST_COPIES
from advisor.costs.micro_batches import average
from advisor.costs.micro_step import micro_step_time
from advisor.costs.roofline import Roofline
from advisor.costs.steptime import optimizer_step_time
from advisor.decoders.adapters import ADAPTER_LABELS
from advisor.decoders.dequantized import DEQUANTIZING
from advisor.decoders.kinds import attention_card
from advisor.decoders.step import step_program
from advisor.specs import GpuSpec, Method, ModelSpec, Recipe, Workload
from advisor.stacks import stack_for
from advisor.tape.graph import BATCHED, MATMUL
from advisor.tape.program import PartKernels

PARTS = (
    "base products",
    "LoRA adapters",
    "DoRA: adapters, weights, norms",
    "dequantization",
    "attention",
    "head and loss",
    "norms, activations, sums",
)
"""What the kernels of a micro-step are counted under."""

OPTIMIZER, WAITING = "clipping and optimizer", "waiting for launches"
_HEAD = ("lm_head", "loss", "embedding")


class KernelTime(NamedTuple):
    """All launches of one kernel in a micro-step: equal kind, place, dtype and shape."""

    place: str  # part of the model, for example 'down_proj, DoRA'
    kind: str
    dtype: str
    shape: tuple[int, int, int]  # (m, n, k) of a matrix product, else zeros
    moved_bytes: float  # by one launch
    times: int
    seconds: float  # of all launches
    bound: str  # compute or memory


class StepParts(NamedTuple):
    """A micro-step of one recipe on one card, and the optimizer's step, in seconds."""

    micro_step_s: float
    kernels: list[KernelTime]  # the most expensive first
    parts: dict[str, float]  # PARTS, OPTIMIZER (a micro-step's share) and WAITING

    @property
    def kernels_s(self) -> float:
        """Card seconds of all kernels of the micro-step."""
        return fsum(kernel.seconds for kernel in self.kernels)


def part_of(kind: str, place: str) -> str:
    """The entry of PARTS that a kernel is counted under."""
    layer, _, adapter = place.partition(", ")
    if kind in DEQUANTIZING:
        return PARTS[3]
    if adapter == ADAPTER_LABELS[1]:
        return PARTS[2]
    if adapter == ADAPTER_LABELS[0]:
        return PARTS[1]
    if kind in ATTENTION or layer == "attention":
        return PARTS[4]
    if layer in _HEAD:
        return PARTS[5]
    return PARTS[0] if kind in (MATMUL, BATCHED) else PARTS[6]


def _kernel_times(runs: list[PartKernels], places: list[list[str]], roofline: Roofline) -> list[KernelTime]:
    found: dict[tuple[str, str, str, tuple[int, int, int], float], tuple[int, float, str]] = {}
    for run, run_places in zip(runs, places, strict=True):
        for (kernel, times), place in zip(run.kernels, run_places, strict=True):
            kind, dtype, _, moved, shape = kernel
            if kind in HOST_COPIES:  # beside the kernels, not among them
                continue
            compute_s, memory_s = roofline.seconds(kernel)
            count = run.copies * times
            seconds = count * (max(compute_s, memory_s) + roofline.fixed_s)
            key = (place, kind, dtype, shape, moved)
            before = found.get(key, (0, 0.0, ""))
            found[key] = (before[0] + count, before[1] + seconds, "compute" if compute_s > memory_s else "memory")
    rows = [KernelTime(*key, *value) for key, value in found.items()]
    return sorted(rows, key=lambda row: -row.seconds)


def explain_time(
    model: ModelSpec, recipe: Recipe, workload: Workload, gpu: GpuSpec, profile: DeviceProfile | None = None
) -> StepParts:
    """What an average micro-step of `recipe` consists of on `gpu`, likely values. Raises BadValue without rates."""
    rows, tokens, padded, packed = average(workload, recipe)
    profile = profile or profile_for(gpu)
    stack = stack_for(recipe, gpu, workload)
    model = stack.built(model)
    stack = stack.shaped(model, recipe, rows, tokens)
    card = attention_card(model, recipe, tokens, gpu, stack.masks(padded))
    asked = partial(
        step_program, model, recipe, rows, tokens, "cuda", stack, padded=padded, capability=card, packed=packed
    )
    program = asked(labeled=True)
    runs = program.kernels(rows, tokens, recipe.rank)
    kernels = _kernel_times(runs, program.kernel_places(), Roofline(gpu, profile))
    plain = asked()
    total_s = micro_step_time(plain.kernels(rows, tokens, recipe.rank), gpu, profile).seconds.likely
    parts = dict.fromkeys((*PARTS, OPTIMIZER, WAITING), 0.0)
    for kernel in kernels:
        parts[part_of(kernel.kind, kernel.place)] += kernel.seconds
    parts[OPTIMIZER] = optimizer_step_time(model, recipe, gpu, profile).seconds.likely / recipe.gradient_accumulation
    parts[WAITING] = max(0.0, total_s - fsum(kernel.seconds for kernel in kernels))
    return StepParts(total_s, kernels, parts)


def compared(steps: Mapping[Method, StepParts]) -> list[tuple[str, list[float]]]:
    """One row for each part that takes time in any of `steps`: its seconds in each."""
    names = (*PARTS, OPTIMIZER, WAITING)
    rows = [(name, [step.parts[name] for step in steps.values()]) for name in names]
    return [(name, values) for name, values in rows if any(values)]
