"""How much memory PyTorch's caching allocator holds over a job whose rows differ in length.

    python -m benchmarks.job_fragmentation > jobs.jsonl        replay jobs of 13 models (about ten minutes)
    python -m benchmarks.job_fragmentation --read jobs.jsonl   tables and coverage from those lines

Needs the [simulate] extra. Each job is 300 micro-batches of lengths in random order, replayed through
`costs.simulation`; rows, longest row, mean, accumulation and rounding are drawn at random for each model and method.
A line holds the shares of the moving bytes, as `benchmarks.fragmentation` prints for one length: what is reserved
beyond the peak where there is room, the least that must fit, and what is reserved with expandable_segments:True.

The table of `costs.fragmentation` comes from the models in FITTED. At the end comes, by kind of step, the share of the
jobs of the models in HELD_OUT that its intervals hold, and how wide these are.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import ceil, floor
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, NamedTuple

from advisor.catalog import find_model
from advisor.costs.fragmentation import shares_of, variety
from advisor.costs.memory import predict_step_memory
from advisor.costs.micro_batches import length_count, worst
from advisor.costs.simulation import Simulator, order_of, short_steps
from advisor.interval import Interval
from advisor.specs import METHODS, QUANTIZED_METHODS, ModelSpec, Recipe, Workload

FITTED = (
    *("qwen2.5-0.5b", "llama-3.2-1b", "pythia-1.4b", "gemma-2-2b", "olmo-2-1b", "smollm2-360m", "bloom-1b1"),
    *("tinyllama-1.1b", "mistral-7b-v0.1"),
)
HELD_OUT = ("qwen3-0.6b", "phi-2", "gemma-3-1b", "llama-3.1-8b")
ROWS, LONGEST, MEANS, ACCUMULATIONS = (1, 2, 4, 8), (512, 1024, 2048, 4096), (0.2, 0.4, 0.6, 0.9), (1, 4)
UNITS = (1, 1, 1, 8, 64, 256)
"""What lengths are rounded up to."""
MOST_TOKENS = 8192
MICRO_BATCHES = 300
FIGURES = ("reserved", "needed", "expandable")


class Case(NamedTuple):
    """One job: shares of its moving bytes."""

    model: str
    recipe: Recipe
    workload: Workload
    at_head: bool
    reserved: float
    needed: float
    expandable: float


def jobs(name: str) -> Iterator[tuple[Recipe, Workload]]:
    """The jobs of a model: the same for the same name."""
    rng, m = Random(name), find_model(name)
    for method in METHODS:
        for checkpointing in (False, True):
            for unit in UNITS:
                rows, longest = MOST_TOKENS, MOST_TOKENS
                while rows * longest > MOST_TOKENS:
                    rows, longest = rng.choice(ROWS), rng.choice(LONGEST)
                workload = Workload(
                    seq_len=longest, mean_seq_len=round(rng.choice(MEANS) * longest), pad_to_multiple_of=unit
                )
                recipe = Recipe(
                    method=method,
                    quant="nf4" if method in QUANTIZED_METHODS else "none",
                    gradient_checkpointing=checkpointing,
                    attention=m.default_attention,
                    micro_batch=rows,
                    gradient_accumulation=rng.choice(ACCUMULATIONS),
                )
                yield recipe, workload


def replayed(m: ModelSpec, recipe: Recipe, workload: Workload, seed: int) -> Case:
    """The case of one job."""
    batch = worst(workload, recipe)
    step = predict_step_memory(m, recipe, batch.rows, batch.tokens, padded=batch.padded)
    moving = step.peak_bytes - sum(step.static_blocks.values())
    steps = MICRO_BATCHES // recipe.gradient_accumulation
    order, short = (order_of(workload, recipe, n, seed) for n in (steps, short_steps(recipe)))
    simulator = Simulator(m, recipe, [order, short])
    expandable = Simulator(m, recipe.model_copy(update={"expandable_segments": True}), [order])
    held = simulator.reserved_bytes(order), simulator.needed_bytes(order, short), expandable.reserved_bytes(order)
    head, others = step.part_peaks
    return Case(m.name, recipe, workload, head > others, *((size - step.peak_bytes) / moving for size in held))


def written(case: Case) -> str:
    """The case as a line."""
    return json.dumps({**case._asdict(), "recipe": case.recipe.model_dump(), "workload": case.workload.model_dump()})


def read(path: Path) -> list[Case]:
    """The cases of such lines."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        fields: dict[str, Any] = json.loads(line)
        recipe, workload = Recipe.model_validate(fields["recipe"]), Workload.model_validate(fields["workload"])
        found.append(Case(**{**fields, "recipe": recipe, "workload": workload}))
    return found


def kind_of(case: Case) -> tuple[bool, bool, str]:
    """The row of the table: full fine-tuning, checkpointing, how many lengths micro-batches have."""
    lengths = length_count(case.workload)
    return case.recipe.method == "full", case.recipe.gradient_checkpointing, variety(lengths)


def spread_of(values: Sequence[float]) -> Interval:
    """The lowest, the median and the highest share, rounded away from the median and never below zero.

    5 and 95 % hold too little of other models.
    """
    low, high = floor(1000 * max(0.0, min(values))) / 1000, ceil(1000 * max(values)) / 1000
    return Interval(low, max(low, median(values)), high)


def print_table(found: Sequence[Case]) -> None:
    """The rows of the table of `costs.fragmentation`."""
    kinds: dict[tuple[bool, bool, str], list[Case]] = defaultdict(list)
    for case in found:
        kinds[kind_of(case)].append(case)
    for kind, cases in sorted(kinds.items()):
        for figure in FIGURES:
            bounds = ", ".join(f"{share:.3f}" for share in spread_of([getattr(case, figure) for case in cases]))
            print(f"{kind!s:24} {figure:11} {bounds}  ({len(cases)} jobs)")


def stated(case: Case, figure: str) -> Interval:
    """What `costs.fragmentation` says of a job."""
    recipe = case.recipe.model_copy(update={"expandable_segments": figure == "expandable"})
    shares = shares_of(recipe, case.at_head, lengths=length_count(case.workload))
    return shares.needed if figure == "needed" else shares.reserved


def print_coverage(found: Sequence[Case]) -> None:
    """How many jobs the stated intervals hold, and how wide these are, by kind of step and in all."""
    groups: dict[object, list[Case]] = defaultdict(list)
    for case in found:
        groups[kind_of(case)[:2]].append(case)
        groups["all"].append(case)
    for group, cases in groups.items():
        texts = []
        for figure in FIGURES:
            pairs = [(stated(case, figure), getattr(case, figure)) for case in cases]
            inside = sum(bounds.low <= max(0.0, value) <= bounds.high for bounds, value in pairs)
            width = median(bounds.high - bounds.low for bounds, _ in pairs)
            texts.append(f"{figure} {inside / len(pairs):.0%} (width {width:.2f})")
        print(f"{group!s:16} {len(cases):4} jobs: {', '.join(texts)}")


def main() -> int:
    """Replay all jobs, or read them, and print table and coverage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--read", type=Path, help="lines that this command printed before")
    path = parser.parse_args().read
    if path is None:
        for name in (*FITTED, *HELD_OUT):
            for seed, (recipe, workload) in enumerate(jobs(name)):
                print(written(replayed(find_model(name), recipe, workload, seed)), flush=True)
        return 0
    found = read(path)
    print_table([case for case in found if case.model in FITTED])
    print("jobs of the models that were fitted:")
    print_coverage([case for case in found if case.model in FITTED])
    print("jobs of the other models:")
    print_coverage([case for case in found if case.model in HELD_OUT])
    return 0


if __name__ == "__main__":
    sys.exit(main())
