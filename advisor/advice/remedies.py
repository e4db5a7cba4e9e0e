"""What would fit when nothing does, found by estimating it.

A remedy is stated only if the changed job fits even at its high bound, by the search that answers every question. The
order: single changes; the smallest combination, where no single one is enough; other code that runs the same job;
cards; a smaller model.
Ignores: more machines than the question has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from advisor.advice.attempt import Attempt
from advisor.advice.catalogs import Catalog
from advisor.advice.job import Job, first_recipe, host_fit
from advisor.advice.posing import Asked, posed
from advisor.advice.search import last_that_fits
from advisor.answer import Candidate, Change
from advisor.catalog.lineage import smaller_models
from advisor.errors import AdvisorError
from advisor.knobs import idle_knobs
from advisor.recipes import flag
from advisor.rules.context import nearest
from advisor.rules.nothing_fits import CODE
from advisor.rules.savings import LOW_RANK, SAVING, SHORTEST_ROW, Switched, switchable
from advisor.rules.tight_memory import CODE as TIGHT
from advisor.rules.wording import DISPLAY, FORMULA, needs
from advisor.specs import METHODS, Method
from advisor.units import format_gib

_SAVINGS = ("kbit_upcast", "optimizer", "target_modules")
_UNDOING = ("gradient_checkpointing", "base_dtype")
"""Settings that save memory where a trainer's preset has the opposite."""
SIXTEEN_BITS: tuple[Method, ...] = ("lora", "dora")
MOST_CARDS = 8
"""More than one machine has are not proposed."""
_SIBLINGS_TRIED = 8
_SURER_SHOWN = 3


def remedies(job: Job, asked: Asked, rows: Mapping[Method, Candidate], catalog: Catalog) -> tuple[Change, ...]:
    """Everything that would make the job fit, the least change first."""
    row = nearest(rows)
    attempt = Attempt(asked, row.method, catalog)
    if (
        row.memory.needed_bytes.likely <= job.smallest_card.memory_bytes
        and host_fit(row.memory, row.placement) != "fits"
    ):
        return (*_on_the_cards(attempt), *_saving(attempt, job), *_smaller_model(attempt, job))
    return (
        *_letting_go(attempt),
        *_other_methods(attempt, job, rows),
        *_saving(attempt, job),
        *_other_code(attempt, job),
        *_bigger_cards(attempt, job, rows),
        *_smaller_model(attempt, job),
        *_more_cards(attempt, job),
    )


def surer(asked: Asked, job: Job, row: Candidate, catalog: Catalog) -> tuple[Change, ...]:
    """What surely fits where the recommended row only just does: at most three, that change the training only last."""
    attempt = Attempt(asked, row.method, catalog)
    found = (*_single(attempt, _open_savings(attempt, job)), *_other_code(attempt, job))
    fitting = [one.model_copy(update={"code": TIGHT}) for one in found if one.plan and one.plan.verdict == "fits"]
    return tuple([one for one in fitting if not one.changes_training] or fitting)[:_SURER_SHOWN]


def _on_the_cards(attempt: Attempt) -> Iterator[Change]:
    """Nothing on the host, whose memory is too small."""
    freed = attempt._replace(asked=attempt.asked._replace(question=attempt.asked.question.leaving_open("offload")))
    job = freed.posed({})
    outcome = attempt.fits(job)
    if job is not None and outcome is not None:
        yield attempt.change("Leave --offload out", job, outcome, knobs=("offload",))


def _letting_go(attempt: Attempt) -> Iterator[Change]:
    """Single fixed knobs without which the job would fit."""
    for name in attempt.asked.question.recipe_fields:
        freed = attempt._replace(asked=attempt.asked._replace(question=attempt.asked.question.leaving_open(name)))
        job = freed.posed({})
        outcome = attempt.fits(job)
        if job is not None and outcome is not None:
            yield attempt.change(f"Leave --{name.replace('_', '-')} open", job, outcome, knobs=(name,))


def _other_methods(attempt: Attempt, job: Job, rows: Mapping[Method, Candidate]) -> Iterator[Change]:
    """Methods that the question left out."""
    for method in METHODS:
        if method not in rows and method != "full" and method in job.methods:
            other = attempt.posed({"method": method})
            outcome = attempt.fits(other, method)
            if other is not None and outcome is not None:
                what = flag("method", method)
                yield attempt.change(what, other, outcome, (what,), knobs=("method",))


def _saving(attempt: Attempt, job: Job) -> Iterator[Change]:
    """Open knobs that save memory, and shorter rows: single ones, else the smallest combination."""
    savings = [one for one in _open_savings(attempt, job) if attempt.posed({one.knob: one.value}) is not None]
    single = _single(attempt, savings)
    yield from single
    if not single and len(savings) > 1:
        together = _smallest_combination(attempt, savings)
        if together is not None:
            yield together
        else:
            yield from _shorter_rows(attempt, job, {one.knob: one.value for one in savings})
    yield from _shorter_rows(attempt, job, {})


def _single(attempt: Attempt, savings: Iterable[Switched]) -> list[Change]:
    return [found for one in savings if (found := _with(attempt, [one])) is not None]


def _open_savings(attempt: Attempt, job: Job) -> Iterator[Switched]:
    """The savings that apply to the method and that the user left open; those that change the training last."""
    method, question = attempt.method, job.question
    idle, fixed = idle_knobs(method), question.fixed
    trainer = job.trainer
    preset, recipe = job.preset.get(method, {}), first_recipe(job, method)
    for name in _UNDOING:
        undone = preset.get(name, SAVING[name]) != SAVING[name] and trainer.without(name) is None
        if undone and name not in fixed and name not in idle:
            yield Switched(name, SAVING[name])
    spread = job.placement.gpus > 1 and question.sharding != "ddp"
    if spread and method == "full" and recipe.autocast and not {"autocast", "base_dtype"} & {*fixed}:
        yield Switched("autocast", False)  # weights that are spread then stay in 16 bits
    if spread and "offload" not in fixed and recipe.offload == "none" and trainer.without("offload") is None:
        yield Switched("offload", "parameters")
    yield from switchable(trainer, question, job.model, recipe)
    for name in _SAVINGS:
        if preset.get(name) != SAVING[name] and name not in fixed and name not in idle:
            yield Switched(name, SAVING[name])
    if recipe.has_adapters and "rank" not in fixed and recipe.rank > LOW_RANK:
        yield Switched("rank", LOW_RANK)


def _with(attempt: Attempt, savings: Sequence[Switched]) -> Change | None:
    """The change to these settings if the job then fits."""
    settings = {one.knob: one.value for one in savings}
    job = attempt.posed(settings)
    outcome = attempt.fits(job)
    if job is None or outcome is None:
        return None
    flags = tuple(flag(name, value) for name, value in settings.items())
    what = " ".join(flags) + (" together" if len(flags) > 1 else "")
    package = next((one.package for one in savings if one.package), "")
    return attempt.change(what, job, outcome, flags, package, knobs=tuple(settings))


def _smallest_combination(attempt: Attempt, savings: Sequence[Switched]) -> Change | None:
    """A combination that is enough, of which nothing can be left out; None where all of them are not.

    Those that change the training are left out first. Of kernels only the first ones: others come in their place.
    """
    kept = list({one.knob: one for one in reversed(savings)}.values())
    found = _with(attempt, kept[::-1])
    if found is None:
        return None
    for one in tuple(kept):
        fewer = [other for other in kept if other is not one]
        smaller = _with(attempt, fewer[::-1])
        if smaller is not None:
            kept, found = fewer, smaller
    return found


def _shorter_rows(attempt: Attempt, job: Job, settings: dict[str, object]) -> Iterator[Change]:
    """The longest power of two of tokens with which the job fits, beside other settings."""
    lengths = [2**n for n in range(6, 24) if SHORTEST_ROW <= 2**n < job.workload.seq_len]
    long = attempt.posed(settings)
    if long is None or not lengths or job.workload.images or attempt.fits(long.cut_to(lengths[0])) is None:
        return
    fits = [long.cut_to(length) for length in lengths]
    index = last_that_fits(len(lengths), lambda i: attempt.fits(fits[i]) is not None, len(lengths) - 1)
    outcome = attempt.fits(fits[index])
    if outcome is None:
        return
    others = tuple(flag(name, value) for name, value in settings.items())
    what = " ".join((*others, flag("seq_len", lengths[index])))
    flags = (*others, *fits[index].rows_flags)
    yield attempt.change(what, fits[index], outcome, flags, knobs=(*settings, "seq_len"))


def _other_code(attempt: Attempt, job: Job) -> Iterator[Change]:
    """What runs the same job with less; its search is loaded only for models that the formula knows."""
    if job.traced is None:
        from advisor.advice.other_code import other_code

        yield from other_code(attempt, job)


def _bigger_cards(attempt: Attempt, job: Job, rows: Mapping[Method, Candidate]) -> Iterator[Change]:
    """The smallest catalog card for the nearest method, and for 16-bit adapters if that is a different card."""
    named: list[str] = []
    sixteen = [method for method in SIXTEEN_BITS if method in rows][:1]
    for method in dict.fromkeys((attempt.method, *sixteen)):
        needed = int(rows[method].memory.needed_bytes.likely)
        too_small = 0
        for card in attempt.catalog.cards_with_at_least(needed):
            if card.memory_bytes <= too_small:
                continue
            bigger = job._replace(cards=(card,), profile=None)
            outcome = attempt.fits(bigger, method)
            if outcome is None:
                too_small = card.memory_bytes
                continue
            if card.name not in named:
                what = f"A bigger card, {card.name} ({format_gib(card.memory_bytes)} GiB)"
                yield attempt.change(what, bigger, outcome, (f"--gpu {card.name!r}",), card=card.name)
            named.append(card.name)
            break
    if not named:
        row = rows[attempt.method]
        text = f"No single card of the catalog is big enough: {DISPLAY[attempt.method]} needs {needs(row)}."
        yield Change(code=CODE, text=text, source=FORMULA)


def _smaller_model(attempt: Attempt, job: Job) -> Iterator[Change]:
    """The newest smaller model of the same lineage that fits, the largest of its version."""
    if job.traced is not None:
        return
    sizes = {entry.name: entry.parameters for entry in attempt.catalog.model_entries()}
    for name in smaller_models(job.model.name.partition(" (")[0], sizes)[:_SIBLINGS_TRIED]:
        try:
            smaller = posed(attempt.asked._replace(model=attempt.catalog.find_model(name))).job
        except AdvisorError:
            continue  # a model without the requested modules is not a remedy
        outcome = attempt.fits(smaller)
        if outcome is not None:
            yield attempt.change(f"A smaller model, {name}", smaller, outcome, (f"--model {name}",), model=name)
            return


def _more_cards(attempt: Attempt, job: Job) -> Iterator[Change]:
    """More of the same cards, which share the model; the search for them is loaded only here."""
    if job.traced is not None:
        text = "More cards do not help: each holds a full copy of a model that is traced, not computed."
        yield Change(code=CODE, text=text, source=FORMULA)
        return
    from advisor.advice.several import fitting_count

    found = fitting_count(job, attempt.method, MOST_CARDS)
    if found is None:
        most = max(MOST_CARDS, job.placement.gpus)
        text = f"More cards do not help: not even {most} of them that share the model hold their parts of it."
        yield Change(code=CODE, text=text, source=FORMULA)
        return
    at, outcome = found
    gpus = at.placement.gpus
    what = f"{gpus} of these cards by {at.placement.effective_sharding}"
    yield attempt.change(what, at, outcome, (f"--gpu {gpus}x{attempt.asked.gpu}",))
