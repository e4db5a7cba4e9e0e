"""A script is read for what it does when nobody gives it flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advisor.configs.reading import read_config

LOADS = "model = AutoModelForCausalLM.from_pretrained('gpt2')\n"
TRAINS = "Trainer(model=model, args=TrainingArguments(per_device_train_batch_size={}))\n"
OPTIONS = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--rows", type=int, default=4)
parser.add_argument("--smoke-test", action="store_true")
parser.add_argument("--keep", action="store_false", dest="kept")
parser.add_argument("name")
options = parser.parse_args()
"""


def knobs_of(folder: Path, text: str) -> dict[str, Any]:
    (folder / "train.py").write_text(text)
    return read_config(str(folder / "train.py")).found.knobs


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ("options.rows", 4),
        ("2 if options.smoke_test else 16", 16),
        ("2 if not options.kept else 8", 8),
        ("options.name", 8),  # only the run knows it: the Trainer's own
    ],
)
def test_an_option_is_what_it_is_by_itself(rows: str, wanted: int, tmp_path: Path) -> None:
    assert knobs_of(tmp_path, OPTIONS + LOADS + TRAINS.format(rows))["micro_batch"] == wanted


@pytest.mark.parametrize(
    ("before", "wanted"),
    [
        ("rows, extra = 2, None\nif extra is not None:\n    rows = 3\n", 2),
        ("rows = 2\nif options.smoke_test:\n    rows = 3\nelse:\n    rows = 5\n", 5),
        ("rows = 2\nif options.kept:\n    rows = 3\nelse:\n    rows = 5\n", 3),
        ("rows = 2\nif unknown():\n    rows = 3\n", 8),  # only the run knows which: the Trainer's own
    ],
)
def test_a_branch_that_is_not_taken_is_left_out(before: str, wanted: int, tmp_path: Path) -> None:
    assert knobs_of(tmp_path, OPTIONS + LOADS + before + TRAINS.format("rows"))["micro_batch"] == wanted


@pytest.mark.parametrize(
    ("line", "knob", "wanted"),
    [
        ("MAX_LENGTH = 700", "seq_len", 700),
        ("rows = rows.map(group_texts, batched=True)", "packing", True),
        ("rows = rows.map(tokenize, batched=True)", "packing", False),
        ("collator = DataCollatorWithFlattening()", "padding", "none"),
        ("collator = DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=8)", "pad_to_multiple_of", 8),
        ("collator = DataCollatorWithPadding(tokenizer, padding='max_length')", "padding", "max_length"),
    ],
)
def test_what_a_loop_does_with_rows(line: str, knob: str, wanted: Any, tmp_path: Path) -> None:
    assert knobs_of(tmp_path, f"{LOADS}{line}\n{TRAINS.format(1)}")[knob] == wanted


QLORA = """
model = AutoModelForCausalLM.from_pretrained("gpt2", quantization_config=BitsAndBytesConfig(load_in_4bit=True))
{}
model = get_peft_model(model, LoraConfig(r=8))
Trainer(model=model, args=TrainingArguments(per_device_train_batch_size=1))
"""


@pytest.mark.parametrize(
    ("line", "upcast", "checkpointing"),
    [
        ("", False, False),
        ("model = prepare_model_for_kbit_training(model)", True, True),
        ("model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)", True, False),
    ],
)
def test_preparing_a_quantized_base_upcasts_and_checkpoints(
    line: str, upcast: bool, checkpointing: bool, tmp_path: Path
) -> None:
    knobs = knobs_of(tmp_path, QLORA.format(line))
    assert (knobs["kbit_upcast"], knobs["gradient_checkpointing"]) == (upcast, checkpointing)


def test_weights_that_the_script_casts_are_not_known(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(f"{LOADS}for p in model.parameters():\n    p.data = p.data.half()\nTrainer()\n")
    (unread,) = read_config(str(tmp_path / "train.py")).found.unread
    assert (unread.key, unread.why) == ("casts", "weights are put in another dtype")


@pytest.mark.parametrize("bits", ["load_in_8bit=True", "load_in_4bit=False"])
def test_keys_of_four_bits_mean_nothing_without_them(bits: str, tmp_path: Path) -> None:
    script = QLORA.format("").replace("load_in_4bit=True", f"{bits}, bnb_4bit_quant_type='nf4'")
    (tmp_path / "train.py").write_text(script)
    assert read_config(str(tmp_path / "train.py")).found.unread == ()


def test_bits_that_only_the_run_knows_are_asked_for(tmp_path: Path) -> None:
    script = QLORA.format("").replace("load_in_4bit=True", "load_in_4bit=small(), bnb_4bit_quant_type='nf4'")
    (tmp_path / "train.py").write_text(script)
    (unread,) = read_config(str(tmp_path / "train.py")).found.unread
    assert (unread.key, unread.settled_by) == ("storage.load_in_4bit", ("method",))
