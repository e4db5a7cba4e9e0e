"""LLaMA-Factory's stack: the libraries that it pins, and inputs of layers that wait in the host's memory."""

from __future__ import annotations

from advisor.advice.advise import advise
from advisor.blocks import block_bytes
from advisor.catalog import find_model
from advisor.costs.memory import predict_step_memory
from advisor.specs import Recipe
from advisor.stacks import named_stack

STACK = named_stack(("llamafactory-0.9", "transformers-5.6", "peft-0.18"))
RECIPE = Recipe(method="lora", rank=8, reentrant=True)


def test_every_layers_input_goes_to_the_host() -> None:
    model, batch, length = find_model("llama-3.2-1b"), 1, 2048
    plain, hosted = (
        predict_step_memory(model, RECIPE.model_copy(update={"offload": kind}), batch, length, "cuda", STACK)
        for kind in ("none", "activations")
    )
    one = 2 * batch * length * model.hidden_size
    assert (plain.host_bytes, hosted.host_bytes) == (0, one * model.num_hidden_layers)
    others = model.num_hidden_layers - 1  # the first one's is a leaf, which the graph itself holds
    assert plain.after_forward_bytes - hosted.after_forward_bytes == block_bytes(one) * others


def test_without_checkpointing_nothing_waits_there() -> None:
    asked = RECIPE.model_copy(update={"offload": "activations", "gradient_checkpointing": False})
    assert STACK.shaped(find_model("llama-3.2-1b"), asked, 1, 8) is STACK


def test_its_preset_runs_the_libraries_that_it_pins() -> None:
    (row,) = advise("llama-3.2-1b", "h100", 1000, trainer="llamafactory", method="lora").candidates
    assert row.evidence.stack == "LLaMA-Factory 0.9, transformers 5.6, peft 0.18, bitsandbytes 0.49"
    assert row.evidence.unknown == ()
    assert row.recipe.reentrant
