"""Keeps the child process that holds torch: starts it, asks it, outlives it. Needs no torch itself.

A child that crashes or exceeds its time costs the one job it was on; the next job gets a fresh child.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any

from advisor.errors import AdvisorError, SourceUnavailable
from advisor.specs import Recipe
from calibrate.measurement import Environment, ModelFacts, ShapeTraces, Trace

START_LIMIT_S = 300.0
WORKER = (sys.executable, "-m", "calibrate.worker")
INSTALL = "pip install 'finetune-advisor[calibrate]', or in a checkout pip install '.[calibrate]'"
CHILD_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OMP_NUM_THREADS": "1",
                     "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}


class BurstFailed(AdvisorError):
    """A child crashed or ran out of time, or a library raised; the message has the last words."""

    exit_code = 1


class BurstRefused(AdvisorError):
    """The child says, in one line, why this job cannot run."""


class TraceWorker:
    """Traces recipes in a child process, one after the other. Use as a context manager."""

    def __init__(self, command: Sequence[str] = WORKER, limit_s: float = 600.0) -> None:
        """`command` starts the child; `limit_s` is the wall time that one job may take."""
        self._command = tuple(command)
        self._limit_s = limit_s
        self._child: _Child | None = None

    def __enter__(self) -> TraceWorker:
        return self

    def __exit__(self, *stop: object) -> None:
        self._stop()

    def trace(
        self, config: Mapping[str, Any], recipe: Recipe, batch: int, seq_len: int, code: str = ""
    ) -> tuple[Trace, Environment]:
        """The traced step and what it ran on. `code` is the folder of a model whose own code may be run.

        Raises SourceUnavailable when torch or its companions are not installed, BurstRefused, BurstFailed.
        """
        job = {"config": config, "recipe": recipe.model_dump(mode="json"), "batch": batch, "seq_len": seq_len}
        answer, environment = self._ask(job, code)
        return Trace.model_validate(answer["trace"]), environment

    def shapes(
        self, config: Mapping[str, Any], recipe: Recipe, shapes: Sequence[tuple[int, int]], code: str = ""
    ) -> ShapeTraces:
        """The bare events of the step at each (batch, seq_len). Raises what `trace` raises."""
        job = {"config": config, "recipe": recipe.model_dump(mode="json"), "shapes": shapes}
        return ShapeTraces.model_validate(self._ask(job, code)[0]["shapes"])

    def facts(self, config: Mapping[str, Any], code: str = "") -> ModelFacts:
        """What transformers says about a model. Raises what `trace` raises."""
        return ModelFacts.model_validate(self._ask({"config": config}, code)[0]["facts"])

    def _ask(self, job: Mapping[str, Any], code: str) -> tuple[dict[str, Any], Environment]:
        """The answer of the child, which is started when there is none."""
        try:
            if self._child is None:
                self._child = _Child(self._command)
            answer = self._child.ask({**job, "code": code} if code else job, self._limit_s)
            environment = self._child.environment
        except BaseException:
            self._stop()
            raise
        if "failed" in answer:
            raise BurstFailed(f"the step itself fails: {answer['failed']}")
        if "refused" in answer:
            raise BurstRefused(answer["refused"])
        return answer, environment

    def _stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None


class _Child:
    """One process and the lines it prints."""

    def __init__(self, command: Sequence[str]) -> None:
        # The child searches for modules where its parent does, whatever directory either was started from.
        search_path = os.pathsep.join(path for path in sys.path if path)
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, text=True, bufsize=1,
            env=os.environ | CHILD_ENVIRONMENT | {"PYTHONPATH": search_path},
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then ends the child
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        try:
            hello = self._next(START_LIMIT_S)
            if "missing" in hello:
                raise SourceUnavailable(f"calibrate needs {hello['missing']}, which is not installed: {INSTALL}")
            self.environment = Environment.model_validate(hello["environment"])
        except BaseException:
            self.kill()
            raise

    def ask(self, job: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        """Send a job and wait for its answer."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended already: reading says why
            self._process.stdin.write(json.dumps(job) + "\n")
        return self._next(limit_s)

    def kill(self) -> None:
        """End the process and take its remains away."""
        self._process.kill()
        self._process.wait()
        self._stderr.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _next(self, limit_s: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=limit_s)
        except queue.Empty:
            raise BurstFailed(f"no answer within {limit_s:g} s: raise --timeout or cut the model") from None
        if not line:
            raise BurstFailed(f"the worker ended with code {self._process.wait()}: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it printed nothing"
