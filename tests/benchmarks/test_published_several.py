"""Published rows of several cards as questions, and what comes of them."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.published_several import answers, misses, refusal, report

MISTRAL: dict[str, Any] = {
    "id": "fms-accel-0018",
    "group": "fms-accel",
    "status": "ok",
    "model_id": "mistralai/Mistral-7B-v0.1",
    "method": "lora",
    "quant": "none",
    "base_dtype": "bfloat16",
    "compute_dtype": "pure bfloat16",
    "optimizer": "adamw_torch (foreach)",
    "micro_batch": 2,
    "grad_accum": 1,
    "seq_len": 4096,
    "gradient_checkpointing": True,
    "attn_impl": "flash_attention_2",
    "loss_impl": "full logits",
    "framework_config": "none",
    "versions": {"torch": "2.4.1", "transformers": "4.48.1", "peft": "0.13.2", "bitsandbytes": "0.43.3"},
    "gpu": "NVIDIA A100-SXM4-80GB",
    "num_gpus": 2,
    "num_nodes": 1,
    "interconnect": "NVLink (not stated)",
    "sharding": "fsdp1",
    "offload": "none",
    "backward_prefetch": "BACKWARD_PRE",
    "peak_mem_gib": 14.1048,
    "mem_counter": "torch.cuda.max_memory_allocated (HF memory tracker, rank 0)",
    "mem_extra": {"nvidia_smi_peak_mean_mib": 18678.0},
    "rank": 16,
    "lora_dropout": 0.1,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "completeness_mem": "A",
}
"""foundation-model-stack/fms-acceleration, scripts/benchmarks/refs/a100_80gb.csv, commit 876e2ed6."""


def test_a_published_peak_is_met_and_what_went_out_of_memory_is_not_said_to_fit() -> None:
    failed = {**MISTRAL, "id": "out", "status": "oom", "micro_batch": 64}
    del failed["peak_mem_gib"]
    found, failures, left_out = answers([MISTRAL, failed, {**MISTRAL, "id": "left", "seq_len": None}])
    assert [one.counter for one in found] == ["allocated", "on the card"]
    assert found[0].error == pytest.approx(0, abs=0.002)
    assert all(one.inside for one in found)
    assert [one.right for one in failures] == [True]
    assert [reason for _, reason in left_out] == ["the lengths of its rows are not stated"]
    assert not misses(found[:1], failures)
    text = "\n".join(report(found, failures, left_out))
    assert "left" in text
    assert "several cards  out of memory: 1 of 1 right" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"compile": True}, "compiled"),
        ({"framework_config": "foak-fast-kernels"}, "other kernels"),
        ({"gpu": "not stated"}, "its card"),
        ({"gradient_checkpointing": "selective"}, "which, is not stated"),
        ({"micro_batch": None}, "its micro-batch"),
        ({"completeness_mem": "C"}, "how it was run"),
    ],
)
def test_what_cannot_be_posed_has_a_reason(changes: dict[str, Any], said: str) -> None:
    assert said in refusal({**MISTRAL, **changes})
    assert refusal(MISTRAL) == ""
