from __future__ import annotations

import pytest

from advisor.catalog import find_gpus, find_model
from advisor.costs.estimation import estimate
from advisor.interval import Interval
from advisor.specs import Placement, Recipe, Workload
from calibrate.compare import predicted_memory
from calibrate.predict import UNKNOWN, predict, predicted_time, verdict_of
from tests.calibrate.made_up import CPU, GIB, gpu

MODEL = find_model("llama-3.2-1b")
RECIPE = Recipe(method="dora", micro_batch=2, gradient_accumulation=3)


def test_on_a_card_it_is_the_estimate_of_the_catalogs_card() -> None:
    card = find_gpus("NVIDIA H200")[0]
    device = gpu().model_copy(update={"memory_bytes": card.memory_bytes})
    found = predict(MODEL, RECIPE, 512, device, 100 * GIB)
    work = Workload(examples=6, seq_len=512, mean_seq_len=512, batch_size=6)
    expected = estimate(MODEL, RECIPE, work, card)
    assert found.figures is not None
    assert expected.time is not None
    assert found.figures.peak_allocated_bytes == round(expected.memory.peak_allocated_bytes.likely)
    assert found.figures.device_bytes == round(expected.memory.device_bytes.likely)
    assert found.figures.step_s == expected.time.step_s.likely
    assert found.figures.micro_step_s == expected.time.micro_step_s.likely
    assert found.needed == expected.memory.needed_bytes
    assert found.verdict == "fits"


def test_a_card_outside_the_catalog_has_memory_and_no_time() -> None:
    found = predict(MODEL, RECIPE, 512, gpu("NVIDIA Whatever 9000", 24), 24 * GIB)
    assert found.figures is not None
    assert found.figures.step_s is None
    assert found.figures.peak_allocated_bytes > GIB
    assert predicted_time(MODEL, RECIPE, 512, gpu("NVIDIA Whatever 9000", 24), None) is None


def test_on_a_cpu_it_is_the_formula_for_its_kernels() -> None:
    found = predict(MODEL, RECIPE, 512, CPU, 16 * GIB)
    assert found.figures == predicted_memory(MODEL, RECIPE, 2, 512).model_copy(update={"peak_reserved_bytes": None})
    assert found.needed is not None
    assert found.needed.likely > found.figures.peak_allocated_bytes


def test_without_a_formula_nothing_is_said() -> None:
    assert predict(None, RECIPE, 512, CPU, GIB) == UNKNOWN


@pytest.mark.parametrize(
    ("limit", "verdict"), [(9, "does_not_fit"), (10, "tight"), (11, "tight"), (12, "fits"), (0, "unknown")]
)
def test_verdicts(limit: int, verdict: str) -> None:
    assert verdict_of(Interval(8, 10, 12), limit) == verdict


def test_one_of_several_cards_has_the_estimate_of_the_placement() -> None:
    card = find_gpus("NVIDIA H200")[0]
    device = gpu().model_copy(update={"memory_bytes": card.memory_bytes})
    placement = Placement(gpus=8, sharding="fsdp2")
    found = predict(MODEL, RECIPE, 512, device, 100 * GIB, placement=placement)
    work = Workload(examples=48, seq_len=512, mean_seq_len=512, batch_size=48)
    expected = estimate(MODEL, RECIPE, work, card, placement)
    assert found.figures is not None
    assert expected.time is not None
    assert found.figures.peak_allocated_bytes == round(expected.memory.peak_allocated_bytes.likely)
    assert found.figures.step_s == expected.time.step_s.likely
    on_cpu = predict(MODEL, RECIPE, 512, CPU, 100 * GIB, placement=placement)
    assert on_cpu.needed is not None
    assert on_cpu.figures is not None
    assert on_cpu.needed.low > 8 * on_cpu.figures.peak_allocated_bytes  # they share the machine's memory
    assert on_cpu.figures.step_s is None
