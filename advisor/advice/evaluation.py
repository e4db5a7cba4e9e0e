"""What an answer says about evaluation, and about a peak that is not the step's."""

from __future__ import annotations

from collections.abc import Mapping

from advisor.advice.candidates import Row, searched
from advisor.advice.job import Job
from advisor.advice.search import Outcome, last_that_fits, segment_options
from advisor.answer import Candidate, Reason
from advisor.errors import BadValue
from advisor.rules.wording import DISPLAY, FORMULA
from advisor.specs import Method, Recipe
from advisor.units import format_gib, format_seconds

EVALUATION = "evaluation"
MOST_ROWS = 1024
"""Larger evaluation batches are not looked for."""
_MOMENTS = {
    "evaluation": "during evaluation",
    "loading": "while the model is loaded",
    "preparation": "while prepare_model_for_kbit_training casts tensors to fp32, one beside its copy",
}


def largest_evaluation(job: Job, recipe: Recipe) -> int:
    """The most rows of an evaluation batch that fit beside `recipe`, up to 1,024; 0 if none do."""

    def fits(index: int) -> bool:
        one = job.estimate(recipe.model_copy(update={"eval_batch": index + 1}))
        return one.memory.needed_bytes.high <= job.smallest_card.memory_bytes

    return 1 + last_that_fits(MOST_ROWS, fits, near=max(recipe.eval_batch - 1, 0))


def smaller_evaluation(job: Job, rows: Mapping[Method, Row]) -> int:
    """The largest evaluation batch that fits where only the trainer's default is in the way; 0 where nothing is.

    Raises BadValue where the batch was asked for, or no row fits: it says the largest that does.
    """
    found = [row.candidate for row in rows.values()]
    if any(one.verdict == "fits" for one in found) or not any(one.recipe.eval_batch for one in found):
        return 0
    asked = found[0].recipe.eval_batch
    without = job._replace(question=job.question.fixing({"eval_batch": 0}))
    known: dict[Method, Outcome] = {}
    outcomes = {method: searched(without, method, known=known) for method in rows}
    most = {
        method: max(
            largest_evaluation(job, one.recipe.model_copy(update={"expandable_segments": expandable}))
            for one in (outcome.estimate, outcome.least)
            for expandable in segment_options(job, method)
        )
        for method, outcome in outcomes.items()
        if outcome.verdict == "fits"
    }
    if not most:
        return 0
    method = max(most, key=lambda one: most[one])
    if most[method] and "eval_batch" not in job.question.fixed:
        return most[method]
    allowed = f"must be at most {most[method]} for {DISPLAY[method]}" if most[method] else "is too much, as is one row"
    tokens = f"rows of {job.workload.seq_len:,} tokens on {job.smallest_card.name}"
    raise BadValue("--eval-batch", asked, f"{allowed}, with {tokens}")


def smaller_note(default: int, taken: int) -> Reason:
    """That the default evaluation batch does not fit."""
    text = (
        f"Evaluation in batches of {default}, the Trainer's default, would run out of memory: {taken} taken; set "
        f"per_device_eval_batch_size, or --eval-batch."
    )
    return Reason(code=EVALUATION, text=text, source=FORMULA)


def evaluation_notes(job: Job, row: Candidate | None) -> list[Reason]:
    """Where the recommended plan's peak is not in its step, and what its evaluation needs, takes and could be."""
    if row is None:
        return []
    texts = []
    needed = {one.name: one.needed_bytes for one in row.memory.moments}
    if row.memory.highest != "step":
        texts.append(
            f"The peak is {_MOMENTS[row.memory.highest]}; the training step alone needs "
            f"{format_gib(needed['step'].likely)} GiB, at most {format_gib(needed['step'].high)}."
        )
    batch = row.recipe.eval_batch
    if batch:
        most = largest_evaluation(job, row.recipe)
        texts.append(
            f"Evaluation in batches of {batch} needs {format_gib(needed['evaluation'].likely)} GiB, at most "
            f"{format_gib(needed['evaluation'].high)}; {'over ' if most == MOST_ROWS else 'up to '}{most} rows fit. "
            + _time_text(row)
        )
    return [Reason(code=EVALUATION, text=text, source=FORMULA) for text in texts]


def _time_text(row: Candidate) -> str:
    time = row.time
    if time is None:
        return "Its time is not known."
    if time.evaluation_s is None:
        return "Its time is not included: give --eval-examples."
    share = time.evaluation_s.likely / time.total_s.likely
    return f"It takes {format_seconds(time.evaluation_s.likely)}, {share:.0%} of the job."
