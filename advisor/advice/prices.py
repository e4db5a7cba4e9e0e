"""What a step away from the recommended plan costs: the frontier of its method, and the prices of single changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

from advisor.advice.candidates import Row, plan_of
from advisor.advice.job import Job
from advisor.advice.switches import implied
from advisor.answer import Candidate, Change, Plan
from advisor.catalog.trainers import Preset
from advisor.costs.micro_batches import worst
from advisor.errors import InputError
from advisor.knobs import BY_NAME, RECIPE_KNOBS, idle_knobs, range_of
from advisor.parameters.layers import attends_anywhere
from advisor.parameters.targets import default_targets, resolve_targets
from advisor.recipes import flag, flags_of
from advisor.rules.savings import ROUND_TO, SAVING, SHORTEST_ROW, TRAINS_OTHERWISE, switchable
from advisor.rules.wording import FORMULA, signed_gib, signed_time
from advisor.specs import Estimate, GpuSpec, ModelSpec, Recipe

CODE = "price"
MOST_PLANS = 7
FULL_PRECISION = ("adamw", "adamw_foreach", "paged_adamw")
"""Optimizers that have a counterpart with 8-bit states."""
_NOTHING = 0.005
"""A change by less than this share of both memory and time is not worth a line."""


def frontier(job: Job, row: Row, stand_ins: tuple[GpuSpec, ...]) -> tuple[Plan, ...]:
    """The plans of a row's method that none beats in both memory and time, the smallest first; at most seven."""
    if not row.fitting:  # it is tight, and the only plan that is
        return (Plan(**{name: getattr(row.candidate, name) for name in Plan.model_fields}),)
    best: list[Estimate] = []
    for one in sorted(row.fitting, key=lambda one: (one.memory.needed_bytes.high, _total(one))):
        if not best or _total(one) < _total(best[-1]):
            best.append(one)
    chosen = next((one for one in row.fitting if one.recipe == row.candidate.recipe), None)
    if len(best) > 1 or chosen is None:
        best = _thinned(best, chosen)
    return _ordered([plan_of(job, one, stand_ins) for one in best], row.candidate.recipe)


def _ordered(plans: Sequence[Plan], chosen: Recipe) -> tuple[Plan, ...]:
    """The plans without those that a smaller one beats over all cards, if not on the smallest; the chosen one stays."""
    kept: list[Plan] = []
    for plan in plans:
        if plan.recipe == chosen:
            while kept and not _faster(plan, kept[-1]):
                kept.pop()
        if not kept or _faster(plan, kept[-1]):
            kept.append(plan)
    return tuple(kept)


def _faster(one: Plan, other: Plan) -> bool:
    return one.time is None or other.time is None or one.time.total_s.likely < other.time.total_s.likely


def _total(one: Estimate) -> float:
    """Likely time of the job; without known times, less the more is kept and done at once."""
    if one.time is not None:
        return one.time.total_s.likely
    return (2.0 if one.recipe.gradient_checkpointing else 1.0) + 1 / (1 + one.recipe.micro_batch)


def _thinned(plans: Sequence[Estimate], chosen: Estimate | None) -> list[Estimate]:
    """At most seven of them: both ends, the chosen one, and those that save the most time."""
    kept = list(plans)
    while len(kept) > MOST_PLANS:
        inner = [i for i in range(1, len(kept) - 1) if kept[i] is not chosen]
        del kept[min(inner, key=lambda i: _total(kept[i - 1]) / _total(kept[i]))]
    return kept


class Step(NamedTuple):
    """One change of a plan."""

    knob: str
    value: object
    note: str = ""


def _steps(job: Job, recipe: Recipe, preset: Preset) -> Iterator[Step]:
    """Single changes, those that leave the training as it is first."""
    yield Step("gradient_checkpointing", not recipe.gradient_checkpointing)
    yield Step("expandable_segments", not recipe.expandable_segments)
    for one in switchable(preset, job.question, job.model, recipe):
        yield Step(one.knob, one.value, f"needs {one.package}" if one.package else "")
    if recipe.base_dtype == "float32":
        yield Step("base_dtype", SAVING["base_dtype"])
    if recipe.optimizer in FULL_PRECISION:
        yield Step("optimizer", SAVING["optimizer"])
    if recipe.kbit_upcast:
        yield Step("kbit_upcast", SAVING["kbit_upcast"])
    yield from _other_adapters(job, recipe)
    yield from _other_micro_batches(job, recipe)
    half = job.workload.seq_len // 2
    if not job.workload.images and half >= max(SHORTEST_ROW, job.workload.mean_seq_len):
        yield Step("seq_len", half, f"cuts {_cut_rows(job, half)}")


def _other_micro_batches(job: Job, recipe: Recipe) -> Iterator[Step]:
    """Made of the same rows in another way."""
    workload = job.workload
    if workload.packing:
        if worst(workload, recipe).padded:
            yield Step("packing_strategy", "wrapped", "examples attend to those before them")
            yield Step("attention", "flash", note="needs the package flash-attn")
        return
    if workload.padding == "max_length":
        yield Step("padding", "longest")
    if workload.padding != "longest" or workload.lengths.alike:
        return
    if not workload.group_by_length and recipe.micro_batch > 1:
        yield Step("group_by_length", True, "rows come in another order")
    if not workload.images and workload.pad_to_multiple_of < ROUND_TO <= workload.seq_len // 2:
        yield Step("pad_to_multiple_of", ROUND_TO, note="fewer different lengths")


def _cut_rows(job: Job, limit: int) -> str:
    if job.data is None:
        return "longer rows"
    beyond = job.data.lengths.rows_beyond(limit)
    return f"{beyond / job.data.lengths.rows:.1%} of the rows" if beyond else "no row"


def _other_adapters(job: Job, recipe: Recipe) -> Iterator[Step]:
    """On other layers, and of twice the rank."""
    m = job.model
    if not recipe.has_adapters or not isinstance(m, ModelSpec):
        return
    others = (("attention",), default_targets(m))
    if attends_anywhere(m) and recipe.target_modules in others and others[0] != others[1]:
        other = others[1 - others.index(recipe.target_modules)]
        mine, its = (len(resolve_targets(m, names)) for names in (recipe.target_modules, other))
        if mine != its:
            yield Step("target_modules", other, f"adapts {its} kinds of layers in place of {mine}")
    if 2 * recipe.rank <= range_of(BY_NAME["rank"]).high:
        yield Step("rank", 2 * recipe.rank)


def prices(job: Job, row: Candidate, stand_ins: tuple[GpuSpec, ...]) -> tuple[Change, ...]:
    """What single changes would bring, all else as in `row`; of the knobs that are fixed only shorter rows."""
    recipe = row.recipe
    idle = idle_knobs(row.method, recipe.quant, recipe.gradient_checkpointing, variant=recipe.variant)
    preset = job.trainer
    found = []
    for step in _steps(job, recipe, preset):
        if (step.knob in job.question.fixed and step.knob != "seq_len") or step.knob in idle:
            continue
        if preset.without(step.knob) is not None:
            continue
        try:
            found.append(_price(job, row, step, stand_ins, preset))
        except InputError:  # the model or its trace does not have it
            continue
    return tuple(change for change in found if _matters(change, row))


def _price(job: Job, row: Candidate, step: Step, stand_ins: tuple[GpuSpec, ...], preset: Preset) -> Change:
    recipe = row.recipe
    if step.knob == "offload":  # which may decide on checkpointing
        question = job.question.fixing({"offload": step.value})
        recipe = recipe.model_copy(update={"offload": step.value, **implied(preset, question, row.method)})
    elif step.knob in RECIPE_KNOBS:
        recipe = _changed(job, recipe, step)
    elif step.knob == "seq_len":
        job = job.cut_to(cast(int, step.value))
    else:
        job = job.with_rows({step.knob: step.value})
    plan = plan_of(job, job.estimate(recipe), stand_ins)
    memory = plan.memory.needed_bytes.likely - row.memory.needed_bytes.likely
    time = None
    if plan.time is not None and row.time is not None:
        time = plan.time.total_s.likely - row.time.total_s.likely
    effect = [signed_gib(memory), *([] if time is None else [signed_time(time)])]
    tight = plan.verdict == "tight" and plan.memory.needed_bytes.high > job.smallest_card.memory_bytes
    effect += ["does not fit"] if plan.verdict == "does_not_fit" else ["tight"] if tight else []
    effect += [step.note] if step.note else []
    changed = flag(step.knob, step.value)
    rows = job.rows_flags[1:] if step.knob == "seq_len" else ()
    pinned = (*rows, *(one for one in flags_of(recipe, job.question.fixed) if one != changed))
    return Change(
        code=CODE,
        text=f"{changed}: {', '.join(effect)}",
        source=FORMULA,
        flags=(changed, *pinned),
        knobs=(step.knob,),
        changes_training=step.knob in TRAINS_OTHERWISE,
        workload=job.workload,
        plan=plan,
        memory_bytes=memory,
        time_s=time,
    )


def _changed(job: Job, recipe: Recipe, step: Step) -> Recipe:
    """The recipe with a knob changed; an open alpha follows the rank."""
    update = {step.knob: step.value}
    if step.knob == "rank" and "alpha" not in job.question.fixed:
        update["alpha"] = recipe.alpha * 2
    return recipe.model_copy(update=update)


def _matters(change: Change, row: Candidate) -> bool:
    timed = change.time_s is not None and row.time is not None
    slower = abs(change.time_s) / row.time.total_s.likely if timed else 0.0  # type: ignore[arg-type,union-attr]
    return slower >= _NOTHING or abs(change.memory_bytes) >= _NOTHING * row.memory.needed_bytes.likely
