"""Published step times, compared with what the tape's kernels take on the same card.

Absolute times include what is unknown about a machine, which cancels between two rows of one source and model. So each
row is also given as a ratio to one row of its kind, and the rows of one model over several lengths as a shape, with
one common factor removed. Nothing is fitted to these rows. Steps under torch.compile are only compared with each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

from advisor.catalog import find_gpus
from advisor.costs.device import profile_for
from advisor.costs.micro_step import micro_step_time
from advisor.costs.steptime import time_estimate
from advisor.decoders.step import step_program
from advisor.errors import UnknownName
from advisor.specs import Placement, TimeEstimate, Workload
from advisor.validation.figures import PublishedRun, Row, published_rows
from advisor.validation.huggingface import comparison_run, unsharded_run
from advisor.validation.qwen import finetune_run
from advisor.validation.torchtune import recipe_run

RUNS: dict[str, Callable[[Row], PublishedRun]] = {
    "peft-mm": comparison_run,
    "qwen1": finetune_run,
    "torchtune": recipe_run,
    "fsdp_qlora": unsharded_run,
}
PLAIN = {"peft-mm": "lora", "qwen1": "lora", "torchtune": "full", "fsdp_qlora": "lora"}
"""The method of the row that the others of a source are divided by."""
SHAPE_ROWS = 4
"""This many lengths of one model and method make a shape."""


class Timed(NamedTuple):
    """One measured row beside its estimate, both in seconds per optimizer step."""

    row: Row
    measured_s: float
    estimate: TimeEstimate
    micro_tokens: int  # of one card's micro-batch

    @property
    def error(self) -> float:
        """Prediction over measurement, minus 1."""
        return self.estimate.step_s.likely / self.measured_s - 1

    @property
    def covered(self) -> bool:
        """Whether the measurement lies in the estimate's interval."""
        return self.estimate.step_s.low <= self.measured_s <= self.estimate.step_s.high

    @property
    def compiled(self) -> bool:
        """Trained under torch.compile, which the estimate does not know."""
        return bool(self.row.get("compile"))


class Ratio(NamedTuple):
    """A row as a ratio to the plain row of its source and model."""

    timed: Timed
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        """Predicted over measured ratio, minus 1."""
        return self.predicted / self.measured - 1


class TimeReport(NamedTuple):
    """The evidence table for step times."""

    rows: list[Timed]
    ratios: list[Ratio]
    shapes: list[tuple[Timed, float]]  # with the error that is left when the model's common factor is removed
    unanswered: list[tuple[Row, str]]

    def document(self) -> dict[str, Any]:
        """The whole table as one JSON document."""
        ratio_of = {id(one.timed): one for one in self.ratios}
        shape_of = {id(timed): error for timed, error in self.shapes}
        rows = []
        for one in self.rows:
            ratio, step = ratio_of.get(id(one)), one.estimate.step_s
            rows.append(
                {
                    "id": one.row["id"],
                    "group": one.row["group"],
                    "model": one.row["model_id"],
                    "method": one.row["method"],
                    "gpu": one.row["gpu"],
                    "micro_batch_tokens": one.micro_tokens,
                    "compiled": one.compiled,
                    "measured_s": one.measured_s,
                    "predicted_s": step._asdict(),
                    "covered": one.covered,
                    "bound": one.estimate.bound,
                    "error": round(one.error, 4),
                    "ratio": ratio
                    and {"measured": ratio.measured, "predicted": ratio.predicted, "error": round(ratio.error, 4)},
                    "shape_error": round(shape_of[id(one)], 4) if id(one) in shape_of else None,
                    "url": one.row["url"],
                }
            )
        return {
            "schema_version": 1,
            "rows": rows,
            "not_predicted": [{"id": row["id"], "reason": reason} for row, reason in self.unanswered],
        }


def refusal(row: Row) -> str:
    """Why a row's time is not predicted; '' when it is."""
    if not row.get("step_time_s"):
        return "no step time"
    if (row["group"] == "fsdp_qlora" and "no_shard" not in row["sharding"]) or (
        row["group"].startswith("litgpt") and (row["num_gpus"] > 1)
    ):
        return "weights sharded over cards"
    if not row.get("tokens_per_step"):
        return "the mean length of a row is not stated"
    if row["group"] not in RUNS:
        return "the card is not named, or how its source trains is not described here"
    if row["group"] == "qwen1" and row["method"] != "lora":
        return "GPTQ weights or sharding, which the tape does not know"
    if "fa" in row["optimizer"].lower().split("-"):
        return "its own optimizer (LoRA-FA)"
    return ""


def timed(row: Row) -> Timed:
    """Predict a row at its mean tokens per micro-batch; several cards each take their part."""
    model, recipe, gpu, stack, padded = RUNS[row["group"]](row)
    card = find_gpus(gpu)[0]
    tokens = row["tokens_per_step"] / (recipe.gradient_accumulation * row["num_gpus"])
    length = round(tokens / recipe.micro_batch)
    work = Workload(examples=1, seq_len=length, mean_seq_len=length)
    shape, capability = (recipe.micro_batch, length), card.compute_capability
    program = step_program(model, recipe, *shape, "cuda", stack, padded=padded, capability=capability)
    micro = micro_step_time(program.kernels(*shape, recipe.rank), card, profile_for(card))
    placement = Placement(gpus=row["num_gpus"], sharding="ddp" if row["num_gpus"] > 1 else "none")
    estimate = time_estimate(model, recipe, work, card, profile_for(card), micro, placement)
    return Timed(row, float(row["step_time_s"]), estimate, round(tokens))


def _plain_row(one: Timed, group: Sequence[Timed]) -> Timed:
    """Of the source's rows with this model, compiled or not as it is: the plain method at most tokens."""
    alike = [o for o in group if (o.row["model_id"], o.compiled) == (one.row["model_id"], one.compiled)]
    plain = [o for o in alike if o.row["method"] == PLAIN[one.row["group"]]] or alike
    return max(plain, key=lambda o: o.micro_tokens)


def ratios_of(group: Sequence[Timed]) -> list[Ratio]:
    """Every row of one source over the plain row of its model."""
    found = []
    for one in group:
        base = _plain_row(one, group)
        if base is not one:
            ours = one.estimate.step_s.likely / base.estimate.step_s.likely
            found.append(Ratio(one, one.measured_s / base.measured_s, ours))
    return found


def shapes_of(group: Sequence[Timed]) -> list[tuple[Timed, float]]:
    """The errors of eager rows that differ only in length, their common factor (the median) removed."""
    models: dict[tuple[str, str], list[Timed]] = {}
    for one in group:
        if not one.compiled:
            models.setdefault((one.row["model_id"], one.row["method"]), []).append(one)
    found = []
    for rows in models.values():
        if len(rows) >= SHAPE_ROWS:
            factor = median(one.error + 1 for one in rows)
            found += [(one, (one.error + 1) / factor - 1) for one in rows]
    return found


def validate_time(group: str | None = None) -> TimeReport:
    """Predict the step time of every published row with enough facts. Raises UnknownName for an unknown group."""
    rows = published_rows()
    groups = tuple(dict.fromkeys(row["group"] for row in rows))
    if group is not None and group not in groups:
        raise UnknownName("group", group, groups)
    report = TimeReport([], [], [], [])
    for name in groups if group is None else (group,):
        found = []
        for row in (row for row in rows if row["group"] == name):
            reason = refusal(row)
            if reason:
                report.unanswered.append((row, reason))
            else:
                found.append(timed(row))
        report.rows.extend(found)
        report.ratios.extend(ratios_of(found))
        report.shapes.extend(shapes_of(found))
    return report
