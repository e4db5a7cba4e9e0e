"""How much memory PyTorch's caching allocator holds over a job whose rows differ in length.

    python -m benchmarks.job_fragmentation                     280 jobs of seven models (about an hour)
    python -m benchmarks.job_fragmentation --models qwen2.5-0.5b

Needs the [simulate] extra. Each job is 300 steps of lengths in random order by the law of a mean and a maximum,
replayed through `costs.simulation`. It prints shares of the moving bytes, as `benchmarks.fragmentation` does for one
length: what is reserved beyond the peak where there is room, the least that must fit, and what is reserved with
expandable_segments:True. At the end come the rows of the table of `costs.fragmentation`, and how much of each model is
covered by the shares of all others. How much the lengths differ matters little: a mean of 0.9 of the longest row
fragments as much as one of 0.4.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from statistics import median
from typing import NamedTuple

from advisor.catalog import find_model
from advisor.costs.memory import predict_step_memory
from advisor.costs.micro_batches import worst
from advisor.costs.simulation import Simulator, order_of, short_steps
from advisor.specs import METHODS, QUANTIZED_METHODS, Recipe, Workload

MODELS = (
    *("qwen2.5-0.5b", "llama-3.2-1b", "pythia-1.4b", "gemma-2-2b", "phi-3-mini", "mistral-7b-v0.1"),
    "tinyllama-1.1b",
)
SHAPES = ((1, 2048), (4, 1024))
MEANS = (0.9, 0.4)
"""Mean length over the longest."""
STEPS = 300
Kind = tuple[bool, bool, bool]
"""(full fine-tuning, gradient checkpointing, peak at the head)."""


class Case(NamedTuple):
    """One job: shares of its moving bytes."""

    model: str
    recipe: Recipe
    workload: Workload
    kind: Kind
    reserved: float
    needed: float
    expandable: float


def cases(names: list[str], steps: int) -> Iterator[Case]:
    """Replay every job."""
    for name in names:
        m = find_model(name)
        for method, checkpointing, (rows, longest) in itertools.product(METHODS, (False, True), SHAPES):
            recipe = Recipe(
                method=method,
                quant="nf4" if method in QUANTIZED_METHODS else "none",
                gradient_checkpointing=checkpointing,
                attention=m.default_attention,
                micro_batch=rows,
            )
            for mean in MEANS:
                workload = Workload(seq_len=longest, mean_seq_len=round(mean * longest))
                batch = worst(workload, recipe)
                step = predict_step_memory(m, recipe, batch.rows, batch.tokens, padded=batch.padded)
                moving = step.peak_bytes - sum(step.static_blocks.values())
                head, others = step.part_peaks
                order, short = (order_of(workload, recipe, n, 0) for n in (steps, short_steps(recipe)))
                simulator = Simulator(m, recipe, [order, short])
                expandable = Simulator(m, recipe.model_copy(update={"expandable_segments": True}), [order])
                needed = simulator.needed_bytes(short)
                held = (simulator.reserved_bytes(order), needed, expandable.reserved_bytes(order))
                yield Case(
                    name,
                    recipe,
                    workload,
                    (method == "full", checkpointing, head > others),
                    *((size - step.peak_bytes) / moving for size in held),
                )


def spread_of(values: list[float]) -> tuple[float, ...]:
    """The lowest, the median and the highest: of few models, 5 and 95 % hold too little of another one."""
    return min(values), median(values), max(values)


def table(found: list[Case]) -> dict[tuple[Kind, str], tuple[float, ...]]:
    """The three shares of each kind of step and figure."""
    kinds = sorted({case.kind for case in found})
    figures = ("reserved", "needed", "expandable")
    return {
        (kind, figure): spread_of([getattr(case, figure) for case in found if case.kind == kind])
        for kind in kinds
        for figure in figures
    }


def coverage(found: list[Case], figure: str) -> float:
    """Share of the cases below the high bound that the other models give."""
    inside = known = 0
    for name in {case.model for case in found}:
        others = table([case for case in found if case.model != name])
        for case in (case for case in found if case.model == name):
            bounds = others.get((case.kind, figure))
            if bounds is not None:
                known += 1
                inside += bounds[0] <= getattr(case, figure) <= bounds[2]
    return inside / known if known else 0.0


def main() -> int:
    """Print every case, the table and its coverage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS), help="names with commas")
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    found: list[Case] = []
    for case in cases(options.models.split(","), options.steps):
        print(
            f"{case.model:16} {case.recipe.method:6} {case.recipe.micro_batch}x{case.workload.seq_len:<5}"
            f"mean {case.workload.mean_seq_len:<5} {case.kind} reserved {case.reserved:.3f} needed {case.needed:.3f} "
            f"expandable {case.expandable:.3f}",
            flush=True,
        )
        found.append(case)
    counts = {kind: sum(case.kind == kind for case in found) for kind in {case.kind for case in found}}
    for (kind, figure), shares in table(found).items():
        print(f"{kind!s:34} {figure:11} {', '.join(f'{share:.3f}' for share in shares)} ({counts[kind]})")
    for figure in ("reserved", "needed", "expandable"):
        print(f"{figure}: {coverage(found, figure):.0%} of a model's jobs are inside the shares of all others")
    return 0


if __name__ == "__main__":
    sys.exit(main())
