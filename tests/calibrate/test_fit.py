"""The fit: it finds the rates that made the times, says how far off it is elsewhere, and moves nothing unseen."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

pytest.importorskip("scipy")

from advisor.catalog import find_gpus
from advisor.costs.device import DeviceProfile, profile_for
from advisor.costs.roofline import Roofline
from advisor.decoders.step import step_program
from advisor.specs import METHODS, GpuSpec, Recipe
from calibrate.cpu_profile import CPU_PROFILE
from calibrate.cut import cut, uncut
from calibrate.fit import (
    COEFFICIENTS,
    Fit,
    Observation,
    fit,
    held_out,
    interval_of,
    residuals,
    sample_seconds,
    typical,
    with_values,
)
from calibrate.predict import step_seconds
from calibrate.rates import Sample, cases, kernels_of
from tests.calibrate.made_up import whole

CPU_CARD = GpuSpec(
    name="cpu",
    generation="",
    memory_bytes=2**34,
    marketed_gb=16,
    memory_bytes_per_s=8e10,
    bf16_flop_per_s=1e12,
    fp16_flop_per_s=1e12,
    fp32_flop_per_s=2.4e11,
)
H100 = find_gpus("h100-sxm")[0]
SHAPES = ((1, 64, False), (1, 256, True), (2, 128, False))
NOISE = 0.02


def truth(start: DeviceProfile) -> DeviceProfile:
    """Another device of the same kind: every rate a little different."""
    chance = random.Random(7)
    values = []
    for one in COEFFICIENTS:
        value = one.of(start) * math.exp(chance.gauss(0, one.prior / 2))
        values.append(min(max(value, 1.1 * one.low), 0.98 * one.high))
    return with_values(start, values)


def made_up_samples(card: GpuSpec, profile: DeviceProfile, kind: Any) -> list[Sample]:
    roofline, chance = Roofline(card, profile), random.Random(3)
    found = []
    for case in cases(kind, "bfloat16", True):
        sample = Sample(op=case.op, kernels=kernels_of(case, kind), seconds=1.0)
        seconds = sample_seconds(sample, roofline) * math.exp(chance.gauss(0, NOISE))
        found.append(sample.model_copy(update={"seconds": seconds}))
    return found


def made_up_bursts(card: GpuSpec, profile: DeviceProfile, place: Any) -> list[Observation]:
    chance = random.Random(5)
    models = [cut(whole("llama-3.2-1b"), 2, 4096), uncut(whole("pythia-70m"))]
    found = []
    for one in models:
        assert one.spec is not None
        for batch, length, checkpointing in SHAPES:
            for method in METHODS:
                recipe = Recipe(
                    method=method,
                    quant="nf4" if method[0] == "q" else "none",
                    micro_batch=batch,
                    gradient_checkpointing=checkpointing,
                )
                kernels = step_program(one.spec, recipe, batch, length, place).kernels(batch, length, recipe.rank)
                noise = math.exp(chance.gauss(0, NOISE))
                micro_s, step_s = step_seconds(one.spec, recipe, kernels, card, profile)
                found.append(
                    Observation(
                        f"{one.name} {method} {batch}x{length}",
                        f"{batch}x{length}",
                        method,
                        one.spec,
                        recipe,
                        kernels,
                        micro_s * noise,
                        step_s * noise,
                    )
                )
    return found


@pytest.fixture(scope="module", params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> Any:
    """(default profile, card, samples, bursts) of a made-up device."""
    card = CPU_CARD if request.param == "cpu" else H100
    start = CPU_PROFILE if request.param == "cpu" else profile_for(H100)
    real = truth(start)
    return start, card, made_up_samples(card, real, request.param), made_up_bursts(card, real, request.param)


@pytest.fixture(scope="module")
def fitted(device: Any) -> Fit:
    """Of all its samples and bursts."""
    return fit(*device)


def test_coefficients_go_in_and_out() -> None:
    values = [one.of(CPU_PROFILE) for one in COEFFICIENTS]
    assert with_values(CPU_PROFILE, values) == CPU_PROFILE
    values[0] *= 1.5
    changed = with_values(CPU_PROFILE, values)
    assert changed.matrix_efficiency == pytest.approx(1.5 * CPU_PROFILE.matrix_efficiency)
    assert changed.padding == CPU_PROFILE.padding


@pytest.mark.slow
def test_it_explains_what_made_the_times(device: Any, fitted: Fit) -> None:
    start, card, _, bursts = device
    before = typical(residuals(bursts, card, start))
    assert typical(fitted.residuals) < min(1.5 * NOISE, before)
    assert typical(fitted.samples) < 3 * NOISE


@pytest.mark.slow
def test_half_of_the_records_predict_the_other_half(device: Any) -> None:
    start, card, samples, bursts = device
    seen, unseen = bursts[::2], bursts[1::2]
    found = fit(start, card, samples, seen)
    assert typical(residuals(unseen, card, found.profile)) < 1.5 * max(typical(found.residuals), NOISE)


@pytest.mark.slow
def test_what_is_left_out_is_predicted_nearly_as_well(device: Any, fitted: Fit) -> None:
    start, card, samples, bursts = device
    found = held_out(start, card, samples, bursts, fitted)
    assert len(found.shapes) == len(found.methods) == len(bursts)
    assert typical((*found.shapes, *found.methods)) < 0.05


def test_what_nothing_measured_stays_where_it_was() -> None:
    real = truth(CPU_PROFILE)
    products = [one for one in made_up_samples(CPU_CARD, real, "cpu") if one.op == "product"]
    found = fit(CPU_PROFILE, CPU_CARD, products, ()).profile
    for name in ("dequantize_bandwidth", "hook_s", "strided_bandwidth", "optimizer_step_s"):
        assert getattr(found, name) == pytest.approx(getattr(CPU_PROFILE, name), rel=0.01), name
    assert found.vector_efficiency == pytest.approx(real.vector_efficiency, rel=0.1)


@pytest.mark.slow
def test_one_wild_burst_moves_little(device: Any, fitted: Fit) -> None:
    start, card, samples, bursts = device
    wild = [bursts[0]._replace(micro_step_s=5 * bursts[0].micro_step_s, step_s=5 * bursts[0].step_s), *bursts[1:]]
    found = fit(start, card, samples, wild)
    assert typical(residuals(bursts, card, found.profile)) < typical(fitted.residuals) + 0.02


def test_a_launch_bound_sample_is_not_believed() -> None:
    real = truth(profile_for(H100))
    samples = made_up_samples(H100, real, "cuda")
    slow = [one.model_copy(update={"seconds": 50 * one.seconds, "host_bound": True}) for one in samples]
    found = fit(profile_for(H100), H100, slow, ())
    assert found.samples == ()
    assert found.profile.matrix_efficiency == pytest.approx(profile_for(H100).matrix_efficiency)


def test_the_interval_holds_nine_of_ten() -> None:
    found = [0.01 * n for n in range(1, 11)]
    low, likely, high = interval_of(found)
    assert likely == 1.0
    assert math.log(high) == pytest.approx(0.09)
    assert low == pytest.approx(1 / high)
    assert interval_of([0.0]).high == pytest.approx(math.exp(0.05))


def test_nothing_it_moves_leaves_its_range(device: Any) -> None:
    start, card, samples, _ = device
    faster = [one.model_copy(update={"seconds": one.seconds / 100}) for one in samples]
    found = fit(start, card, faster, ()).profile
    DeviceProfile.model_validate(found.model_dump())
    assert found.matrix_efficiency <= 1.0
