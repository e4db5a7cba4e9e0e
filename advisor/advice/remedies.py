"""What would fit when nothing does, found by estimating it.

A remedy is stated only if the changed job fits even at its high bound. Most remedies change one thing. Knobs that save
memory are tried together if no single one is enough, and then with shorter rows.
Ignores: other combinations, and sharding and offload, which are not estimated yet.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from advisor.advice.search import Job, Outcome, best_outcome, last_that_fits
from advisor.answer import Candidate, Reason
from advisor.errors import AdvisorError, InputError
from advisor.knobs import idle_knobs
from advisor.rules.nothing_fits import CODE
from advisor.rules.wording import DISPLAY, FORMULA, how, needs
from advisor.specs import KNOWN, METHODS, GpuSpec, Method, ModelSpec
from advisor.units import format_gib

SHORTEST_ROW = 64
_SAVINGS: tuple[tuple[str, object], ...] = (
    ("loss", "chunked"),
    ("kbit_upcast", False),
    ("optimizer", "paged_adamw_8bit"),
    ("target_modules", ("attention",)),
)
_UNDOING: tuple[tuple[str, object], ...] = (("gradient_checkpointing", True), ("base_dtype", "bfloat16"))
"""Settings that save memory where a trainer's preset has the opposite."""

_CARDS_TRIED = 4
_SIBLINGS_TRIED = 8


class Entry(Protocol):
    """One model of the catalog, before its file is read."""

    @property
    def name(self) -> str:
        """The catalog's name."""

    @property
    def parameters(self) -> int:
        """All parameters."""


class Catalog(Protocol):
    """The part of advisor.catalog that answers need; tests substitute their own."""

    def find_model(self, text: str) -> ModelSpec:
        """The model of this name, alias, Hub id or path."""

    def find_gpus(self, text: str) -> tuple[GpuSpec, ...]:
        """The cards that a name or a size stands for."""

    def cards_with_at_least(self, memory_bytes: int) -> tuple[GpuSpec, ...]:
        """Cards with that much memory, smallest first."""

    def cards_near(self, memory_bytes: int) -> tuple[GpuSpec, ...]:
        """Cards with about that much memory."""

    def model_entries(self) -> Sequence[Entry]:
        """All models of the catalog."""

    def hub_id_of(self, name: str) -> str:
        """The Hub id of the requested model; a name that the catalog does not know is returned unchanged."""


def remedies(job: Job, rows: Mapping[Method, Candidate], catalog: Catalog) -> tuple[Reason, ...]:
    """Everything that would make the job fit, the least change first."""
    nearest = min(rows.values(), key=lambda row: row.memory.needed_bytes.likely)
    texts = [
        *_let_go(job, nearest.method),
        *_other_methods(job, rows),
        *_savings(job, nearest.method),
        *_shorter_rows(job, nearest.method),
        *_bigger_cards(job, rows, nearest.method, catalog),
        *_smaller_models(job, nearest.method, catalog),
        _more_cards(job.placement.gpus),
    ]
    return tuple(Reason(code=CODE, text=text, source=FORMULA) for text in texts)


def _fits(job: Job, method: Method) -> Outcome | None:
    if job.traced is not None and method not in job.traced:
        return None
    try:
        outcome = best_outcome(job, method)
    except InputError:  # a traced model answers only for what was traced
        return None
    return outcome if outcome.verdict == "fits" else None


def _with(outcome: Outcome) -> str:
    """'QLoRA then needs 17.1 GiB (at most 18.0) at micro-batch 1 with checkpointing'."""
    recipe, needed = outcome.estimate.recipe, outcome.estimate.memory.needed_bytes
    need = f"{format_gib(needed.likely)} GiB (at most {format_gib(needed.high)})"
    return f"{DISPLAY[recipe.method]} then needs {need} at {how(recipe)}"


def _let_go(job: Job, method: Method) -> Iterator[str]:
    """Single fixed knobs without which the job would fit."""
    for name in job.question.recipe_fields:
        outcome = _fits(job._replace(question=job.question.leaving_open(name)), method)
        if outcome is not None:
            yield f"Leave --{name.replace('_', '-')} open: {_with(outcome)}."


def _other_methods(job: Job, rows: Mapping[Method, Candidate]) -> Iterator[str]:
    """Methods that the question left out."""
    for method in METHODS:
        if method not in rows and method != "full":
            outcome = _fits(job, method)
            if outcome is not None:
                yield f"--method {method}: {_with(outcome)}."


def _open_savings(job: Job, method: Method) -> list[tuple[str, object]]:
    """The savings that apply to `method` and that the user left open."""
    idle = idle_knobs(method)
    preset = job.preset.get(method, {})
    undone = [(name, value) for name, value in _UNDOING if preset.get(name, value) != value]
    found = [(name, value) for name, value in _SAVINGS if preset.get(name) != value]
    return [(name, value) for name, value in (*undone, *found) if name not in job.question.fixed and name not in idle]


def _flag(name: str, value: object) -> str:
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}"
    return f"--{option} {value[0] if isinstance(value, tuple) else value}"


def _savings(job: Job, method: Method) -> Iterator[str]:
    """Knobs left open that save memory but change what is trained or how, so that search leaves them alone."""
    found = _open_savings(job, method)
    enough = False
    for name, value in found:
        outcome = _fits(job._replace(question=job.question.fixing({name: value})), method)
        if outcome is not None:
            enough = True
            yield f"{_flag(name, value)}: {_with(outcome)}."
    if not enough:
        yield from _together(job, method, found)


def _together(job: Job, method: Method, savings: Sequence[tuple[str, object]]) -> Iterator[str]:
    """The fewest savings, in their order, that are enough together; otherwise all of them with shorter rows."""
    for count in range(2, len(savings) + 1):
        outcome = _fits(job._replace(question=job.question.fixing(dict(savings[:count]))), method)
        if outcome is not None:
            yield f"{' '.join(_flag(*saving) for saving in savings[:count])} together: {_with(outcome)}."
            return
    flags = " ".join(_flag(*saving) for saving in savings)
    for text in _shorter_rows(job._replace(question=job.question.fixing(dict(savings))), method):
        yield f"{flags} {text}"


def _shorter_rows(job: Job, method: Method) -> Iterator[str]:
    """The longest power of two of tokens with which the job fits."""
    lengths = [2**n for n in range(6, 24) if SHORTEST_ROW <= 2**n < job.workload.seq_len]

    def shorter(index: int) -> Job:
        length = lengths[index]
        mean = min(job.workload.mean_seq_len, length)
        workload = job.workload.model_copy(update={"seq_len": length, "mean_seq_len": mean, "seq_len_factor": KNOWN})
        return job._replace(workload=workload)

    if not lengths or _fits(shorter(0), method) is None:
        return
    index = last_that_fits(len(lengths), lambda i: _fits(shorter(i), method) is not None, len(lengths) - 1)
    outcome = _fits(shorter(index), method)
    if outcome is not None:
        yield f"--seq-len {lengths[index]}: {_with(outcome)}."


def _bigger_cards(job: Job, rows: Mapping[Method, Candidate], nearest: Method, catalog: Catalog) -> Iterator[str]:
    """The smallest catalog card for the nearest method, and for 16-bit adapters if that is a different card."""
    named: list[str] = []
    sixteen: tuple[Method, ...] = ("lora", "dora")
    for method in dict.fromkeys((nearest, *(method for method in sixteen if method in rows))):
        needed = int(rows[method].memory.needed_bytes.high)
        for card in catalog.cards_with_at_least(needed)[:_CARDS_TRIED]:
            outcome = _fits(job._replace(cards=(card,)), method)
            if outcome is not None:
                if card.name not in named:
                    yield f"A bigger card, {card.name} ({format_gib(card.memory_bytes)} GiB): {_with(outcome)}."
                named.append(card.name)
                break
    if not named:
        row = rows[nearest]
        yield f"No single card of the catalog is big enough: {DISPLAY[nearest]} needs {needs(row)}."


def _smaller_models(job: Job, method: Method, catalog: Catalog) -> Iterator[str]:
    """The largest smaller model that fits: of the same series or, failing that, of the same family."""
    entries = {entry.name: entry.parameters for entry in catalog.model_entries()}
    own = entries.get(job.model.name.partition(" (")[0])
    if own is None or job.traced is not None:
        return
    for same in (_series, _family):
        kin = [name for name, size in entries.items() if size < own and same(name) == same(job.model.name)]
        for name in sorted(kin, key=lambda name: -entries[name])[:_SIBLINGS_TRIED]:
            try:
                outcome = _fits(job._replace(model=catalog.find_model(name)), method)
            except AdvisorError:
                continue  # a model without the requested modules is not a remedy
            if outcome is not None:
                yield f"A smaller model, {name}: {_with(outcome)}."
                return


def _series(name: str) -> str:
    """'llama-3.1' of 'llama-3.1-70b': the name without its size."""
    return re.sub(r"-\d+(\.\d+)?[mb]\b.*$", "", name.lower())


def _family(name: str) -> str:
    """'llama' of 'llama-3.1-70b': the letters at the beginning."""
    return re.split(r"[^a-z]", name.lower(), maxsplit=1)[0]


def _more_cards(gpus: int) -> str:
    more = "More cards do" if gpus == 1 else "Data-parallel cards do"
    return (
        f"{more} not help by themselves: under data parallelism each holds a full copy of the model. Sharding it "
        "over the cards (FSDP, DeepSpeed) or offloading to CPU memory would help, but neither is estimated yet."
    )
