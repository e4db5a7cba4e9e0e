"""Runs bursts, each in a process of its own, and turns whatever happens to it into an outcome. Needs no torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from advisor.costs.micro_batches import MicroBatch
from advisor.errors import AdvisorError
from advisor.specs import Placement, Recipe
from calibrate.attention_rates import AttentionSample
from calibrate.batches import Draws
from calibrate.burst_record import Conditions, DeviceFacts, Outcome, Run
from calibrate.child import OFFLINE, BurstFailed, BurstRefused, Child, TimedOut, end_of, last_line
from calibrate.measurement import Environment, Figures
from calibrate.predict import Speed
from calibrate.rates import Sample

WORKER = (sys.executable, "-m", "calibrate.worker.burst_worker")
FRESH = "--fresh"
KEEPS_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**36), "MALLOC_TRIM_THRESHOLD_": str(2**36)}
"""glibc then keeps freed memory, as PyTorch's allocator does on a card. Otherwise the kernel clears every page of a
large tensor again, which takes longer than most operations on it."""
CHILD = OFFLINE | KEEPS_MEMORY | {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
"""torch then counts cards without initializing CUDA, so that the worker can be forked."""
PROBE_LIMIT_S = 120.0
LONGEST_S = 86_400.0
GRACE_S = 30.0
"""How much longer than the budget a burst may take for its last step and its memory, before it is ended."""


class Machine(NamedTuple):
    """What bursts run on; `devices`: cards here, or cores of a CPU."""

    environment: Environment
    device: DeviceFacts
    available_bytes: int
    conditions: Conditions
    quantization_problem: str
    bf16: bool
    remark: str = ""
    devices: int = 1
    speed: Speed | None = None


class BurstJob(NamedTuple):
    """One burst as sent to the worker: what to train, how many steps (0: until stable), for how long.

    Steps are timed for `limit_s` seconds, unless their number is given; whatever their number, none begins later than
    `left_s` seconds after the burst does. `batch` is its micro-batch where that is not full rows of `seq_len` tokens,
    `evaluated` the batch of an evaluation after the steps, `draws` are the steps of a burst whose rows vary.
    `placement`: the cards that share the burst, where there are several.
    """

    config: Mapping[str, Any]
    recipe: Recipe
    seq_len: int
    steps: int
    limit_s: float
    code: str = ""
    left_s: float = LONGEST_S
    batch: MicroBatch | None = None
    evaluated: MicroBatch | None = None
    draws: Draws = ()
    placement: Placement | None = None


class Result(NamedTuple):
    """How a burst ended: figures and run when it finished, else the error."""

    outcome: Outcome
    figures: Figures | None
    run: Run | None
    error: str


class BurstRunner:
    """Manages a worker process. Use as a context manager."""

    def __init__(
        self,
        command: Sequence[str] = WORKER,
        timeout_s: float = 600.0,
        device: str = "auto",
        words: Callable[[Sequence[str]], str] = last_line,
    ) -> None:
        """`command` starts the worker; `timeout_s` is the wall time that one burst may take; `words` as of a Child."""
        self._command = tuple(command)
        self._timeout_s = timeout_s
        self._child: Child | None = None
        self._device = device
        self._words = words

    def __enter__(self) -> BurstRunner:
        return self

    def __exit__(self, *stop: object) -> None:
        self._stop()

    def probe(self, device: str) -> Machine:
        """The device that `device` ('auto', 'cpu' or 'cuda') means here; later bursts run on it.

        Raises SourceUnavailable without torch, BurstRefused without such a device, BurstFailed.
        """
        answer, hello = self._ask({"probe": device}, PROBE_LIMIT_S, lambda _: None)
        if "machine" not in answer:
            raise self._error(answer)
        found = answer["machine"]
        facts = DeviceFacts.model_validate(found["device"])
        self._device = facts.kind
        environment = Environment.model_validate(hello["environment"]).model_copy(update={"device": facts})
        return Machine(
            environment,
            facts,
            found["available_bytes"],
            Conditions.model_validate(found["conditions"]),
            found["quantization_problem"],
            found["bf16"],
            found["remark"],
            found["devices"],
        )

    def rates(self, machine: Machine, limit_s: float) -> tuple[Sample, ...]:
        """Micro-benchmarks of the device, for at most `limit_s` seconds. Raises SourceUnavailable, BurstFailed."""
        job = {
            "device": machine.device.kind,
            "half": "bfloat16" if machine.bf16 else "float16",
            "quantizes": not machine.quantization_problem,
            "limit_s": limit_s,
        }
        answer, _ = self._ask({"rates": job}, limit_s + PROBE_LIMIT_S, lambda _: None)
        if "samples" not in answer:
            raise self._error(answer)
        return tuple(Sample.model_validate(one) for one in answer["samples"])

    def attention(self, machine: Machine, limit_s: float) -> tuple[AttentionSample, ...]:
        """Attention by kernel, for at most `limit_s` seconds. Raises SourceUnavailable, BurstFailed."""
        job = {"device": machine.device.kind, "limit_s": limit_s}
        answer, _ = self._ask({"attention": job}, limit_s + PROBE_LIMIT_S, lambda _: None)
        if "attention" not in answer:
            raise self._error(answer)
        return tuple(AttentionSample.model_validate(one) for one in answer["attention"])

    def run(self, job: BurstJob, hear: Callable[[Mapping[str, Any]], None] = lambda _: None) -> Result:
        """Measure one burst; `hear` gets its steps. Raises SourceUnavailable when the libraries are missing."""
        burst = job._asdict() | {"recipe": job.recipe.model_dump(mode="json"), "device": self._device}
        burst["placement"] = None if job.placement is None else job.placement.model_dump(mode="json")
        limit_s = min(self._timeout_s, job.left_s + GRACE_S)
        try:
            answer, _ = self._ask({"burst": burst}, limit_s, hear)
        except TimedOut:
            reason = "" if limit_s == self._timeout_s else ": the budget had ended"
            return Result("timed_out", None, None, f"not finished within {limit_s:g} s{reason}")
        except BurstFailed as error:
            return Result("crashed", None, None, str(error))
        if "measured" in answer:
            figures, run = Figures.model_validate(answer["measured"]), Run.model_validate(answer["run"])
            return Result("done", figures, run, "")
        if "out_of_memory" in answer:
            return Result("out_of_memory", None, None, answer["out_of_memory"])
        if "crashed" in answer:
            return Result("crashed", None, None, str(self._error(answer)))
        return Result("failed", None, None, str(self._error(answer)))

    def _ask(
        self, job: Mapping[str, Any], limit_s: float, hear: Callable[[Mapping[str, Any]], None]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """(the last answer, the worker's first message). The worker is started if it is not running."""

        def on_the_way(line: Mapping[str, Any]) -> bool:
            step = "step_s" in line or "warm_up_s" in line
            if step:
                hear(line)
            return step

        try:
            if self._child is None:
                self._child = Child(self._command, CHILD, words=self._words)
            hello = self._child.hello
            answer = self._child.ask(job, limit_s, on_the_way)
        except BaseException:
            self._stop()
            raise
        if not hello["forks"]:  # it ends after one job
            self._stop()
        if "fresh" in answer:
            self._stop()
            self._command = (*self._command, FRESH)
            return self._ask(job, limit_s, hear)
        return answer, hello

    def _error(self, answer: Mapping[str, Any]) -> AdvisorError:
        """The outcome of an answer that is not a result."""
        if "refused" in answer:
            return BurstRefused(answer["refused"])
        if "crashed" in answer:
            words = self._child.last_words() if self._child is not None else ""
            return BurstFailed(f"the burst's process {end_of(int(answer['crashed']), words)}")
        return BurstFailed(f"a library raised {answer.get('failed') or answer.get('out_of_memory')}")

    def _stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None
