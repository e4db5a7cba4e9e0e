"""Recipes whose kernels are handed what they cannot take."""

from __future__ import annotations

from advisor.decoders.kernel_doubts import kernel_doubt
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
