"""`preflight`: whether a run that is about to start fits, from the objects that its script already holds.

    from calibrate import preflight
    found = preflight(model, peft_config, training_args, dataset)
    print(found)              # LoRA of llama does not fit: 26.1 to 27.9 GiB of 24.0 ...
    if found.verdict == "does_not_fit": ...

    preflight(model, peft_config, training_args, dataset, by="trace")   # the model's own step, on fake tensors

Nothing is changed, and no card is needed. By formula nothing is run; by trace a copy of the model without its tensors
runs one step: for a model without a formula, or to be sure. `calibrate.worker.own_training` and `own_step` list what
they cannot see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Literal, NamedTuple, cast

import advisor.catalog
from advisor.advice.advise import advise
from advisor.advice.job import fit_of
from advisor.advice.meaning import cards_of, measured_card
from advisor.advice.phrases import JUDGED
from advisor.advice.workload import DEFAULT_EXAMPLES, DEFAULT_SEQ_LEN
from advisor.answer import Advice, Candidate, Verdict
from advisor.costs.card_memory import memory_estimate, within_card
from advisor.costs.device import profile_for
from advisor.costs.micro_batches import length_count, worst
from advisor.costs.traced_estimation import TRACED_SPREAD, UNFUSED_SPREAD
from advisor.errors import BadValue, InputError, UnsupportedArchitecture
from advisor.knobs import RECIPE_KNOBS, idle_knobs, read_question
from advisor.rules.wording import DISPLAY
from advisor.specs import GpuSpec, MemoryEstimate, Recipe, Workload
from advisor.terms import TermName
from advisor.units import format_gib, format_seconds
from calibrate.cut import spec_of
from calibrate.measurement import Trace
from calibrate.worker.own_training import Described, describe, planned

OUTSIDE = (TermName.WORKSPACE, TermName.FRAGMENTATION, TermName.CONTEXT)
"""Terms that no tensor of the step holds."""
ALIKE = 0.02
"""The share up to which formula and trace are taken as one."""


class OwnTrace(NamedTuple):
    """What the trace of the run's own step says."""

    trace: Trace
    memory: MemoryEstimate
    """Of that step on the card."""
    memory_bytes: int
    """What the card has."""

    @property
    def verdict(self) -> Verdict:
        """Whether the step fits."""
        return fit_of(self.memory.needed_bytes, self.memory_bytes)


class Preflight(NamedTuple):
    """What a run is expected to need."""

    advice: Advice | None
    """The whole answer by formula, for exactly this run; None for a model without one."""
    notes: tuple[str, ...]
    """What was not seen or is assumed."""
    name: str
    """The model's."""
    recipe: Recipe
    """What was read from the objects."""
    traced: OwnTrace | None = None
    """What the trace says, where one was asked for."""

    @property
    def row(self) -> Candidate:
        """The run's own plan by formula. Raises UnsupportedArchitecture for a model without one."""
        if self.advice is None:
            raise UnsupportedArchitecture(f"{self.name} has no formula: see `traced`")
        return self.advice.candidates[0]

    @property
    def memory(self) -> MemoryEstimate:
        """By trace where there is one, else by formula."""
        return self.row.memory if self.traced is None else self.traced.memory

    @property
    def verdict(self) -> str:
        """'fits', 'tight' or 'does_not_fit'; by trace where there is one, else by formula."""
        return self.row.verdict if self.traced is None else self.traced.verdict

    def __str__(self) -> str:
        needed, advice = self.memory.needed_bytes, self.advice
        card = self.traced.memory_bytes if self.traced is not None else cast(Advice, advice).gpu.memory_bytes
        timed = None if advice is None else self.row.time
        text = (
            f"{DISPLAY[self.recipe.method]} of {self.name} {JUDGED[self.verdict]}: {format_gib(needed.low)} to "
            f"{format_gib(needed.high)} of {format_gib(card)} GiB"
        )
        text += "" if timed is None else f"; {format_seconds(timed.total_s.likely)}"
        return "\n".join([text, *(f"- {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        page = import_module("advisor.charts.notebook")
        first, *notes = str(self).split("\n")
        body = page.verdict(first) + page.sentences(note.removeprefix("- ") for note in notes)
        text: str = page.framed(body + (page.advice_body(self.advice) if self.advice is not None else ""))
        return text


def preflight(
    model: Any,
    peft_config: Any = None,
    training_args: Any = None,
    dataset: Any = None,
    *,
    gpu: str | GpuSpec = "auto",
    seq_len: int = 0,
    mean_seq_len: int = 0,
    by: Literal["formula", "trace"] = "formula",
) -> Preflight:
    """Whether training `model` (transformers, or peft's around it) by `training_args` fits `gpu`, in what time.

    `peft_config` is that of adapters that are still to be made; `dataset` one with a column `input_ids` or `length`,
    else `seq_len` and `mean_seq_len` say how long rows are, in tokens. `by` a trace, the verdict is that of the model's
    own step; the formula's answer stands beside it where there is one. Raises InputError for what cannot be read or
    traced, UnsupportedArchitecture for a model without a formula, and what `advise` raises.
    """
    if training_args is None:
        raise InputError("training_args is missing: give the TrainingArguments or SFTConfig of the run")
    if by not in ("formula", "trace"):
        raise BadValue("by", by, "must be 'formula' or 'trace'")
    described = describe(model, training_args) if peft_config is None else planned(model, peft_config, training_args)
    spec = spec_of(described.name, described.config)
    if spec is None and by == "formula":
        raise UnsupportedArchitecture(f"{described.name} has no formula: by='trace' runs a copy's step on fake tensors")
    notes = list(described.notes)
    rows = _rows(training_args, dataset, seq_len, mean_seq_len, described.recipe, notes)
    advice = None if spec is None else advise(spec, gpu, **_knobs(described.recipe), **rows)
    name = described.name if advice is None else advice.model.name
    if by == "formula":
        return Preflight(advice, tuple(notes), name, described.recipe)
    workload = _workload(rows) if advice is None else advice.workload
    traced = _traced(model, peft_config, training_args, described, workload, gpu, notes)
    if advice is not None:
        notes += _differences(advice.candidates[0], traced)
    return Preflight(advice, tuple(notes), name, described.recipe, traced)


def _rows(args: Any, dataset: Any, seq_len: int, mean_seq_len: int, recipe: Recipe, notes: list[str]) -> dict[str, Any]:
    """The knobs of the rows; what is assumed of them is added to `notes`."""
    lengths = _lengths(dataset)
    longest = seq_len or int(getattr(args, "max_length", None) or 0) or max(lengths, default=0)
    if not longest:
        longest = DEFAULT_SEQ_LEN
        notes.append(f"nothing says how long rows are: {longest} tokens are taken; give seq_len or tokenized rows")
    if not lengths:
        notes.append(f"nothing says how many rows there are: {DEFAULT_EXAMPLES} are taken for the time")
    kept = [min(one, longest) for one in lengths]
    return {
        "batch_size": recipe.micro_batch * recipe.gradient_accumulation,
        "seq_len": longest,
        "mean_seq_len": mean_seq_len or (round(sum(kept) / len(kept)) if kept else None),
        "examples": len(lengths) or None,
        "epochs": float(getattr(args, "num_train_epochs", 1) or 1),
        "packing": bool(getattr(args, "packing", False)),
    }


def _workload(rows: Mapping[str, Any]) -> Workload:
    """The rows of a model without a formula: all as long as the longest where nothing says otherwise."""
    given = {key: rows[key] for key in ("seq_len", "batch_size", "epochs", "packing")}
    return Workload(examples=rows["examples"] or 1, mean_seq_len=rows["mean_seq_len"] or rows["seq_len"], **given)


def _traced(
    model: Any,
    adapter: Any,
    args: Any,
    described: Described,
    workload: Workload,
    gpu: str | GpuSpec,
    notes: list[str],
) -> OwnTrace:
    """The model's own step with the worst micro-batch, on the smallest card of `gpu`."""
    from calibrate.worker.own_step import (  # torch's tracing, for those who ask for it
        keeps_masks,
        own_step,
        step_memory_of,
    )

    recipe = described.recipe
    cards = cards_of(gpu, advisor.catalog, read_question({}))[1]
    profile = measured_card(cards[0])[1] if len(cards) == 1 else None
    card = min(cards, key=lambda one: one.memory_bytes)
    profile = profile or profile_for(card)
    trace = own_step(model, adapter, args, recipe, worst(workload, recipe))
    masks = (recipe.dropout > 0 and recipe.has_adapters) or keeps_masks(model)
    lengths = length_count(workload)
    spread = UNFUSED_SPREAD if masks else TRACED_SPREAD
    memory = memory_estimate(step_memory_of(trace), recipe, profile, spread, lengths=lengths)
    memory = within_card(memory, card.memory_bytes, profile.context_bytes) if lengths > 1 else memory
    notes.append(f"traced: the model's own step as a CPU runs it, peak at {trace.peak_at}; loading is not traced")
    if masks:
        notes.append("a CPU keeps the masks of dropout, where CUDA's kernels keep a seed: the trace is an upper bound")
    return OwnTrace(trace, memory, card.memory_bytes)


def _differences(row: Candidate, traced: OwnTrace) -> list[str]:
    """Where the formula's tensors, which are those of a card, are others than the trace's."""
    formula = sum(term.bytes for term in row.memory.terms if term.name not in OUTSIDE)
    share = formula / traced.trace.peak_bytes - 1
    if row.memory.highest != "step" or abs(share) <= ALIKE:
        return []
    than = f"{abs(share):.0%} {'more' if share > 0 else 'less'} than the trace's"
    return [f"the formula's tensors take {than}: they are those of a card's kernels, not a CPU's"]


def _knobs(recipe: Recipe) -> dict[str, Any]:
    """The recipe as flags, without those that have no effect in it."""
    idle = idle_knobs(recipe.method, recipe.quant, recipe.gradient_checkpointing, variant=recipe.variant)
    left_out = (*idle, "gradient_accumulation", "eval_batch")
    values = {name: value for name, value in recipe if name in RECIPE_KNOBS and name not in left_out}
    absent = {"trained_layers": 0, "modules_to_save": (), "stack": (), "kernels": ()}
    return {"method": recipe.method} | {
        name: value for name, value in values.items() if name not in absent or value != absent[name]
    }


def _lengths(dataset: Any) -> Sequence[int]:
    """The tokens of each row, if the data set knows them. Raises InputError for what is no data set."""
    if dataset is None:
        return []
    if not hasattr(dataset, "__getitem__") and not hasattr(dataset, "__iter__"):
        raise InputError(f"dataset is a {type(dataset).__name__}: give rows, or leave it out and say seq_len")
    columns = getattr(dataset, "column_names", None) or ()
    if isinstance(dataset, Sequence) and dataset and isinstance(dataset[0], Mapping):
        columns = list(dataset[0])
    try:
        if "length" in columns:
            return [int(one) for one in _column(dataset, "length")]
        return [len(one) for one in _column(dataset, "input_ids")] if "input_ids" in columns else []
    except (TypeError, ValueError, KeyError, NotImplementedError):
        raise InputError(
            f"the lengths of the rows of a {type(dataset).__name__} cannot be read: leave it out, and give seq_len and"
            " mean_seq_len"
        ) from None


def _column(dataset: Any, name: str) -> Sequence[Any]:
    column: Sequence[Any] = dataset[name] if getattr(dataset, "column_names", None) else [row[name] for row in dataset]
    return column
