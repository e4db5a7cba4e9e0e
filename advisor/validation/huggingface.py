"""Rows run with transformers and peft: peft's method comparison, and fsdp_qlora's notebook and benchmarks."""

from __future__ import annotations

from typing import Any

from advisor.catalog import find_gpus, find_model
from advisor.costs.card_memory import memory_estimate
from advisor.costs.device import profile_for
from advisor.costs.job import Job, Run
from advisor.costs.memory import StepMemory, predict_step_memory
from advisor.costs.micro_batches import MicroBatch
from advisor.costs.peaks import ALLOCATED_SPREAD
from advisor.interval import Interval
from advisor.specs import ModelSpec, Recipe
from advisor.stacks.early_2024 import Early2024, Notebook2024
from advisor.stacks.own_loop import OwnLoop
from advisor.terms import TermName
from advisor.units import GIB
from advisor.validation.figures import GB, Figure, Predicted, PublishedRun, Row, Unanswered, peak_figure

NOTEBOOK_MODEL = ModelSpec(
    name="notebook-1b",
    architecture="llama",
    hidden_size=2048,
    intermediate_size=4096,
    num_hidden_layers=24,
    num_attention_heads=16,
    num_key_value_heads=16,
    head_dim=128,
    vocab_size=32_000,
)
POSITIONS = 2048
CUBLAS_WORKSPACE_BYTES = 8_519_680
"""Of one thread: the forward's and the autograd engine's each make one and keep it."""

STEPS = 2
"""Of a job with one length: further ones repeat the second."""


def _adapters(row: Row) -> dict[str, Any]:
    if row["method"] == "full":
        return {}
    adapters = {"target_modules": tuple(row["target_modules"]), "variant": row.get("variant", "plain")}
    return adapters | {"rank": row.get("rank", 1), "dropout": row.get("lora_dropout", 0.0)}


def _table_bytes(m: ModelSpec, seq_len: int) -> int:
    """Sines and cosines that each layer keeps in 16 bits, recomputed for rows beyond 2,048 tokens (before 4.39)."""
    return 2 * 2 * max(seq_len, POSITIONS) * m.head_dim * m.num_hidden_layers


def comparison_run(row: Row) -> PublishedRun:
    """A row of peft's method comparison: its loop holds the outputs, its batches are padded to their longest row."""
    recipe = Recipe(
        method=row["method"],
        gradient_checkpointing=False,
        autocast=False,
        optimizer="adamw_foreach",
        micro_batch=row["micro_batch"],
        **_adapters(row),
    )
    stack = OwnLoop(freezes_lora_a=row["optimizer"] == "lora-fa")
    return PublishedRun(find_model("llama-3.2-3b"), recipe, "NVIDIA L40S", stack, padded=True)


def method_comparison(row: Row) -> Predicted:
    """Peak reserved of the longest batch: taken as rows that were all cut to 768 tokens, which need no mask.

    How long the longest row is, and those beside it, is not stated. Padded to 768 tokens the rows with adapters would
    need more than what was reserved.
    """
    run = comparison_run(row)
    recipe, card = run.recipe, find_gpus(run.gpu)[0]
    shape = (row["micro_batch"], row["seq_len"])
    step = predict_step_memory(run.model, recipe, *shape, "cuda", run.stack, capability=card.compute_capability)
    memory = memory_estimate(step, recipe, profile_for(card))
    return Predicted(peak_figure(row, "reserved", memory), memory, card.memory_bytes)


def _notebook_step(row: Row) -> StepMemory:
    recipe = Recipe(
        method=row["method"],
        quant="nf4" if row["method"] == "qlora" else "none",
        double_quant=False,
        kbit_upcast=False,
        adapter_dtype="bfloat16",
        autocast=False,
        optimizer="sgd",
        gradient_checkpointing=bool(row["gradient_checkpointing"]),
        **_adapters(row),
    )
    return predict_step_memory(NOTEBOOK_MODEL, recipe, 1, row["seq_len"], "cuda", Notebook2024())


def notebook(row: Row) -> Predicted:
    """Snapshots of allocated bytes after load, forward and backward, or the peak over both.

    Besides the tape's tensors, these contain the tables of sines and cosines and both cuBLAS workspaces, which the
    notebook's earlier cells left behind.
    """
    step, workspaces = _notebook_step(row), 2 * CUBLAS_WORKSPACE_BYTES
    aside = _table_bytes(NOTEBOOK_MODEL, row["seq_len"]) + workspaces
    if "peak_mem_gib" in row:
        return Predicted((_allocated("peak allocated", row["peak_mem_gib"] * GIB, step.peak_bytes + aside),))
    loaded = sum(step.static_blocks.values()) + _table_bytes(NOTEBOOK_MODEL, 0) + workspaces
    snapshots = (
        ("after load", "alloc_model_gb", loaded),
        ("after forward", "alloc_after_fwd_gb", step.after_forward_bytes + aside),
        ("after backward", "alloc_after_bwd_gb", step.after_backward_bytes + aside),
    )
    measured = row["mem_extra"]
    return Predicted(tuple(_allocated(what, measured[key] * GB, predicted) for what, key, predicted in snapshots))


def _allocated(what: str, measured: float, predicted: int) -> Figure:
    return Figure(what, "allocated", measured, predicted, Interval.around(float(predicted), *ALLOCATED_SPREAD))


def unsharded_run(row: Row) -> PublishedRun:
    """fsdp_qlora's train.py on two cards, each of which holds the whole model."""
    recipe = Recipe(
        method=row["method"],
        quant="nf4" if row["method"] == "qlora" else "none",
        double_quant=False,
        kbit_upcast=False,
        adapter_dtype="bfloat16",
        autocast=False,
        optimizer="adamw_foreach",
        gradient_checkpointing=True,
        reentrant=True,
        micro_batch=row["micro_batch"],
        **_adapters(row),
    )
    return PublishedRun(find_model("llama-2-7b"), recipe, "NVIDIA GeForce RTX 3090", Early2024())


def benchmarks(row: Row) -> Predicted | Unanswered:
    """fsdp_qlora's train.py where each card holds the whole model; FSDP without sharding adds nothing significant.

    All rows have one length, so that the allocator's reserve can be replayed.
    """
    if "peak_mem_gib" not in row:
        return Unanswered("no memory figure")
    if "no_shard" not in row["sharding"]:
        return Unanswered("weights sharded over cards")
    model, recipe, gpu, *_ = unsharded_run(row)
    batch, length = row["micro_batch"], row["seq_len"]
    step = predict_step_memory(model, recipe, batch, length, "cuda", Early2024())
    tables = _table_bytes(model, length)
    shape = MicroBatch(batch, length)
    run = Run(Job(model, recipe, [shape], Early2024(), [tables + 2 * CUBLAS_WORKSPACE_BYTES]))
    for _ in range(STEPS):
        run.step([shape])
    card = find_gpus(gpu)[0]
    memory = memory_estimate(_with(step, tables), recipe, profile_for(card))
    figures = peak_figure(row, "reserved", memory, predicted_bytes=run.peak_reserved_bytes)
    return Predicted(figures, memory, card.memory_bytes)


def _with(step: StepMemory, aside_bytes: int) -> StepMemory:
    """The step beside further bytes that are held for good."""
    blocks = dict(step.static_blocks)
    blocks[TermName.BUFFERS] = blocks.get(TermName.BUFFERS, 0) + aside_bytes
    head, others = step.part_peaks
    return step._replace(
        peak_bytes=step.peak_bytes + aside_bytes,
        static_blocks=blocks,
        part_peaks=(head + aside_bytes, others + aside_bytes),
    )
