"""Reserved memory of published jobs whose rows differ in length, replayed beside what was measured.

    python -m benchmarks.published_jobs

Needs the [simulate] extra. The rows are peft's method comparison: micro-batches of 4, sorted from long to short within
80 rows, the cache emptied every 10 steps, peak reserved of the whole process. Of the lengths, the rows state a mean and
a limit, so the replay draws from the law that these two imply; the true lengths spread less. Each row is replayed in
three orders of 1,000 steps. Nothing is fitted.
"""

from __future__ import annotations

import sys
from random import Random
from statistics import mean, median

from advisor.catalog import find_gpus
from advisor.costs.job import Job, Run
from advisor.costs.micro_batches import MicroBatch
from advisor.lengths import RowLengths
from advisor.units import GIB
from advisor.validation.figures import Row, published_rows
from advisor.validation.huggingface import CUBLAS_WORKSPACE_BYTES, comparison_run

BUCKET_BATCHES = 20
CACHE_STEPS = 10
STEPS, ORDERS = 1000, 3


def order(row: Row, seed: int) -> list[MicroBatch]:
    """The micro-batches of a run's first steps; the first of one bucket holds a row of the limit."""
    rng, rows = Random(seed), row["micro_batch"]
    law = RowLengths(round(row["mean_tokens_per_sample"]), row["seq_len"])
    found: list[MicroBatch] = []
    while len(found) < STEPS:
        lengths = sorted(law.sample(rng, rows * BUCKET_BATCHES), reverse=True)
        found += [MicroBatch(rows, length, True) for length in lengths[::rows]]
    found[rng.randrange(STEPS // BUCKET_BATCHES) * BUCKET_BATCHES] = MicroBatch(rows, row["seq_len"], True)
    return found[:STEPS]


def replayed(row: Row) -> tuple[float, float]:
    """Bytes reserved at the highest, and on average after a step: the median of the orders."""
    run = comparison_run(row)
    orders = [order(row, seed) for seed in range(ORDERS)]
    capability = find_gpus(run.gpu)[0].compute_capability
    batches = {batch for one in orders for batch in one}
    aside = [CUBLAS_WORKSPACE_BYTES] * 2
    job = Job(run.model, run.recipe, batches, run.stack, aside, capability=capability)
    peaks, averages = [], []
    for one in orders:
        process, held = Run(job), []
        for step, batch in enumerate(one, 1):
            process.step([batch])
            held.append(process.reserved_bytes)
            if step % CACHE_STEPS == 0:
                process.empty_cache()
        peaks.append(process.peak_reserved_bytes)
        averages.append(mean(held))
    return median(peaks), median(averages)


def main() -> int:
    """Print each row and the median errors."""
    errors: list[tuple[float, float]] = []
    for row in published_rows("peft-mm"):
        measured = row["peak_mem_gib"] * GIB, row["mem_extra"]["reserved_avg_gib"] * GIB
        found = replayed(row)
        errors.append((found[0] / measured[0] - 1, found[1] / measured[1] - 1))
        print(
            f"{row['id']:14} {row['method']:5} peak {found[0] / GIB:6.2f} GiB, measured {measured[0] / GIB:6.2f} "
            f"({errors[-1][0]:+.1%}); average {found[1] / GIB:6.2f}, measured {measured[1] / GIB:6.2f} "
            f"({errors[-1][1]:+.1%})",
            flush=True,
        )
    peak, average = (median(map(abs, one)) for one in zip(*errors, strict=True))
    print(f"median error: peak {peak:.1%}, average {average:.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
