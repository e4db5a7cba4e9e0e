"""A loop of which few turns run records what all of them would."""

from __future__ import annotations

import pytest

import advisor.tape.loops
from advisor.costs.memory import predict_step_memory
from advisor.decoders.step import forget_recordings, step_program
from advisor.specs import ModelSpec, Recipe, Workload
from advisor.stacks import stack_for
from advisor.tape.graph import Device
from tests.decoders.tiny import recipe, spec
from tests.fakes import card

M = spec("qwen3_5", 2)
CHUNKS = 12


def recorded(m: ModelSpec, chosen: Recipe, tokens: int, device: Device) -> tuple[object, object]:
    forget_recordings()
    program = step_program(m, chosen, 2, tokens, device)
    found = predict_step_memory(m, chosen, 2, tokens, device), program.kernels(2, tokens, chosen.rank)
    forget_recordings()
    return found


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(
    "knobs", [{"gradient_checkpointing": False}, {"gradient_checkpointing": True}, {"reentrant": True}]
)
def test_few_turns_stand_for_all(monkeypatch: pytest.MonkeyPatch, device: Device, knobs: dict[str, bool]) -> None:
    for m, tokens in ((M, 64 * CHUNKS), (spec("jamba", 2), CHUNKS)):  # Jamba's loop lists what each token reads
        chosen = recipe(m, "lora", **knobs)
        monkeypatch.setattr(advisor.tape.loops, "TURNS", 5)
        few = recorded(m, chosen, tokens, device)
        monkeypatch.setattr(advisor.tape.loops, "TURNS", 1000)
        assert recorded(m, chosen, tokens, device) == few


def test_every_turn_runs_where_saved_tensors_leave_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = recipe(M, "lora", gradient_checkpointing=False, offload="activations")
    stack = stack_for(chosen, card(24), Workload())

    def hosted() -> int:
        forget_recordings()
        return predict_step_memory(M, chosen, 2, 64 * CHUNKS, "cuda", stack).host_bytes

    found = hosted()
    monkeypatch.setattr(advisor.tape.loops, "TURNS", 1000)
    assert 0 < found == hosted()
    forget_recordings()
