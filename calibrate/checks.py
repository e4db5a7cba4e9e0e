"""Whether a measurement can be trusted: judged afterwards, from the record; nothing is discarded. Needs no torch.

A mark names what was wrong and what it spoils: 'time', 'memory', or '' for a remark only. A fit uses only records that
are clean.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

from calibrate.burst_record import Conditions, DeviceFacts, Run
from calibrate.measurement import Comparison

FEW_STEPS = 3
DRIFT = 0.05
SPREAD = 0.10
SLOW_CLOCK = 0.98
OWN_SHARE = 0.95
CROWDED_CORES = 0.1
POWER_LIMIT = "power limit"
"""The one reason for lower clocks that is normal under load: the speed at the power limit is the card's speed."""

Spoils = Literal["time", "memory", ""]


class Mark(NamedTuple):
    """One finding: a short code, a sentence, and what of the record it spoils."""

    code: str
    text: str
    spoils: Spoils


def marks_of(record: Comparison) -> tuple[Mark, ...]:
    """Everything that is wrong with a record; nothing for a dry run."""
    burst = record.burst
    if burst is None:
        return ()
    if burst.run is None:
        return (
            Mark("no result", f"ended as {burst.outcome.replace('_', ' ')}: {burst.error}", "time"),
            Mark("no result", "no memory was measured", "memory"),
        )
    run, device = burst.run, record.environment.device
    checks = _CHECKS[1:] if record.kind == "varying" else _CHECKS  # its steps differ
    found = [mark for check in checks for mark in check(run, device)]
    if record.kind != "full":
        found.append(Mark("rows", f"rows are {record.kind}, and a fit of times takes full ones", "time"))
    if record.placement is not None:
        found.append(Mark("cards", "several share it, and a fit takes one alone", "time"))
    if record.recipe.loss == "chunked" and record.source == "cpu":
        found.append(Mark("CPU loss", "on a CPU trl's loss keeps tiles that its CUDA kernels do not", "memory"))
    return tuple(found)


def is_clean(record: Comparison, what: Literal["time", "memory"]) -> bool:
    """Whether a fit may use this record's times or memory."""
    return record.measured is not None and all(mark.spoils != what for mark in marks_of(record))


def is_worst(record: Comparison) -> bool:
    """Out of memory where 'fits' was predicted: the one error that costs a user a run."""
    burst = record.burst
    return burst is not None and burst.outcome == "out_of_memory" and burst.verdict == "fits"


def spread_of(times_s: Sequence[float]) -> float:
    """The interquartile range of the times over their median."""
    if len(times_s) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(times_s, n=4, method="inclusive")
    return (high - low) / middle


def _steps(run: Run, _: DeviceFacts | None) -> Iterator[Mark]:
    times_s = run.step_s
    if len(times_s) < FEW_STEPS:
        yield Mark("few steps", f"only {len(times_s)} steps were timed", "time")
        return
    third = max(1, len(times_s) // 3)
    early, late = statistics.median(times_s[:third]), statistics.median(times_s[-third:])
    if len(times_s) >= 2 * FEW_STEPS and abs(early / late - 1) > max(DRIFT, spread_of(times_s)):
        yield Mark("drift", f"step time drifted by {late / early - 1:+.0%}: still warming up", "time")
    if spread_of(times_s) >= SPREAD:
        yield Mark("spread", f"the interquartile range of step times is {spread_of(times_s):.0%}", "time")


def _throttled(run: Run, _: DeviceFacts | None) -> Iterator[Mark]:
    reasons = [reason for reason in run.throttled if reason != POWER_LIMIT]
    if reasons:
        yield Mark("throttled", f"the driver held the clocks down: {', '.join(reasons)}", "time")
    if POWER_LIMIT in run.throttled:
        yield Mark("power", "the card ran at its power limit", "")
    limit, default = run.after.power_limit_w, run.after.power_limit_default_w
    if limit is not None and default is not None and limit < 0.98 * default:
        yield Mark("lowered", f"the power limit is set to {limit:.0f} W instead of {default:.0f} W", "time")


def _clocks(run: Run, _: DeviceFacts | None) -> Iterator[Mark]:
    base = run.after.sm_clock_base_hz
    # A card at its power limit clocks lower by itself.
    if run.clocks_hz and base and POWER_LIMIT not in run.throttled:
        clock = statistics.median(run.clocks_hz)
        if clock < SLOW_CLOCK * base:
            yield Mark("slow clock", f"the clock was {clock / 1e6:.0f} MHz, the base is {base / 1e6:.0f} MHz", "time")


def _neighbors(run: Run, _: DeviceFacts | None) -> Iterator[Mark]:
    def count(moment: Conditions) -> int:
        return moment.other_processes or 0

    others = max(count(run.before), count(run.after))
    if others:
        yield Mark("shared card", f"{others} other process{'es' if others > 1 else ''} on the card", "time")


def _processors(run: Run, device: DeviceFacts | None) -> Iterator[Mark]:
    """Other processes must leave free our cores on a CPU; on a card, one to launch from and one for autograd."""
    if device is None:
        return
    wanted = device.threads if device.kind == "cpu" else 2
    if device.kind == "cpu" and run.cpu_share < OWN_SHARE:
        yield Mark("busy CPU", f"the step got only {run.cpu_share:.0%} of its cores", "time")
    elif run.others_cores is not None and run.others_cores > max(0, device.cores - wanted) + CROWDED_CORES:
        yield Mark("busy CPU", f"other processes kept {run.others_cores:.1f} cores busy", "time")


_CHECKS: tuple[Callable[[Run, DeviceFacts | None], Iterator[Mark]], ...] = (
    _steps,
    _throttled,
    _clocks,
    _neighbors,
    _processors,
)
