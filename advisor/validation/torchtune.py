"""Rows run with torchtune: its own transformer, whose norms work in fp32 and whose keys are expanded."""

from __future__ import annotations

from advisor.catalog import find_gpus, find_model
from advisor.device import profile_for
from advisor.estimation import memory_estimate
from advisor.memory import predict_step_memory
from advisor.specs import Recipe
from advisor.tape.stack import Stack
from advisor.validation.figures import Predicted, Row, Unanswered, peak_figure


def full_finetune(row: Row) -> Predicted | Unanswered:
    """full_finetune_single_device in plain PyTorch; the counter is the peak of active bytes.

    `F.rms_norm` of the upcast input keeps what it multiplies by the trained weight in fp32, as OLMo 2's norm does.
    Source: torchtune 0.5, modules/rms_norm.py, modules/attention.py.
    """
    if row["compile"]:
        return Unanswered("torch.compile changes what is kept")
    model = find_model("llama-3.2-3b").model_copy(update={"norm": "rms_float"})
    recipe = Recipe(method="full", autocast=False, optimizer="adamw", gradient_checkpointing=False)
    stack = Stack(repeated_keys=True)
    step = predict_step_memory(model, recipe, row["micro_batch"], row["seq_len"], "cuda", stack)
    card = find_gpus("a100-80gb")[0]
    memory = memory_estimate(step, recipe, profile_for(card))
    return Predicted(peak_figure(row, "peak active", memory.peak_allocated_bytes.likely), memory, card.memory_bytes)
