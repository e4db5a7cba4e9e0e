"""Encoders and hybrids as they are asked for: what is trained, what is refused, what the answer says."""

from __future__ import annotations

from typing import Any

import pytest

from advisor import advise
from advisor.answer import Advice
from advisor.errors import AdvisorError, BadValue, InputError
from advisor.export.training_file import training_file


def asked(model: str, **knobs: Any) -> Advice:
    return advise(model, "24GB", examples=1000, method="lora", **knobs)


def notes(advice: Advice) -> str:
    return " ".join(reason.text for reason in advice.notes)


def test_a_batch_of_texts_is_one_micro_batch_unless_it_is_set() -> None:
    recipe = asked("bge-small-en-v1.5", batch_size=32).candidate("lora").recipe
    assert (recipe.micro_batch, recipe.gradient_accumulation) == (32, 1)
    recipe = asked("bge-small-en-v1.5", batch_size=32, micro_batch=8).candidate("lora").recipe
    assert (recipe.micro_batch, recipe.gradient_accumulation) == (8, 4)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("bge-small-en-v1.5", "is trained for embeddings"),
        ("bert-base-uncased", "is trained on masked tokens"),
        ("lfm2-350m", "--sequence-kernels torch"),
    ],
)
def test_the_answer_says_what_is_not_as_in_other_models(model: str, said: str) -> None:
    assert said in notes(asked(model))


def test_packing_mixes_examples_in_layers_without_attention() -> None:
    assert "mix packed examples" in notes(asked("lfm2-350m", packing=True))


@pytest.mark.parametrize(
    ("knobs", "said"), [({"packing": True}, "one a row"), ({"loss": "chunked"}, "no loss on next tokens")]
)
def test_what_texts_cannot_have_is_refused(knobs: dict[str, Any], said: str) -> None:
    with pytest.raises(BadValue, match=said):
        asked("bge-small-en-v1.5", **knobs)


def test_scores_of_decoders_are_not_quoted_for_an_encoder() -> None:
    knobs = {"examples": 1000, "method": "dora"}
    of_an_encoder, of_a_decoder = (advise(name, "24GB", **knobs) for name in ("bge-small-en-v1.5", "qwen3-0.6b"))
    texts = []
    for advice in (of_an_encoder, of_a_decoder):
        assert advice.recommendation is not None
        texts.append(" ".join(reason.text for reason in advice.recommendation.reasons))
    assert "we know no comparison on an encoder" in texts[0]
    assert "0.469" not in texts[0]
    assert "0.469" in texts[1]
    free = advise("bge-small-en-v1.5", "24GB", examples=1000).recommendation
    assert free is not None
    assert free.method == "dora"
    assert not any("85.2" in reason.text for reason in free.reasons)


def test_no_script_is_written_for_an_encoder() -> None:
    advice = asked("bert-base-uncased")
    with pytest.raises(InputError, match=r"no script yet .* load it with AutoModelForMaskedLM"):
        training_file(advice, advice.candidate("lora"))


def test_other_code_is_not_known_to_run_an_encoder() -> None:
    evidence = asked("bert-base-uncased", kernels=("liger_norm",)).candidate("lora").evidence
    assert evidence is not None
    assert any("not trained on next tokens" in text for text in evidence.unknown)


def test_a_classifier_has_scores_of_rows_in_place_of_logits() -> None:
    plain, scored = asked("qwen3-0.6b"), asked("qwen3-0.6b", task="classification", labels=3)
    assert scored.model.kind == "AutoModelForSequenceClassification"
    assert "is trained as a classifier" in notes(scored)
    needed = [one.candidate("lora").memory.needed_bytes.likely for one in (plain, scored)]
    assert needed[1] < needed[0]


def test_the_classifier_of_an_encoder_is_not_quantized() -> None:
    advice = advise("modernbert", "8GB", examples=1000, task="classification")
    assert [row.method for row in advice.candidates] == ["full", "lora", "dora"]
    assert "QLoRA fails on the classifier" in notes(advice)


@pytest.mark.parametrize(
    ("model", "knobs", "said"),
    [
        ("qwen3-0.6b", {"labels": 3}, "--task classification alone"),
        ("qwen3-0.6b", {"task": "classification", "labels": 0}, "must be at least 1"),
        ("qwen3-0.6b", {"task": "classification", "packing": True}, "one a row"),
        ("command-r7b", {"task": "classification"}, "no classifier of architecture 'cohere2'"),
        ("bert-base", {"task": "classification", "quant": "nf4"}, "fails on the classifier"),
    ],
)
def test_what_a_classifier_cannot_have_is_refused(model: str, knobs: dict[str, Any], said: str) -> None:
    method = "qlora" if "quant" in knobs else "lora"
    with pytest.raises(AdvisorError, match=said):
        advise(model, "24GB", examples=1000, method=method, **knobs)


def test_older_classifiers_are_not_known() -> None:
    advice = asked("qwen3-0.6b", task="classification", stack="transformers-4.57")
    assert any("classifiers (other tasks were traced)" in one for one in advice.candidate("lora").evidence.unknown)
