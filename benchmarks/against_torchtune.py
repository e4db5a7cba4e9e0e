"""torchtune's own decoder, adapters, NF4 and loss on a CPU, against their mirror on the tape.

    python -m benchmarks.against_torchtune --source FOLDER

FOLDER holds the unpacked wheels of torchtune 0.6.1 and torchao 0.9.0. A tiny Llama of theirs makes one step as
recipes/*_single_device.py do: full, LoRA and QLoRA, with and without checkpointing, as many key heads as query heads
and fewer. Prints the peaks of both passes and what each is off; exits with 1 beyond 1 %.
"""

from __future__ import annotations

import sys
from typing import Any

import click
import torch

from advisor.costs.memory import StepMemory, predict_step_memory
from advisor.libraries import Libraries
from advisor.specs import Method, Recipe
from advisor.stacks.torchtune import CHUNKS, Torchtune
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
    model_spec,
    torchtune_cases,
)
from calibrate.timeline import PhasePeak
from calibrate.worker.optimizers import make_optimizer
from calibrate.worker.tracker import AllocationTracker

BAR = 0.01
SIZES = {
    "vocab_size": VOCABULARY,
    "num_layers": LAYERS,
    "num_heads": HEADS,
    "embed_dim": HIDDEN,
    "max_seq_len": 256,
}
LENGTH = 192
ABSENT = ("omegaconf", "torchdata", "sentencepiece", "blobfile", "tiktoken", "kagglehub")


def torchtune_model(method: Method, kv_heads: int, checkpointing: bool, dropout: float) -> Any:
    """The model of a recipe, with what its `_setup_model` switches on."""
    from torchtune import training
    from torchtune.models.llama3_1 import _component_builders as builders
    from torchtune.modules import TransformerSelfAttentionLayer
    from torchtune.modules.peft import get_adapter_params, set_trainable_params

    sizes = {**SIZES, "num_kv_heads": kv_heads, "intermediate_dim": INNER}
    with training.set_default_dtype(torch.bfloat16):
        if method == "full":
            model = builders.llama3_1(**sizes)
        else:
            model = builders.lora_llama3_1(
                ["q_proj", "k_proj", "v_proj", "output_proj"],
                apply_lora_to_mlp=True,
                lora_rank=RANK,
                lora_alpha=16,
                lora_dropout=dropout,
                quantize_base=method == "qlora",
                **sizes,
            )
            set_trainable_params(model, get_adapter_params(model))
    if checkpointing:
        training.set_activation_checkpointing(model, auto_wrap_policy={TransformerSelfAttentionLayer})
    model.set_num_output_chunks(CHUNKS)
    return model


def real_peaks(recipe: Recipe, kv_heads: int) -> tuple[PhasePeak, ...]:
    """The peaks of one step in the steady state."""
    from torchtune.modules.loss import CEWithChunkedOutputLoss

    model = torchtune_model(recipe.method, kv_heads, recipe.gradient_checkpointing, recipe.dropout)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = make_optimizer(trained, recipe.optimizer)
    for p in trained:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    optimizer.zero_grad()
    loss_of = CEWithChunkedOutputLoss(CHUNKS)
    tokens = torch.zeros((BATCH, LENGTH), dtype=torch.int64)
    tracker = AllocationTracker({}, name_modules=False)
    for tensor in (*model.parameters(), *model.buffers()):
        _count(tracker, tensor)
    for state in optimizer.state.values():
        for tensor in state.values():
            tracker.add(tensor, "optimizer_states", "")
    tracker.add(tokens, "inputs", "")
    with tracker:
        tracker.mark("forward")
        loss = loss_of(model(tokens), tokens)
        tracker.mark("backward")
        loss.backward()
    return tracker.timeline.phase_peaks()


def _count(tracker: AllocationTracker, tensor: torch.Tensor) -> None:
    """Count a weight, or the tensors that an NF4 weight consists of."""
    inner = getattr(tensor, "__tensor_flatten__", None)
    for name in inner()[0] if inner else ():
        tracker.add(getattr(tensor, name), "base_weights", "")
    if not inner:
        tracker.add(tensor, "base_weights", "")


@click.command()
@click.option("--source", required=True, help="folder of the unpacked wheels")
def main(source: str) -> None:
    """Print a line for each case, then the worst."""
    torch.set_num_threads(1)
    import_from(source, ABSENT)
    stack, positions = Torchtune(libraries=Libraries(code="torchtune", code_version=(0, 6))), SIZES["max_seq_len"]

    def ours(case: Case) -> StepMemory:
        return predict_step_memory(model_spec(case.kv_heads, positions), case.recipe, BATCH, LENGTH, "cpu", stack)

    sys.exit(compared(torchtune_cases(), ours, real_peaks, BAR))


if __name__ == "__main__":
    main()
