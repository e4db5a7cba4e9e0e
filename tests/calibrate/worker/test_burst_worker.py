"""The worker's own code in this process: what it says about a card, and when it cannot fork."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from advisor.errors import BadValue
from advisor.specs import Recipe
from calibrate.nvml import WatchedCard
from calibrate.worker import burst_worker
from calibrate.worker import device as device_layer
from calibrate.worker.device import CpuDevice, CudaDevice, Opened
from tests.calibrate.fake_cuda import OLD_DRIVER, FakeCuda, fake_nvml
from tests.calibrate.made_up import TINY

FORKED = "Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, you must use 'spawn'"


def answers(job: dict[str, Any]) -> list[dict[str, Any]]:
    said: list[Any] = []
    burst_worker.answer(job, said.append)
    return said


def open_with(monkeypatch: pytest.MonkeyPatch, device: Any, remark: str = "") -> None:
    monkeypatch.setattr(device_layer, "open_device", lambda _: Opened(device, remark))


def card(minor: int = 6) -> CudaDevice:
    return CudaDevice(FakeCuda(), "cpu", WatchedCard(fake_nvml(), "card"))


def test_a_card_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    open_with(monkeypatch, card())
    (said,) = answers({"probe": "auto"})
    found = said["machine"]
    assert found["device"]["name"] == "NVIDIA Fake 8"
    assert (found["bf16"], found["quantization_problem"], found["remark"]) == (True, "", "")
    assert found["conditions"]["power_limit_w"] == 220.0


def test_attention_is_a_job_that_time_ends() -> None:
    (said,) = answers({"attention": {"device": "cpu", "limit_s": 0.05}})
    assert said["attention"][0]["kernel"] == "flash"
    assert 1 <= len(said["attention"]) < 192


def test_a_card_before_ampere_has_no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    device = card()
    device._properties.major = 7
    open_with(monkeypatch, device)
    assert answers({"probe": "auto"})[0]["machine"]["bf16"] is False


def test_bitsandbytes_without_kernels_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    import bitsandbytes.functional as bnb

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no kernel image is available\nfor execution")

    monkeypatch.setattr(bnb, "quantize_4bit", fail)
    open_with(monkeypatch, CpuDevice())
    found = answers({"probe": "cpu"})[0]["machine"]
    assert found["quantization_problem"] == "RuntimeError: no kernel image is available for execution"


@pytest.mark.parametrize("kind", ["cuda", "auto"])
def test_a_fork_that_cannot_use_cuda_asks_for_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "init", lambda: FakeCuda(error=FORKED).init())
    assert answers({"probe": kind}) == [{"fresh": True}]


def test_a_driver_that_is_too_old_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "init", lambda: FakeCuda(error=OLD_DRIVER).init())
    (said,) = answers({"probe": "cuda"})
    assert "too old" in said["refused"]


@pytest.mark.parametrize(
    ("error", "key", "says"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out_of_memory", "Tried to allocate"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out_of_memory", "CPUAllocator"),
        (MemoryError(), "out_of_memory", "ran out of memory"),
        (BadValue("attention", "flash", "use sdpa"), "refused", "use sdpa"),
        (ValueError("Expected\nBF16"), "failed", "ValueError: Expected BF16"),
    ],
)
def test_errors_are_answers(monkeypatch: pytest.MonkeyPatch, error: Exception, key: str, says: str) -> None:
    from calibrate.worker import burst

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(burst, "run_burst", fail)
    job = {
        "config": TINY,
        "recipe": Recipe(method="lora").model_dump(mode="json"),
        "seq_len": 16,
        "steps": 3,
        "limit_s": 1.0,
        "device": "cpu",
    }
    (said,) = answers({"burst": job})
    assert list(said) == [key]
    assert says in said[key]


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else find(name))
    with pytest.raises(ImportError) as missing:
        burst_worker.load(True)
    assert missing.value.name == "peft"


def test_with_cuda_what_begins_to_use_it_is_left_to_the_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(burst_worker.importlib, "import_module", loaded.append)
    assert burst_worker.load(True) is True
    assert set(loaded) == set(burst_worker.PRELOADED)
    loaded.clear()
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    assert burst_worker.load(True) is True
    assert loaded == []
    assert burst_worker.load(False) is False
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert burst_worker.load(True) is False
