"""Rows run with torchtune 0.4: its own transformer, whose keys are expanded."""

from __future__ import annotations

from advisor.catalog import find_gpus, find_model
from advisor.costs.card_memory import memory_estimate
from advisor.costs.device import profile_for
from advisor.costs.memory import predict_step_memory
from advisor.libraries import Libraries
from advisor.specs import Recipe
from advisor.stacks.torchtune import CHUNKS, Torchtune
from advisor.validation.figures import Predicted, PublishedRun, Row, Unanswered, peak_figure

MODULES = {"mlp": ("gate_proj", "up_proj", "down_proj")}


def recipe_run(row: Row) -> PublishedRun:
    """A single-device recipe of torchtune, in bf16 throughout.

    Its table dates from 2024-11-18 (commit 1814feb17). Until 2024-11-25 (commit 1450d6126, `F.rms_norm`) the norm was
    written out as in transformers, and kept in 16 bits what it multiplies by the trained weight.
    Source: torchtune 0.4.0, modules/rms_norm.py, modules/attention.py.
    Ignores: offloading of activations.
    """
    method = row["method"]
    recipe = Recipe(
        method=method,
        autocast=False,
        adapter_dtype="bfloat16",
        quant="nf4" if method == "qlora" else "none",
        kbit_upcast=False,
        rank=row.get("rank", 16),
        target_modules=tuple(
            n for given in row.get("target_modules", ("all-linear",)) for n in MODULES.get(given, (given,))
        ),
        optimizer="adamw_8bit" if "8bit" in row["optimizer"].lower() else "adamw",
        gradient_checkpointing=str(row["gradient_checkpointing"]).startswith("True"),
        micro_batch=row["micro_batch"],
        gradient_accumulation=row["grad_accum"],
    )
    chunks = CHUNKS if "chunked" in row["loss_impl"].lower() else 0
    stack = Torchtune(chunks, libraries=Libraries(code="torchtune", code_version=(0, 4)))
    return PublishedRun(find_model("llama-3.2-3b"), recipe, "NVIDIA A100-SXM4-80GB", stack)


def full_finetune(row: Row) -> Predicted | Unanswered:
    """full_finetune_single_device in plain PyTorch; the counter is the peak of active bytes."""
    if row["compile"]:
        return Unanswered("torch.compile changes what is kept")
    model, recipe, gpu, stack, _ = recipe_run(row)
    step = predict_step_memory(model, recipe, row["micro_batch"], row["seq_len"], "cuda", stack)
    card = find_gpus(gpu)[0]
    memory = memory_estimate(step, recipe, profile_for(card))
    return Predicted(peak_figure(row, "allocated", memory, "peak active"), memory, card.memory_bytes)
