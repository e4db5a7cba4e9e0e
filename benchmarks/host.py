"""CPU time per kernel that eager PyTorch spends before a card has any work to do.

    python -m benchmarks.host [--methods full,lora,dora]

Runs real training steps of a decoder so narrow that its kernels take almost no time, with 4 and with 12 layers. The
time of the 8 additional layers, divided by their kernels on the tape, is the cost of Python, peft, autograd and
dispatch per kernel, forward and backward. One thread, one core; the fastest of 25 steps.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any, NamedTuple

import torch

from advisor.catalog.config_json import model_from_config
from advisor.decoders.step import step_program
from advisor.specs import Recipe
from calibrate.worker.build import build_model, step_inputs

SHORT, TALL = 4, 12
BATCH, LENGTH, STEPS = 1, 8, 25
WAYS = ((False, False), (True, True), (True, False))  # checkpointing, re-entrant


class Half(NamedTuple):
    """Forward or backward: seconds and kernels."""

    seconds: float
    kernels: int


def config_of(layers: int) -> dict[str, Any]:
    """A narrow Llama."""
    return {
        "model_type": "llama",
        "vocab_size": 64,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "num_hidden_layers": layers,
    }


def measured(recipe: Recipe, layers: int) -> tuple[Half, Half]:
    """Forward and backward of a step with this many layers."""
    config = config_of(layers)
    model = build_model(config, recipe, fake=False)
    inputs = step_inputs(model, BATCH, LENGTH)
    forward_s, backward_s = [], []
    for _ in range(STEPS):
        start_s = time.perf_counter()
        loss = model(**inputs).loss
        middle_s = time.perf_counter()
        loss.backward()
        forward_s.append(middle_s - start_s)
        backward_s.append(time.perf_counter() - middle_s)
        model.zero_grad()
    program = step_program(model_from_config(config, "narrow", "narrow"), recipe, BATCH, LENGTH, "cpu")
    kernels = {"forward": 0, "backward": 0}
    for part, run in zip(program.parts, program.kernels(BATCH, LENGTH, recipe.rank), strict=True):
        kernels[part.phase] += run.copies * sum(times for _, times in run.kernels)
    return Half(min(forward_s), kernels["forward"]), Half(min(backward_s), kernels["backward"])


def main() -> int:
    """Print a line for each method and way of checkpointing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default="full,lora,dora")
    torch.set_num_threads(1)
    for method in parser.parse_args().methods.split(","):
        for checkpointing, reentrant in WAYS:
            recipe = Recipe.model_validate(
                {
                    "method": method,
                    "rank": 8,
                    "autocast": False,
                    "adapter_dtype": "bfloat16",
                    "gradient_checkpointing": checkpointing,
                    "reentrant": reentrant,
                }
            )
            short, tall = measured(recipe, SHORT), measured(recipe, TALL)
            way = "re-entrant" if reentrant else "checkpointing" if checkpointing else "plain"
            costs = [(b.seconds - a.seconds) / (b.kernels - a.kernels) * 1e6 for a, b in zip(short, tall, strict=True)]
            print(f"{method:6} {way:13} forward {costs[0]:5.1f} us a kernel, backward {costs[1]:5.1f} us", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
