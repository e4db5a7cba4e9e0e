"""One burst: the real training step of transformers, peft and bitsandbytes, timed and measured in memory on a device.

The loop is that of transformers' Trainer: forward under autocast, backward, reading the loss (which waits for the
card, as Trainer's `logging_nan_inf_filter` does after every micro-batch), gradient clipping at 1.0, the optimizer,
zero_grad. Weights and tokens are random; the batch stays on the device.

Left out, as in the dry run: the mask of ones that a data collator makes, the data loader, logging, the learning rate
schedule, the copy of the logits that accelerate makes under autocast, and fp16's gradient scaler.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch

from advisor.costs.micro_batches import MicroBatch
from advisor.lengths import quantiles_of
from advisor.specs import Recipe
from calibrate import host
from calibrate.batches import Draws
from calibrate.burst_record import Run
from calibrate.measurement import Figures
from calibrate.worker.build import autocast, build_model, step_inputs
from calibrate.worker.cpu_memory import MemoryReading, rounded
from calibrate.worker.device import Device
from calibrate.worker.optimizers import make_optimizer
from calibrate.worker.patches import keep_weights_as_they_are
from calibrate.worker.quantized import quantization_tensors
from calibrate.worker.varying import run_steps

WARM_UP_STEPS = (2, 6)
"""Least and most warm-up steps before the timed ones."""
WARM = 0.05
"""A step is still warming up if it takes less than the previous one by more than this share."""
TIMED_STEPS = (5, 200)
STABLE = 0.01
"""The median is stable when dropping the first half of the steps changes it by less than this."""

MEMORY_STEPS = 2
"""The step that measures memory takes about as long as this many others: on a CPU it runs under the profiler."""

Say = Callable[[Mapping[str, Any]], None]


class StepSeconds(NamedTuple):
    """Times of one optimizer step; `device_s` by the device's own clock."""

    wall_s: float
    device_s: float
    micro_s: tuple[float, ...]
    host_s: float


class Limits(NamedTuple):
    """How long a burst may time steps: their number (0: until stable), and the seconds for all of them.

    Whatever their number, no step begins when `end_s`, by time.perf_counter, is near; one is timed in any case.
    """

    steps: int
    seconds: float
    end_s: float = math.inf


class Training:
    """A model in training, one step after the other."""

    def __init__(
        self, config: Mapping[str, Any], recipe: Recipe, batch: MicroBatch, device: Device, code: str = ""
    ) -> None:
        """Builds the model on the device; raises what `build_model` and `step_inputs` raise."""
        torch.manual_seed(0)
        self.recipe, self.device = recipe, device
        self.model = self.prepared(build_model(config, recipe, fake=False, code=code, device=device.place))
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(self.trained, recipe.optimizer)
        self.words = int(self.model.config.get_text_config().vocab_size)
        self.batches = [self._inputs(batch)]  # the micro-batches of a step, one after the other and over again

    def prepared(self, model: Any) -> Any:
        """The model before its optimizer is made; several cards spread it here."""
        return model

    def micro_batch(self, last: bool) -> AbstractContextManager[Any]:
        """Around the forward and backward of a micro-batch; `last` of its step."""
        return contextlib.nullcontext()

    def agreed(self, decision: bool) -> bool:
        """What all ranks decide; one card decides alone."""
        return decision

    def memory(self) -> MemoryReading:
        """That of a step."""
        return self.device.read_memory(self.step)

    def _inputs(self, batch: MicroBatch) -> dict[str, Any]:
        """Random tokens on the device."""
        inputs = step_inputs(self.model, batch.rows, batch.tokens, batch.kind)
        inputs["input_ids"].random_(0, self.words)  # the labels are the same tensor
        moved = {key: value.to(self.device.place) for key, value in inputs.items() if isinstance(value, torch.Tensor)}
        if inputs["labels"] is inputs["input_ids"]:
            moved["labels"] = moved["input_ids"]
        return inputs | moved

    def _loss(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        with autocast(self.recipe, self.device.kind):
            loss: torch.Tensor = self.model(**inputs).loss
        return loss

    def evaluation(self, batch: MicroBatch) -> MemoryReading:
        """The memory of one batch of the Trainer's evaluation, whose logits are not kept; then training goes on."""
        keep_weights_as_they_are(self.model)
        self.batches = []
        inputs = self._inputs(batch)

        def evaluate(_: Callable[[], None]) -> None:
            with torch.no_grad():
                self._loss(inputs)

        self.model.eval()
        self.device.settle()
        found = self.device.read_memory(evaluate)
        self.model.train()
        return found

    def step(self, after_forward: Callable[[], None] = lambda: None) -> StepSeconds:
        """One optimizer step."""
        device, repeats = self.device, self.recipe.gradient_accumulation
        device.synchronize()
        begin_s = time.perf_counter()
        waited_s, marks = 0.0, [device.mark()]
        for number, inputs in enumerate(itertools.islice(itertools.cycle(self.batches), repeats), 1):
            with self.micro_batch(last=number == repeats):
                loss = self._loss(inputs)
                after_forward()
                if repeats > 1:
                    loss = loss / repeats
                loss.backward()
            loss = loss.detach()
            asked_s = time.perf_counter()
            bool(torch.isnan(loss) or torch.isinf(loss))
            waited_s += time.perf_counter() - asked_s
            marks.append(device.mark())
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.model.zero_grad()
        host_s = time.perf_counter() - begin_s - waited_s
        end = device.mark()
        device.synchronize()
        wall_s = time.perf_counter() - begin_s
        micro = tuple(device.seconds(a, b) for a, b in itertools.pairwise(marks))
        return StepSeconds(wall_s, device.seconds(marks[0], end), micro, host_s)


def static_terms(model: Any, optimizer: Any) -> dict[str, int]:
    """Bytes, in whole blocks, of what stays allocated for the whole run, by their names in `Figures`."""
    adapted = hasattr(model, "peft_config")
    found: dict[str, list[torch.Tensor]] = {
        "base_weights": [p for p in model.parameters() if not (adapted and p.requires_grad)],
        "adapters": [p for p in model.parameters() if adapted and p.requires_grad],
        "quantization": [t for m in model.modules() for t in quantization_tensors(m).values()],
        "optimizer_states": [
            value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)
        ],
    }
    return {f"{name}_bytes": bytes_of(tensors) for name, tensors in found.items()}


def bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the storages of tensors, each storage once, in whole blocks."""
    own = (getattr(tensor, "_local_tensor", tensor) for tensor in tensors)  # of a DTensor this rank's part
    storages = {storage._cdata: storage.nbytes() for storage in (tensor.untyped_storage() for tensor in own)}
    return sum(map(rounded, storages.values()))


def run_burst(
    config: Mapping[str, Any],
    recipe: Recipe,
    batch: MicroBatch,
    device: Device,
    limits: Limits,
    say: Say,
    code: str = "",
    evaluated: MicroBatch | None = None,
    draws: Draws = (),
) -> tuple[Figures, Run]:
    """Build, warm up, time, measure memory; then evaluate, if there is a batch for it. `say` gets every step.

    With `draws` every step has rows of its own, and its memory is measured.
    Raises torch.OutOfMemoryError (CUDA), RuntimeError (a CPU without enough memory) and what `build_model` raises.
    """
    begin_s = time.perf_counter()
    device.configure(recipe.expandable_segments)
    training = Training(config, recipe, batch, device, code)
    device.settle()
    build_s = time.perf_counter() - begin_s
    measure = _varying if draws else alike
    run, memory = measure(training, limits, say, draws)
    run = run.model_copy(update={"build_s": build_s})
    figures = figures_of(memory, static_terms(training.model, training.optimizer), run)
    if evaluated is not None:
        figures = figures.model_copy(update={"evaluation_bytes": training.evaluation(evaluated).peak_bytes})
    return figures, run


def alike(training: Training, limits: Limits, say: Say, draws: Draws = ()) -> tuple[Run, MemoryReading]:
    """Steps of one shape: timed until they are stable, then one whose memory is measured."""
    device = training.device
    warm_up = _warm_up(training, limits, say)
    before = device.conditions()
    timed, clocks, reasons, share = _timed(training, limits, say)
    after = device.conditions()
    memory = training.memory()
    run = Run(
        build_s=0.0,
        warm_up_s=warm_up,
        step_s=tuple(one.wall_s for one in timed),
        device_step_s=tuple(one.device_s for one in timed) if device.kind == "cuda" else (),
        micro_step_s=tuple(micro for one in timed for micro in one.micro_s),
        host_s=tuple(one.host_s for one in timed),
        clocks_hz=clocks,
        throttled=reasons,
        trainable_parameters=sum(p.numel() for p in training.trained),
        peak_exact_bytes=memory.exact_bytes,
        before=before,
        after=after,
        cpu_share=share.cpu_share,
        others_cores=share.others_cores,
    )
    return run, memory


def _varying(training: Training, limits: Limits, say: Say, draws: Draws) -> tuple[Run, MemoryReading]:
    """Steps of different rows, each with its memory."""
    device = training.device
    before, watch = device.conditions(), host.Watch(torch.get_num_threads())
    found = run_steps(training, draws, training.words, limits.end_s, say)
    share, rows = watch.read(), Counter(length for step in draws for drawn in step for length in drawn.lengths)
    run = Run(
        build_s=0.0,
        warm_up_s=(),
        step_s=found.seconds,
        micro_step_s=(),
        host_s=(),
        row_lengths=quantiles_of(rows) if len(rows) > 1 else (),
        step_peak_bytes=tuple(one.peak_bytes for one in found.memory),
        step_reserved_bytes=tuple(one.reserved_bytes for one in found.memory),
        trainable_parameters=sum(p.numel() for p in training.trained),
        peak_exact_bytes=found.highest.exact_bytes,
        before=before,
        after=device.conditions(),
        cpu_share=share.cpu_share,
        others_cores=share.others_cores,
    )
    return run, found.highest


def figures_of(memory: MemoryReading, terms: dict[str, int], run: Run) -> Figures:
    """The measured side of a comparison: peaks, terms, and medians of the times, if each step is timed alike."""
    return Figures(
        peak_allocated_bytes=memory.peak_bytes,
        peak_reserved_bytes=memory.reserved_bytes,
        device_bytes=memory.device_bytes,
        static_bytes=memory.static_bytes,
        after_forward_bytes=memory.after_forward_bytes or None,
        peak_at="",
        micro_step_s=statistics.median(run.micro_step_s) if run.micro_step_s else None,
        step_s=None if run.step_peak_bytes else statistics.median(run.step_s),
        host_s=statistics.median(run.host_s) if run.host_s else None,
        **terms,
    )


def _warm_up(training: Training, limits: Limits, say: Say) -> tuple[float, ...]:
    """Run steps until they stop getting faster, or until a slow model's time is used up."""
    least, most = WARM_UP_STEPS
    times: list[float] = []
    while len(times) < most:
        times.append(training.step().wall_s)
        say({"warm_up_s": times[-1]})
        settled = len(times) >= least and times[-1] > (1 - WARM) * times[-2]
        long = len(times) >= least and sum(times) > limits.seconds / 2
        if training.agreed(_is_late(limits.end_s, times[-1]) or settled or long):
            break
    return tuple(times)


def _is_late(end_s: float, step_s: float) -> bool:
    """Whether there is no time for another step besides the one that measures memory, which takes longer."""
    return time.perf_counter() + (1 + MEMORY_STEPS) * step_s > end_s


def _timed(
    training: Training, limits: Limits, say: Say
) -> tuple[list[StepSeconds], tuple[float, ...], tuple[str, ...], host.Share]:
    """(steps, clocks, reasons for slow clocks, shares of the processors) of the timed steps."""
    least, most = (limits.steps, limits.steps) if limits.steps else TIMED_STEPS
    watch = host.Watch(torch.get_num_threads())
    timed: list[StepSeconds] = []
    clocks: list[float] = []
    reasons: dict[str, None] = {}
    begin_s = time.perf_counter()
    while len(timed) < most:
        timed.append(training.step())
        clock_hz, why = training.device.clock()
        clocks += [] if clock_hz is None else [clock_hz]
        reasons |= dict.fromkeys(why)
        say({"step_s": timed[-1].wall_s, "steps": len(timed)})
        late = time.perf_counter() - begin_s > limits.seconds
        enough = len(timed) >= least and (late or is_stable([one.wall_s for one in timed]))
        if training.agreed(enough or _is_late(limits.end_s, timed[-1].wall_s)):
            break
    return timed, tuple(clocks), tuple(reasons), watch.read()


def is_stable(times_s: list[float]) -> bool:
    """Whether the median is stable: that of the later half agrees with that of all, and its error is small."""
    if len(times_s) < TIMED_STEPS[0]:
        return False
    low, middle, high = statistics.quantiles(times_s, n=4, method="inclusive")
    later = statistics.median(times_s[len(times_s) // 2 :])
    error = 0.93 * (high - low) / len(times_s) ** 0.5  # standard error of a median, from the quartiles of normal noise
    return abs(later / middle - 1) < STABLE and error < STABLE * middle
