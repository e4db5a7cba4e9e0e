"""`preflight`: whether a run that is about to start fits, from the objects that its script already holds.

    from calibrate import preflight
    found = preflight(model, peft_config, training_args, dataset)
    print(found)              # llama: does not fit: 26.1 to 27.9 GiB of 24.0 ...
    if found.verdict == "does_not_fit": ...

Nothing is run and nothing is changed. `calibrate.worker.own_training` lists what it cannot see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from advisor.advice.advise import advise
from advisor.advice.workload import DEFAULT_SEQ_LEN
from advisor.answer import Advice, Candidate
from advisor.errors import InputError, UnsupportedArchitecture
from advisor.knobs import RECIPE_KNOBS, idle_knobs
from advisor.rules.wording import DISPLAY
from advisor.specs import GpuSpec, Recipe
from advisor.units import format_gib, format_seconds
from calibrate.cut import spec_of
from calibrate.worker.own_training import describe, planned

_WORDS = {"fits": "fits", "tight": "only just fits", "does_not_fit": "does not fit"}


class Preflight(NamedTuple):
    """What a run is expected to need."""

    advice: Advice
    """The whole answer, for exactly this run."""
    notes: tuple[str, ...]
    """What was not seen or is assumed."""

    @property
    def row(self) -> Candidate:
        """The run's own plan."""
        return self.advice.candidates[0]

    @property
    def verdict(self) -> str:
        """'fits', 'tight' or 'does_not_fit'."""
        return self.row.verdict

    def __str__(self) -> str:
        row, advice = self.row, self.advice
        needed = row.memory.needed_bytes
        time = "" if row.time is None else f"; {format_seconds(row.time.total_s.likely)}"
        text = (
            f"{DISPLAY[row.method]} of {advice.model.name} {_WORDS[row.verdict]}: {format_gib(needed.low)} to "
            f"{format_gib(needed.high)} of {format_gib(advice.gpu.memory_bytes)} GiB{time}"
        )
        return "\n".join([text, *(f"- {note}" for note in self.notes)])


def preflight(
    model: Any,
    peft_config: Any = None,
    training_args: Any = None,
    dataset: Any = None,
    *,
    gpu: str | GpuSpec = "auto",
    seq_len: int = 0,
    mean_seq_len: int = 0,
) -> Preflight:
    """Whether training `model` (transformers, or peft's around it) by `training_args` fits `gpu`, in what time.

    `peft_config` is that of adapters that are still to be made; `dataset` one with a column `input_ids` or `length`,
    else `seq_len` and `mean_seq_len` say how long rows are, in tokens. Raises InputError for what cannot be read,
    UnsupportedArchitecture for a model without a formula, and what `advise` raises.
    """
    if training_args is None:
        raise InputError("training_args is missing: give the TrainingArguments or SFTConfig of the run")
    described = describe(model, training_args) if peft_config is None else planned(model, peft_config, training_args)
    spec = spec_of(described.name, described.config)
    if spec is None:
        raise UnsupportedArchitecture(f"{described.name} has no formula: `calibrate --dry-run --model` measures it")
    lengths = _lengths(dataset)
    notes = list(described.notes)
    longest = seq_len or int(getattr(training_args, "max_length", None) or 0) or max(lengths, default=0)
    if not longest:
        longest = DEFAULT_SEQ_LEN
        notes.append(f"nothing says how long rows are: {longest} tokens are taken; give seq_len or tokenized rows")
    kept = [min(one, longest) for one in lengths]
    knobs = {
        **_knobs(described.recipe),
        "batch_size": described.recipe.micro_batch * described.recipe.gradient_accumulation,
        "seq_len": longest,
        "mean_seq_len": mean_seq_len or (round(sum(kept) / len(kept)) if kept else None),
        "examples": len(lengths) or None,
        "epochs": float(getattr(training_args, "num_train_epochs", 1) or 1),
        "packing": bool(getattr(training_args, "packing", False)),
    }
    return Preflight(advise(spec, gpu, **knobs), tuple(notes))


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
    """The tokens of each row, if the data set knows them."""
    columns = getattr(dataset, "column_names", None) or ()
    if isinstance(dataset, Sequence) and dataset and isinstance(dataset[0], Mapping):
        columns = list(dataset[0])
    if "length" in columns:
        return [int(one) for one in _column(dataset, "length")]
    return [len(one) for one in _column(dataset, "input_ids")] if "input_ids" in columns else []


def _column(dataset: Any, name: str) -> Sequence[Any]:
    column: Sequence[Any] = dataset[name] if getattr(dataset, "column_names", None) else [row[name] for row in dataset]
    return column
