"""Every knob: how it is spelled, what it may be, when it means nothing, and the question that knobs make."""

from __future__ import annotations

from advisor.knobs.idle import idle_knobs
from advisor.knobs.question import Question, read_question
from advisor.knobs.reading import read_value, stand_in_text
from advisor.knobs.table import BY_NAME, COLLATOR_KNOBS, KNOBS, RECIPE_KNOBS, SPREADING_KNOBS, TRAINERS, Knob, range_of

__all__ = [
    "BY_NAME",
    "COLLATOR_KNOBS",
    "KNOBS",
    "RECIPE_KNOBS",
    "SPREADING_KNOBS",
    "TRAINERS",
    "Knob",
    "Question",
    "idle_knobs",
    "range_of",
    "read_question",
    "read_value",
    "stand_in_text",
]
