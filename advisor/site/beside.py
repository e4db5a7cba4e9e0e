"""Published measurements beside the engine's figures for the same runs, as rows of the page's table."""

from __future__ import annotations

from functools import cache

from advisor import catalog
from advisor.page.trust import Published
from advisor.parameters.modules import parameter_count
from advisor.validation.figures import Row
from advisor.validation.huggingface import NOTEBOOK_MODEL
from advisor.validation.report import Line, validate
from advisor.validation.timing import Timed, validate_time

_DIGITS = 4
"""Significant ones of a figure: more are not shown."""


@cache
def beside() -> tuple[Published, ...]:
    """Every published figure that is predicted, but those of steps under torch.compile, which no estimate is of."""
    memory = [_of_memory(line) for line in validate().lines]
    times = [_of_time(one) for one in validate_time().rows if not one.compiled]
    return tuple(sorted((*memory, *times), key=lambda row: (row.what, row.model, row.method, row.tokens, row.measured)))


def _of_memory(line: Line) -> Published:
    row, figure = line.row, line.figure
    tokens = round(row["micro_batch"] * (row.get("mean_tokens_per_sample") or row["seq_len"]))
    stated = figure.stated_bytes
    figures = (figure.measured_bytes, stated.low, figure.predicted_bytes, stated.high)
    return _row(row, f"memory {figure.what.removeprefix('peak ')}", tokens, figures)


def _of_time(one: Timed) -> Published:
    step = one.estimate.step_s
    return _row(one.row, "step time", one.micro_tokens, (one.measured_s, step.low, step.likely, step.high))


def _row(row: Row, what: str, tokens: int, figures: tuple[float, float, float, float]) -> Published:
    measured, low, likely, high = (float(f"{figure:.{_DIGITS}g}") for figure in figures)
    named = not row["model_id"].startswith("random ")
    model = catalog.find_model(row["model_id"], offline=True, files=False) if named else NOTEBOOK_MODEL
    name = row["model_id"].rpartition("/")[2] if named else "a random Llama"
    card, parameters = row.get("gpu") or "a card not named", parameter_count(model)
    return Published(what, name, row["method"], card, parameters, tokens, measured, low, likely, high, row["url"])
