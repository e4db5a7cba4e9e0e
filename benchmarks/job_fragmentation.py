"""How much memory PyTorch's caching allocator holds over a job whose rows differ in length.

    python -m benchmarks.job_fragmentation > jobs.jsonl        replay jobs of 18 models (about half an hour)
    python -m benchmarks.job_fragmentation --read jobs.jsonl   tables and coverage from those lines

Needs the [simulate] extra. Each job is 300 micro-batches of lengths in random order, replayed through
`costs.simulation`; rows, longest row, mean, accumulation and rounding are drawn at random for each model and method.
A line holds the shares of the moving bytes, as `benchmarks.fragmentation` prints for one length: what is reserved
beyond the peak where there is room, the least that must fit, and what is reserved with expandable_segments:True.

The table of `costs.fragmentation` comes from the models in FITTED. At the end comes the share of the jobs of all other
models, of which nothing was fitted, that the intervals hold, and how wide these are, by kind of step.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, NamedTuple

from advisor.catalog import find_model
from advisor.costs.fragmentation import shares_of
from advisor.costs.memory import predict_step_memory
from advisor.costs.micro_batches import worst
from advisor.costs.simulation import Simulator, order_of, short_steps
from advisor.interval import Interval
from advisor.specs import METHODS, QUANTIZED_METHODS, ModelSpec, Recipe, Workload

FITTED = (
    *("qwen2.5-0.5b", "llama-3.2-1b", "pythia-1.4b", "gemma-2-2b", "phi-3-mini", "mistral-7b-v0.1", "tinyllama-1.1b"),
    *("qwen3-1.7b", "olmo-2-1b", "smollm2-360m", "bloom-1b1", "granite-3.1-2b"),
)
HELD_OUT = ("qwen3-0.6b", "smollm2-1.7b", "stablelm-2-1.6b", "phi-2", "gemma-3-1b", "llama-3.1-8b")
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
