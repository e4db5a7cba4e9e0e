"""Manages the child process that imports torch: starts it, sends it jobs, survives it. Needs no torch itself.

A child that crashes or exceeds its time costs the one job it was on; the next job gets a fresh child.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advisor.costs.micro_batches import MicroBatch
from advisor.specs import Picture, Placement, Recipe
from calibrate.child import INSTALL, OFFLINE, BurstFailed, BurstRefused, Child
from calibrate.measurement import Environment, LoadingPeaks, ModelFacts, ShapeTraces, Trace

__all__ = ["INSTALL", "BurstFailed", "BurstRefused", "TraceWorker"]

WORKER = (sys.executable, "-m", "calibrate.worker.trace_worker")
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}


class TraceWorker:
    """Traces recipes one by one in a child process. Use as a context manager."""

    def __init__(self, command: Sequence[str] = WORKER, limit_s: float = 600.0, folders: Sequence[Path] = ()) -> None:
        """`command` starts the child; `limit_s` is the wall time that one job may take.

        `folders` hold library versions that stand in front of the installed ones (calibrate.stacks).
        """
        self._command = tuple(command)
        self._limit_s = limit_s
        self._folders = tuple(folders)
        self._child: Child | None = None

    def __enter__(self) -> TraceWorker:
        return self

    def __exit__(self, *stop: object) -> None:
        self._stop()

    def trace(
        self,
        config: Mapping[str, Any],
        recipe: Recipe,
        batch: MicroBatch,
        evaluated: MicroBatch | None = None,
        code: str = "",
        pictures: tuple[Picture, ...] = (),
        placement: Placement | None = None,
    ) -> tuple[Trace, Environment]:
        """The traced step of a micro-batch, with the evaluation of a batch if there is one, and what it ran on.

        `code` is the folder of a model whose own code may be run; `pictures`: the images of each row; `placement`: the
        cards of which one is traced.
        Raises SourceUnavailable when torch or its companions are not installed, BurstRefused, BurstFailed.
        """
        shape = {"batch": batch.rows, "seq_len": batch.tokens, "rows": batch.kind, "evaluated": evaluated}
        seen: dict[str, Any] = {"pictures": [one.model_dump() for one in pictures]} if pictures else {}
        seen |= {} if placement is None else {"placement": placement.model_dump(mode="json")}
        job = {"config": config, "recipe": recipe.model_dump(mode="json"), **shape, **seen}
        answer, environment = self._ask(job, code)
        return Trace.model_validate(answer["trace"]), environment

    def shapes(
        self, config: Mapping[str, Any], recipe: Recipe, shapes: Sequence[tuple[int, int]], code: str = ""
    ) -> ShapeTraces:
        """The bare events of the step at each (batch, seq_len). Raises what `trace` raises."""
        job = {"config": config, "recipe": recipe.model_dump(mode="json"), "shapes": shapes}
        return ShapeTraces.model_validate(self._ask(job, code)[0]["shapes"])

    def loading(self, config: Mapping[str, Any], recipe: Recipe) -> LoadingPeaks:
        """What a small quantized model needs while it is loaded and prepared. Raises what `trace` raises."""
        job = {"config": config, "recipe": recipe.model_dump(mode="json"), "loads": True}
        return LoadingPeaks.model_validate(self._ask(job, "")[0]["loading"])

    def facts(self, config: Mapping[str, Any], code: str = "") -> ModelFacts:
        """What transformers says about a model. Raises what `trace` raises."""
        return ModelFacts.model_validate(self._ask({"config": config}, code)[0]["facts"])

    def _ask(self, job: Mapping[str, Any], code: str) -> tuple[dict[str, Any], Environment]:
        """The answer of the child, which is started if it is not running."""
        try:
            if self._child is None:
                self._child = Child(self._command, OFFLINE | NO_GPU, self._folders)
            answer = self._child.ask({**job, "code": code} if code else job, self._limit_s)
            environment = Environment.model_validate(self._child.hello["environment"])
        except BaseException:
            self._stop()
            raise
        if "failed" in answer:
            raise BurstFailed(f"the step itself failed: {answer['failed']}")
        if "refused" in answer:
            raise BurstRefused(answer["refused"])
        return answer, environment

    def _stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None
