"""The formula against the trainers' own training loops: transformers' Trainer and trl's SFTTrainer.

    python -m benchmarks.against_trainers

Each trainer trains a tiny random model on the CPU with the knobs of its preset, all five methods, with and without
checkpointing, the base in each dtype; the memory of its last step is compared with the formula (`trainer_step`
explains how TRL's kernels, which need a GPU, are replaced). Exits with 1 when a peak is off by more than 0.1 %, or a
static term or a dtype differs.
"""

from __future__ import annotations

import sys
from itertools import product
from typing import Any

import torch

from advisor.specs import METHODS
from calibrate.worker.trainer_step import CONFIG, TRACED, predicted_step, preset_recipe, traced_step

BAR = 0.001
TWO_TILES = CONFIG | {"vocab_size": 40_000, "max_position_embeddings": 2048}
"""More logits than one tile of TRL's loss holds; with 4 x 1,100 tokens, more tokens as well."""
SHAPES: tuple[tuple[dict[str, Any], int], ...] = ((CONFIG, 128), (TWO_TILES, 1_100))
LARGE = (("trl", "full"), ("trl", "qlora"), ("transformers", "lora"))


def main() -> int:
    """Print a line for each case, then the worst."""
    torch.set_num_threads(1)
    worst, broken, cases = 0.0, 0, 0
    head = f"{'trainer':12} {'method':6} {'base':8} {'checkpointing':13} {'traced MB':>9} {'error':>8}"
    print(f"{head}  static terms, dtypes")
    for trainer, method, dtype, checkpointing, (config, seq_len) in product(
        TRACED, METHODS, ("float32", "bfloat16"), (True, False), SHAPES
    ):
        if seq_len > 128 and not ((trainer, method) in LARGE and checkpointing and dtype == "bfloat16"):
            continue  # slow
        recipe = preset_recipe(trainer, method, {"base_dtype": dtype, "gradient_checkpointing": checkpointing})
        real, predicted = traced_step(trainer, recipe, config, seq_len), predicted_step(recipe, config, seq_len)
        error = predicted.peak / real.peak - 1
        equal = real.static == predicted.static and real.trained_dtypes == predicted.trained_dtypes
        worst, broken, cases = max(worst, abs(error)), broken + (not equal or abs(error) > BAR), cases + 1
        print(
            f"{trainer:12} {method:6} {dtype:8} {'on' if checkpointing else 'off':13} {real.peak / 1e6:9.1f} "
            f"{error:+8.3%}  {'equal' if equal else 'DIFFERENT'}",
            flush=True,
        )
    print(f"{cases} cases: worst peak {worst:.3%}, {broken} beyond {BAR:.1%} or with other static terms")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
