"""What would fit when nothing does, found by estimating it.

A remedy is stated only if the changed job fits even at its high bound, by the search that answers every question. The
order: single changes; the smallest combinations, where no single one is enough; cards; a smaller model.
Ignores: sharding and offload, which are not estimated yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from advisor.advice.candidates import plan_of, searched, stand_ins
from advisor.advice.catalogs import Catalog
from advisor.advice.job import Job
from advisor.advice.search import Outcome, last_that_fits
from advisor.answer import Candidate, Change
from advisor.catalog.lineage import smaller_models
from advisor.errors import AdvisorError, InputError
from advisor.knobs import idle_knobs
from advisor.recipes import flag
from advisor.rules.context import nearest
from advisor.rules.nothing_fits import CODE
from advisor.rules.savings import SAVING, SHORTEST_ROW, TRAINS_OTHERWISE
from advisor.rules.wording import DISPLAY, FORMULA, how, needs
from advisor.specs import METHODS, Method
from advisor.units import format_gib

_SAVINGS = ("loss", "kbit_upcast", "optimizer", "target_modules")
_UNDOING = ("gradient_checkpointing", "base_dtype")
"""Settings that save memory where a trainer's preset has the opposite."""
SIXTEEN_BITS: tuple[Method, ...] = ("lora", "dora")
_SIBLINGS_TRIED = 8


def remedies(job: Job, rows: Mapping[Method, Candidate], catalog: Catalog) -> tuple[Change, ...]:
    """Everything that would make the job fit, the least change first."""
    attempt = _Attempt(job, nearest(rows).method, catalog)
    return (
        *attempt.letting_go(),
        *attempt.other_methods(rows),
        *attempt.saving(),
        *attempt.bigger_cards(rows),
        *attempt.smaller_model(),
        Change(code=CODE, text=_more_cards(job.placement.gpus), source=FORMULA),
    )


class _Attempt:
    """One job that does not fit, and the method that comes nearest."""

    def __init__(self, job: Job, method: Method, catalog: Catalog) -> None:
        self.job, self.method, self.catalog = job, method, catalog

    def fits(self, job: Job, method: Method | None = None) -> Outcome | None:
        """The outcome of a changed job if it fits."""
        method = method or self.method
        if job.traced is not None and method not in job.traced:
            return None
        try:
            outcome = searched(job, method)
        except InputError:  # a traced model answers only for what was traced
            return None
        return outcome if outcome.verdict == "fits" else None

    def change(self, what: str, job: Job, outcome: Outcome, flags: Sequence[str] = (), **fields: Any) -> Change:
        """'--loss chunked: QLoRA then needs 17.1 GiB (at most 18.0) at micro-batch 1 with checkpointing.'."""
        recipe = outcome.estimate.recipe
        plan = plan_of(job, outcome.estimate, stand_ins(job, self.catalog))
        chosen = () if job.question.method else (flag("method", recipe.method),)
        return Change(
            code=CODE,
            text=f"{what}: {DISPLAY[recipe.method]} then needs {needs(plan)} at {how(recipe)}.",
            source=FORMULA,
            flags=tuple(dict.fromkeys((*flags, *chosen))),
            workload=job.workload,
            plan=plan,
            **fields,
        )

    def fixing(self, settings: Mapping[str, object]) -> tuple[Job, tuple[str, ...]]:
        """The job with knobs set, and the flags that set them."""
        job = self.job._replace(question=self.job.question.fixing(settings))
        return job, tuple(flag(name, value) for name, value in settings.items())

    def letting_go(self) -> Iterator[Change]:
        """Single fixed knobs without which the job would fit."""
        for name in self.job.question.recipe_fields:
            job = self.job._replace(question=self.job.question.leaving_open(name))
            outcome = self.fits(job)
            if outcome is not None:
                yield self.change(f"Leave --{name.replace('_', '-')} open", job, outcome, knobs=(name,))

    def other_methods(self, rows: Mapping[Method, Candidate]) -> Iterator[Change]:
        """Methods that the question left out."""
        for method in METHODS:
            if method not in rows and method != "full" and method in self.job.methods:
                outcome = self.fits(self.job, method)
                if outcome is not None:
                    what = flag("method", method)
                    job = self.job._replace(question=self.job.question.fixing({"method": method}))
                    yield self.change(what, job, outcome, (what,), knobs=("method",), changes_training=True)

    def saving(self) -> Iterator[Change]:
        """Open knobs that save memory, and shorter rows: single ones, else the smallest combinations."""
        savings = self._open_savings()
        single = [self._combined((saving,)) for saving in savings]
        yield from filter(None, single)
        if not any(single):
            yield from self._together(savings)
        yield from self._shorter_rows({})

    def _open_savings(self) -> list[tuple[str, object]]:
        """The savings that apply to the method and that the user left open."""
        idle, fixed = idle_knobs(self.method), self.job.question.fixed
        preset = self.job.preset.get(self.method, {})
        undone = [name for name in _UNDOING if preset.get(name, SAVING[name]) != SAVING[name]]
        found = [name for name in _SAVINGS if preset.get(name) != SAVING[name]]
        return [(name, SAVING[name]) for name in (*undone, *found) if name not in fixed and name not in idle]

    def _combined(self, savings: Sequence[tuple[str, object]]) -> Change | None:
        job, flags = self.fixing(dict(savings))
        outcome = self.fits(job)
        if outcome is None:
            return None
        names = tuple(name for name, _ in savings)
        what = " ".join(flags) + (" together" if len(flags) > 1 else "")
        otherwise = not TRAINS_OTHERWISE.isdisjoint(names)
        return self.change(what, job, outcome, flags, knobs=names, changes_training=otherwise)

    def _together(self, savings: Sequence[tuple[str, object]]) -> Iterator[Change]:
        """The smallest combinations that are enough; where none is, all of them with shorter rows."""
        if len(savings) < 2 or self._combined(savings) is None:
            yield from self._shorter_rows(dict(savings)) if savings else ()
            return
        for count in range(2, len(savings) + 1):
            found = [self._combined(some) for some in combinations(savings, count)]
            if any(found):
                yield from filter(None, found)
                return

    def _shorter_rows(self, settings: dict[str, object]) -> Iterator[Change]:
        """The longest power of two of tokens with which the job fits, beside other settings."""
        lengths = [2**n for n in range(6, 24) if SHORTEST_ROW <= 2**n < self.job.workload.seq_len]
        job, flags = self.fixing(settings)

        def shorter(index: int) -> Job:
            return job.cut_to(lengths[index])

        if not lengths or self.job.workload.images or self.fits(shorter(0)) is None:
            return
        index = last_that_fits(len(lengths), lambda i: self.fits(shorter(i)) is not None, len(lengths) - 1)
        outcome = self.fits(shorter(index))
        if outcome is None:
            return
        what = " ".join((*flags, flag("seq_len", lengths[index])))
        flags = (*flags, *shorter(index).rows_flags)
        names = (*settings, "seq_len")
        yield self.change(what, shorter(index), outcome, flags, knobs=names, changes_training=True)

    def bigger_cards(self, rows: Mapping[Method, Candidate]) -> Iterator[Change]:
        """The smallest catalog card for the nearest method, and for 16-bit adapters if that is a different card."""
        named: list[str] = []
        sixteen = [method for method in SIXTEEN_BITS if method in rows][:1]
        for method in dict.fromkeys((self.method, *sixteen)):
            needed = int(rows[method].memory.needed_bytes.likely)
            too_small = 0
            for card in self.catalog.cards_with_at_least(needed):
                if card.memory_bytes <= too_small:
                    continue
                job = self.job._replace(cards=(card,), profile=None)
                outcome = self.fits(job, method)
                if outcome is None:
                    too_small = card.memory_bytes
                    continue
                if card.name not in named:
                    what = f"A bigger card, {card.name} ({format_gib(card.memory_bytes)} GiB)"
                    yield self.change(what, job, outcome, (f"--gpu {card.name!r}",), card=card.name)
                named.append(card.name)
                break
        if not named:
            row = rows[self.method]
            text = f"No single card of the catalog is big enough: {DISPLAY[self.method]} needs {needs(row)}."
            yield Change(code=CODE, text=text, source=FORMULA)

    def smaller_model(self) -> Iterator[Change]:
        """The newest smaller model of the same lineage that fits, the largest of its version."""
        if self.job.traced is not None:
            return
        sizes = {entry.name: entry.parameters for entry in self.catalog.model_entries()}
        for name in smaller_models(self.job.model.name.partition(" (")[0], sizes)[:_SIBLINGS_TRIED]:
            try:
                job = self.job._replace(model=self.catalog.find_model(name))
                outcome = self.fits(job)
            except AdvisorError:
                continue  # a model without the requested modules is not a remedy
            if outcome is not None:
                yield self.change(f"A smaller model, {name}", job, outcome, (f"--model {name}",), model=name)
                return


def _more_cards(gpus: int) -> str:
    more = "More cards do" if gpus == 1 else "Data-parallel cards do"
    return (
        f"{more} not help by themselves: under data parallelism each holds a full copy of the model. Sharding it "
        "over the cards (FSDP, DeepSpeed) or offloading to CPU memory would help, but neither is estimated yet."
    )
