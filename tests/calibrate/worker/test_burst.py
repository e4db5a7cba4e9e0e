"""Real bursts of tiny models on the CPU, and the same code on a stand-in for a card."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from advisor.costs.micro_batches import MicroBatch
from advisor.errors import BadValue
from advisor.specs import METHODS, QUANTIZED_METHODS, Recipe, Workload
from calibrate.batches import draw
from calibrate.compare import predicted_memory
from calibrate.cut import spec_of
from calibrate.nvml import WatchedCard
from calibrate.predict import step_peaks
from calibrate.worker import burst
from calibrate.worker.burst import Limits, Training, is_stable, run_burst, static_terms
from calibrate.worker.device import CpuDevice, CudaDevice
from tests.calibrate.fake_cuda import GIB, FakeCuda, fake_nvml

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
TERMS = ("base_weights_bytes", "quantization_bytes", "adapters_bytes", "optimizer_states_bytes")
FEW = Limits(3, 10.0)
SEQ_LEN = 64


def recipe(method: Any, **knobs: Any) -> Recipe:
    if method in QUANTIZED_METHODS:
        knobs.setdefault("quant", "nf4")
    return Recipe(method=method, rank=8, alpha=16.0, **knobs)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("method", METHODS)
def test_the_formula_is_right_about_a_real_step(method: str, foreign_bytes: int) -> None:
    """The peak within 1 %, every static term to the byte."""
    chosen = recipe(method, gradient_checkpointing=method in ("lora", "qdora"))
    spec = spec_of("tiny", CONFIG)
    assert spec is not None
    predicted = predicted_memory(spec, chosen, 1, SEQ_LEN)
    news: list[Any] = []
    measured, run = run_burst(CONFIG, chosen, MicroBatch(1, SEQ_LEN), CpuDevice(), FEW, news.append)
    assert measured.after_forward_bytes is not None
    assert measured.static_bytes is not None
    own_peak, own_after, own_static = (
        found - foreign_bytes
        for found in (measured.peak_allocated_bytes, measured.after_forward_bytes, measured.static_bytes)
    )
    assert own_peak == pytest.approx(predicted.peak_allocated_bytes, rel=0.01)
    assert own_after == pytest.approx(predicted.after_forward_bytes, rel=0.01)
    assert own_static == pytest.approx(predicted.static_bytes, rel=0.001)
    assert [getattr(measured, term) for term in TERMS] == [getattr(predicted, term) for term in TERMS]
    assert len(run.step_s) == len(run.micro_step_s) == len(run.host_s) == 3
    assert [one["steps"] for one in news if "steps" in one] == [1, 2, 3]
    assert sum("warm_up_s" in one for one in news) == len(run.warm_up_s) >= 2
    assert (measured.peak_reserved_bytes, measured.device_bytes, run.device_step_s) == (None, None, ())


def test_accumulation_makes_several_micro_steps_of_a_step() -> None:
    measured, run = run_burst(
        CONFIG, recipe("full", gradient_accumulation=3), MicroBatch(1, 16), CpuDevice(), FEW, lambda _: None
    )
    assert (len(run.step_s), len(run.micro_step_s)) == (3, 9)
    assert measured.micro_step_s is not None
    assert measured.step_s is not None
    assert measured.micro_step_s < measured.step_s


def test_the_step_learns() -> None:
    """Every trained tensor moves, the frozen ones stay, and no gradient is left."""
    training = Training(CONFIG, recipe("lora"), MicroBatch(1, 16), CpuDevice())
    before = {name: p.detach().clone() for name, p in training.model.named_parameters()}
    for _ in range(2):
        training.step()
    moved = {name for name, p in training.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name, p in training.model.named_parameters() if p.requires_grad}
    assert all(p.grad is None for p in training.trained)
    (inputs,) = training.batches
    assert inputs["labels"] is inputs["input_ids"]
    assert int(inputs["input_ids"].max()) > 1000


def test_on_a_card_its_own_counters_and_events_count() -> None:
    fake = FakeCuda()
    device = CudaDevice(fake, "cpu", WatchedCard(fake_nvml(), "card"))
    measured, run = run_burst(CONFIG, recipe("lora", autocast=False), MicroBatch(1, 16), device, FEW, lambda _: None)
    assert (measured.peak_allocated_bytes, measured.peak_reserved_bytes) == (5 * GIB, 6 * GIB)
    assert measured.device_bytes == int(6.5 * GIB)
    assert measured.static_bytes is not None
    assert measured.after_forward_bytes == measured.static_bytes + 1
    assert len(run.device_step_s) == 3
    assert run.clocks_hz == (1.8e9,) * 3
    assert run.throttled == ("power limit", "temperature")
    assert run.before.power_limit_w == 220.0
    assert "reset_peak_memory_stats" in fake.calls


ROWS = Workload(seq_len=SEQ_LEN, mean_seq_len=30)
PADDED = MicroBatch(2, SEQ_LEN, True)


@pytest.mark.parametrize(
    ("batch", "evaluated"),
    [(PADDED, MicroBatch(3, SEQ_LEN, True)), (MicroBatch(1, 2 * SEQ_LEN, True, True), MicroBatch(4, SEQ_LEN))],
)
def test_the_formula_is_right_about_padded_and_packed_rows_and_evaluation(
    batch: MicroBatch, evaluated: MicroBatch, foreign_bytes: int
) -> None:
    chosen, spec = recipe("qlora", gradient_checkpointing=True, micro_batch=2), spec_of("tiny", CONFIG)
    assert spec is not None
    predicted = predicted_memory(spec, chosen, batch.rows, batch.tokens, batch.kind, evaluated)
    measured, _ = run_burst(CONFIG, chosen, batch, CpuDevice(), FEW, lambda _: None, evaluated=evaluated)
    assert measured.evaluation_bytes is not None
    assert predicted.peak_allocated_bytes == pytest.approx(measured.peak_allocated_bytes - foreign_bytes, rel=0.01)
    assert predicted.evaluation_bytes == pytest.approx(measured.evaluation_bytes - foreign_bytes, rel=0.01)


def test_every_step_of_varying_rows_is_within_one_percent(foreign_bytes: int) -> None:
    chosen, spec = recipe("lora", micro_batch=2, gradient_accumulation=2), spec_of("tiny", CONFIG)
    assert spec is not None
    draws = draw(ROWS, chosen, steps=4)
    predicted = step_peaks(spec, chosen, draws, CpuDevice().facts())[1:]
    measured, run = run_burst(CONFIG, chosen, PADDED, CpuDevice(), FEW, lambda _: None, draws=draws)
    assert [found - foreign_bytes for found in run.step_peak_bytes] == pytest.approx(predicted, rel=0.01)
    assert len(set(run.step_peak_bytes)) == 4
    assert run.step_reserved_bytes == (None,) * 4
    assert measured.peak_allocated_bytes == max(run.step_peak_bytes)
    assert measured.peak_reserved_bytes is None
    assert measured.step_s is None  # no step is like another
    assert run.row_lengths[-1] == (1.0, max(length for step in draws for one in step for length in one.lengths))


def test_on_a_card_every_step_has_its_counters() -> None:
    fake = FakeCuda()
    device = CudaDevice(fake, "cpu", WatchedCard(fake_nvml(), "card"))
    chosen = recipe("lora", autocast=False)
    draws = draw(ROWS, chosen, steps=2)
    measured, run = run_burst(CONFIG, chosen, MicroBatch(1, 16), device, FEW, lambda _: None, draws=draws)
    assert (run.step_peak_bytes, run.step_reserved_bytes) == ((5 * GIB,) * 2, (6 * GIB,) * 2)
    assert measured.peak_reserved_bytes == 6 * GIB
    assert fake.calls.count("reset_peak_memory_stats") == 3
    assert fake.calls.count("empty_cache") == 1


def test_steps_of_varying_rows_end_with_the_budget() -> None:
    draws = draw(ROWS, recipe("lora"), steps=9)
    late = Limits(9, 10.0, 0.0)
    _, run = run_burst(CONFIG, recipe("lora"), MicroBatch(1, 16), CpuDevice(), late, lambda _: None, draws=draws)
    assert len(run.step_peak_bytes) == 1


def test_static_terms_count_a_shared_storage_once() -> None:
    tied = CONFIG | {"tie_word_embeddings": True}
    training = Training(tied, recipe("full", optimizer="adamw_8bit"), MicroBatch(1, 16), CpuDevice())
    training.step()
    spec = spec_of("tied", tied)
    assert spec is not None
    predicted = predicted_memory(spec, recipe("full", optimizer="adamw_8bit"), 1, 16)
    found = static_terms(training.model, training.optimizer)
    assert found == {term: getattr(predicted, term) for term in TERMS}


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(BadValue, match="flash"):
        run_burst(CONFIG, recipe("lora", attention="flash"), MicroBatch(1, 16), CpuDevice(), FEW, lambda _: None)


@pytest.mark.parametrize(
    ("times_s", "stable"),
    [
        ([0.1] * 4, False),  # too few
        ([0.1] * 5, True),
        ([0.2, 0.15, 0.12, 0.1, 0.1, 0.1], False),  # still getting faster
        ([0.1, 0.12] * 4, False),  # noisy
        ([0.1, 0.1005] * 40, True),
    ],
)
def test_when_a_median_is_stable(times_s: list[float], stable: bool) -> None:
    assert is_stable(times_s) is stable


class Steps:
    """A training whose steps take what it is told, after the clock of the burst."""

    def __init__(self, times_s: list[float]) -> None:
        self._times_s = iter(times_s)
        self.device = CpuDevice()
        self.now_s = 0.0

    def step(self) -> burst.StepSeconds:
        took_s = next(self._times_s)
        self.now_s += took_s
        return burst.StepSeconds(took_s, took_s, (took_s,), took_s)

    def agreed(self, decision: bool) -> bool:
        return decision


def stepping(monkeypatch: pytest.MonkeyPatch, times_s: list[float]) -> Any:
    steps = Steps(times_s)
    monkeypatch.setattr(burst.time, "perf_counter", lambda: steps.now_s)
    return steps


def test_warm_up_ends_when_steps_get_no_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    def warm(times_s: list[float], limit_s: float = 100.0) -> int:
        return len(burst._warm_up(stepping(monkeypatch, times_s), Limits(0, limit_s), lambda _: None))

    assert warm([1.0, 0.1, 0.1, 0.1]) == 3
    assert warm([0.1, 0.1, 0.1]) == 2
    assert warm([6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.5]) == 6
    assert warm([6.0, 5.0, 4.0, 3.0], limit_s=15.0) == 2


def test_timing_ends_when_stable_or_out_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def timed(times_s: list[float], limits: Limits) -> int:
        return len(burst._timed(stepping(monkeypatch, times_s), limits, lambda _: None)[0])

    assert timed([0.1] * 300, Limits(0, 100.0)) == 5
    assert timed([0.1, 0.2] * 150, Limits(0, 3.0)) == 20
    assert timed([9.0] * 300, Limits(0, 3.0)) == 5  # never fewer
    assert timed([0.1] * 300, Limits(12, 0.1)) == 12
    assert timed([0.1, 0.2] * 150, Limits(0, 1e9)) == 200
    assert timed([0.1] * 300, Limits(100, 1e9, 3.05)) == 28  # two more are kept for the memory, and one for the next
    assert timed([9.0] * 300, Limits(100, 1e9, 1.0)) == 1
