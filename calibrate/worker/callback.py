"""`EstimateCallback`: predicted against measured, for your own run with transformers' Trainer or trl's SFTTrainer.

    from calibrate import EstimateCallback
    watch = EstimateCallback(store=True)
    trainer = Trainer(..., callbacks=[watch])
    trainer.train()           # logs one line at the end
    print(watch.record)       # the same as a calibrate.measurement.Comparison

Before the first step it says what the formula expects, and whether that fits. After the first step it has seen a real
batch and says, before step 2, whether the job will not fit or will take much longer than planned. At the end it has
the peak, the median step time, and their errors. It never stops a run; its own errors are logged in one line.

Times run from the beginning of a step to its end and exclude fetching the batch, which is the data loader's work. On a
card the peak is that of the whole run (the counters are reset once, when training begins); on a CPU one step runs under
torch's profiler, and its time is left out. `calibrate.worker.own_training` lists what it cannot see.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from advisor.specs import ModelSpec, Workload
from advisor.units import format_seconds
from calibrate import host
from calibrate.burst_record import Conditions, Run
from calibrate.cut import spec_of
from calibrate.measurement import Comparison
from calibrate.predict import UNKNOWN, Prediction, predict
from calibrate.records_show import gib, percent, seconds
from calibrate.sequence_kernels import as_run
from calibrate.session import burst_facts, now_text
from calibrate.store import Store
from calibrate.worker.burst import figures_of, static_terms
from calibrate.worker.cpu_memory import CpuWatch, MemoryReading
from calibrate.worker.device import Device, open_device
from calibrate.worker.own_training import Described, describe, unwrapped
from calibrate.worker.rows import Rows
from calibrate.worker.trace_worker import environment

LATE = 1.5
"""A run is much longer than planned when it takes this multiple of the planned time."""
SLOW_FIRST_STEP = 3.0
"""The first step is always slow; beyond this multiple of the prediction, something else is wrong."""
MEMORY_STEP = 3
"""The step that runs under the profiler on a CPU; the last one in a shorter run."""
OTHER_LENGTHS = 0.1
"""The mean row is another than planned when it differs by more than this share."""
log = logging.getLogger("calibrate")


class EstimateCallback(TrainerCallback):  # type: ignore[misc]
    """Records predicted and measured peak memory and step time of the run that it is attached to."""

    def __init__(
        self,
        *,
        store: bool | str | Path = False,
        planned_s: float = 0.0,
        seq_len: int = 0,
        mean_seq_len: int = 0,
        say: Callable[[str], None] = log.warning,
    ) -> None:
        """Nothing is inspected before training begins.

        `store` adds the record to the user's store, or to the one in the given folder. `planned_s` is the planned
        duration of the whole run in seconds (0: compare only with the formula's time). `seq_len` is the longest row
        in tokens (0: from the arguments, else from the first batch), `mean_seq_len` the mean row that the job was
        planned with (0: compare no lengths). `say` gets every line.
        """
        self._store, self._planned_s, self._seq_len, self._say = store, planned_s, seq_len, say
        self._mean_seq_len = mean_seq_len
        self.record: Comparison | None = None
        self._run: _Training | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say what is expected."""
        self._guarded(lambda: self._begin(args, state, kwargs))

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        if self._run is not None:
            self._guarded(self._run.begin_step, state.global_step + 1)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the clock; after the first step, warn."""
        if self._run is not None:
            self._guarded(self._end_step, state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Compare, and save the record."""
        if self._run is not None:
            self._guarded(lambda: self._end(kwargs))

    def _guarded(self, do: Callable[..., None], *arguments: Any) -> None:
        """On any error, log one line and stop watching; the user's training continues."""
        try:
            do(*arguments)
        except Exception as error:
            self._run = None
            self._say(f"calibrate: this run is no longer watched: {' '.join(str(error).split())[:300]}")

    def _begin(self, args: Any, state: Any, kwargs: dict[str, Any]) -> None:
        described = describe(kwargs["model"], args)
        seq_len = self._seq_len or int(getattr(args, "max_length", None) or 0)
        device = open_device(args.device.type).device
        self._run = _Training(described, device, unwrapped(kwargs["model"]), int(state.max_steps), seq_len)
        for note in described.notes:
            self._say(f"calibrate: {note}")
        if seq_len:
            self._warn_of(self._run.predict(), self._run)

    def _end_step(self, step: int) -> None:
        run = self._run
        assert run is not None
        run.end_step(step)
        if step == 1:
            expected = run.seq_len
            prediction = run.predict()
            if not expected or run.seq_len > expected:
                self._warn_of(prediction, run)
            self._warn_of_time(prediction, run)

    def _warn_of(self, prediction: Prediction, run: _Training) -> None:
        if prediction.needed is None or prediction.verdict in ("fits", "unknown"):
            return
        will = "will not fit" if prediction.verdict == "does_not_fit" else "will only just fit"
        self._say(
            f"calibrate: this run {will}: {gib(round(prediction.needed.likely))} GiB needed for rows of"
            f" {run.seq_len} tokens, {gib(run.limit_bytes)} GiB available; `advise` lists what would fit"
        )

    def _warn_of_time(self, prediction: Prediction, run: _Training) -> None:
        first_s = run.times_s[0]
        predicted_s = prediction.figures.step_s if prediction.figures is not None else None
        if predicted_s is not None and first_s > SLOW_FIRST_STEP * predicted_s:
            self._say(
                f"calibrate: the first step took {format_seconds(first_s)}; the prediction"
                f" was {format_seconds(predicted_s)}"
            )
        whole_s = run.max_steps * (predicted_s or first_s)
        if self._planned_s and whole_s > LATE * self._planned_s:
            self._say(
                f"calibrate: {run.max_steps} steps will take {format_seconds(whole_s)}; the plan"
                f" was {format_seconds(self._planned_s)}"
            )

    def _warn_of_lengths(self, seen: Rows) -> None:
        mean, longest, planned = round(seen.mean), seen.longest, self._mean_seq_len
        if planned and abs(mean / planned - 1) > OTHER_LENGTHS:
            self._say(
                f"calibrate: rows had {mean} tokens on average and {longest} at most; the plan was {planned} on"
                f" average: ask `advise` again with --mean-seq-len {mean} --seq-len {longest}"
            )

    def _end(self, kwargs: dict[str, Any]) -> None:
        run, self._run = self._run, None
        assert run is not None
        self.record = run.record(kwargs["optimizer"])
        if self.record is None:
            return
        self._say(f"calibrate: {_in_short(self.record)}")
        self._warn_of_lengths(run.rows_seen)
        if self._store:
            store = Store(None if self._store is True else Path(self._store))
            store.append(self.record)
            self._say(f"calibrate: saved in {store.path}")


def _in_short(record: Comparison) -> str:
    measured, predicted = record.measured, record.predicted
    assert measured is not None
    peak = f"peak {gib(measured.peak_allocated_bytes)} GiB"
    if predicted is not None:
        error = percent(record.error_of("peak_allocated_bytes"), 2)
        peak += f", predicted {gib(predicted.peak_allocated_bytes)} ({error})"
    step = f"step {seconds(measured.step_s)}"
    if predicted is not None and predicted.step_s is not None:
        step += f", predicted {seconds(predicted.step_s)} ({percent(record.error_of('step_s'))})"
    return f"{peak}; {step}"


class _Training:
    """The watched run: the shapes of its batches, times and memory."""

    def __init__(self, described: Described, device: Device, model: Any, max_steps: int, seq_len: int) -> None:
        self._spec: ModelSpec | None = spec_of(described.name, described.config)
        recipe = as_run(described.recipe, self._spec, device.kind)
        self.described, self.device, self.model = described._replace(recipe=recipe), device, model
        self.max_steps, self.seq_len, self.rows = max_steps, seq_len, described.recipe.micro_batch
        self.limit_bytes = device.available_bytes()
        self.times_s: list[float] = []
        self._shapes: set[tuple[int, int, bool]] = set()  # rows, tokens, whether padded
        self.rows_seen = Rows()
        self._memory: MemoryReading | None = None
        self._watch: CpuWatch | None = None
        self._before: Conditions = device.conditions()
        self._hook = model.register_forward_pre_hook(self._see, with_kwargs=True)
        self._shares = host.Watch(device.facts().threads)
        self._started_at = now_text()
        device.settle()

    def _see(self, module: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Note the shape of a batch."""
        tokens = named.get("input_ids", positional[0] if positional else None)
        if module.training and tokens is not None and tokens.ndim == 2:
            padded = self.rows_seen.add(tokens, named.get("attention_mask"))
            self._shapes.add((int(tokens.shape[0]), int(tokens.shape[1]), padded))

    def predict(self) -> Prediction:
        """The prediction for the largest batch seen so far, or for the longest known row."""
        padded = False
        if self._shapes:
            self.rows, self.seq_len, padded = max(self._shapes, key=lambda shape: (shape[0] * shape[1], shape))
        if not self.seq_len:
            return UNKNOWN
        recipe = self.described.recipe.model_copy(update={"micro_batch": self.rows})
        rows = None
        if padded and self.seq_len > 1:
            rows = Workload(seq_len=self.seq_len, mean_seq_len=self.seq_len - 1, padding="max_length")
        return predict(self._spec, recipe, self.seq_len, self.device.facts(), self.limit_bytes, rows=rows)

    def begin_step(self, step: int) -> None:
        """Start the clock, or the profiler."""
        if self.device.kind == "cpu" and self._memory is None and step >= min(MEMORY_STEP, self.max_steps):
            self._watch = CpuWatch()
        self.device.synchronize()
        self._begin_s = time.perf_counter()

    def end_step(self, step: int) -> None:
        """Stop them."""
        self.device.synchronize()
        took_s = time.perf_counter() - self._begin_s
        if self._watch is not None:
            self._memory, self._watch = self._watch.stop(), None
        if self.device.kind == "cuda":
            self._memory = self.device.read_memory(lambda _: None)
        if self.device.kind == "cuda" or self._memory is None or not self.times_s or step > MEMORY_STEP:
            self.times_s.append(took_s)

    def record(self, optimizer: Any) -> Comparison | None:
        """The record; None for a run without a complete step."""
        self._hook.remove()
        if self._memory is None or not self.times_s:
            return None
        prediction = self.predict()
        share, facts, described = self._shares.read(), self.device.facts(), self.described
        counted = self.times_s[1:] or self.times_s
        run = Run(
            build_s=0.0,
            warm_up_s=tuple(self.times_s[: len(self.times_s) - len(counted)]),
            step_s=tuple(counted),
            micro_step_s=tuple(one / described.recipe.gradient_accumulation for one in counted),
            host_s=tuple(counted),
            row_lengths=self.rows_seen.quantiles,
            padding=self.rows_seen.padding,
            trainable_parameters=sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            peak_exact_bytes=self._memory.exact_bytes,
            before=self._before,
            after=self.device.conditions(),
            cpu_share=share.cpu_share,
            others_cores=share.others_cores,
        )
        measured = figures_of(self._memory, static_terms(self.model, optimizer), run)
        measured = measured.model_copy(update={"micro_step_s": None, "host_s": None})  # a step was timed as a whole
        here = environment().model_copy(update={"device": facts})
        recipe = described.recipe.model_copy(update={"micro_batch": self.rows})
        return Comparison(
            model=described.name,
            method=recipe.method,
            recipe=recipe,
            batch=self.rows,
            seq_len=self.seq_len,
            source=self.device.kind,
            predicted=prediction.figures,
            measured=measured,
            environment=here,
            burst=burst_facts(
                here,
                described.config,
                recipe,
                self.seq_len,
                prediction,
                self.limit_bytes,
                origin="training",
                started_at=self._started_at,
                outcome="done",
                run=run,
            ),
        )
