"""From records to a profile: which are fitted, what is refused and why, and the commands around it."""

from __future__ import annotations

import json
import math
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scipy")

from advisor.advice.advise import advise
from advisor.costs.device import profile_for
from advisor.costs.measured import read_device
from advisor.decoders.step import step_program
from advisor.files.checked import FOLDER_VARIABLE
from advisor.interval import Interval
from advisor.specs import METHODS, GpuSpec, Recipe
from calibrate import fit as fitting
from calibrate import tuning
from calibrate.burst_record import DeviceFacts
from calibrate.cpu_profile import CPU_PROFILE
from calibrate.cut import spec_of
from calibrate.fit import COEFFICIENTS, with_values
from calibrate.measurement import Comparison, Figures
from calibrate.predict import Speed, predict, predicted_time, step_seconds
from calibrate.rates import Benchmarks, Sample
from calibrate.rates_store import store_rates
from calibrate.store import Store
from calibrate.tuning import (
    NotFitted,
    Tuned,
    card_of,
    context_bytes,
    devices_folder,
    first_speed,
    fragmentation,
    keep,
    speed_of,
    suitable,
    tune,
)
from tests.calibrate import made_up
from tests.calibrate.door import Door
from tests.calibrate.made_up import CPU, GIB, TINY, environment, figures, gpu, record
from tests.calibrate.made_up_attention import attention_samples
from tests.calibrate.test_fit import made_up_samples

CONFIG = TINY | {"hidden_size": 512, "intermediate_size": 1408}
CPU_RATES = GpuSpec(
    name="cpu",
    generation="",
    memory_bytes=2**34,
    marketed_gb=16,
    memory_bytes_per_s=8e10,
    bf16_flop_per_s=1e12,
    fp16_flop_per_s=1e12,
    fp32_flop_per_s=2.4e11,
)
SAMPLES = made_up_samples(CPU_RATES, CPU_PROFILE, "cpu")
FEW: dict[str, Any] = {"methods": ("full", "lora", "dora"), "lengths": (64, 256)}
"""The fewest bursts that are fitted."""
FIT = fitting.fit


@pytest.fixture(scope="module", autouse=True)
def fits_are_remembered() -> Iterator[None]:
    """A fit is a function of its arguments and takes seconds: the same one is not made again for the next test."""
    answers: dict[bytes, fitting.Fit] = {}

    def remembered(*given: Any) -> fitting.Fit:
        key = pickle.dumps(given)
        if key not in answers:
            answers[key] = FIT(*given)
        return answers[key]

    with pytest.MonkeyPatch.context() as patch:
        for module in (fitting, tuning):
            patch.setattr(module, "fit", remembered)
        yield


def timed(
    device: DeviceFacts, speed: Speed, methods: Any = METHODS, lengths: tuple[int, ...] = (64, 256, 512)
) -> Iterator[Comparison]:
    """Clean bursts of a device that is as fast as `speed` says."""
    model = spec_of("small", CONFIG)
    assert model is not None
    for seq_len in lengths:
        for method in methods:
            recipe = Recipe(method=method, quant="nf4" if method[0] == "q" else "none")
            kernels = step_program(model, recipe, 1, seq_len, device.kind).kernels(1, seq_len, recipe.rank)
            micro_s, step_s = step_seconds(model, recipe, kernels, speed.card, speed.profile)
            one = record(
                method,
                seq_len=seq_len,
                model="small",
                device=device,
                measured=figures(1.0, step_s).model_copy(update={"micro_step_s": micro_s}),
            )
            assert one.burst is not None
            yield one.model_copy(update={"burst": one.burst.model_copy(update={"config": CONFIG})})


def slower(device: DeviceFacts, samples: Any = SAMPLES) -> Speed:
    """A device that launches twice as slowly as we believe."""
    before = first_speed(device, samples)
    assert before is not None
    values = [one.of(before.profile) * (2 if one.field.endswith("launch_s") else 1) for one in COEFFICIENTS]
    return Speed(before.card, with_values(before.profile, values), "made up")


def records(device: DeviceFacts = CPU, samples: Any = SAMPLES, **more: Any) -> list[Comparison]:
    return list(timed(device, slower(device, samples), **more))


@pytest.mark.slow
def test_it_learns_what_the_rates_could_not_tell() -> None:
    tuned = tune(records(), SAMPLES, CPU, environment())
    assert tuned.device.bursts == 15
    assert tuned.device.held_out[0] < 0.05
    launches = {name: (before, after) for name, before, after in tuned.table()}
    before, after = launches["forward_launch_s"]
    assert after > 1.3 * before
    assert tuned.device.profile.device_spread.high < 1.2


@pytest.mark.slow
def test_a_card_is_fitted_without_rates_too() -> None:
    device = gpu()
    tuned = tune(records(device, (), **FEW), (), device, environment(device))
    assert tuned.device.card.name == "NVIDIA H200"
    assert tuned.device.versions["driver"] == "580.1"
    assert tuned.device.profile.name == "NVIDIA H200"


@pytest.mark.slow
def test_attention_by_kernel_sets_what_bursts_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device, default = gpu(), first_speed(gpu(), ())
    assert default is not None
    real = default.profile.model_copy(update={"efficient_attention": (0.2, 0.2), "cudnn_masked_attention": (0.9, 0.9)})
    attention = attention_samples(default.card, real)
    few, samples = records(device, (), **FEW), made_up_samples(default.card, real, "cuda")
    without, tuned = (tune(few, samples, device, environment(device), found) for found in ((), attention))
    profile = tuned.device.profile
    flash = profile.attention_forward / real.attention_forward
    assert profile.efficient_attention[0] * flash == pytest.approx(0.2, rel=0.05)
    assert profile.cudnn_masked_attention[0] * flash == pytest.approx(0.9, rel=0.05)
    assert set(tuned.device.attention) == {"flash", "cudnn masked", "efficient", "efficient masked"}
    assert {name for name, _, _ in tuned.table()} > {"efficient_attention[0]", "sums_in_memory"}
    assert without.device.profile.efficient_attention == default.profile.efficient_attention
    assert without.device.attention == {}

    def padded_s(one: Tuned) -> float:
        keep(one, tmp_path / "devices")
        given = {"mean_seq_len": 2000, "seq_len": 4096, "micro_batch": 4, "method": "lora", "attention": "sdpa"}
        (row,) = (c for c in advise("llama-3.2-1b", "h200", 3000, **given).candidates if c.recipe.method == "lora")
        assert row.time is not None
        return row.time.step_s.likely

    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr("importlib.metadata.version", environment().versions.__getitem__)
    assert padded_s(tuned) < 0.98 * padded_s(without)


def test_context_is_what_the_driver_shows_beyond_what_is_reserved() -> None:
    device = gpu()
    found = [
        record(
            method,
            device=device,
            measured=figures().model_copy(update={"peak_reserved_bytes": 2 * GIB, "device_bytes": 2 * GIB + extra}),
        )
        for method, extra in (("lora", 5), ("dora", 7), ("full", 9))
    ]
    assert context_bytes(found) == Interval(5.0, 7.0, 9.0)
    assert context_bytes([record()]) is None


def test_fragmentation_is_over_what_was_simulated() -> None:
    device = gpu()
    default = first_speed(device, ())
    model = spec_of("tiny", TINY)
    assert default is not None
    assert model is not None

    def reserved(seq_len: int, share: float) -> Comparison:
        foreseen = predict(model, record().recipe, seq_len, device, 0, default).figures
        assert foreseen is not None
        assert foreseen.peak_reserved_bytes is not None
        gap = foreseen.peak_reserved_bytes - foreseen.peak_allocated_bytes
        measured = figures(1.0).model_copy(update={"peak_reserved_bytes": GIB + round(gap * share)})
        return record(seq_len=seq_len, device=device, measured=measured)

    found = [reserved(64 + n, share) for n, share in enumerate((0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 9.0))]
    assert fragmentation(found, device, default) == pytest.approx(0.8, rel=1e-3)
    assert fragmentation(found[:5], device, default) == 1.0
    assert fragmentation([reserved(16 + n, 0.0) for n in range(8)], device, default) == 0.2


def noisy(one: Comparison) -> Comparison:
    assert one.burst is not None
    return one.model_copy(update={"burst": one.burst.model_copy(update={"run": made_up.run(cpu_share=0.5)})})


def test_only_clean_bursts_of_this_device_and_these_versions_are_fitted() -> None:
    good = records()[:3]
    assert suitable([*good[:2], noisy(good[2])], CPU, environment()) == good[:2]
    assert suitable(good, gpu(), environment(gpu())) == []
    assert suitable(good, CPU, environment().model_copy(update={"torch": "2.12.0"})) == []


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (slice(0, 0), "0 clean bursts at 0 shapes are too few; need 6 at 2"),
        (slice(0, 5), "5 clean bursts at 1 shape are too few"),
    ],
)
def test_too_few_are_refused(chosen: slice, words: str) -> None:
    with pytest.raises(NotFitted, match=words):
        tune(records()[chosen], SAMPLES, CPU, environment())


def test_a_cpu_without_rates_is_refused() -> None:
    with pytest.raises(NotFitted, match="rates of Some CPU are not known"):
        tune(records(), (), CPU, environment())


def changed(one: Comparison, factor: float) -> Comparison:
    assert one.measured is not None
    micro_s, step_s = one.measured.micro_step_s, one.measured.step_s
    assert micro_s
    assert step_s
    times = {"micro_step_s": micro_s * factor, "step_s": step_s * factor}
    return one.model_copy(update={"measured": one.measured.model_copy(update=times)})


@pytest.mark.slow
def test_times_that_no_rates_explain_are_refused() -> None:
    """Each shape at a speed of its own: what is fitted to two says nothing about the third."""
    wild = [changed(one, {64: 1.0, 256: 0.1, 512: 1.0}[one.seq_len]) for one in records()]
    with pytest.raises(NotFitted, match=r"error on held-out (shapes|methods)|held-out error"):
        tune(wild, SAMPLES, CPU, environment())


@pytest.mark.slow
def test_one_method_alone_gets_a_wide_interval() -> None:
    tuned = tune(records(methods=("lora", "dora")), SAMPLES, CPU, environment())
    alone = records(methods=("lora",), lengths=(32, 64, 128, 256, 384, 512))
    single = tune(alone, SAMPLES, CPU, environment())
    assert single.left_out.methods == ()
    assert single.device.profile.device_spread.high >= 1.2 > tuned.device.profile.device_spread.high


@pytest.mark.slow
def test_a_fitted_profile_is_what_is_predicted_by(tmp_path: Path) -> None:
    tuned = tune(records(), SAMPLES, CPU, environment())
    path = keep(tuned, tmp_path / "devices")
    assert read_device(path) == tuned.device
    speed = speed_of(CPU, environment(), Benchmarks(tuple(SAMPLES)), tmp_path / "devices")
    assert speed is not None
    assert "fitted" in speed.source
    model = spec_of("small", CONFIG)
    assert model is not None
    fitted = predicted_time(model, Recipe(method="lora"), 128, CPU, speed)
    first = predicted_time(model, Recipe(method="lora"), 128, CPU, first_speed(CPU, SAMPLES))
    assert fitted is not None
    assert first is not None
    assert fitted.step_s > first.step_s
    newer = environment().model_copy(update={"torch": "2.14.0"})
    assert (other := speed_of(CPU, newer, Benchmarks(tuple(SAMPLES)), tmp_path / "devices")) is not None
    assert other.source == "micro-benchmarks"
    path.write_text("{")
    assert (other := speed_of(CPU, environment(), Benchmarks(tuple(SAMPLES)), tmp_path / "devices")) is not None
    assert other.source == "micro-benchmarks"


def test_a_card_that_no_catalog_knows_gets_its_peaks() -> None:
    odd = gpu("Odd Card", 24)
    assert not card_of(odd, ()).speed_known
    assert first_speed(odd, ()) is None
    card = card_of(odd, SAMPLES)
    best = max(one.kernels[0][2] / one.seconds for one in SAMPLES if one.kernels[0][1] == "bfloat16")
    assert card.bf16_flop_per_s == pytest.approx(2 * best)
    assert card_of(gpu(), SAMPLES).bf16_flop_per_s == card_of(gpu(), ()).bf16_flop_per_s


def test_where_profiles_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert devices_folder(Store()) == tmp_path / "devices"
    assert devices_folder(Store(tmp_path / "out")) == tmp_path / "out" / "devices"


@pytest.mark.slow
def test_the_command_fits_and_advise_uses_it(
    calibrate: Door,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    device = gpu()
    Store().append(*records(device, (), **FEW))
    assert calibrate("fit") == 0
    assert "forward_launch_s" in calibrate.out
    assert "median error" in calibrate.out
    assert "advise --gpu 'NVIDIA H200'` uses it from now on" in calibrate.out
    assert calibrate("fit", "--json") == 0
    found = json.loads(calibrate.out)
    assert found["bursts"] == 6
    assert found["error_fitted"] < found["error_before"]
    monkeypatch.setattr("importlib.metadata.version", environment().versions.__getitem__)
    notes = advise("llama-3.2-1b", "h200", 3000, method="lora").notes
    assert [note for note in notes if note.code == "measured"]


def test_the_command_says_why_not(
    calibrate: Door,
    tmp_path: Path,
) -> None:
    assert calibrate("fit", "--out", tmp_path / "none") == 2
    assert "nothing to fit: there are no records yet" in calibrate.err
    Store(tmp_path / "few").append(*records()[:2])
    assert calibrate("fit", "--out", tmp_path / "few") == 2
    assert "the rates of Some CPU are not known" in calibrate.err
    assert len(calibrate.err.splitlines()) == 1
    store_rates(CPU, environment(), Benchmarks(tuple(SAMPLES)), tmp_path / "few" / "devices")
    assert calibrate("fit", "--out", tmp_path / "few") == 2
    assert "2 clean bursts at 1 shape are too few" in calibrate.err
    assert not list((tmp_path / "few" / "devices").glob("*gb.json"))


def test_devices_that_were_all_refused_are_an_error(calibrate: Door, tmp_path: Path) -> None:
    Store(tmp_path).append(*records()[:2], *records(gpu(), ())[:2])
    assert calibrate("fit", "--out", tmp_path) == 2
    assert len(calibrate.err.splitlines()) == 3
    assert "none of the 2 devices could be fitted" in calibrate.err


def test_without_scipy_it_says_what_to_install(
    calibrate: Door,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Store(tmp_path).append(*records(gpu(), (), **FEW))
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    monkeypatch.setattr(tuning, "fit", FIT)
    assert calibrate("fit", "--out", tmp_path) == 4
    assert "a fit needs scipy, which is not installed: pip install" in calibrate.err


def test_figures_without_times_are_left_out() -> None:
    assert isinstance(figures(), Figures)
    untimed = [one.model_copy(update={"measured": figures(1.0, None)}) for one in records()]
    with pytest.raises(NotFitted, match="0 clean bursts"):
        tune(untimed, SAMPLES, CPU, environment())


def test_the_default_of_a_card_is_its_generations() -> None:
    speed = first_speed(gpu(), ())
    assert speed is not None
    assert speed.profile == profile_for(speed.card)
    assert math.isclose(speed.card.marketed_gb, 141, abs_tol=2)


def test_samples_survive_json() -> None:
    assert [Sample.model_validate_json(one.model_dump_json()) for one in SAMPLES] == SAMPLES
