"""LitGPT's own model, LoRA and loss on a CPU, in a loop like its own, against their mirror on the tape.

    python -m benchmarks.against_litgpt --source FOLDER

FOLDER holds the unpacked wheel of litgpt 0.5.13. A tiny Llama of its own makes two iterations as finetune/lora.py and
full.py do, with what Lightning Fabric does around them: the logits are handed out in fp32. The second is measured.
Prints the peaks of both passes and what each is off; exits with 1 beyond 2 %. 4-bit bases are not run: bitsandbytes
0.42, which keeps their inputs, has no CPU code.
"""

from __future__ import annotations

import sys
from typing import Any

import click
import torch

from advisor.costs.memory import StepMemory, predict_step_memory
from advisor.libraries import Libraries
from advisor.specs import Recipe
from advisor.stacks.litgpt import HEAD_TOKENS
from advisor.stacks.litgpt_today import LitGpt
from benchmarks.absent import import_from
from benchmarks.own_decoders import (
    BATCH,
    HEADS,
    HIDDEN,
    INNER,
    LAYERS,
    RANK,
    VOCABULARY,
    Case,
    compared,
    litgpt_cases,
    model_spec,
)
from calibrate.timeline import PhasePeak
from calibrate.worker.optimizers import make_optimizer
from calibrate.worker.tracker import AllocationTracker

BAR = 0.02
LENGTH = 320
ABSENT = ("lightning", "torchmetrics", "litdata", "jsonargparse", "lightning_utilities", "tokenizers", "safetensors")


def litgpt_model(recipe: Recipe, kv_heads: int) -> Any:
    """The model as finetune/lora.py or full.py makes it, in the dtype of its weights."""
    import litgpt.lora
    import litgpt.model

    sizes: dict[str, Any] = {
        "n_embd": HIDDEN,
        "intermediate_size": INNER,
        "n_layer": LAYERS,
        "n_head": HEADS,
        "n_query_groups": kv_heads,
        "padded_vocab_size": VOCABULARY,
        "vocab_size": VOCABULARY,
        "block_size": 2 * LENGTH,
        "rotary_percentage": 1.0,
        "parallel_residual": False,
        "bias": False,
        "norm_class_name": "RMSNorm",
        "mlp_class_name": "LLaMAMLP",
    }
    if recipe.has_adapters:
        targets = recipe.target_modules
        lora = {"lora_r": RANK, "lora_alpha": 16, "lora_dropout": recipe.dropout}
        lora |= {"lora_query": "q_proj" in targets, "lora_key": "k_proj" in targets, "lora_value": "v_proj" in targets}
        model = litgpt.lora.GPT(litgpt.lora.Config(**sizes, **lora))
        litgpt.lora.mark_only_lora_as_trainable(model)
    else:
        model = litgpt.model.GPT(litgpt.model.Config(**sizes))
    model = model.to(getattr(torch, recipe.base_dtype))
    model.max_seq_length = LENGTH
    return model


def real_peaks(recipe: Recipe, kv_heads: int) -> tuple[PhasePeak, ...]:
    """The peaks of the second iteration."""
    from litgpt.utils import chunked_cross_entropy

    model = litgpt_model(recipe, kv_heads)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = make_optimizer(trained, recipe.optimizer)
    for p in trained:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    optimizer.zero_grad()
    tokens = torch.zeros((BATCH, LENGTH), dtype=torch.int64)

    def outputs() -> list[torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.autocast):
            made = model(tokens, lm_head_chunk_size=HEAD_TOKENS)
        return [one.float() for one in made]

    def loss_of(logits: list[torch.Tensor]) -> torch.Tensor:
        logits[-1] = logits[-1][..., :-1, :]
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.autocast):
            return chunked_cross_entropy(logits, tokens[..., 1:])

    tracker = AllocationTracker({}, name_modules=False)
    for tensor in (*model.parameters(), *model.buffers(), tokens):
        tracker.add(tensor, "base_weights", "")
    for state in optimizer.state.values():
        for tensor in state.values():
            tracker.add(tensor, "optimizer_states", "")
    with tracker:
        for first in (True, False):
            if not first:
                tracker.mark("forward")
            logits = outputs()
            loss = loss_of(logits)
            if not first:
                tracker.mark("backward")
            loss.backward()
            optimizer.zero_grad()
    return tracker.timeline.phase_peaks()


@click.command()
@click.option("--source", required=True, help="folder of the unpacked wheel")
def main(source: str) -> None:
    """Print a line for each case, then the worst."""
    torch.set_num_threads(1)
    import_from(source, ABSENT)
    stack = LitGpt(libraries=Libraries(code="litgpt", code_version=(0, 5)))

    def ours(case: Case) -> StepMemory:
        return predict_step_memory(
            stack.built(model_spec(case.kv_heads, LENGTH)), case.recipe, BATCH, LENGTH, "cpu", stack
        )

    sys.exit(compared(litgpt_cases(), ours, real_peaks, BAR))


if __name__ == "__main__":
    main()
