"""Files that are none, or that would hurt: one line each, within a second, nothing executed."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import pytest

from advisor.configs.reading import read_config
from advisor.errors import AdvisorError, BadConfig
from tests.configs.test_formats import (
    AXOLOTL_QLORA,
    LITGPT,
    LLAMAFACTORY,
    SCRIPT,
    SWIFT,
    TORCHTUNE,
    TRL,
    UNSLOTH,
)

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.yaml", "", "holds no keys"),
        ("a.yaml", "- 1\n- 2\n", "holds no keys"),
        ("a.yaml", "just words", "holds no keys"),
        ("a.yaml", "a: [1, 2\nb: {", "not YAML"),
        ("a.yaml", "base_model: !!python/object/apply:os.system ['touch hurt']", "no plain value"),
        ("a.yaml", BOMB, "more values than"),
        ("a.yaml", "a: " + "[" * 100_000, "nested too deep"),
        ("a.yaml", "".join(f"{' ' * i}a:\n" for i in range(700)), "nested too deep"),
        ("a.yaml", "a: 1\nb: 2\n", "cannot be told from its keys (a, b"),
        ("a.yaml", "model: gpt2\ntrain_dataset: a.yaml\n", "a file of LLaMA-Factory v1"),
        ("a.yaml", "model: {}\nstep_scheduler: {}\n", "a recipe of NeMo Automodel"),
        ("a.yaml", "model: gpt2\nrank: 8\n", "cannot be told from its keys (model, rank"),
        ("a.yaml", "? [1, 2]\n: 3\n", "a key that is no word"),
        (
            "a.yaml",
            f"{AXOLOTL_QLORA}lora_r: many\n",
            f"line {len(AXOLOTL_QLORA.splitlines()) + 1}, lora_r: --rank is 'many'",
        ),
        ("a.yaml", f"{AXOLOTL_QLORA}sequence_len: [1]\n", "sequence_len: --seq-len"),
        ("a.yaml", f"{AXOLOTL_QLORA}max_steps: soon\n", "max_steps: 'soon' is no number"),
        ("a.json", "{", "not JSON"),
        ("a.py", "def (", "not Python"),
        ("a.py", "x = " + "(" * 5000, "not Python"),
        ("a.py", "print(1)", "cannot be told"),
        ("a.ipynb", "{}", "not a notebook"),
        ("a.sh", "echo hello", "no command that trains"),
        ("a.toml", "a = 1", "not a kind of file that is read (.toml)"),
        ("a", "a = 1", "not a kind of file that is read (no ending)"),
    ],
)
def test_one_line_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(text)
    start = time.perf_counter()
    with pytest.raises(BadConfig) as error:
        read_config(name)
    assert words in str(error.value)
    assert time.perf_counter() - start < 1
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("data", [b"\x00\x01\xff\xfe" * 100, "base_model: caf\u00e9".encode("utf-16")])
def test_other_encodings_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.yaml").write_bytes(data)
    with pytest.raises(AdvisorError):
        read_config(str(tmp_path / "a.yaml"))


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    with pytest.raises(BadConfig, match="larger than 1 MiB"):
        read_config(str(path))


def test_a_notebook_may_hold_pictures(tmp_path: Path) -> None:
    code = 'from trl import SFTConfig, SFTTrainer\nSFTTrainer("gpt2", args=SFTConfig(per_device_train_batch_size=3))'
    picture = {"output_type": "display_data", "data": {"image/png": "A" * 3_000_000}}
    cell = {"cell_type": "code", "source": code, "outputs": [picture]}
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": [cell]}))
    assert read_config(str(path)).found.knobs["micro_batch"] == 3
    path.write_text(json.dumps({"cells": [{**cell, "outputs": [picture] * 3}]}))
    with pytest.raises(BadConfig, match="larger than 8 MiB"):
        read_config(str(path))


def test_a_pipe_and_a_folder_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    with pytest.raises(BadConfig, match="a pipe"):
        read_config(str(tmp_path / "a.yaml"))
    (tmp_path / "b.yaml").mkdir()
    with pytest.raises(BadConfig, match="a folder"):
        read_config(str(tmp_path / "b.yaml"))
    with pytest.raises(BadConfig, match="a folder"):
        read_config(str(tmp_path))
    with pytest.raises(BadConfig, match="standard input"):
        read_config("-")


def test_a_misspelled_key_names_the_one_that_it_may_stand_for(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    path.write_text("base_model: llama-8b\nadapter: lora\ngradient_acumulation_steps: 4\nnew_kernel: 1\n")
    whys = {one.key: one.why for one in read_config(str(path)).found.unread}
    assert whys["gradient_acumulation_steps"].endswith("; did you mean gradient_accumulation_steps?")
    assert "did you mean" not in whys["new_kernel"]


def test_merged_keys_and_anchors_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"base: &base\n  a: 1\n{AXOLOTL_QLORA}peft:\n  <<: *base\n")
    assert read_config(str(tmp_path / "a.yaml")).tree.values["peft"] == {"a": 1}


WORDS = ["null", "true", "[]", "{}", "-1", "1e400", "'", '"', "&a", "*a", "!!python/name:os.system", "\x00", "9" * 400]
"""What is put into texts at random places."""


@pytest.mark.parametrize("name", ["a.yml", "a.sh", "a.py"])
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path: Path, name: str) -> None:
    draw = random.Random(7)
    texts = {
        "a.yml": (AXOLOTL_QLORA, LLAMAFACTORY, TRL, TORCHTUNE, LITGPT),
        "a.sh": (SWIFT,),
        "a.py": (UNSLOTH, SCRIPT),
    }
    path = tmp_path / name
    for _ in range(150):
        text = draw.choice(texts[name])
        for _ in range(draw.randint(1, 5)):
            at = draw.randrange(len(text))
            text = text[:at] + draw.choice(["", *WORDS]) + text[at + draw.randint(0, 20) :]
        path.write_text(text)
        try:
            said = read_config(str(path)).found.format
        except AdvisorError as error:
            said = str(error)
        assert said
        assert "\n" not in said
