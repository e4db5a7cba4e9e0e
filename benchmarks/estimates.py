"""How long 1,000 estimates of different recipes take in one process.

    python -m benchmarks.estimates [--count 1000]

Two draws, with a fixed seed. A sweep: one model on one card, as someone compares recipes for a job: method, rank,
alpha, target modules, dropout, optimizer, checkpointing, micro-batch, accumulation and lengths. Anything: seven models,
four cards, and also loss, dtypes, autocast, attention, re-entrant checkpointing and k-bit upcasting. Then almost no two
estimates share the structure of their step, and each has to be recorded (5 to 10 ms).
The limit is for the sweep; exits with 1 when it is exceeded.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from typing import Any, get_args

from advisor import estimate, find_gpus, find_model
from advisor.optimizers import Optimizer
from advisor.specs import (
    METHODS,
    QUANTIZED_METHODS,
    Attention,
    DType,
    GpuSpec,
    Loss,
    ModelSpec,
    Recipe,
    Workload,
)

BAR_S = 2.0
JOB = (("llama-8b",), ("rtx4090",))
ANYTHING = (
    ("llama-8b", "llama-3.2-1b", "qwen2.5-7b", "gemma-2-2b", "phi-3-mini", "pythia-1.4b", "mistral-7b"),
    ("rtx4090", "a100-80gb", "t4", "h100"),
)
SEED = 2

Question = tuple[ModelSpec, Recipe, Workload, GpuSpec]


def sweep_recipe(draw: random.Random) -> Recipe:
    """A recipe as someone would compare it with others for one job."""
    method = draw.choice(METHODS)
    return Recipe(
        method=method,
        rank=draw.randint(1, 256),
        alpha=float(draw.randint(1, 512)),
        target_modules=draw.choice((("all-linear",), ("attention",))),
        dropout=draw.choice((0.0, 0.05)),
        quant="nf4" if method in QUANTIZED_METHODS else "none",
        optimizer=draw.choice(get_args(Optimizer)),
        gradient_checkpointing=draw.random() < 0.5,
        micro_batch=draw.randint(1, 32),
        gradient_accumulation=draw.randint(1, 8),
    )


def any_recipe(draw: random.Random) -> Recipe:
    """A recipe with every knob at random."""
    start = sweep_recipe(draw)
    switches: dict[str, Any] = {name: draw.random() < 0.5 for name in ("kbit_upcast", "autocast", "reentrant")}
    return start.model_copy(
        update={
            "base_dtype": draw.choice(get_args(DType)),
            "adapter_dtype": draw.choice(get_args(DType)),
            "quant": draw.choice(("nf4", "fp4", "int8")) if start.is_quantized else "none",
            "double_quant": draw.random() < 0.5,
            "attention": draw.choice(get_args(Attention)),
            "loss": draw.choice(get_args(Loss)),
            **switches,
        }
    )


def drawn_questions(count: int, anything: bool, seed: int = SEED) -> list[Question]:
    """`count` different questions: a sweep of recipes for one job, or anything."""
    draw = random.Random(seed)
    names = ANYTHING if anything else JOB
    models, cards = [find_model(name) for name in names[0]], [find_gpus(name)[0] for name in names[1]]
    found: dict[Question, None] = {}
    while len(found) < count:
        seq_len = draw.randint(16, 8192)
        workload = Workload(examples=draw.randint(1, 10**6), seq_len=seq_len, mean_seq_len=draw.randint(1, seq_len))
        recipe = any_recipe(draw) if anything else sweep_recipe(draw)
        found[draw.choice(models), recipe, workload, draw.choice(cards)] = None
    return list(found)


def seconds_for(questions: Sequence[Question]) -> float:
    """CPU time of estimating all of them, which is the wall time on an otherwise idle machine."""
    start = time.process_time()
    for question in questions:
        estimate(*question)
    return time.process_time() - start


def main() -> int:
    """Print both times; returns 1 when the sweep exceeds its limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    count = parser.parse_args().count
    bar_s = BAR_S * count / 1000
    sweep_s = seconds_for(drawn_questions(count, anything=False))
    print(f"{count} estimates, a sweep over one job:      {sweep_s:5.2f} s   (bar: {bar_s:g})")
    anything_s = seconds_for(drawn_questions(count, anything=True))
    print(f"{count} estimates, every knob, seven models:  {anything_s:5.2f} s")
    return 0 if sweep_s < bar_s else 1


if __name__ == "__main__":
    sys.exit(main())
