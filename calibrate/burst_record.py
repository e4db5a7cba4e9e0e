"""What is recorded about a burst besides its figures: the device, its conditions, every raw time. Needs no torch.

A value that is not available (the driver does not report it, or a CPU has no driver) is null.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import Field

from advisor.answer import Verdict
from advisor.specs import Workload
from advisor.units import GIB
from calibrate.record import (
    LARGEST_DEVICE_BYTES,
    Bytes,
    Celsius,
    Cores,
    Count,
    Hertz,
    HostSeconds,
    Load,
    Moment,
    Record,
    Seconds,
    Text,
    Watt,
)

DeviceKind = Literal["cpu", "cuda"]
Outcome = Literal["started", "done", "out_of_memory", "crashed", "timed_out", "failed"]
PredictedVerdict = Verdict | Literal["unknown"]


class DeviceFacts(Record):
    """The facts about a device that do not change while it works."""

    kind: DeviceKind
    name: Text = Field(min_length=1, description="as the driver prints it, or the CPU's model name")
    memory_bytes: int = Field(ge=2**28, le=LARGEST_DEVICE_BYTES, description="of the card, or of the machine")
    compute_capability: str = Field(default="", pattern=r"^(\d{1,2}\.\d)?$", description="'9.0'; '' for a CPU")
    driver: Text = Field(default="", description="version of the driver; '' for a CPU, or when NVML does not report it")
    cuda: Text = Field(default="", description="version of CUDA that torch was built with; '' for a CPU")
    multiprocessors: Count = Field(default=0, description="of the card; 0 for a CPU")
    cores: Cores = Field(description="logical cores of the machine's CPU")
    threads: Cores = Field(description="threads that torch computes with on the CPU")

    @property
    def signature(self) -> str:
        """Identifies a kind of device; records of different signatures are kept apart."""
        gib = round(self.memory_bytes / GIB)
        if self.kind == "cpu":
            return f"cpu: {self.name}, {self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"cuda: {self.name}, {gib} GiB"


class Conditions(Record):
    """The conditions of a device at one moment."""

    sm_clock_hz: Hertz | None = None
    sm_clock_max_hz: Hertz | None = None
    sm_clock_base_hz: Hertz | None = Field(default=None, description="the default application clock")
    memory_clock_hz: Hertz | None = None
    memory_clock_max_hz: Hertz | None = None
    power_w: Watt | None = None
    power_limit_w: Watt | None = None
    power_limit_default_w: Watt | None = None
    temperature_c: Celsius | None = None
    throttled: tuple[Text, ...] = Field(default=(), description="why the driver lowers the clocks")
    other_processes: Count | None = Field(default=None, description="other processes that compute on the card")
    other_bytes: Bytes | None = Field(default=None, description="card memory that they hold")
    load_average: Load | None = Field(default=None, description="of the machine, over one minute")


Share = Annotated[float, Field(ge=0, le=1)]
RowTokens = Annotated[int, Field(ge=0, le=10_000_000)]


class Run(Record):
    """The raw data of one burst; judged afterwards by `calibrate.checks`."""

    build_s: HostSeconds
    warm_up_s: tuple[Seconds, ...] = Field(description="wall time of each step before those that count")
    step_s: tuple[Seconds, ...] = Field(description="wall time of each step, synchronized at its end")
    device_step_s: tuple[Seconds, ...] = Field(default=(), description="the same by CUDA events; empty on a CPU")
    micro_step_s: tuple[Seconds, ...] = Field(description="forward and backward, each of every step")
    host_s: tuple[HostSeconds, ...] = Field(description="CPU time to issue each step, excluding waits for the card")
    clocks_hz: tuple[Hertz, ...] = Field(default=(), description="clock of the card after each step")
    throttled: tuple[Text, ...] = Field(default=(), description="why the clocks were lowered while steps were timed")
    row_lengths: tuple[tuple[Share, RowTokens], ...] = Field(
        default=(), description="quantiles of the rows as they came: (share of them, tokens); () where all were alike"
    )
    padding: Share = Field(default=0.0, description="part of the tokens that was padding")
    step_peak_bytes: tuple[Bytes, ...] = Field(
        default=(), description="where rows vary: most bytes alive in each step but the first"
    )
    step_reserved_bytes: tuple[Bytes | None, ...] = Field(
        default=(), description="of these steps, most that the allocator had reserved; null on a CPU"
    )
    rank_peak_bytes: tuple[Bytes, ...] = Field(default=(), description="of every rank of several cards; () on one")
    trainable_parameters: Count
    peak_exact_bytes: Bytes | None = Field(default=None, description="CPU: the peak without rounding up to 512 bytes")
    before: Conditions
    after: Conditions
    cpu_share: Load = Field(description="CPU time over (wall time x threads) while steps were timed")
    others_cores: Load | None = Field(description="cores that other processes kept busy during that time")


class DrawnStep(Record):
    """A step of a burst whose rows vary, before it runs."""

    lengths: tuple[tuple[RowTokens, ...], ...] = Field(description="of the rows of each micro-batch, in tokens")
    predicted_bytes: Bytes | None = Field(description="its peak; null without a formula")


class BurstFacts(Record):
    """What a burst was, and how it ended."""

    id: Text = Field(min_length=1)
    key: Text = Field(min_length=1, description="equal for bursts of equal model, recipe, shape, device and versions")
    origin: Literal["calibrate", "training"] = "calibrate"
    started_at: Moment = Field(description="UTC, ISO 8601")
    outcome: Outcome = Field(description="'started' is the note made before the burst, with the prediction")
    error: Text = Field(default="", description="error message of a burst that failed")
    config: dict[str, Any] = Field(description="the model's config.json, after cutting")
    cut: Text = Field(default="", description="'1 of 32 layers, 16,384 of 128,256 words'; '' for the whole model")
    verdict: PredictedVerdict = Field(description="of the prediction, against `limit_bytes`")
    limit_bytes: Bytes = Field(description="memory that the device had available; 0: unknown")
    needed_bytes: Bytes = Field(default=0, description="predicted likely need, including overheads; 0: unknown")
    workload: Workload | None = Field(default=None, description="how rows come; null where all are full")
    drawn: tuple[DrawnStep, ...] = Field(default=(), description="the steps but the first, where rows vary")
    run: Run | None = Field(default=None, description="null unless the burst was measured")


def key_of(
    signature: str,
    versions: dict[str, str],
    config: dict[str, Any],
    recipe: dict[str, Any],
    batch: int,
    seq_len: int,
    *more: dict[str, Any],
) -> str:
    """The key under which the same burst is found again; `more`: how its rows come and which cards share it."""
    text = json.dumps([signature, versions, config, recipe, batch, seq_len, *more], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
