"""The rows of a traced step or of a burst: what the flags of `advise` about rows ask for. Needs no torch.

full      every row is as long as --seq-len: the default, and wrapped packing
padded    with --mean-seq-len: rows of different lengths, the longest of --seq-len; one shape with --padding max-length
packed    --packing --packing-strategy position-ids: examples kept apart by position ids that begin anew
varying   with --mean-seq-len, in a burst: every micro-batch is drawn, and as long as its longest row
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Any, NamedTuple

from advisor.advice.workload import workload_of
from advisor.catalog.trainers import find_trainer
from advisor.costs.micro_batches import MicroBatch, alike, collated, worst
from advisor.errors import BadValue
from advisor.knobs import KNOBS, read_question
from advisor.lengths import quantiles_of
from advisor.specs import Recipe, Workload

ROW_KNOBS = ("mean_seq_len", "packing", "packing_strategy", "padding", "pad_to_multiple_of")
SEED = 0
VARYING_STEPS = 50
"""Steps of a burst whose rows vary, besides the first, which makes the optimizer's states."""
NO_VARLEN = "varlen: a CPU has no kernel that keeps examples apart by itself; traced as rows of one example"


class Drawn(NamedTuple):
    """One micro-batch: the lengths of its rows before padding, and what all are padded to, in tokens."""

    lengths: tuple[int, ...]
    tokens: int

    @property
    def padded(self) -> bool:
        """Whether attention gets a mask."""
        return min(self.lengths) < self.tokens

    @property
    def batch(self) -> MicroBatch:
        """Its shape."""
        return MicroBatch(len(self.lengths), self.tokens, self.padded)


Draws = tuple[tuple[Drawn, ...], ...]
"""Micro-batches of each step."""


def rows_of(knobs: Mapping[str, Any], seq_len: int, trainer: str = "") -> Workload | None:
    """The rows that the flags ask for, with what `trainer` does to them; None where all are full.

    Raises BadValue for what contradicts itself.
    """
    given = {name: knobs[name] for name in ROW_KNOBS if knobs.get(name) is not None}
    if not given:
        return None
    known = {knob.name: knobs.get(knob.name) for knob in KNOBS if knob.name in ("attention", "micro_batch")}
    question = read_question({**known, **given, "seq_len": seq_len})
    if question.mean_seq_len is None:
        question = question.fixing({"mean_seq_len": seq_len})
    return workload_of(question, None, collator=find_trainer(trainer).collator() if trainer else None)


def micro_batch_of(recipe: Recipe, seq_len: int, rows: Workload | None) -> MicroBatch:
    """The largest micro-batch of a recipe: the one that decides its memory."""
    return MicroBatch(recipe.micro_batch, seq_len) if rows is None else worst(rows, recipe)


def evaluated_batch(recipe: Recipe, seq_len: int, rows: Workload | None) -> MicroBatch | None:
    """The same of an evaluation; None where there is none."""
    if not recipe.eval_batch:
        return None
    return micro_batch_of(recipe.model_copy(update={"micro_batch": recipe.eval_batch}), seq_len, rows)


def varies(rows: Workload | None) -> bool:
    """Whether micro-batches differ in length."""
    return rows is not None and not alike(rows)


def draw(rows: Workload, recipe: Recipe, steps: int = VARYING_STEPS, seed: int = SEED) -> Draws:
    """The micro-batches of one step more than `steps`, drawn at random: the same for the same seed."""
    if rows.padding == "none":
        raise BadValue("--padding", "none", "bursts of rows that vary pad them: leave it out, or add --packing")
    rng = Random(seed)

    def micro_batch() -> Drawn:
        lengths = rows.lengths.sample(rng, recipe.micro_batch)
        return Drawn(tuple(lengths), collated(rows, recipe, lengths).tokens)

    return tuple(tuple(micro_batch() for _ in range(recipe.gradient_accumulation)) for _ in range(steps + 1))


def as_drawn(rows: Workload, draws: Draws) -> Workload:
    """The same rows with the law of the lengths that were drawn."""
    counts = Counter(length for step in draws for drawn in step for length in drawn.lengths)
    mean = sum(length * count for length, count in counts.items()) / counts.total()
    changes = {"seq_len": max(counts), "mean_seq_len": max(1, round(mean)), "length_quantiles": quantiles_of(counts)}
    return rows.model_copy(update=changes)
