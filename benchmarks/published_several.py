"""Memory of a card among several: the estimate beside what was published, and runs that went out of memory.

    python -m benchmarks.published_several FILE.jsonl

FILE holds one published run a line. What cannot be posed is listed with its reason. A run that went out of memory is
right where the estimate does not say that it fits. Nothing is fitted. Of the runs on several cards it exits with 1 when
the median error exceeds 3 %, the worst 12 %, fewer than 85 % are inside their interval, or a run is said to fit that
went out of memory.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from statistics import median
from typing import NamedTuple

from advisor.costs.estimation import estimate
from advisor.errors import AdvisorError
from advisor.interval import Interval
from advisor.specs import MemoryEstimate
from advisor.units import GIB, MIB
from advisor.validation.figures import Counter, Row, stated_by
from benchmarks.several_rows import OF_CONFIG, card_of, model_of, placement_of, recipe_of, rows_of, work_of

MEDIAN_BAR, WORST_BAR, INSIDE_BAR = 0.03, 0.12, 0.85
COUNTERS: tuple[tuple[str, Counter], ...] = (
    ("max_memory_allocated", "allocated"),
    ("active", "allocated"),
    ("allocated", "allocated"),
    ("reserved", "reserved"),
)
"""What a row's counter is, by a word in it; else what nvidia-smi shows."""


class Figure(NamedTuple):
    """One measured number of a row, and what an answer states of it, in bytes."""

    row: Row
    counter: Counter
    measured_bytes: float
    stated: Interval

    @property
    def error(self) -> float:
        """Prediction over measurement, minus 1."""
        return self.stated.likely / self.measured_bytes - 1

    @property
    def inside(self) -> bool:
        """Whether the measurement lies in the interval."""
        return self.stated.low <= self.measured_bytes <= self.stated.high


class Failed(NamedTuple):
    """A run that went out of memory, and what an answer says that it needs, in bytes."""

    row: Row
    needed: Interval
    card_bytes: int

    @property
    def right(self) -> bool:
        """Whether it is not said to fit."""
        return self.needed.high > self.card_bytes


def refusal(row: Row) -> str:
    """Why a row is not predicted; '' where it is."""
    if "peak_mem_gib" not in row and row["status"] != "oom":
        return "no memory figure"
    if row["status"] == "ok" and row["completeness_mem"] not in ("A", "B"):
        return "how it was run is not known"
    if not row.get("seq_len") or not row.get("micro_batch"):
        return "the lengths of its rows are not stated" if row.get("micro_batch") else "its micro-batch is not stated"
    if row.get("gradient_checkpointing") not in (True, False):
        return "whether layers run again, or which, is not stated"
    if row.get("compile"):
        return "compiled"
    config = row.get("framework_config", "none")
    if ("foak" in config and config not in OF_CONFIG) or "padding" in config:
        return f"other kernels ({config})"
    if row.get("zero_pp"):
        return "ZeRO++"
    if row["group"] == "llama-cookbook":
        return "transformers of July 2023, older than what is mirrored, and a batch that is not stated"
    if row["group"] == "longlora":
        return "its own attention, and weights that it trains beside adapters"
    if row["gpu"] == "not stated":
        return "its card is not stated"
    return ""


def counter_of(row: Row) -> Counter:
    """What the row's figure counts."""
    return next((kind for word, kind in COUNTERS if word in row["mem_counter"]), "on the card")


def memory_of(row: Row) -> MemoryEstimate:
    """The estimate of a row. Raises AdvisorError where an engine or a model refuses it."""
    return estimate(model_of(row), recipe_of(row), work_of(row), card_of(row), placement_of(row)).memory


def figures_of(row: Row, memory: MemoryEstimate) -> Iterator[Figure]:
    """The row's peak, and what nvidia-smi showed beside it."""
    counter = counter_of(row)
    yield Figure(row, counter, row["peak_mem_gib"] * GIB, stated_by(memory, counter))
    if shown := row.get("mem_extra", {}).get("nvidia_smi_peak_mean_mib"):
        yield Figure(row, "on the card", shown * MIB, stated_by(memory, "on the card"))


def line(row: Row) -> str:
    """A row in words."""
    config = row.get("framework_config", "")
    return (
        f"{row['id']:20} {row['num_gpus']:3} {row['sharding']:5} {row['model_id'].split('/')[-1][:18]:18} "
        f"{row['method']:5} {row.get('micro_batch', 0):2} x {row.get('seq_len') or 0:5} {config[:20]:20}"
    )


def summary(found: list[Figure]) -> str:
    """Some figures in one line."""
    errors = [abs(one.error) for one in found]
    inside = sum(one.inside for one in found) / len(found)
    return f"{len(found):4} figures: median {median(errors):.1%}, worst {max(errors):.1%}, inside {inside:.0%}"


def misses(found: list[Figure], failed: list[Failed]) -> bool:
    """Whether a bar is missed."""
    if not found:
        return not all(one.right for one in failed)
    errors = [abs(one.error) for one in found]
    inside = sum(one.inside for one in found) / len(found)
    good = median(errors) <= MEDIAN_BAR and max(errors) <= WORST_BAR and inside >= INSIDE_BAR
    return not good or not all(one.right for one in failed)


def answers(rows: list[Row]) -> tuple[list[Figure], list[Failed], list[tuple[Row, str]]]:
    """Every row beside its estimate: what was measured, what failed, and what cannot be posed, with the reason."""
    found: list[Figure] = []
    failed: list[Failed] = []
    left_out: list[tuple[Row, str]] = []
    for row in rows:
        reason = refusal(row)
        try:
            if not reason and row["status"] == "oom":
                failed.append(Failed(row, memory_of(row).needed_bytes, card_of(row).memory_bytes))
            elif not reason:
                found += figures_of(row, memory_of(row))
        except AdvisorError as error:
            reason = str(error)
        if reason:
            left_out.append((row, reason))
    return found, failed, left_out


def report(found: list[Figure], failed: list[Failed], left_out: list[tuple[Row, str]]) -> Iterator[str]:
    """The table: figures, runs that failed, what is left out, and summaries."""
    for one in found:
        sizes = " ".join(f"{size / GIB:6.2f}" for size in (one.measured_bytes, *one.stated))
        yield f"{line(one.row)} {one.counter:11} {sizes} {one.error:+6.1%}{'' if one.inside else ' outside'}"
    for fail in failed:
        sizes = " ".join(f"{size / GIB:6.2f}" for size in (fail.card_bytes, *fail.needed))
        yield f"{line(fail.row)} {'out of mem.':11} {sizes} {'right' if fail.right else 'WRONG'}"
    reasons: dict[str, list[str]] = {}
    for row, reason in left_out:
        if "peak_mem_gib" in row or row["status"] == "oom":
            reasons.setdefault(reason, []).append(row["id"])
    for reason, ids in reasons.items():
        yield f"not posed, {len(ids)}: {reason}: {', '.join(ids)}"
    yield f"without a memory figure: {sum(reason == 'no memory figure' for _, reason in left_out)} rows"
    for name, several in (("one card", False), ("several cards", True)):
        some = [one for one in found if (one.row["num_gpus"] > 1) is several]
        fails = [one for one in failed if (one.row["num_gpus"] > 1) is several]
        for counter in dict.fromkeys(one.counter for one in some):
            yield f"{name:14} {counter:11} {summary([one for one in some if one.counter == counter])}"
        yield f"{name:14} out of memory: {sum(one.right for one in fails)} of {len(fails)} right"


def main(path: str) -> int:
    """Print the table; returns 1 where a bar is missed."""
    found, failed, left_out = answers(rows_of(path))
    print("\n".join(report(found, failed, left_out)))
    several = [one for one in found if one.row["num_gpus"] > 1]
    return int(misses(several, [one for one in failed if one.row["num_gpus"] > 1]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
