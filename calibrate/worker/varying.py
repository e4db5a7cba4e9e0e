"""The steps of a burst whose rows vary: the memory of each, and what the allocator has reserved by then.

The first step is left out: it makes the optimizer's states. On a card the counters are read after each step; nothing
is emptied in between, so that what one step leaves to the next counts. On a CPU each step runs under the profiler,
which has no counter of reserved memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from calibrate.batches import Drawn
from calibrate.worker.cpu_memory import MemoryReading


class VaryingSteps(NamedTuple):
    """What was measured of each step but the first."""

    memory: tuple[MemoryReading, ...]
    seconds: tuple[float, ...]

    @property
    def highest(self) -> MemoryReading:
        """The step with the highest peak, and the most that was ever reserved."""
        found = max(self.memory, key=lambda one: one.peak_bytes)
        reserved = [one.reserved_bytes for one in self.memory if one.reserved_bytes is not None]
        return found._replace(reserved_bytes=max(reserved, default=None))


def drawn_inputs(drawn: Drawn, words: int, place: str) -> dict[str, torch.Tensor]:
    """A micro-batch as a collator makes it: random tokens, labels of -100 and a mask of 0 where rows are padded."""
    tokens = torch.randint(words, (len(drawn.lengths), drawn.tokens), dtype=torch.long)
    mask = torch.arange(drawn.tokens)[None, :] < torch.tensor(drawn.lengths)[:, None]
    inputs = {"input_ids": tokens, "labels": tokens.where(mask, -100)}
    if drawn.padded:  # transformers drops a mask of ones
        inputs["attention_mask"] = mask.long()
    return {name: tensor.to(place) for name, tensor in inputs.items()}


def run_steps(
    training: Any,
    draws: Sequence[Sequence[Drawn]],
    words: int,
    end_s: float,
    say: Callable[[Mapping[str, Any]], None],
) -> VaryingSteps:
    """Train one step per draw while there is time until `end_s`, by time.perf_counter; two in any case."""
    memory: list[MemoryReading] = []
    seconds: list[float] = []
    for number, step in enumerate(draws):
        training.batches = [drawn_inputs(drawn, words, training.device.place) for drawn in step]
        if not number:
            say({"warm_up_s": training.step().wall_s})
            continue
        begin_s = time.perf_counter()
        training.device.forget_peaks()
        memory.append(training.device.read_memory(training.step))
        seconds.append(time.perf_counter() - begin_s)
        say({"step_s": seconds[-1], "steps": number})
        if time.perf_counter() + 2 * seconds[-1] > end_s:
            break
    return VaryingSteps(tuple(memory), tuple(seconds))
