"""Step times of several cards: the estimate beside what was published, and how a run scales from fewer to more.

    python -m benchmarks.published_several_times FILE.jsonl

FILE holds one published run a line. Left out, each with its reason: runs with other kernels or under torch.compile,
with selective checkpointing, on the host's memory, and of engines that are not here. Rows of more than 4,096 tokens
are also summed up apart: these runs may be older than FlashAttention 2, whose rates are ours. Nothing is fitted.
Exits with 1 when the median error exceeds 15 %, fewer than 80 % are inside their interval, or scaling is off by more
than 8 %.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from statistics import median
from typing import NamedTuple

from advisor.costs.estimation import estimate_time
from advisor.errors import AdvisorError
from advisor.interval import Interval
from advisor.validation.figures import Row
from benchmarks.several_rows import card_of, model_of, placement_of, recipe_of, rows_of, work_of

MEDIAN_BAR, INSIDE_BAR, SCALING_BAR = 0.15, 0.8, 0.08
SHORT = 4096
"""Tokens of a row up to which attention is a small part of the work."""


class Compared(NamedTuple):
    """A row, measured and predicted, in seconds a step."""

    row: Row
    measured_s: float
    predicted: Interval

    @property
    def error(self) -> float:
        """Prediction over measurement, minus 1."""
        return self.predicted.likely / self.measured_s - 1

    @property
    def inside(self) -> bool:
        """Whether the measurement lies in the interval."""
        return self.predicted.low <= self.measured_s <= self.predicted.high


def refusal(row: Row) -> str:
    """Why a row is not predicted; '' where it is."""
    if not row.get("step_time_s"):
        return "no step time"
    if row["completeness_time"] not in ("A", "B") or not row.get("seq_len") or not row.get("grad_accum"):
        return "how it was run is not known"
    if row["offload"] != "none" or row.get("compile"):
        return "offloaded, or compiled"
    if row.get("gradient_checkpointing") not in (True, False):
        return "selective checkpointing"
    config = row.get("framework_config", "none")
    if any(word in config for word in ("foak", "liger", "padding", "accelerated")) or "TE" in row.get("notes", ""):
        return "other kernels"
    return ""


def compared(row: Row) -> Compared:
    """The row beside its estimate. Raises AdvisorError where an engine or a model refuses it."""
    found = estimate_time(model_of(row), recipe_of(row), work_of(row), card_of(row), placement_of(row))
    assert found is not None
    return Compared(row, float(row["step_time_s"]), found.step_s)


def scaling_of(found: list[Compared]) -> Iterator[tuple[Compared, float]]:
    """Of runs that differ in the number of cards alone: the error of the time over that of the fewest."""
    alike: dict[tuple[object, ...], list[Compared]] = {}
    names = ("group", "model_id", "gpu", "method", "quant", "micro_batch", "grad_accum", "seq_len")
    for one in found:
        names_of = (*names, "gradient_checkpointing", "framework", "compute_dtype", "sharding_detail")
        alike.setdefault(tuple(one.row.get(name) for name in names_of), []).append(one)
    for runs in alike.values():
        base, *others = sorted(runs, key=lambda one: int(one.row["num_gpus"]))
        for one in others:
            if one.row["num_gpus"] > base.row["num_gpus"]:
                yield one, (one.predicted.likely / base.predicted.likely) / (one.measured_s / base.measured_s) - 1


def quality(several: list[Compared], scaling: dict[str, float]) -> tuple[float, float, list[float]]:
    """Median error, share inside the interval, and the errors of scaling."""
    ratios = [abs(scaling[one.row["id"]]) for one in several if one.row["id"] in scaling]
    return median(abs(one.error) for one in several), sum(one.inside for one in several) / len(several), ratios


def summary(several: list[Compared], scaling: dict[str, float]) -> str:
    """A group of rows in one line."""
    middle, share, ratios = quality(several, scaling)
    scaled = f"; scaling median {median(ratios):.1%}, worst {max(ratios):.1%} of {len(ratios)}" if ratios else ""
    return f"{len(several):4} rows: median {middle:.1%}, inside {share:.0%}{scaled}"


def misses(several: list[Compared], scaling: dict[str, float]) -> bool:
    """Whether a bar is missed."""
    middle, share, ratios = quality(several, scaling)
    return middle > MEDIAN_BAR or share < INSIDE_BAR or bool(ratios and max(ratios) > SCALING_BAR)


def main(path: str) -> int:
    """Print every row and the table; returns 1 where a bar is missed."""
    rows = rows_of(path)
    found: list[Compared] = []
    left_out: dict[str, int] = {}
    for row in rows:
        reason = refusal(row)
        try:
            if not reason:
                found.append(compared(row))
        except (AdvisorError, ModuleNotFoundError) as error:
            reason = str(error)[:60]
        if reason:
            left_out[reason] = left_out.get(reason, 0) + 1
    scaling = {one.row["id"]: error for one, error in scaling_of(found)}
    for one in found:
        row, times = one.row, [f"{seconds:.2f}" for seconds in one.predicted]
        more = f" scaling {scaling[row['id']]:+.1%}" if row["id"] in scaling else ""
        inside = "" if one.inside else " outside"
        print(
            f"{row['id']:20} {row['num_gpus']:4} {row['gpu'][7:]:16} {row['model_id'].split('/')[-1][:20]:20} "
            f"{one.measured_s:8.2f} {' '.join(times)} "
            f"{one.error:+.1%}{inside}{more}"
        )
    several = [one for one in found if one.row["num_gpus"] > 1]
    for group in dict.fromkeys(one.row["group"] for one in several):
        print(f"{group:16} {summary([one for one in several if one.row['group'] == group], scaling)}")
    print(f"{'to 4,096 tokens':16} {summary([one for one in several if one.row['seq_len'] <= SHORT], scaling)}")
    print(f"{'all':16} {summary(several, scaling)}")
    print("left out:", left_out)
    return int(misses(several, scaling))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
