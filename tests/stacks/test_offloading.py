"""Activations in the host's memory: what leaves the card, what the stash keeps on it."""

from __future__ import annotations

from typing import Any

from advisor.catalog import find_model
from advisor.costs.memory import StepMemory, predict_step_memory
from advisor.recipes import build_recipe
from advisor.specs import ModelSpec, Workload
from advisor.stacks import stack_for
from tests.decoders.tiny import spec
from tests.fakes import card


def step(m: ModelSpec, method: Any = "lora", **knobs: Any) -> StepMemory:
    recipe = build_recipe(method, {"rank": 4, "gradient_checkpointing": False, **knobs})
    return predict_step_memory(m, recipe, 2, 256, "cuda", stack_for(recipe, card(24), Workload()))


def layers(number: int) -> ModelSpec:
    return spec("llama", number)


def test_checkpointing_moves_the_inputs_of_layers() -> None:
    knobs: dict[str, Any] = {"gradient_checkpointing": True, "offload": "activations", "loss": "chunked"}
    size = 2 * 256 * 192 * 2  # bf16
    assert step(layers(30), **knobs).host_bytes - step(layers(20), **knobs).host_bytes == 10 * size
    plain = {**knobs, "offload": "none"}
    more, offloaded = (
        step(layers(30), **k).after_forward_bytes - step(layers(20), **k).after_forward_bytes for k in (plain, knobs)
    )
    assert more - offloaded == 10 * size
    assert step(layers(30), **plain).host_bytes == 0


def test_without_checkpointing_saved_tensors_leave_too() -> None:
    m = layers(12)
    for method in ("full", "lora", "qlora"):
        plain, offloaded = step(m, method), step(m, method, offload="activations")
        assert offloaded.after_forward_bytes < plain.after_forward_bytes
        assert offloaded.host_bytes > 0


def test_running_a_layer_for_many_equals_running_all(monkeypatch: Any) -> None:
    from advisor.decoders import step as recording
    from advisor.decoders.kinds import layer_kinds

    def predicted() -> list[tuple[int, int]]:
        found = (
            step(layers(n), offload="activations", gradient_checkpointing=c) for n in (8, 12) for c in (False, True)
        )
        return [(one.peak_bytes, one.host_bytes) for one in found]

    short = predicted()
    recording.forget_recordings()
    monkeypatch.setattr(recording, "layer_plan", lambda m, recipe, *_: [(kind, 1) for kind in layer_kinds(m, recipe)])
    assert predicted() == short
    recording.forget_recordings()


def test_what_re_entrant_checkpointing_offloads_is_not_known() -> None:
    recipe = build_recipe("lora", {"rank": 4, "offload": "activations", "reentrant": True})
    stack = stack_for(recipe, card(24), Workload())
    assert stack.proof(layers(3), recipe).unknown
    plain = recipe.model_copy(update={"reentrant": False})
    assert not stack.proof(layers(3), plain).unknown
    assert stack.proof(find_model("gemma-4-e2b"), plain).unknown
