"""Loops that put parameters in other dtypes: what they do is found without running them, or it is told."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from advisor.advice.advise import advise
from advisor.advice.check import check
from advisor.configs.casts import casts_of
from advisor.configs.reading import read_config
from advisor.export.training_file import training_file

ADAPTED = """
model = AutoModelForCausalLM.from_pretrained("gpt2")
model = get_peft_model(model, LoraConfig(r=8, use_dora=True))
"""
TRAINS = "\nTrainer(model=model, args=TrainingArguments(per_device_train_batch_size=1))\n"
CAST = """
for p in model.parameters():
    if p.requires_grad:
        p.data = p.data.to(torch.bfloat16)
"""


@pytest.mark.parametrize(
    ("text", "dtypes"),
    [
        (CAST, {"adapter_dtype": "bfloat16", "magnitude_dtype": "bfloat16", "trained_dtype": "bfloat16"}),
        (
            "for n, p in m.named_parameters():\n    if 'lora_A' in n or 'lora_B' in n:\n        p.data = p.data.half()",
            {"adapter_dtype": "float16"},
        ),
        (
            "for n, p in m.named_parameters():\n    d = wide if '.modules_to_save.' in n else p.dtype\n"
            "    if p.requires_grad:\n        p.data = p.to(d)",
            {"adapter_dtype": "base", "magnitude_dtype": "base", "trained_dtype": "float32"},
        ),
    ],
)
def test_a_loop_over_adapters_is_understood(text: str, dtypes: dict[str, str]) -> None:
    (loop,) = ast.parse(text).body
    assert isinstance(loop, ast.For)
    assert casts_of(loop, {"wide": "float32"}) == dtypes


@pytest.mark.parametrize(
    "text",
    [
        "for p in m.parameters():\n    p.data = p.data.half()",  # the base, too
        "for p in m.parameters():\n    if p.ndim == 1:\n        p.data = p.data.float()",
        "for p in m.parameters():\n    if p.requires_grad:\n        p.data = p.data.to(kind)",
        "for p in m.parameters():\n    if p.requires_grad:\n        p.data = p.data.to('cuda')",
        "for p in m.parameters():\n    if p.requires_grad:\n        q.data = p.data.half()",
        "for p in m.parameters():\n    if p.requires_grad:\n        change(p)",
        "for p in chosen:\n    p.data = p.data.half()",
    ],
)
def test_another_loop_is_not(text: str) -> None:
    (loop,) = ast.parse(text).body
    assert isinstance(loop, ast.For)
    assert casts_of(loop, {}) is None


@pytest.mark.parametrize(
    ("text", "unread"),
    [
        (ADAPTED + CAST, []),
        (ADAPTED + CAST.replace("p.requires_grad", "p.ndim > 1"), ["casts"]),
        (f"{ADAPTED}\nif unknown():{CAST.replace(chr(10), chr(10) + '    ')}", ["casts"]),
        (ADAPTED.replace("model = get", f"{CAST}model = get"), ["casts"]),
        (f"{ADAPTED}for p in model.parameters():\n    p.requires_grad = False\n", []),
        (
            f"{ADAPTED.partition('model = get')[0]}for p in model.parameters():\n    p.requires_grad = False\n",
            ["freezes"],
        ),
        (f"{ADAPTED}rows.data = read()\n", []),
    ],
)
def test_what_is_not_understood_is_unread(text: str, unread: list[str], tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(text + TRAINS)
    assert [one.key for one in read_config(str(tmp_path / "train.py")).found.unread] == unread


@pytest.mark.parametrize("trainer", ["trl", "llamafactory"])
def test_adapters_that_a_written_script_casts_are_read(
    trainer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = advise("llama-3.2-1b", "a100-80gb", 3000, trainer=trainer, method="qlora", modules_to_save=["lm_head"])
    was = answer.candidates[0]
    Path("train.py").write_text(training_file(answer, was, "python").text)
    checked = check("train.py", "a100-80gb", examples=3000)
    assert checked.unread == ()
    assert checked.advice is not None
    read = checked.advice.candidates[0].recipe
    names = ("adapter_dtype", "trained_dtype", "kbit_upcast", "modules_to_save")
    assert [getattr(read, one) for one in names] == [getattr(was.recipe, one) for one in names]


@pytest.mark.parametrize(
    ("config", "kernels"),
    [
        ("{}", "liger"),
        ("{'rope': False, 'swiglu': False, 'geglu': False}", "liger_norm,liger_loss"),
        ("{'swiglu': False}", None),  # it has another name on some models
    ],
)
def test_ligers_kernels_are_those_that_are_left_on(config: str, kernels: str | None, tmp_path: Path) -> None:
    arguments = f"TrainingArguments(use_liger_kernel=True, liger_kernel_config={config})"
    (tmp_path / "train.py").write_text(f"{ADAPTED}Trainer(model=model, args={arguments})\n")
    found = read_config(str(tmp_path / "train.py")).found
    assert [one.key for one in found.unread] == ([] if kernels else ["arguments.liger_kernel_config"])
    assert kernels in (None, found.knobs["kernels"])
