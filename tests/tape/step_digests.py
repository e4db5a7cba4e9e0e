"""Prints what a few steps need and a digest of each recording, as JSON: equal on every Python.

    python tests/tape/step_digests.py

Run by test_interpreters.py under other versions than that of the tests, which may have nothing installed: standard
library alone. A digest covers every allocation and release, and every kernel. Which of several tensors goes first
when one statement lets go of them all differs from version to version; nothing that is read off a recording shows it.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from advisor.catalog import find_model
from advisor.costs.memory import predict_step_memory
from advisor.decoders.step import step_program
from advisor.specs import Recipe

MODELS = ("llama-3.2-1b", "gpt-neox-20b", "gpt-oss-20b")
SHAPE = (2, 700, 16)


def ordered(events: list[int]) -> list[int]:
    """The events with releases that follow one another sorted."""
    out: list[int] = []
    released: list[int] = []
    for event in events:
        if event % 2:
            released.append(event)
        else:
            out += [*sorted(released), event]
            released = []
    return out + sorted(released)


def step_digests() -> dict[str, list[int | str]]:
    """Peak, bytes after forward and after backward, and the recording's digest, by model and recipe."""
    found: dict[str, list[int | str]] = {}
    for model in map(find_model, MODELS):
        for method in ("full", "lora", "dora", "qdora"):
            for checkpointing in (False, True):
                recipe = Recipe(
                    method=method,
                    quant="nf4" if method == "qdora" else "none",
                    target_modules=("attention",),
                    gradient_checkpointing=checkpointing,
                )
                memory = predict_step_memory(model, recipe, *SHAPE[:2], "cuda")
                program = step_program(model, recipe, *SHAPE[:2], "cuda")
                recorded = repr((ordered(program.events), program.sizes.terms, program.kernels(*SHAPE)))
                found[f"{model.name}, {method}, {checkpointing=}"] = [
                    memory.peak_bytes,
                    memory.after_forward_bytes,
                    memory.after_backward_bytes,
                    hashlib.sha256(recorded.encode()).hexdigest(),
                ]
    return found


if __name__ == "__main__":
    print(json.dumps({"python": platform.python_version(), "steps": step_digests()}))
