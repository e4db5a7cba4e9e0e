"""Evaluation in an answer: what it needs, takes and could be, and the largest batch where one is too large."""

from __future__ import annotations

import re
from typing import Any

import pytest

from advisor import advise
from advisor.advice.evaluation import evaluation_notes, largest_evaluation
from advisor.advice.job import DEFAULT_EVAL_BATCH, Job, first_recipe
from advisor.advice.workload import placement_of, workload_of
from advisor.answer import Advice
from advisor.catalog import find_gpus, find_model
from advisor.costs.estimation import estimate
from advisor.errors import BadValue
from advisor.knobs import read_question

JOB: dict[str, Any] = {"model": "llama-3.1-8b", "gpu": "rtx4090", "method": "qlora", "seq_len": 2048}


def notes(answer: Advice) -> list[str]:
    return [note.text for note in answer.notes if note.code == "evaluation"]


def test_without_evaluation_nothing_is_said_of_it() -> None:
    answer = advise(**JOB)
    assert answer.candidates[0].recipe.eval_batch == 0
    assert notes(answer) == []


def test_rows_of_an_evaluation_ask_for_the_trainers_batch_if_it_fits() -> None:
    answer = advise(**{**JOB, "seq_len": 512}, eval_examples=500, epochs=2)
    row = answer.candidates[0]
    assert row.recipe.eval_batch == DEFAULT_EVAL_BATCH == 8
    assert row.time is not None
    assert row.time.evaluation_s is not None
    (text,) = notes(answer)
    assert re.search(r"Evaluation in batches of 8 needs \S+ GiB, at most \S+; up to \d+ rows fit\. It takes ", text)


def test_a_batch_without_rows_has_no_time() -> None:
    text = notes(advise(**JOB, eval_batch=2))[-1]
    assert "rows fit. Its time is not included: give --eval-examples." in text


def test_an_evaluation_that_needs_more_than_a_step_is_the_peak() -> None:
    answer = advise(**JOB, eval_batch=4, micro_batch=1)
    row = answer.candidates[0]
    assert row.verdict == "fits"
    assert row.memory.highest == "evaluation"
    assert row.memory.peak_at == "evaluation, loss"
    assert notes(answer)[0].startswith("The peak is during evaluation; the training step alone needs ")


@pytest.mark.parametrize(("method", "name"), [("qlora", "QLoRA"), (None, "QDoRA")])
def test_a_batch_that_cannot_fit_is_refused_with_the_largest_that_can(method: str | None, name: str) -> None:
    job = {**JOB, "method": method}
    said = rf"--eval-batch is 64, but must be at most \d+ for {name}, with rows of 2,048 tokens on NVIDIA"
    with pytest.raises(BadValue, match=said) as one:
        advise(**job, eval_batch=64)
    most = int(re.findall(r"at most (\d+)", str(one.value))[0])
    assert advise(**job, eval_batch=most).recommendation is not None
    with pytest.raises(BadValue):
        advise(**job, eval_batch=most + 1)


def test_a_default_batch_that_cannot_fit_gives_way_to_the_largest_that_can() -> None:
    answer = advise(**JOB, eval_examples=100)
    assert {row.recipe.eval_batch for row in answer.candidates} == {5}
    assert "eval_batch" not in answer.fixed
    assert notes(answer)[0].startswith("Evaluation in batches of 8, the Trainer's default, would run out of memory: 5")


def test_where_training_does_not_fit_evaluation_is_not_blamed() -> None:
    assert advise(**{**JOB, "model": "llama-70b"}, eval_batch=64).recommendation is None


def test_the_largest_batch_fits_and_one_more_does_not() -> None:
    question = read_question({"method": "lora", "seq_len": 1024, "eval_batch": 1})
    model, card = find_model("llama-3.2-1b"), find_gpus("rtx4090")[0]
    job = Job(model, workload_of(question, model), placement_of(question), (card,), question, estimate)
    recipe = first_recipe(job, "lora")
    most = largest_evaluation(job, recipe)
    fits = [
        job.estimate(recipe.model_copy(update={"eval_batch": rows})).memory.needed_bytes.high <= card.memory_bytes
        for rows in (most, most + 1)
    ]
    assert fits == [True, False]


def test_nothing_is_said_where_nothing_is_recommended() -> None:
    question = read_question({"method": "lora"})
    model = find_model("llama-3.2-1b")
    job = Job(model, workload_of(question, model), placement_of(question), find_gpus("t4"), question, estimate)
    assert evaluation_notes(job, None) == []


def test_steps_without_rows_have_no_effect() -> None:
    answer = advise(**JOB, eval_steps=100)
    assert answer.recommendation is not None
    texts = [warning.text for warning in answer.recommendation.warnings]
    assert "--eval-steps has no effect without --eval-examples." in texts
