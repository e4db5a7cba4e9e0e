"""The immutable record of one burst or dry run. Written once, judged afterwards, never edited. Needs no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from advisor.files.checked import LIBRARIES
from advisor.specs import Method, Placement, Recipe, RowKind
from calibrate.burst_record import BurstFacts, DeviceFacts
from calibrate.record import LARGEST_DEVICE_BYTES, Bytes, Count, HostSeconds, PeakBytes, Record, Seconds, Text

SCHEMA_VERSION: Literal[2] = 2
"""2: rows that are padded, packed or vary, and evaluations. Records of version 1 are read: their rows are all full."""


class PhasePeak(Record):
    """One phase of a step: bytes alive when it begins, at most, and when it ends."""

    phase: str
    begin_bytes: int
    peak_bytes: int
    end_bytes: int
    op: str = Field(description="the operation whose output set the peak; '' when the phase begins at its peak")
    module: str
    move: int = Field(description="position in the timeline just after the peak was reached")


class CensusRow(Record):
    """Storages alive at one moment that differ only in the layer they belong to."""

    category: str = Field(
        description="base_weights, quantization, adapters, buffers, inputs, optimizer_states, "
        "gradients, or the phase that made it: forward, recompute, backward, optimizer"
    )
    op: str
    module: str = Field(description="path of the module that made it, the layer's number replaced by '*'")
    layers: str = Field(description="'0-31', '31', or '' when in no layer")
    shape: tuple[int, ...]
    dtype: str
    count: int
    bytes: int


class Event(Record):
    """An allocation (positive bytes) or a release (negative)."""

    phase: str
    op: str
    module: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int


class OpCount(Record):
    """What one operation cost in a phase: see `calibrate.worker.kernels`."""

    phase: str
    op: str
    kernels: int
    flop: int
    bytes: int = Field(description="read and written")


class Trace(Record):
    """One training step in its steady state, every storage rounded up to 512 bytes as CUDA's allocator does."""

    recipe: Recipe
    model_type: str
    batch: int
    seq_len: int
    rows: RowKind = "full"
    base_weights_bytes: int
    quantization_bytes: int
    adapters_bytes: int
    buffers_bytes: int
    inputs_bytes: int
    optimizer_states_bytes: int
    buckets_bytes: int = Field(default=0, description="of gradients, held by the engine of several cards")
    trainable_parameters: int
    phases: tuple[PhasePeak, ...]
    census: tuple[CensusRow, ...] = ()
    events: tuple[Event, ...] = ()
    op_counts: tuple[OpCount, ...] = ()
    peak_blocks_bytes: int = Field(
        default=0, description="the peak as torch.cuda.max_memory_allocated counts it, with the slack of unsplit blocks"
    )
    peak_reserved_bytes: int = Field(
        default=0, description="what CUDA's caching allocator would reserve: the trace, replayed"
    )
    peak_reserved_expandable_bytes: int = Field(default=0, description="the same with expandable_segments:True")
    needed_reserved_bytes: int = Field(default=0, description="least reserved bytes for the step to run; 0: unknown")
    needed_reserved_expandable_bytes: int = Field(default=0, description="the same with expandable_segments:True")
    evaluation_peak_bytes: int = Field(default=0, description="of an evaluation between two steps; 0: none traced")
    trace_s: float = Field(description="wall time of tracing, not of the traced step")

    def phase(self, name: str) -> PhasePeak:
        """The phase called `name`: forward, backward or optimizer."""
        return next(p for p in self.phases if p.phase == name)

    @property
    def highest(self) -> PhasePeak:
        """The phase with the overall peak."""
        return max(self.phases, key=lambda p: p.peak_bytes)

    @property
    def peak_bytes(self) -> int:
        """Most bytes alive at any moment of the step."""
        return self.highest.peak_bytes

    @property
    def peak_at(self) -> str:
        """Where the peak occurs: 'backward: aten.mm in layers.0.mlp.down_proj'."""
        where = self.highest
        return f"{where.phase}: {where.op} in {where.module or 'the model'}"

    @property
    def static_bytes(self) -> int:
        """Bytes that stay allocated from the first step to the last."""
        return (
            self.base_weights_bytes
            + self.quantization_bytes
            + self.adapters_bytes
            + self.buffers_bytes
            + self.inputs_bytes
            + self.optimizer_states_bytes
            + self.buckets_bytes
        )

    @property
    def after_load_bytes(self) -> int:
        """Bytes alive before the forward pass: weights, optimizer states, inputs, and gradients when accumulating."""
        return self.phase("forward").begin_bytes

    @property
    def after_forward_bytes(self) -> int:
        """Bytes alive between forward and backward: everything saved, the loss, and what was alive before the step."""
        return self.phase("forward").end_bytes


class StepEvents(Record):
    """One step at one shape: the raw input of a traced profile. Sizes are not rounded."""

    batch: int
    seq_len: int
    sizes: tuple[int, ...] = Field(description="bytes of each allocation")
    categories: tuple[str, ...] = Field(description="of each allocation, as in CensusRow")
    moves: tuple[int, ...] = Field(description="+i: allocation i was made; -i - 1: it was freed")
    marks: tuple[tuple[int, str], ...] = Field(description="moves made when each phase begins")
    accumulated: tuple[tuple[int, int], ...] = Field(description="(moves made, allocation): a gradient is complete")
    flop: dict[str, int] = Field(description="floating point operations by phase")
    launches: dict[str, int] = Field(description="kernels by phase")
    moved: dict[str, int] = Field(description="bytes that kernels without FLOP read and write, by phase")
    peak_op: str
    unfused: bool = Field(description="dropout or attention kept tensors on the CPU that CUDA's kernels do not keep")


class TrainedTensor(Record):
    """A tensor that the step trains."""

    shape: tuple[int, ...]
    dtype: str
    count: int


class ShapeTraces(Record):
    """The same step at several shapes, and the tensors that it trains."""

    steps: tuple[StepEvents, ...]
    trained: tuple[TrainedTensor, ...]


class ModelFacts(Record):
    """What transformers says about a model that the formula does not know."""

    architecture: str = Field(description="model_type")
    kind: str = Field(description="the Auto class that a training script uses")
    parameters: int
    max_position_embeddings: int = Field(description="0 when the config names no limit")
    default_attention: Literal["sdpa", "eager"]
    breaks: tuple[int, ...] = Field(description="lengths at which the step may change: windows and chunks")


class Figures(Record):
    """What one step needs; the same keys for predicted and measured figures, null where there is no value."""

    peak_allocated_bytes: PeakBytes
    peak_reserved_bytes: Bytes | None = Field(
        default=None, description="what CUDA's caching allocator reserves; simulated in a dry run, null on a CPU"
    )
    device_bytes: Bytes | None = Field(default=None, description="what the driver shows for the process; CUDA only")
    static_bytes: Bytes | None = Field(default=None, description="what stays allocated for the whole run: no gradients")
    after_forward_bytes: Bytes | None = None
    evaluation_bytes: Bytes | None = Field(default=None, description="peak of an evaluation, where one was asked for")
    base_weights_bytes: Bytes
    quantization_bytes: Bytes
    adapters_bytes: Bytes
    optimizer_states_bytes: Bytes
    forward_bytes: Bytes | None = Field(default=None, description="most in a forward pass; of several cards alone")
    buckets_bytes: Bytes | None = Field(default=None, description="of gradients, kept by the engine of several cards")
    peak_at: Text = Field(description="'' where it was not determined")
    micro_step_s: Seconds | None = Field(default=None, description="forward and backward of one micro-batch")
    step_s: Seconds | None = Field(default=None, description="including clipping and the optimizer")
    host_s: HostSeconds | None = Field(default=None, description="CPU time to issue a step, without waits for the card")


class Work(Record):
    """The work of forward and backward of one step: see `calibrate.worker.kernels` for the conventions."""

    kernels: Count
    flop: Count
    bytes: int = Field(description="read and written")


class LoadingPeaks(Record):
    """Bytes of the parts of a quantized job before its first step."""

    loading_bytes: Bytes = Field(description="at most, while the model is loaded")
    loaded_bytes: Bytes = Field(description="once it is loaded")
    preparing_bytes: Bytes = Field(description="at most, while it is prepared for k-bit training")


class TracedLoading(Record):
    """Loading a cut of the model, formula against trace: it is really loaded, so it must be small."""

    cut: Text = Field(description="as in BurstFacts")
    predicted: LoadingPeaks
    measured: LoadingPeaks


class Environment(Record):
    """The environment of a measurement: the software and, for bursts, the device."""

    torch: Text
    transformers: Text
    peft: Text
    bitsandbytes: Text
    accelerate: Text = ""
    python: Text
    platform: Text
    device: DeviceFacts | None = None

    @property
    def versions(self) -> dict[str, str]:
        """The versions that a measurement may depend on: the libraries', the driver's and CUDA's."""
        found = {name: str(getattr(self, name)) for name in LIBRARIES}
        return found | ({"driver": self.device.driver, "cuda": self.device.cuda} if self.device else {})


class Comparison(Record):
    """Formula against measurement for one recipe: one line of `calibrate --json` and of the store."""

    schema_version: Literal[1, 2] = SCHEMA_VERSION
    model: Text
    method: Method
    recipe: Recipe
    batch: int = Field(ge=1, le=1_000_000)
    seq_len: int = Field(ge=1, le=10_000_000)
    placement: Placement | None = Field(default=None, description="of several cards, one of which was run; else null")
    rows: RowKind = Field(default="full", description="of the largest micro-batch")
    source: Literal["trace", "cpu", "cuda"]
    predicted: Figures | None = Field(description="null when the formula does not know the architecture")
    measured: Figures | None = Field(description="null for a burst that did not finish")
    predicted_work: Work | None = Field(default=None, description="null when nothing was predicted")
    measured_work: Work | None = Field(default=None, description="null where no operation was recorded")
    environment: Environment
    loading: TracedLoading | None = Field(default=None, description="null where it was not traced")
    burst: BurstFacts | None = Field(default=None, description="null for a dry run")

    @field_validator("measured")
    @classmethod
    def _measurable(cls, found: Figures | None) -> Figures | None:
        for name, value in found or ():
            if name.endswith("_bytes") and value is not None and value > LARGEST_DEVICE_BYTES:
                raise ValueError(f"{name} is {value:.3g}, more than any device has")
        return found

    @property
    def kind(self) -> str:
        """What its rows are: full, padded, packed, or varying from step to step."""
        return "varying" if self.burst is not None and self.burst.drawn else self.rows

    @property
    def peak_error(self) -> float:
        """Relative error of the predicted peak; 0 when nothing was predicted or measured."""
        return self.error_of("peak_allocated_bytes") or 0.0

    def error_of(self, field: str) -> float | None:
        """Predicted over measured, minus 1; None when either is missing."""
        predicted, measured = getattr(self.predicted, field, None), getattr(self.measured, field, None)
        return predicted / measured - 1 if predicted and measured else None
