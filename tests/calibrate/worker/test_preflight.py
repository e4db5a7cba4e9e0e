"""A run's own objects before it starts: the same estimate as the flags give, or one line."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, TrainingArguments

from advisor.advice.advise import advise
from advisor.errors import InputError, UnsupportedArchitecture
from calibrate import preflight
from tests.decoders.tiny import config, spec

ROWS = [{"input_ids": [1] * length} for length in (10, 30, 200)]


def model_of(name: str = "llama") -> Any:
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config(name, 2)))


def arguments(**values: Any) -> TrainingArguments:
    given = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "use_cpu": True, "report_to": []}
    return TrainingArguments(output_dir="unused", **{**given, **values})


def test_before_and_after_peft_wraps_the_model_it_is_the_same() -> None:
    adapter = LoraConfig(r=8, target_modules=["q_proj", "v_proj"], lora_alpha=16)
    before = preflight(model_of(), adapter, arguments(), ROWS, gpu="24GB", seq_len=128)
    after = preflight(get_peft_model(model_of(), adapter), None, arguments(), ROWS, gpu="24GB", seq_len=128)
    assert before.row.memory == after.row.memory
    assert before.advice.workload == after.advice.workload
    assert (before.advice.workload.examples, before.advice.workload.mean_seq_len) == (3, 56)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_it_answers_as_the_flags_do(checkpointing: bool) -> None:
    found = preflight(model_of(), None, arguments(gradient_checkpointing=checkpointing), gpu="24GB", seq_len=128)
    flags = {"base_dtype": "float32", "gradient_checkpointing": checkpointing, "autocast": False}
    asked = advise(
        spec("llama", 2),
        "24GB",
        **{"method": "full", "micro_batch": 2, "batch_size": 8, "seq_len": 128, "epochs": 3},
        expandable_segments=False,
        **flags,
    )
    assert found.row.memory.needed_bytes == asked.candidates[0].memory.needed_bytes
    assert found.verdict == "fits"
    assert str(found).startswith("full fine-tuning of")


def test_what_is_not_known_is_said() -> None:
    assert any("how long rows are" in note for note in preflight(model_of(), None, arguments(), gpu="24GB").notes)


def test_bad_input_is_one_line() -> None:
    adapter = LoraConfig(r=8, target_modules=["q_proj"])
    with pytest.raises(InputError, match="training_args is missing"):
        preflight(model_of(), adapter)
    with pytest.raises(InputError, match="has adapters already"):
        preflight(get_peft_model(model_of(), adapter), adapter, arguments(), gpu="24GB")
    with pytest.raises(InputError, match="peft_config is a dict"):
        preflight(model_of(), {}, arguments(), gpu="24GB")
    sizes = {"vocab_size": 99, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    odd = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model("t5", **sizes))
    with pytest.raises(UnsupportedArchitecture, match="has no formula"):
        preflight(odd, None, arguments(), gpu="24GB")
