"""`--gpu auto`: the card that the driver tells of, with a stand-in for NVML."""

from __future__ import annotations

import sys
import types

import pytest

from advisor.catalog.gpus import find_gpus
from advisor.errors import SourceUnavailable
from advisor.units import MIB
from tests.catalog.cards import FIGURES, one


class FakeNvmlError(Exception):
    """Stands for pynvml.NVMLError."""


def install_nvml(monkeypatch: pytest.MonkeyPatch, name: str | bytes, mib: int, fails_in: str = "") -> list[str]:
    """Put a pynvml into sys.modules that reports one card; returns the log of calls."""
    calls: list[str] = []
    module = types.ModuleType("pynvml")

    def answer(function: str, value: object) -> None:
        def call(*args: object) -> object:
            calls.append(function)
            if function == fails_in:
                raise FakeNvmlError("Driver Not Loaded")
            return value

        setattr(module, function, call)

    answer("nvmlInit", None)
    answer("nvmlShutdown", None)
    answer("nvmlDeviceGetHandleByIndex", "handle")
    answer("nvmlDeviceGetName", name)
    answer("nvmlDeviceGetMemoryInfo", types.SimpleNamespace(total=mib * MIB))
    answer("nvmlDeviceGetCudaComputeCapability", [12, 1])
    module.NVMLError = FakeNvmlError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return calls


def test_auto_takes_rates_from_the_catalog_and_memory_from_the_driver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = install_nvml(monkeypatch, b"NVIDIA GeForce RTX 4090", 24_210)
    card = one("AUTO")
    assert card.memory_bytes == 24_210 * MIB
    assert card.bf16_flop_per_s == one("rtx4090").bf16_flop_per_s
    assert card.marketed_gb == 24
    assert card.sources[0] == "memory: NVML, 24210 MiB on this machine"
    assert {text.split(":")[0] for text in card.sources} == FIGURES
    assert calls[-1] == "nvmlShutdown"
    assert one("rtx4090").memory_bytes == 24_564 * MIB


@pytest.mark.parametrize(
    ("mib", "name"), [(8188, "NVIDIA GeForce RTX 4060 Ti"), (16380, "NVIDIA GeForce RTX 4060 Ti 16GB")]
)
def test_auto_tells_cards_of_one_name_apart_by_memory(monkeypatch: pytest.MonkeyPatch, mib: int, name: str) -> None:
    install_nvml(monkeypatch, "NVIDIA GeForce RTX 4060 Ti", mib)
    assert one("auto").name == name


def test_auto_with_a_rebuilt_card_keeps_its_speed_and_changes_its_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install_nvml(monkeypatch, "NVIDIA GeForce RTX 4090", 49_140)
    card = one("auto")
    assert (card.marketed_gb, card.memory_bytes) == (48, 49_140 * MIB)
    assert card.fp32_flop_per_s == one("rtx4090").fp32_flop_per_s


def test_auto_with_memory_that_the_driver_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    install_nvml(monkeypatch, "NVIDIA GB10", 0, fails_in="nvmlDeviceGetMemoryInfo")
    assert one("auto") == one("gb10")
    calls = install_nvml(monkeypatch, b"Orin", 0)
    assert one("auto").name == "NVIDIA Jetson Orin Nano 8GB", "the smallest of that name"
    assert calls[-1] == "nvmlShutdown"


def test_auto_with_an_unknown_card(monkeypatch: pytest.MonkeyPatch) -> None:
    install_nvml(monkeypatch, "NVIDIA Whatever 1", 32_000)
    card = one("auto")
    assert (card.name, card.memory_bytes, card.marketed_gb) == ("NVIDIA Whatever 1", 32_000 * MIB, 31)
    assert (card.compute_capability, card.generation, card.speed_known) == ("12.1", "", False)


@pytest.mark.parametrize(
    ("function", "shut_down"),
    [("nvmlInit", False), ("nvmlDeviceGetHandleByIndex", True), ("nvmlDeviceGetMemoryInfo", True)],
)
def test_auto_without_a_driver(monkeypatch: pytest.MonkeyPatch, function: str, shut_down: bool) -> None:
    calls = install_nvml(monkeypatch, "NVIDIA L4", 23_034, fails_in=function)
    with pytest.raises(SourceUnavailable, match=r"Driver Not Loaded.*--gpu rtx4090 or --gpu 24GB"):
        find_gpus("auto")
    assert (calls[-1] == "nvmlShutdown") is shut_down


def test_auto_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(SourceUnavailable, match="pip install nvidia-ml-py"):
        find_gpus("auto")


def test_auto_with_a_driver_that_reports_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    install_nvml(monkeypatch, "NVIDIA L4", 0)
    with pytest.raises(SourceUnavailable, match="0 bytes"):
        find_gpus("auto")
