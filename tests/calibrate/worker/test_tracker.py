from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.profiler import profile  # noqa: E402

from calibrate.worker import tracker as tracker_module  # noqa: E402
from calibrate.worker.tracker import AllocationTracker  # noqa: E402


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.LayerNorm(256), nn.Linear(256, 64), nn.Softmax(-1))


def step(model: nn.Module, x: torch.Tensor) -> None:
    model(x).square().sum().backward()
    model.zero_grad()


def profiled_peak_bytes(model: nn.Module, x: torch.Tensor) -> int:
    """Highest sum of the allocator's own events: truth from outside the tracker."""
    with profile(profile_memory=True) as run:
        step(model, x)
    live = peak = 0
    for event in run.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


def test_peak_is_the_allocators_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_module, "block_bytes", int)
    model, x = network(), torch.randn(100, 64)
    step(model, x)
    tracker = AllocationTracker({})
    for tensor in (*model.parameters(), x):
        tracker.add(tensor, "base_weights", "")
    with tracker:
        tracker.mark("forward")
        step(model, x)
    (phase,) = tracker.timeline.phase_peaks()
    assert phase.peak_bytes - phase.begin_bytes == profiled_peak_bytes(model, x)
    assert phase.end_bytes == phase.begin_bytes


def test_storages_count_once_and_in_blocks() -> None:
    x = torch.randn(3)
    tracker = AllocationTracker({})
    tracker.add(x, "inputs", "")
    tracker.add(x.view(3, 1), "inputs", "")
    with tracker:
        tracker.mark("forward")
        kept = x + 1
        same = kept[1:]
        empty = torch.empty(0)
    (phase,) = tracker.timeline.phase_peaks()
    assert (phase.begin_bytes, phase.end_bytes) == (512, 1024)
    del kept, same, empty


def test_backward_operations_know_their_module() -> None:
    model, x = network(), torch.randn(10, 64)
    tracker = AllocationTracker({id(module): name for name, module in model.named_modules()})
    with tracker:
        tracker.mark("forward")
        loss = model(x).square().sum()
        tracker.mark("backward")
        loss.backward()
        tracker.label_gradients(model.parameters())
    made = {(a.op, a.module) for a in tracker.timeline.allocations if a.category == "backward"}
    assert ("aten._softmax_backward_data", "4") in made
    assert ("aten.gelu_backward", "1") in made
    gradients = [a for a in tracker.timeline.allocations if a.category == "gradients"]
    assert sorted(a.module for a in gradients) == ["0", "0", "2", "2", "3", "3"]


def test_flop_of_a_product() -> None:
    a, b = torch.randn(3, 5), torch.randn(5, 7)
    tracker = AllocationTracker({})
    with tracker:
        tracker.mark("forward")
        a @ b
    assert tracker.counts["forward", "aten.mm"] == [1, 2 * 3 * 5 * 7, 4 * (3 * 5 + 5 * 7 + 3 * 7)]


def test_flop_of_attention_on_the_cpu() -> None:
    q = torch.randn(2, 4, 16, 8)
    tracker = AllocationTracker({})
    with tracker:
        tracker.mark("forward")
        nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)
    pairs = 16 * 17 // 2  # causal
    assert sum(flop for _, flop, _ in tracker.counts.values()) == 2 * 2 * 2 * 4 * pairs * 8
