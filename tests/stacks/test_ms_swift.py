"""ms-swift's choice of the tokens that its head sees, against traces of transformers' models that are given them."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.advice.advise import advise
from advisor.costs.memory import predict_step_memory
from advisor.decoders.stack import THIS_STACK
from advisor.specs import Workload
from advisor.stacks import stack_for
from advisor.stacks.ms_swift import FEWEST, MsSwift
from tests.decoders.tiny import config, recipe, spec

TOKENS = 48
NAMES = ("ms-swift", "transformers")
BLOCKS = 2048
"""Labels are a tensor of their own here, the indices of tokens take 8 bytes, and the mask of them 1."""


@pytest.mark.parametrize(
    ("name", "method", "batch", "fewest", "checkpointing"),
    [
        ("llama", "lora", 1, False, True),
        ("llama", "full", 1, False, False),
        ("gemma2", "qlora", 1, True, False),
        ("qwen2", "lora", 2, False, False),
        ("gemma2", "lora", 2, True, True),
        ("llama", "qlora", 2, True, False),
    ],
)
def test_a_step_equals_its_trace(
    name: str, method: str, batch: int, fewest: bool, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    from calibrate.worker import dryrun

    plain = dryrun.step_inputs

    def seen(model: Any, rows: int, length: int, kind: Any = "full", pictures: Any = ()) -> dict[str, Any]:
        """ms-swift 4.6.0, trainers/mixin.py, prepare_logits_to_keep; fake tensors have no masks that pick."""
        count = FEWEST if fewest else length
        labels = torch.zeros(rows, count, dtype=torch.long)
        kept = torch.arange(length - count, length) if rows == 1 else (count if fewest else length + 1)
        return {**plain(model, rows, length, kind, pictures), "labels": labels, "logits_to_keep": kept}

    monkeypatch.setattr(dryrun, "step_inputs", seen)
    m = spec(name, 2)
    chosen = recipe(m, method, gradient_checkpointing=checkpointing)
    trace = dryrun.trace_step(config(name, 2), chosen, batch, TOKENS, name_modules=False)
    predicted = predict_step_memory(m, chosen, batch, TOKENS, "cpu", stack=MsSwift(fewest=fewest))
    assert predicted.peak_bytes == pytest.approx(trace.peak_bytes, abs=BLOCKS)
    for phase in ("forward", "backward"):
        assert predicted.phase_peaks[phase] == pytest.approx(trace.phase(phase).peak_bytes, abs=BLOCKS)


def test_the_interval_reaches_down_to_hardly_any_token() -> None:
    asked: dict[str, Any] = {"method": "lora", "dropout": 0.0, "micro_batch": 1, "gradient_checkpointing": True}
    asked |= {"seq_len": 4096, "mean_seq_len": 4096}
    swift, plain = (advise("llama-3.2-1b", "24GB", trainer=one, **asked).candidate("lora") for one in NAMES)
    logits = 12 * 4096 * 128_256  # at the peak of backward
    needed, usual = swift.memory.needed_bytes, plain.memory.needed_bytes
    assert needed.high >= needed.likely >= usual.likely
    assert needed.low < usual.low - logits / 2
    assert "which tokens its head sees" in swift.evidence.memory
    assert not swift.evidence.unknown


def test_one_row_is_picked_by_a_mask() -> None:
    from advisor.catalog import find_gpus, find_model

    m = find_model("llama-3.2-1b")
    chosen = recipe(m, "lora", stack=("ms-swift-4.6",))
    stack = stack_for(chosen, find_gpus("a100-80gb")[0], Workload())
    assert isinstance(stack, MsSwift)
    assert stack.name.startswith("ms-swift 4.6, ")
    picked, plain = (
        [predict_step_memory(m, chosen, rows, 512, stack=one) for rows in (1, 2)] for one in (stack, THIS_STACK)
    )
    copied = picked[0].phase_peaks["forward"] - plain[0].phase_peaks["forward"]
    assert copied >= 2 * 512 * m.hidden_size  # the states of all tokens once more
    assert picked[1].phase_peaks == plain[1].phase_peaks
