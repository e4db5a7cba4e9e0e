"""What layers leave behind, as an engine changes it."""

from __future__ import annotations

from advisor import find_model
from advisor.costs.rank_memory import predict_rank_memory
from advisor.specs import Method, Placement, Recipe

MODEL = find_model("llama-2-70b")
HIDDEN = 2 * 4096 * 8192 * 2
"""Bytes of what a layer is handed."""


def backward_bytes(method: Method, reentrant: bool, stack: str = "transformers-4.48") -> int:
    recipe = Recipe(
        stack=(stack,),
        method=method,
        target_modules=("attention",),
        gradient_checkpointing=True,
        reentrant=reentrant,
        micro_batch=2,
        autocast=False,
    )
    at = Placement(gpus=2, sharding="fsdp1")
    return predict_rank_memory(MODEL, recipe, at, 2, 4096).phase_peaks["backward"]


def test_fsdp1_holds_the_inputs_of_frozen_layers_that_are_checkpointed_the_re_entrant_way() -> None:
    """Both an input and its gradient of every layer at the end of the backward, in place of the loss's peak.

    Llama 2 70B by QLoRA on two A100s took 43.48 GiB (fms-acceleration 876e2ed6, a100_80gb.csv), 10.5 more than without.
    """
    more = backward_bytes("lora", reentrant=True) - backward_bytes("lora", reentrant=False)
    assert 70 * HIDDEN < more < 80 * HIDDEN
    later = [backward_bytes("lora", reentrant, "transformers-4.53") for reentrant in (False, True)]
    assert later[1] - later[0] < 2 * HIDDEN, "a layer checkpoints itself, inside its unit"
    full = [backward_bytes("full", reentrant) for reentrant in (False, True)]
    assert abs(full[1] - full[0]) < 2 * HIDDEN
