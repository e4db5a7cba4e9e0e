"""A data file and the job that it is for: who counts its tokens, and what the job makes of its rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from advisor import catalog
from advisor.advice.workload import workload_of
from advisor.answer import DataFile, DataSummary
from advisor.catalog.trainers import DEFAULT_TRAINER, find_trainer
from advisor.dataset.counting import Counter, Estimated, Tokenized, find_tokenizer
from advisor.dataset.forms import READ
from advisor.dataset.rows import Progress
from advisor.dataset.summary import Measured, measure, summary_of
from advisor.errors import BadValue
from advisor.knobs import Question, read_question, read_value
from advisor.specs import Model, ModelSpec

USUAL_VOCABULARY = 128_000


class Described(NamedTuple):
    """A data file, and what a job of this workload makes of its rows."""

    file: DataFile
    summary: DataSummary


def measured(
    question: Question, path: str, spec: Model | None, model: str, model_id: str, progress: Progress | None = None
) -> Measured:
    """The rows of the file at `path`, counted by the model's tokenizer where there is one.

    `model` is what the user called it, '' for none; `spec` gives the size of the vocabulary to estimate for.
    Raises BadValue, InputError or SourceUnavailable for a file or a tokenizer that cannot be used.
    """
    renamed = _renamed(question.data_columns)
    found = find_tokenizer(question.tokenizer, model, model_id)
    counter: Counter
    if found.file is not None:
        counter = Tokenized(found.file)
    else:
        size = spec.vocab_size if isinstance(spec, ModelSpec) else USUAL_VOCABULARY
        counter = Estimated(size, found.because)
    skip = bool(question.skip_bad_lines)
    return measure(path, counter, skip_bad_lines=skip, renamed=renamed, progress=progress)


def _renamed(columns: tuple[str, ...] | None) -> dict[str, str]:
    """The file's names of known columns, as `--data-columns` gives them."""
    renamed: dict[str, str] = {}
    for pair in columns or ():
        name, sign, column = pair.partition("=")
        if name not in READ or not sign or not column:
            raise BadValue("--data-columns", pair, f"must be KNOWN=NAME, where KNOWN is one of {', '.join(READ)}")
        renamed[name] = column
    return renamed


def describe(path: str, knobs: Mapping[str, object], progress: Progress | None = None) -> Described:
    """The data file at `path` under these knobs, of which `model` may be left out. Raises as `advise` does."""
    given = dict(knobs)
    name = given.pop("model", None)
    model = "" if name is None else str(read_value("model", name))
    spec = catalog.find_model(model) if model else None
    question = read_question(given)
    found = measured(question, path, spec, model, catalog.hub_id_of(model) if model else "", progress)
    preset = find_trainer(question.trainer or DEFAULT_TRAINER, question.gpus or 1)
    rows = (
        preset.collator(architecture=spec.architecture, loss=question.loss)
        if spec
        else preset.collator(loss=question.loss)
    )
    workload = workload_of(question, spec, found, rows)
    micro_batch = question.micro_batch or workload.batch_size
    return Described(found.file, summary_of(found, workload, micro_batch))
