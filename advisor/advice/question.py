"""From what was typed to what is asked: knobs checked, gaps filled with defaults, contradictions refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from advisor.errors import BadValue
from advisor.knobs import BY_NAME, range_of, read_value
from advisor.specs import Model, Placement, Workload

if TYPE_CHECKING:
    from advisor.advice.dataset import DataSummary

DEFAULT_BATCH_SIZE = 16
DEFAULT_SEQ_LEN = 1024


def read_knobs(knobs: Mapping[str, object]) -> dict[str, object]:
    """The knobs that were given a value (not None), each checked. Raises UnknownName or BadValue."""
    return {name: read_value(name, value) for name, value in knobs.items() if value is not None}


def _whole(fixed: Mapping[str, object], name: str, default: int) -> int:
    value = fixed.get(name, default)
    assert isinstance(value, int), f"{name} was not read by read_knobs"
    return value


def placement_of(fixed: Mapping[str, object]) -> Placement:
    """How many cards, and how the job is spread over them."""
    return Placement(gpus=_whole(fixed, "gpus", 1), sharding="ddp" if fixed.get("sharding") == "ddp" else "none")


def workload_of(fixed: Mapping[str, object], model: Model, gpus: int, data: DataSummary | None = None) -> Workload:
    """The data set: what is fixed, then what the file says, then defaults.

    The defaults: 10,000 examples, one epoch, rows of at most 1024 tokens (less if the model has fewer
    positions) and half of that on average, 16 rows per optimizer step.
    Raises BadValue for numbers that contradict each other.
    """
    examples = _whole(fixed, "examples", data.rows if data else 10_000)
    longest = min(data.longest_tokens if data else DEFAULT_SEQ_LEN, model.max_position_embeddings)
    if "mean_seq_len" in fixed:
        longest = max(longest, _whole(fixed, "mean_seq_len", 1))
    seq_len = _whole(fixed, "seq_len", longest)
    mean = min(data.mean_tokens, seq_len) if data else max(1, seq_len // 2)
    mean = _whole(fixed, "mean_seq_len", mean)
    if mean > seq_len:
        raise BadValue("--mean-seq-len", mean, f"allowed is at most --seq-len, which is {seq_len:,}")
    epochs = fixed.get("epochs", 1.0)
    assert isinstance(epochs, float), "epochs was not read by read_knobs"
    return Workload(
        examples=examples,
        epochs=epochs,
        seq_len=seq_len,
        mean_seq_len=mean,
        packing=fixed.get("packing", False) is True,
        batch_size=_batch_size(fixed, gpus),
    )


def _batch_size(fixed: Mapping[str, object], gpus: int) -> int:
    """Rows per optimizer step: a multiple of what the cards do at once."""
    unit = gpus * _whole(fixed, "micro_batch", 1)
    if "batch_size" not in fixed:
        batch_size = -(-DEFAULT_BATCH_SIZE // unit) * unit
        limit = int(range_of(BY_NAME["batch_size"]).high)
        if batch_size > limit:
            raise BadValue("--micro-batch times --gpus", unit, f"allowed are at most {limit:,} rows per step")
        return batch_size
    batch_size = _whole(fixed, "batch_size", DEFAULT_BATCH_SIZE)
    if batch_size % unit:
        what = "--micro-batch" if gpus == 1 else "--gpus" if unit == gpus else "--gpus times --micro-batch"
        raise BadValue("--batch-size", batch_size, f"allowed are multiples of {what}, which is {unit:,}")
    return batch_size
