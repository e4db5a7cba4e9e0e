"""The fit of attention: it finds the rates that made the times, and refuses times that make no sense."""

from __future__ import annotations

import pytest

pytest.importorskip("scipy")

from advisor.catalog import find_gpus
from advisor.costs.device import DeviceProfile, profile_for
from advisor.specs import GpuSpec
from calibrate.attention_fit import Judged, judged, time_errors, with_attention
from calibrate.attention_rates import AttentionCase, attention_times
from calibrate.burst_record import DeviceFacts
from calibrate.fit import fit, typical
from tests.calibrate.made_up import CPU, GIB
from tests.calibrate.made_up_attention import attention_samples

H100, A100, T4 = (find_gpus(name)[0] for name in ("h100-sxm", "a100-sxm4-80gb", "t4"))


def facts(card: GpuSpec) -> DeviceFacts:
    return DeviceFacts(
        kind="cuda",
        name=card.name,
        memory_bytes=16 * GIB,
        compute_capability=card.compute_capability,
        cores=1,
        threads=1,
    )


def truth(card: GpuSpec) -> DeviceProfile:
    """A card of this generation whose attention is not what its generation's is said to be."""
    default = profile_for(card)
    return default.model_copy(
        update={
            "attention_forward": 0.8 * default.attention_forward,
            "attention_backward": 1.15 * default.attention_backward,
            "efficient_attention": (0.6, 0.3),
            "cudnn_masked_attention": (0.9, 0.7),
            "attention_fp32": (0.3, 0.5),
            "sums_in_memory": 0.8,
        }
    )


def rates(profile: DeviceProfile) -> dict[str, float]:
    """The rates of attention, as shares of the card's own peaks."""
    flash = (profile.attention_forward, profile.attention_backward)
    found = {"flash forward": flash[0], "flash backward": flash[1]}
    for name in ("efficient_attention", "cudnn_masked_attention"):
        found |= {f"{name} {at}": flash[at] * getattr(profile, name)[at] for at in range(2)}
    found |= {f"fp32 {at}": profile.vector_efficiency * profile.attention_fp32[at] for at in range(2)}
    return found | {"in memory": flash[1] * profile.efficient_attention[1] * profile.sums_in_memory}


def fitted(card: GpuSpec, trusted: Judged) -> DeviceProfile:
    flash = fit(profile_for(card), card, trusted.flash, ()).profile
    return with_attention(flash, card, trusted)


@pytest.mark.parametrize("card", [H100, A100], ids=["H100", "A100"])
def test_it_recovers_the_profile_that_made_the_times(card: GpuSpec) -> None:
    real = truth(card)
    trusted = judged(profile_for(card), card, attention_samples(card, real), facts(card))
    assert trusted.remarks == ()
    assert set(trusted.errors) == {"flash", "cudnn masked", "efficient", "efficient masked"}
    assert max(trusted.errors.values()) < 0.05
    assert rates(fitted(card, trusted)) == pytest.approx(rates(real), rel=0.05)


def test_where_flash_attention_does_not_run_its_share_stays() -> None:
    real = profile_for(T4).model_copy(update={"efficient_attention": (1.3, 0.7), "attention_fp32": (0.4, 0.3)})
    trusted = judged(profile_for(T4), T4, attention_samples(T4, real), facts(T4))
    assert trusted.flash == ()
    assert set(trusted.errors) == {"efficient", "efficient masked"}
    found = with_attention(profile_for(T4), T4, trusted)
    assert found.attention_forward == profile_for(T4).attention_forward
    assert found.efficient_attention == pytest.approx((1.3, 0.7), rel=0.05)
    assert found.attention_fp32 == pytest.approx((0.4, 0.3), rel=0.05)
    assert found.cudnn_masked_attention == pytest.approx(profile_for(T4).cudnn_masked_attention)


def nonsense(case: AttentionCase) -> float:
    """Of the memory-efficient kernel under a mask: each width at a speed of its own."""
    return {64: 1.0, 96: 9.0, 128: 0.1, 256: 20.0}[case.size[-1]] if case[:2] == ("efficient", True) else 1.0


def test_nonsense_is_refused_and_the_rest_is_fitted() -> None:
    trusted = judged(profile_for(A100), A100, attention_samples(A100, truth(A100), nonsense), facts(A100))
    (remark,) = trusted.remarks
    assert remark.startswith("efficient masked attention not fitted: the median error on held-out widths is ")
    assert remark.endswith("more than 25%")
    assert set(trusted.errors) == {"flash", "cudnn masked", "efficient"}
    assert rates(fitted(A100, trusted)) == pytest.approx(rates(truth(A100)), rel=0.05)


def test_what_the_default_predicts_better_is_refused() -> None:
    wave = {64: 1.0, 96: 1.1, 128: 0.9, 256: 1.0}
    samples = attention_samples(A100, profile_for(A100), lambda one: wave[one.size[-1]])
    remarks = judged(profile_for(A100), A100, samples, facts(A100)).remarks
    assert remarks
    assert all("exceeds the default profile's" in one for one in remarks)


def test_one_width_shows_nothing() -> None:
    samples = [one for one in attention_samples(A100, truth(A100)) if one.size[-1] == 64]
    trusted = judged(profile_for(A100), A100, samples, facts(A100))
    assert trusted.errors == {}
    assert "efficient attention not fitted: heads of one width (64) are too few" in trusted.remarks


def test_times_of_the_host_are_left_out() -> None:
    slow = [
        one.model_copy(update={"forward_host_s": 1.0, "backward_host_s": 1.0})
        for one in attention_samples(A100, truth(A100))
    ]
    assert judged(profile_for(A100), A100, slow, facts(A100)) == Judged()


def test_a_cpu_is_shown_and_not_fitted() -> None:
    assert judged(profile_for(A100), A100, attention_samples(A100, truth(A100)), CPU) == Judged()


def test_math_attention_is_predicted_by_what_it_is_made_of() -> None:
    real = truth(A100)
    times = [one for one in attention_times(attention_samples(A100, real), facts(A100)) if one.case.kernel == "math"]
    assert len(times) == 2 * 48
    assert typical(time_errors(times, A100, real)) < 0.05
    slower = real.model_copy(update={"batched_fp32": 0.5})
    assert min(time_errors(times, A100, slower)) > -0.1
    assert typical(time_errors(times, A100, slower)) > 0.1
