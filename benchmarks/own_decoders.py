"""A tiny Llama as the advisor describes it, and the recipes by which trainers' own code for it is run and mirrored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product
from typing import NamedTuple

from advisor.costs.memory import StepMemory
from advisor.specs import DType, Method, ModelSpec, Recipe
from calibrate.timeline import PhasePeak

HIDDEN, INNER, LAYERS, HEADS, VOCABULARY = 256, 640, 3, 8, 1024
BATCH, RANK = 2, 8


class Case(NamedTuple):
    """How one step is run."""

    recipe: Recipe
    kv_heads: int


def compared(
    cases: Iterable[Case],
    ours: Callable[[Case], StepMemory],
    theirs: Callable[[Recipe, int], Iterable[PhasePeak]],
    bar: float,
) -> int:
    """Print a line for each case and phase that both have, then the worst; 1 where it is beyond the bar."""
    worst = 0.0
    for case in cases:
        recipe, predicted = case.recipe, ours(case).phase_peaks
        how = (
            f"{recipe.method:6} {recipe.base_dtype:8} {'checkpointing' if recipe.gradient_checkpointing else 'none':13}"
        )
        for peak in theirs(recipe, case.kv_heads):
            if peak.phase not in predicted:
                continue
            error = predicted[peak.phase] / peak.peak_bytes - 1
            worst = max(worst, abs(error))
            words = f"{how} {','.join(recipe.target_modules):20} {case.kv_heads} heads"
            print(f"{words}  {peak.phase:8} {peak.peak_bytes:>11,} {error:+8.3%}  {peak.op}", flush=True)
    print(f"worst {worst:.3%}, bar {bar:.0%}")
    return int(worst > bar)


def model_spec(kv_heads: int, positions: int) -> ModelSpec:
    """The tiny Llama with so many key heads, of at most `positions` tokens."""
    return ModelSpec(
        name="tiny",
        architecture="llama",
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=kv_heads,
        head_dim=HIDDEN // HEADS,
        vocab_size=VOCABULARY,
        max_position_embeddings=positions,
    )


def torchtune_cases() -> list[Case]:
    """bf16 throughout, every linear layer adapted."""
    methods: tuple[Method, ...] = ("full", "lora", "qlora")
    return [
        Case(
            Recipe(
                method=method,
                rank=RANK,
                quant="nf4" if method == "qlora" else "none",
                adapter_dtype="bfloat16",
                kbit_upcast=False,
                autocast=False,
                gradient_checkpointing=checkpointing,
            ),
            kv_heads,
        )
        for method, checkpointing, kv_heads in product(methods, (True, False), (8, 2))
    ]


def litgpt_cases() -> list[Case]:
    """bf16-true, and bf16-mixed over fp32; some or all of queries, keys and values adapted."""
    some, every = ("q_proj", "v_proj"), ("q_proj", "k_proj", "v_proj")
    chosen: tuple[tuple[Method, DType, tuple[str, ...], int, float], ...] = (
        ("lora", "bfloat16", some, 8, 0.0),
        ("lora", "bfloat16", some, 2, 0.05),
        ("lora", "bfloat16", every, 8, 0.0),
        ("lora", "float32", some, 8, 0.0),
        ("full", "bfloat16", some, 8, 0.0),
        ("full", "float32", some, 2, 0.0),
    )
    return [
        Case(
            Recipe(
                method=method,
                rank=RANK,
                target_modules=targets,
                dropout=dropout,
                base_dtype=dtype,
                adapter_dtype=dtype,
                autocast=dtype == "float32",
                gradient_checkpointing=False,
            ),
            kv_heads,
        )
        for method, dtype, targets, kv_heads, dropout in chosen
    ]
