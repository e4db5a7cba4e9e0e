"""The search against brute force: random questions, every plan of the grid estimated.

    python -m benchmarks.search --questions 1000

For each row of an answer: how much slower it is than the fastest plan that fits, how much more memory it takes than the
least within 3 % of that; whether the method alone gives the same row; and whether the next larger card is slower.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

from advisor.advice.advise import advise
from advisor.advice.job import verdict_of
from advisor.advice.search import BAND
from advisor.answer import Advice, Candidate
from advisor.catalog import all_gpus, model_entries
from advisor.costs.estimation import estimate
from advisor.errors import AdvisorError
from advisor.specs import METHODS, Estimate, GpuSpec, ModelSpec, Placement

LARGEST_BATCH = 64


def question(draw: random.Random, models: Sequence[str]) -> dict[str, Any]:
    """A random question that leaves checkpointing, micro-batch and expandable segments open, or fixes some."""
    knobs: dict[str, Any] = {
        "model": draw.choice(models),
        "examples": draw.choice((100, 3_000, 60_000, 200_000)),
        "batch_size": draw.choice((1, 4, 8, 12, 16, 32, 60, LARGEST_BATCH)),
        "seq_len": draw.choice((128, 512, 1024, 2048, 4096)),
    }
    for name, values in (
        ("rank", (4, 16, 128)),
        ("dropout", (0.05,)),
        ("packing", (True,)),
        ("optimizer", ("adamw_8bit", "paged_adamw_8bit", "sgd", "adafactor")),
        ("loss", ("chunked",)),
        ("trainer", ("trl", "axolotl", "llamafactory", "unsloth", "torchtune", "litgpt")),
        ("gradient_checkpointing", (True, False)),
        ("micro_batch", (1,)),
        ("target_modules", ("all-linear", "attention")),
        ("expandable_segments", (True, False)),
        ("gpus", (2, 4)),
    ):
        if draw.random() < 0.2:
            knobs[name] = draw.choice(values)
    if "gpus" in knobs:
        knobs["batch_size"] *= knobs["gpus"]
    return knobs


def grid(answer: Advice, row: Candidate, card: GpuSpec) -> Iterator[Estimate]:
    """Every plan that the search may choose from for this row's method, at the row's rank and targets."""
    fixed = {*answer.fixed, *answer.trainer.knobs}
    rows = row.recipe.micro_batch * row.recipe.gradient_accumulation
    divisors = [n for n in range(1, rows + 1) if rows % n == 0]
    ways = product(
        (row.recipe.micro_batch,) if "micro_batch" in fixed else divisors,
        (row.recipe.gradient_checkpointing,) if "gradient_checkpointing" in fixed else (True, False),
        (row.recipe.expandable_segments,) if "expandable_segments" in fixed else (True, False),
    )
    assert isinstance(answer.model, ModelSpec)
    placement = Placement(gpus=answer.gpu.gpus, sharding=answer.gpu.sharding)
    for micro_batch, checkpointing, expandable in ways:
        recipe = row.recipe.model_copy(
            update={
                "micro_batch": micro_batch,
                "gradient_accumulation": rows // micro_batch,
                "gradient_checkpointing": checkpointing,
                "expandable_segments": expandable,
            }
        )
        yield estimate(answer.model, recipe, answer.workload, card, placement)


def faults(answer: Advice, row: Candidate, card: GpuSpec) -> Iterator[str]:
    """What is wrong with a row, in a word; the sizes follow it."""
    plans = list(grid(answer, row, card))
    fitting = [one for one in plans if verdict_of(one, card.memory_bytes) == "fits" and one.time is not None]
    if not fitting:
        if row.verdict == "fits":
            yield "fits, and nothing should"
        likely = min(one.memory.needed_bytes.likely for one in plans)
        if row.verdict == "does_not_fit" and likely <= card.memory_bytes:
            yield "does not fit, and might"
        return
    if row.verdict != "fits" or row.time is None:
        yield "missed a plan that fits"
        return
    best = min(one.time.total_s.likely for one in fitting if one.time)
    ratio = row.time.total_s.likely / best
    if ratio > BAND:
        yield f"slower {ratio:.4f}"
    if ratio > 1.01:
        yield f"within-band {ratio:.4f}"
    same = [
        one.memory.needed_bytes.high
        for one in fitting
        if one.time
        and one.time.total_s.likely <= best * BAND
        and one.recipe.expandable_segments <= row.recipe.expandable_segments
    ]
    if not same or row.memory.needed_bytes.high > min(same):
        yield "more-memory" + (f" {row.memory.needed_bytes.high / min(same):.4f}" if same else "")
    if row.recipe.expandable_segments and "expandable_segments" not in answer.fixed:
        plain = [one for one in fitting if one.time and one.time.total_s.likely <= best * BAND]
        if any(not one.recipe.expandable_segments for one in plain):
            yield "segments without need"
    smallest = min(
        one.memory.needed_bytes.high
        for one in plans
        if one.recipe.expandable_segments is row.recipe.expandable_segments
    )
    if row.least.memory.needed_bytes.high > smallest:
        yield f"least-is-not {row.least.memory.needed_bytes.high / smallest:.4f}"


def main() -> None:
    """Ask, compare, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    models = [entry.name for entry in model_entries()]
    cards = sorted((card for card in all_gpus() if card.speed_known), key=lambda card: card.memory_bytes)
    found: Counter[str] = Counter()
    rows = asked = refused = 0
    seconds = 0.0
    while asked < options.questions:
        knobs, card = question(draw, models), draw.choice(cards)
        begin = time.perf_counter()
        try:
            answer = advise(gpu=card, **knobs)
        except AdvisorError:
            refused += 1
            continue
        seconds += time.perf_counter() - begin
        asked += 1
        said = [(row.method, fault) for row in answer.candidates for fault in faults(answer, row, card)]
        rows += len(answer.candidates)
        method = draw.choice(METHODS)
        alone = advise(gpu=card, **knobs, method=method).candidates[0]
        together = answer.candidate(method)
        if (alone.recipe, alone.memory, alone.time) != (together.recipe, together.memory, together.time):
            said.append((method, "differs alone"))
        larger = card.model_copy(update={"memory_bytes": int(card.memory_bytes * draw.choice((1.05, 1.5, 3)))})
        for row in advise(gpu=larger, **knobs).candidates:
            before = answer.candidate(row.method)
            comparable = before.verdict == "fits" and row.recipe.rank == before.recipe.rank
            if (
                comparable
                and row.time
                and before.time
                and row.time.total_s.likely > before.time.total_s.likely * (1 + 1e-9)
            ):
                if row.recipe.target_modules == before.recipe.target_modules:
                    said.append(
                        (row.method, f"slower-on-more {row.time.total_s.likely / before.time.total_s.likely:.4f}")
                    )
                else:
                    said.append((row.method, "slower on more memory, other targets"))
        for method, fault in said:
            found[fault.split(" ")[0] if fault[-1].isdigit() else fault] += 1
            if options.verbose and not fault.startswith("within-band"):
                print(method, fault, card.name, knobs)
    print(f"{asked} questions ({refused} refused), {rows} rows, {seconds / asked * 1e3:.0f} ms an answer")
    for fault, times in found.most_common():
        print(f"{times:6} {fault}")


if __name__ == "__main__":
    main()
