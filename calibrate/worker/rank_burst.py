"""A burst on one of several cards: the loop of `calibrate.worker.burst` on a model that its engine spreads.

On a CPU memory is what the tracker sees, as gloo copies what it sends, which NCCL does not; on a card, what the
allocator counts, where NCCL's own buffers are not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist

from advisor.costs.micro_batches import MicroBatch
from advisor.specs import Placement, Recipe
from calibrate.burst_record import Run
from calibrate.measurement import Figures
from calibrate.timeline import BUCKETS, Timeline
from calibrate.worker.burst import Limits, Say, Training, alike, bytes_of, figures_of, static_terms
from calibrate.worker.cpu_memory import MemoryReading
from calibrate.worker.device import Device
from calibrate.worker.dryrun import add_static
from calibrate.worker.rank_tracker import RankTracker
from calibrate.worker.spread import spread_over

WATCHED_STEPS = 3
CPU = torch.device("cpu")


class RankTraining(Training):
    """One rank's part of a training."""

    def __init__(
        self,
        config: Mapping[str, Any],
        recipe: Recipe,
        placement: Placement,
        batch: MicroBatch,
        device: Device,
        code: str = "",
    ) -> None:
        """Builds and spreads the model, within a process group; raises what `Training` raises."""
        self.placement = placement
        self.forward_bytes: int | None = None
        self._mark: Callable[[str], None] = lambda _: None
        super().__init__(config, recipe, batch, device, code)

    def prepared(self, model: Any) -> Any:
        """Spread by its engine, and still known by its own parts."""
        self.spread = spread_over(model, self.recipe, self.placement, self.device.kind)
        return model

    def _loss(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        self._mark("forward")
        loss: torch.Tensor = self.spread.forward(**inputs).loss
        self._mark("backward")
        return loss

    def micro_batch(self, last: bool) -> AbstractContextManager[Any]:
        """Only the last one of a step reduces its gradients."""
        return nullcontext() if last else self.spread.unsynced()

    def agreed(self, decision: bool) -> bool:
        """What the first rank decides, as each has clocks of its own."""
        found = [decision]
        dist.broadcast_object_list(found, src=0, device=CPU)
        return found[0]

    def memory(self) -> MemoryReading:
        """Of a step, without what gloo copies: the least of several, as its threads may let go of a tensor late."""
        if self.device.kind != "cpu":
            return super().memory()
        timelines = [self._watched_step() for _ in range(WATCHED_STEPS)]
        least = min(timelines, key=lambda one: max(phase.peak_bytes for phase in one.phase_peaks()))
        phases = least.phase_peaks()
        self.forward_bytes = max(one.peak_bytes for one in phases if one.phase == "forward")
        static = sum(least.static_bytes().values())
        return MemoryReading(max(one.peak_bytes for one in phases), static, 0, None, None, None)

    def _watched_step(self) -> Timeline:
        tracker = RankTracker({}, name_modules=False)
        add_static(tracker, self.model, self.optimizer, self.batches[0])
        for bucket in self.spread.buckets.values():
            tracker.add(bucket, BUCKETS, "")
        self._mark = tracker.mark
        with tracker:
            self.step()
        self._mark = lambda _: None
        return tracker.timeline

    def figures(self, memory: MemoryReading, run: Run) -> Figures:
        """Of this rank."""
        found = figures_of(memory, static_terms(self.model, self.optimizer), run)
        buckets = bytes_of(self.spread.buckets.values())
        return found.model_copy(update={"forward_bytes": self.forward_bytes, "buckets_bytes": buckets})


def run_rank(training: RankTraining, limits: Limits, say: Say) -> tuple[Figures, Run]:
    """Warm up, time, measure memory; the figures are this rank's, the peaks those of all."""
    training.device.settle()
    run, memory = alike(training, limits, say)
    peaks = [torch.zeros(1, dtype=torch.long) for _ in range(dist.get_world_size())]
    dist.all_gather(peaks, torch.tensor([memory.peak_bytes]))
    run = run.model_copy(update={"rank_peak_bytes": tuple(int(one) for one in peaks)})
    return training.figures(memory, run), run
