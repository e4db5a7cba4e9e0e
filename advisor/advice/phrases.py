"""What every door says in the same few words: of a plan, of a value, of a change, of a judged file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from advisor.answer import Candidate, Change, Plan
from advisor.rules.wording import DISPLAY, fits_text
from advisor.specs import Recipe
from advisor.units import format_count, format_gib, format_seconds

if TYPE_CHECKING:
    from advisor.advice.check import Checked

_COLUMN = {"fits": "yes", "likely fits": "likely", "only just fits": "tight", "does not fit": "no"}
BOUND_BY = {
    "compute": "matrix products",
    "memory": "memory traffic",
    "launch": "kernel launches on the host",
    "link": "the links between the cards",
}
JUDGED = {"fits": "fits", "tight": "only just fits", "does_not_fit": "does not fit", "unknown": "unknown"}
"""A verdict within a sentence."""


def fits_column(plan: Plan, memory_bytes: int) -> str:
    """Whether a plan fits, in a column of that title: 'yes', 'likely', 'tight' or 'no'."""
    return _COLUMN[fits_text(plan, memory_bytes)]


def checked_line(checked: Checked) -> str:
    """What a file's run needs and how long it takes, in one sentence."""
    likely = checked.verdict == "tight" and checked.not_known
    start = f"{checked.path} ({checked.format}): {'likely fits' if likely else JUDGED[checked.verdict]}"
    if checked.advice is None:
        return f"{start}."
    advice, row = checked.advice, checked.advice.candidates[0]
    needed = row.memory.needed_bytes
    text = (
        f"{start}. {DISPLAY[row.method]} of {advice.model.name} ({format_count(advice.parameters)} parameters) needs "
        f"{format_gib(needed.low)} to {format_gib(needed.high)} of {format_gib(advice.gpu.memory_bytes)} GiB on "
        f"{advice.gpu.label}"
    )
    if checked.total_s is not None and checked.verdict != "does_not_fit":
        text += f" and takes {format_seconds(checked.total_s.low)} to {format_seconds(checked.total_s.high)}"
    return text + "."


def batch_text(recipe: Recipe) -> str:
    """'2x8 c': micro-batch x accumulation, with checkpointing."""
    return f"{recipe.micro_batch}x{recipe.gradient_accumulation}{' c' if recipe.gradient_checkpointing else '  '}"


def total_text(row: Candidate) -> str:
    """Likely time of the whole job, if it runs."""
    if row.time is None or row.verdict == "does_not_fit":
        return "-"
    return format_seconds(row.time.total_s.likely)


def value_text(value: object) -> str:
    """A knob's value for people."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def price_text(change: Change) -> str:
    """'--rank 32: +0.21 GiB, +1.45 s; changes the training'."""
    return change.text + ("; changes the training" if change.changes_training else "")
