"""The child process of bursts: one JSON job a line in, JSON answers out. Imports torch; run as `python -m`.

It answers `{"environment": {...}}` or `{"missing": "torch"}` on startup. Jobs and their final answers:

    {"probe": "auto"}                    {"machine": {...}}: the device, its available memory, why it cannot quantize
    {"rates": {device, limit_s}}         {"samples": [...]}: the micro-benchmarks of `calibrate.rates`
    {"attention": {device, limit_s}}     {"attention": [...]}: those of `calibrate.attention_rates`
    {"burst": {config, recipe, ...}}     {"measured": {...}, "run": {...}}, after a line {"step_s": ...} for each step

or `{"refused": "why"}`, `{"out_of_memory": "..."}`, `{"failed": "what a library raised"}`, `{"crashed": -9}` with the
exit code of the job's process (negative: a signal); `{"fresh": true}` means that the job needs a worker that was
started with `--fresh`.

Each job gets its own process: this one loads the libraries once and forks. Where that is impossible (no fork, or CUDA
was initialized here, which a fork cannot use), it does the job in this process and exits; `--fresh` asks for that.
A process whose parent has exited exits too.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import math
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from advisor.costs.micro_batches import MicroBatch
from advisor.errors import AdvisorError
from advisor.specs import Recipe
from calibrate.batches import Drawn
from calibrate.worker.trace_worker import claim_stdout, environment

Say = Callable[[Mapping[str, Any]], None]
CAN_FORK = hasattr(os, "fork") and sys.platform == "linux"
NO_CPU_MEMORY = "can't allocate memory"
PRELOADED = (
    "peft",
    "bitsandbytes",
    "transformers.integrations.bitsandbytes",
    "torch._dynamo",
    "torch.profiler",
    "calibrate.worker.burst",
)
BF16_FROM = 8  # compute capability of the first cards with bf16 matrix units
FORKED_CUDA = "forked subprocess"


def main() -> None:
    """Send the first message, then do every job from standard input."""
    say = claim_stdout()
    try:
        forks = load("--fresh" not in sys.argv[1:])
    except ImportError as error:
        say({"missing": error.name or str(error)})
        return
    say({"environment": environment().model_dump(), "forks": forks})
    while line := next_line():
        job = json.loads(line)
        if not forks:
            end_with_parent()
            answer(job, say)
            return
        _in_a_fork(job, say)


def load(forking: bool) -> bool:
    """Import what all jobs need; returns whether jobs can be forked from here. Raises ImportError.

    Where torch was built with CUDA, importing bitsandbytes initializes the card, and peft imports it: each job's own
    process then imports those two.
    """
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401 - most of transformers' import time

    for name in ("accelerate", "bitsandbytes", "peft", "psutil"):
        if importlib.util.find_spec(name) is None:
            raise ImportError(name=name)
    torch.set_num_threads(1)
    if not torch.backends.cuda.is_built():
        for name in PRELOADED:
            importlib.import_module(name)
    return forking and CAN_FORK and not torch.cuda.is_initialized()


def next_line() -> bytes:
    """A line of standard input, read byte by byte: a reader that reads ahead would take it from the next process."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return b""
        line += byte
    return line


def _in_a_fork(job: Mapping[str, Any], say: Say) -> None:
    """Answer a job in a child of this process, and report it when the child dies."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            end_with_parent()
            answer(job, say)
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    if code := os.waitstatus_to_exitcode(status):
        say({"crashed": code})


def end_with_parent() -> None:
    """End this process once the other end of its standard input is closed."""
    if not hasattr(select, "poll"):
        return

    def wait() -> None:
        gone = select.poll()
        gone.register(0, 0)  # only the hang-up, which is always reported
        gone.poll()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def answer(job: Mapping[str, Any], say: Say) -> None:
    """Do one job and send its answers."""
    try:
        if "probe" in job:
            say({"machine": _probe(str(job["probe"]))})
        elif "rates" in job:
            say({"samples": _rates(job["rates"])})
        elif "attention" in job:
            say({"attention": _attention(job["attention"])})
        else:
            say(_burst(job["burst"], say))
    except ForkedCuda:
        say({"fresh": True})
    except AdvisorError as error:
        say({"refused": str(error)})
    except MemoryError:
        say({"out_of_memory": "this machine ran out of memory"})
    except Exception as error:  # raised by a library: it fails only this job
        say(failure(error))


def failure(error: Exception) -> dict[str, str]:
    """The answer to a job that raised: out of memory, or failed."""
    import torch

    text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if isinstance(error, torch.OutOfMemoryError) or NO_CPU_MEMORY in text:
        return {"out_of_memory": text}
    return {"failed": text}


def _probe(kind: str) -> dict[str, Any]:
    """The device, its available memory, and why bitsandbytes cannot quantize on it ('' when it can)."""
    device, remark = _open(kind)
    facts = device.facts()
    return {
        "device": facts.model_dump(),
        "available_bytes": device.available_bytes(),
        "remark": remark,
        "devices": device.count(),
        "conditions": device.conditions().model_dump(),
        "quantization_problem": _quantization_problem(device.place),
        "bf16": facts.kind == "cpu" or int(facts.compute_capability.partition(".")[0]) >= BF16_FROM,
    }


class ForkedCuda(Exception):
    """A fork of this process cannot use CUDA, because something has initialized it already."""


def _open(kind: str) -> Any:
    from calibrate.worker.device import open_device

    try:
        found = open_device(kind)
    except AdvisorError as error:
        if FORKED_CUDA in str(error):
            raise ForkedCuda from None
        raise
    if FORKED_CUDA in found.remark:
        raise ForkedCuda
    return found


def _quantization_problem(place: str) -> str:
    """The error that bitsandbytes raises when it quantizes a small weight on the device and multiplies by it."""
    import torch

    try:
        import bitsandbytes.functional as bnb

        weight = torch.ones(64, 64, dtype=torch.bfloat16, device=place)
        packed, state = bnb.quantize_4bit(weight, quant_type="nf4")
        bnb.dequantize_4bit(packed, state)
    except Exception as error:  # a missing library, no kernel for this card: whatever was raised is the reason
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return ""


def _rates(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Micro-benchmarks of the device, as many as time allows."""
    from calibrate.rates import cases
    from calibrate.worker.microbench import measure

    device = _open(job["device"]).device
    samples = measure(device, cases(device.kind, job["half"], job["quantizes"]), job["limit_s"])
    return [one.model_dump(mode="json") for one in samples]


def _attention(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Micro-benchmarks of attention by kernel, as many as time allows."""
    from calibrate.attention_rates import attention_cases
    from calibrate.worker.attention_bench import measure_attention

    device = _open(job["device"]).device
    samples = measure_attention(device, attention_cases(device.kind), job["limit_s"])
    return [one.model_dump(mode="json") for one in samples]


def _burst(job: Mapping[str, Any], say: Say) -> dict[str, Any]:
    """Measure one burst."""
    from calibrate.worker.burst import Limits, run_burst
    from calibrate.worker.patches import quiet

    begin_s = time.perf_counter()
    with quiet(), contextlib.redirect_stdout(sys.stderr):
        device, recipe = _open(job["device"]).device, Recipe.model_validate(job["recipe"])
        figures, run = run_burst(
            job["config"],
            recipe,
            MicroBatch(*job["batch"]) if job.get("batch") else MicroBatch(recipe.micro_batch, job["seq_len"]),
            device,
            Limits(job["steps"], job["limit_s"], begin_s + job.get("left_s", math.inf)),
            say,
            job.get("code", ""),
            MicroBatch(*job["evaluated"]) if job.get("evaluated") else None,
            tuple(tuple(Drawn(tuple(lengths), tokens) for lengths, tokens in step) for step in job.get("draws", ())),
        )
    return {"measured": figures.model_dump(), "run": run.model_dump()}


if __name__ == "__main__":
    main()
