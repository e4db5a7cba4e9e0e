from __future__ import annotations

import pytest
from pydantic import ValidationError

from advisor.catalog.gpus import all_gpus, find_gpus
from advisor.device import DeviceProfile, card_class, profile_for, workspace_bytes
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
        ("Tesla T4", "turing full"),
        ("NVIDIA GeForce RTX 3090", "ampere"),
        ("NVIDIA RTX A6000", "ampere full"),
        ("NVIDIA A100-SXM4-80GB", "ampere hbm"),
        ("NVIDIA A30", "ampere hbm"),
        ("NVIDIA GeForce RTX 4090", "ada"),
        ("NVIDIA L40S", "ada full"),
        ("NVIDIA L4", "ada full"),
        ("NVIDIA H100 80GB HBM3", "hopper"),
        ("NVIDIA GeForce RTX 5090", "blackwell"),
        ("NVIDIA B200", "blackwell hbm"),
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
        assert profile.context_bytes.high < 1.2 * 2**30


def test_cublas_workspaces_are_what_pytorch_allocates() -> None:
    # 8,519,680 bytes a handle: github.com/pytorch/pytorch/issues/95668, on an A10G.
    assert workspace_bytes(card("NVIDIA A10G")) == 2 * 8_519_680
    assert workspace_bytes(card("NVIDIA H100 80GB HBM3")) == 2 * 32 * 2**20


def test_a_card_without_bfloat16_says_so() -> None:
    assert "bfloat16" in profile_for(card("Tesla T4")).evidence
    assert "bfloat16" not in profile_for(card("NVIDIA L4")).evidence


def test_a_profile_is_closed_and_survives_json() -> None:
    profile = profile_for(card("NVIDIA L40S"))
    with pytest.raises(AttributeError, match="frozen"):
        profile.kernel_s = 1.0  # type: ignore[misc]
    with pytest.raises(ValidationError, match="kernel_ss"):
        DeviceProfile.model_validate({**profile.model_dump(), "kernel_ss": 1})
    assert DeviceProfile.model_validate_json(profile.model_dump_json()) == profile
