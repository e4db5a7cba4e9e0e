"""What a trainer's own loop needs: every allocation of its steps but the first, and the losses, beside the dry run."""

from __future__ import annotations

import contextlib
import functools
import json
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from transformers import Trainer, TrainerCallback

from advisor.specs import Recipe
from calibrate.measurement import Trace
from calibrate.worker.dryrun import add_static, trace_step
from calibrate.worker.tracker import AllocationTracker

TOLERANCE = 0.01


class Peak(NamedTuple):
    """Of one step: the shape of its rows, the most bytes alive, and which tensors they were."""

    shape: tuple[int, ...]
    size_bytes: int
    alive: list[str]


class Watch(TrainerCallback):  # type: ignore[misc]
    """Records every step's loss, and every allocation of the second and the third, from the moment the batch exists.

    The third runs within `last`.
    """

    def __init__(self, trainer: Any, last: AbstractContextManager[Any]) -> None:
        self.trainer, self.last = trainer, last
        self.tracker: AllocationTracker | None = None
        self.shape: tuple[int, ...] = ()
        self.peaks: list[Peak] = []
        self.losses: list[float] = []
        self.trained_dtypes: list[str] = []
        self.step = trainer.training_step
        trainer.training_step = self.watched

    def watched(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if self.trainer.state.global_step > 0:
            self.shape = tuple(inputs["input_ids"].shape)
            trained = (one for one in self.trainer.model.parameters() if one.requires_grad)
            self.trained_dtypes = sorted({str(one.dtype).removeprefix("torch.") for one in trained})
            self.tracker = AllocationTracker({}, name_modules=False)
            add_static(self.tracker, self.trainer.model, self.trainer.optimizer, inputs)
            self.tracker.__enter__()
            self.tracker.mark("forward")
        with self.last if self.trainer.state.global_step == 2 else contextlib.nullcontext():
            loss = self.step(model, inputs, *args, **kwargs)
        self.losses.append(float(loss))
        return loss

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.tracker is not None:
            self.tracker.__exit__(None, None, None)
            timeline = self.tracker.timeline
            highest = max(timeline.phase_peaks(), key=lambda phase: phase.peak_bytes)
            self.peaks.append(Peak(self.shape, highest.peak_bytes, tensors(timeline.census(highest.move))))
            self.tracker = None


@contextlib.contextmanager
def watching(kind: Any = Trainer, last: AbstractContextManager[Any] | None = None) -> Iterator[list[Watch]]:
    """The watches of the trainers of this kind that train within; their third step runs within `last`."""
    watches: list[Watch] = []
    train = kind.train

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        watches.append(Watch(self, last or contextlib.nullcontext()))
        self.add_callback(watches[-1])
        return train(self, *args, **kwargs)

    kind.train = watched
    try:
        yield watches
    finally:
        kind.train = train


def beside_dry_run(watch: Watch, config: dict[str, Any], recipe: dict[str, Any]) -> dict[str, Any]:
    """What was seen, the dry run's peak, and the tensors of one peak alone where they are more than 1 % apart."""
    peak = watch.peaks[-1]
    dry = dry_run(json.dumps(config), json.dumps(recipe), *peak.shape)
    apart = abs(peak.size_bytes / dry.peak_bytes - 1) > TOLERANCE
    dry_alive = tensors(dry.census)
    return {
        "steps": watch.trainer.state.global_step,
        "losses_finite": [math.isfinite(loss) for loss in watch.losses],
        "shape": peak.shape,
        "trained_dtypes": watch.trained_dtypes,
        "peak_bytes": peak.size_bytes,
        "second_peak_bytes": watch.peaks[0].size_bytes,
        "dry_peak_bytes": dry.peak_bytes,
        "measured_alone": [one for one in peak.alive if apart and one not in dry_alive],
        "dry_alone": [one for one in dry_alive if apart and one not in peak.alive],
    }


def tensors(census: Any) -> list[str]:
    """How many of which kind, shape and dtype."""
    found: dict[tuple[str, str, str], int] = {}
    for one in census:
        key = (one.category, str(tuple(one.shape)), one.dtype)
        found[key] = found.get(key, 0) + one.count
    return [f"{count} x {' '.join(key)}" for key, count in sorted(found.items())]


@functools.cache
def dry_run(config: str, recipe: str, batch: int, seq_len: int) -> Trace:
    """The dry run of the tiny model."""
    return trace_step(json.loads(config), Recipe(**json.loads(recipe)), batch, seq_len, census=True)
