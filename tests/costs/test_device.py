from __future__ import annotations

import pytest

from advisor.catalog.gpus import all_gpus, find_gpus
from advisor.costs.device import DeviceProfile, card_class, profile_for, workspace_bytes
from advisor.errors import UnknownName
from advisor.interval import Interval
from advisor.specs import GpuSpec


def card(name: str) -> GpuSpec:
    (found,) = find_gpus(name)
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Tesla P100-PCIE-16GB", "pascal"),
        ("Tesla V100-SXM2-32GB", "volta"),
        ("NVIDIA GeForce RTX 2080 Ti", "turing"),
        ("Tesla T4", "turing"),
        ("NVIDIA GeForce RTX 3090", "ampere"),
        ("NVIDIA RTX A6000", "ampere"),
        ("NVIDIA A100-SXM4-80GB", "ampere hbm"),
        ("NVIDIA A30", "ampere hbm"),
        ("NVIDIA GeForce RTX 4090", "ada"),
        ("NVIDIA L40S", "ada"),
        ("NVIDIA L4", "ada"),
        ("NVIDIA H100 80GB HBM3", "hopper"),
        ("NVIDIA H20", "hopper cut"),
        ("NVIDIA GeForce RTX 5090", "blackwell"),
        ("NVIDIA B200", "blackwell hbm"),
        ("NVIDIA GB10", "blackwell"),
        ("AMD Instinct MI210", "cdna2"),
        ("AMD Radeon RX 9070 XT", "rdna4"),
    ],
)
def test_a_card_finds_its_class(name: str, expected: str) -> None:
    assert card_class(card(name)) == expected


def test_every_card_of_the_catalog_has_a_profile_of_its_generation() -> None:
    cards = all_gpus()
    assert len(cards) >= 45
    for gpu in cards:
        assert card_class(gpu).split(" ")[0] == gpu.generation.lower()


def test_the_capability_names_the_generation_where_its_name_is_missing() -> None:
    known = card("NVIDIA A100-SXM4-80GB")
    assert card_class(known.model_copy(update={"generation": ""})) == "ampere hbm"
    assert card_class(known.model_copy(update={"generation": "Ampere", "compute_capability": ""})) == "ampere hbm"


def test_an_unknown_generation_gets_wider_intervals_and_says_so() -> None:
    known = card("NVIDIA GeForce RTX 3090")
    strange = known.model_copy(update={"generation": "Rubin", "compute_capability": "13.0"})
    assert card_class(strange) == ""
    for field in ("device_spread", "context_bytes"):
        wide, usual = getattr(profile_for(strange), field), getattr(profile_for(known), field)
        assert wide.high - wide.low > usual.high - usual.low
    assert "cautious" in profile_for(strange).evidence


def test_intervals_are_ordered_for_every_card() -> None:
    for gpu in all_gpus():
        profile = profile_for(gpu)
        intervals = [value for _, value in profile if isinstance(value, Interval)]
        assert len(intervals) == 4
        assert all(i.low <= i.likely <= i.high for i in intervals)
        assert profile.device_spread.likely == profile.launch_spread.likely == 1
        assert profile.context_bytes.low > 0.1 * 2**30
        assert profile.context_bytes.high < (1.7 if gpu.rocm else 1.2) * 2**30


def test_cublas_workspaces_are_what_pytorch_allocates() -> None:
    # 8,519,680 bytes a handle: github.com/pytorch/pytorch/issues/95668, on an A10G.
    assert workspace_bytes(card("NVIDIA A10G")) == 2 * 8_519_680
    assert workspace_bytes(card("NVIDIA H100 80GB HBM3")) == 2 * 32 * 2**20
    assert workspace_bytes(card("AMD Instinct MI300X")) == 2 * 128 * 2**20
    assert workspace_bytes(card("AMD Radeon RX 7900 XTX")) == 2 * 32 * 2**20


def test_what_is_not_known_of_a_card_is_not_said_of_it() -> None:
    assert "bfloat16" in profile_for(card("Tesla T4")).evidence
    assert "bfloat16" not in profile_for(card("NVIDIA GB10")).evidence
    assert "little published" in profile_for(card("AMD Instinct MI300X")).evidence


def test_a_power_limit_lowers_the_matrix_rate_between_cards_of_one_chip() -> None:
    achieved = {
        name: profile_for(card(name)).matrix_efficiency * card(name).bf16_flop_per_s
        for name in ("NVIDIA GeForce RTX 4090", "NVIDIA L40S", "NVIDIA RTX 6000 Ada Generation", "NVIDIA L4")
    }
    shares = [profile_for(card(name)).matrix_efficiency for name in achieved]
    assert shares == sorted(shares, reverse=True)
    assert achieved["NVIDIA L40S"] > achieved["NVIDIA RTX 6000 Ada Generation"] > achieved["NVIDIA GeForce RTX 4090"]
    unlimited = card("NVIDIA L4").model_copy(update={"power_w": 0.0})
    assert profile_for(unlimited).matrix_efficiency > 1.5 * profile_for(card("NVIDIA L4")).matrix_efficiency


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("NVIDIA A100-SXM4-80GB", 271e12),
        ("NVIDIA A100 80GB PCIe", 253e12),
        ("NVIDIA H100 80GB HBM3", 794e12),
        ("NVIDIA B200", 1745e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("AMD Instinct MI300X", 668e12),
        ("AMD Instinct MI325X", 785e12),
        ("AMD Instinct MI355X", 1565e12),
    ],
)
def test_the_limit_for_large_products_is_near_the_published_best(name: str, published: float) -> None:
    assert 0.85 <= profile_for(card(name)).matrix_efficiency * card(name).bf16_flop_per_s / published <= 1.05


@pytest.mark.parametrize(
    ("name", "forward", "backward"),
    [
        ("NVIDIA RTX A5000", 84e12, 77e12),
        ("NVIDIA H100 80GB HBM3", 370e12, 302e12),
    ],
)
def test_attention_is_near_what_was_published(name: str, forward: float, backward: float) -> None:
    peak, profile = card(name).bf16_flop_per_s, profile_for(card(name))
    assert profile.attention_forward * peak == pytest.approx(forward, rel=0.12)
    assert profile.attention_backward * peak == pytest.approx(backward, rel=0.12)


def test_a_card_without_bfloat16_says_so() -> None:
    assert "bfloat16" in profile_for(card("Tesla T4")).evidence
    assert "bfloat16" not in profile_for(card("NVIDIA L4")).evidence


def test_a_profile_is_closed_and_survives_json() -> None:
    profile = profile_for(card("NVIDIA L40S"))
    with pytest.raises(AttributeError, match="frozen"):
        profile.kernel_s = 1.0  # type: ignore[misc]
    with pytest.raises(UnknownName, match="kernel_ss"):
        DeviceProfile.model_validate({**profile.model_dump(), "kernel_ss": 1})
    assert DeviceProfile.model_validate_json(profile.model_dump_json()) == profile
