"""Memory, time and evidence of one recipe on one card."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.catalog import find_gpus, find_model
from advisor.costs.estimation import estimate
from advisor.errors import UnknownName
from advisor.specs import METHODS, QUANTIZED_METHODS, Estimate, GpuSpec, Placement, Recipe, Workload

LLAMA_1B = find_model("llama-3.2-1b")
RTX_4090 = find_gpus("rtx4090")[0]
JOB = Workload(examples=1000, seq_len=512)


def estimated(method: Any, gpu: GpuSpec = RTX_4090, placement: Placement | None = None, **knobs: Any) -> Estimate:
    quant = "nf4" if method in QUANTIZED_METHODS else "none"
    return estimate(LLAMA_1B, Recipe(**{"method": method, "quant": quant, **knobs}), JOB, gpu, placement)


@pytest.mark.parametrize("method", METHODS)
def test_the_terms_add_up_to_what_is_needed(method: str) -> None:
    memory = estimated(method).memory
    assert sum(term.bytes for term in memory.terms) == round(memory.needed_bytes.likely)
    assert memory.peak_allocated_bytes.likely <= memory.peak_reserved_bytes.likely <= memory.device_bytes.likely
    assert memory.needed_bytes.likely <= memory.device_bytes.likely


def test_trained_parameters_are_those_of_the_method() -> None:
    assert estimated("full").trainable_parameters == 1_235_814_400
    assert estimated("lora", rank=16).trainable_parameters == 11_272_192
    magnitudes = 16 * (2 * 2048 + 2 * 512 + 2 * 8192 + 2048)
    assert estimated("dora", rank=16).trainable_parameters == 11_272_192 + magnitudes


def test_a_card_of_unknown_speed_has_memory_and_no_time() -> None:
    (bare,) = find_gpus("7GB")
    found = estimated("lora", bare)
    assert found.time is None
    assert found.memory.needed_bytes.likely > 2 * 1_235_814_400


def test_one_card_is_what_is_meant_where_no_placement_is_given() -> None:
    assert estimated("lora") == estimated("lora", placement=Placement())


def test_what_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(UnknownName, match="qproj"):
        estimated("lora", target_modules=("qproj",))
