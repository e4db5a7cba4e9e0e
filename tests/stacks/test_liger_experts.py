"""Liger's fused experts, by the bytes that its own code took (benchmarks.against_kernels_liger, bf16)."""

from __future__ import annotations

import pytest

from advisor.stacks.liger_experts import fused_experts
from advisor.tape.graph import Tensor
from advisor.tape.tape import Tape
from benchmarks.tape_bytes import Measured, mirrored
from tests.decoders.tiny import spec


@pytest.mark.parametrize(("trains", "left"), [(True, 119040), (False, -28416)])
def test_bytes(trains: bool, left: int) -> None:
    """192 tokens of width 128, two of four experts of width 48."""
    m = spec("qwen3_moe").model_copy(update={"expert_size": 48})
    t = Tape("cpu")
    inputs = [t.empty(shape, "bfloat16") for shape in ((192, 128), (192, 2), (4, 96, 128), (4, 128, 48))]
    for index, one in enumerate(inputs):
        one.needs_grad = index < 2 or trains

    def run(t: Tape, x: Tensor, scores: Tensor, up: Tensor, down: Tensor) -> Tensor:
        return fused_experts(t, x, scores, m, 2, {"gate_up": up, "down": down}.__getitem__)

    assert mirrored(run, inputs, t) == Measured(264192, 127488, 406272, left)
