"""Recipes whose kernels are handed what they cannot take, and what a trainer adds to the step."""

from __future__ import annotations

from typing import Any

import pytest

from advisor import advise
from advisor.catalog import find_model
from advisor.decoders.kernel_doubts import balancing_doubt, kernel_doubt
from advisor.specs import Recipe
from tests.decoders.tiny import spec

LORA, QLORA = Recipe(method="lora"), Recipe(method="qlora", quant="nf4")


def test_weights_that_a_kernel_reads_must_not_be_packed() -> None:
    for name in ("falcon_mamba", "mamba2", "bamba"):
        assert "stored weight" in kernel_doubt(spec(name), QLORA)
        assert kernel_doubt(spec(name), LORA) == ""
        assert kernel_doubt(spec(name), QLORA.model_copy(update={"sequence_kernels": "torch"})) == ""
    assert kernel_doubt(spec("qwen3_5"), QLORA) == kernel_doubt(spec("llama"), QLORA) == ""


def test_jambas_norms_must_not_be_wider_than_what_its_kernel_scans() -> None:
    m = spec("jamba")
    assert "norms in fp32" in kernel_doubt(m, QLORA)
    assert kernel_doubt(m, QLORA.model_copy(update={"kbit_upcast": False})) == ""
    assert "norms in fp32" in kernel_doubt(m, Recipe(method="full", base_dtype="float32"))
    assert kernel_doubt(m, Recipe(method="full", base_dtype="float32", autocast=False)) == ""
    assert kernel_doubt(m, LORA) == ""


@pytest.mark.parametrize(
    ("name", "knobs", "added"),
    [
        ("mixtral-8x7b", {"loss": "chunked"}, True),
        ("qwen3-30b-a3b", {"loss": "chunked"}, True),
        ("deepseek-v2-lite", {"loss": "chunked"}, False),  # its code returns no such loss
        ("llama-3.2-1b", {"loss": "chunked"}, False),
        ("mixtral-8x7b", {"loss": "full"}, False),  # transformers' own step adds none
    ],
)
def test_where_trl_adds_the_loss_that_balances_experts(name: str, knobs: dict[str, Any], added: bool) -> None:
    assert bool(balancing_doubt(find_model(name), Recipe(method="lora", **knobs))) is added


def test_no_such_run_surely_fits_with_trl() -> None:
    row = advise("olmoe-1b-7b", "h200", method="lora", trainer="trl", seq_len=256).candidates[0]
    assert row.verdict == "tight"
    assert "balances a mixture's experts" in "; ".join(row.evidence.unknown)
    assert advise("olmoe-1b-7b", "h200", method="lora", seq_len=256).candidates[0].verdict == "fits"
