"""What an answer says about layers without attention."""

from __future__ import annotations

from pathlib import Path

import pytest

from advisor import advise
from advisor.answer import Advice
from advisor.export.training_file import training_file

MODEL = "qwen3.5-4b"


def said(advice: Advice) -> list[str]:
    return [note.text for note in advice.notes if "without attention" in note.text]


@pytest.mark.parametrize(("kernels", "begins"), [(None, "kernels of"), ("torch", "transformers' own PyTorch code")])
def test_both_ways_are_printed(kernels: str | None, begins: str) -> None:
    found = advise(MODEL, "rtx4090", 3000, method="qlora", sequence_kernels=kernels)
    other = advise(MODEL, "rtx4090", 3000, method="qlora", sequence_kernels="torch" if kernels is None else "packages")
    (text,) = said(found)
    assert text.startswith(
        f"Layers without attention are counted with the {begins}"
        if kernels is None
        else f"Layers without attention are counted with {begins}"
    )
    assert " GiB" in text
    assert " times as long" in text
    assert "flash-linear-attention" in text
    assert said(other) != said(found)


def test_the_models_own_code_needs_more_and_takes_longer() -> None:
    knobs = {"method": "lora", "micro_batch": 2, "gradient_checkpointing": False}
    packages, own = (
        advise(MODEL, "h100", 3000, sequence_kernels=kernels, **knobs).candidates[0]
        for kernels in ("packages", "torch")
    )
    assert own.memory.needed_bytes.likely > 1.2 * packages.memory.needed_bytes.likely
    assert packages.time is not None
    assert own.time is not None
    assert own.time.total_s.likely > 1.2 * packages.time.total_s.likely


@pytest.mark.parametrize(("card", "kernels", "warned"), [("h100", None, 1), ("h100", "torch", 0), ("a100", None, 0)])
def test_hopper_cards_need_a_triton_that_the_kernels_accept(card: str, kernels: str | None, warned: int) -> None:
    notes = advise(MODEL, card, 3000, method="lora", sequence_kernels=kernels).notes
    assert sum("Triton from 3.4.0" in note.text for note in notes) == warned


def test_packed_examples_are_mixed() -> None:
    kernels, own = (
        said(advise(MODEL, "h100", 3000, method="lora", packing=True, sequence_kernels=one))[1]
        for one in ("packages", "torch")
    )
    assert "unless the collator passes where each begins" in kernels
    assert "raise an error" in own


def test_nothing_is_said_of_models_with_attention_alone() -> None:
    assert said(advise("qwen3-8b", "h100", 3000)) == []


def test_a_choice_of_kernels_has_no_effect_where_all_layers_have_attention() -> None:
    found = advise("qwen3-8b", "h100", 3000, sequence_kernels="torch").recommendation
    assert found is not None
    assert any("--sequence-kernels has no effect on qwen3-8b" in one.text for one in found.warnings)


@pytest.mark.parametrize(("kernels", "installed"), [("packages", True), ("torch", False)])
def test_a_script_installs_the_kernels_that_are_counted(kernels: str, *, installed: bool, tmp_path: Path) -> None:
    data = tmp_path / "train.jsonl"
    data.write_text('{"text": "one"}\n{"text": "two"}\n', encoding="utf-8")
    found = advise(MODEL, "h100", method="lora", sequence_kernels=kernels, data=str(data))
    text = training_file(found, found.candidates[0]).text
    assert ("flash-linear-attention causal-conv1d" in text.splitlines()[0]) is installed
