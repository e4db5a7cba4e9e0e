"""The library's door: a question in, an Advice out.

knobs -> model, cards, workload -> for each method its best recipe -> rules -> advice
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import advisor.catalog
from advisor.advice.question import placement_of, read_knobs, workload_of
from advisor.advice.search import (
    DEFAULT_RANK,
    Estimator,
    Job,
    Outcome,
    best_outcome,
    first_recipe,
    has_bf16,
    time_over_cards,
)
from advisor.answer import Advice, Candidate, GpuChoice, Reason, Recommendation, TrainerChoice
from advisor.catalog.trainers import DEFAULT_TRAINER, Preset, find_trainer
from advisor.costs.device import DeviceProfile
from advisor.costs.estimation import estimate
from advisor.errors import InputError, UnsupportedArchitecture
from advisor.knobs import KNOBS, read_value
from advisor.parameters.modules import parameter_count
from advisor.parameters.targets import resolve_targets
from advisor.rules import RULES
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.lora_for_speed import HIGH_RANK, MANY_EXAMPLES
from advisor.rules.wording import FORMULA
from advisor.specs import (
    METHODS,
    GpuSpec,
    Method,
    Model,
    ModelSpec,
    Placement,
    Priority,
    TracedModel,
    Workload,
)
from advisor.units import GIB, format_gib

if TYPE_CHECKING:
    from advisor.advice.dataset import DataSummary
    from advisor.advice.remedies import Catalog

ASSUMPTION = "assumption"
TRACE = "trace"
MEASURED = "measured"
# Each method, the same without DoRA (which needs no more memory), and the one whose answer is likely to be near.
_SEARCH_ORDER: tuple[tuple[Method, Method, Method], ...] = (
    ("lora", "lora", "lora"),
    ("dora", "lora", "lora"),
    ("qlora", "qlora", "lora"),
    ("qdora", "qlora", "qlora"),
    ("full", "full", "dora"),
)
_PRIORITIES: tuple[Priority, ...] = ("quality", "speed", "memory")


def advise(
    model: str | Model,
    gpu: str | GpuSpec,
    examples: int | None = None,
    *,
    catalog: Catalog = advisor.catalog,
    estimator: Estimator = estimate,
    **knobs: object,
) -> Advice:
    """Which method to fine-tune `model` with on `gpu`, how, in what memory and time.

    `knobs` are the command line's flags with underscores (advisor.knobs.KNOBS); None leaves one open.
    Raises AdvisorError: UnknownName and BadValue for bad input, SourceUnavailable for what cannot be reached.
    """
    fixed = read_knobs({"examples": examples, **knobs})
    if fixed.get("method") == "all":
        del fixed["method"]
    spec = _model(str(read_value("model", model)), catalog) if isinstance(model, str) else model
    cards = catalog.find_gpus(str(read_value("gpu", gpu))) if isinstance(gpu, str) else (gpu,)
    placement = placement_of(fixed)
    data = _data(fixed)
    workload = workload_of(fixed, spec, placement.gpus, data)
    preset = find_trainer(str(fixed.get("trainer", DEFAULT_TRAINER)))
    measured: list[Reason] = []
    profile: DeviceProfile | None = None
    if len(cards) == 1:
        cards, profile, measured = _measured(cards[0])
    job = _job(spec, cards, workload, placement, fixed, estimator, preset, profile)
    trainer = _trainer(preset, job.fixed)
    stand_ins = _stand_ins(job, catalog)
    context = _context(job, trainer, stand_ins)
    found, recommendation = _decide(context)
    notes = (
        *measured,
        *_traced_notes(job),
        *_trainer_notes(preset),
        *_assumptions(fixed, workload, data),
        *_card_notes(cards, job.cards, stand_ins),
    )
    return Advice(
        model=spec,
        model_id=catalog.hub_id_of(model if isinstance(model, str) else spec.name),
        parameters=spec.parameters if isinstance(spec, TracedModel) else parameter_count(spec),
        gpu=GpuChoice(
            asked=gpu if isinstance(gpu, str) else gpu.name,
            cards=context.cards,
            memory_bytes=context.memory_bytes,
            gpus=placement.gpus,
            sharding=placement.effective_sharding,
            bf16=context.has_bf16,
        ),
        workload=workload,
        priority=context.priority,
        trainer=trainer,
        fixed=tuple(fixed),
        chosen=tuple(
            k.name
            for k in KNOBS
            if k.home in ("workload", "recipe") and k.name not in fixed and k.name not in trainer.knobs
        ),
        recommendation=recommendation,
        candidates=tuple(_with_why(row, context, recommendation) for row in context.candidates.values()),
        alternatives=() if recommendation else (*found, *_remedies(job, context, catalog)),
        notes=notes if recommendation else (*notes, *_said(context, "warns")),
    )


def _measured(card: GpuSpec) -> tuple[tuple[GpuSpec, ...], DeviceProfile | None, list[Reason]]:
    """The card as `calibrate` measured it, its profile if there is one, and what the answer says of it.

    The reader of such profiles is loaded only for a question about one card.
    """
    from advisor.costs.measured import evidence_of, measured_device

    device, remark = measured_device(card)
    if device is None:
        return (card,), None, [Reason(code=MEASURED, text=f"{remark}.", source=FORMULA)] if remark else []
    known = card if card.speed_known else device.card.model_copy(update={"memory_bytes": card.memory_bytes})
    text = f"Times stand on the {evidence_of(device)}."
    return (known,), device.profile, [Reason(code=MEASURED, text=text, source=FORMULA)]


def _data(fixed: Mapping[str, object]) -> DataSummary | None:
    """What the data file says, if there is one; only then is its reader loaded."""
    if "data" not in fixed:
        return None
    from advisor.advice.dataset import summarise

    return summarise(str(fixed["data"]))


def _remedies(job: Job, context: Context, catalog: Catalog) -> tuple[Reason, ...]:
    """What would fit; the search for it is loaded only when nothing does."""
    from advisor.advice.remedies import remedies

    return remedies(job, context.candidates, catalog)


def _priority(fixed: Mapping[str, object]) -> Priority:
    return next(one for one in _PRIORITIES if one == fixed.get("priority", "quality"))


def _job(
    spec: Model,
    cards: tuple[GpuSpec, ...],
    workload: Workload,
    placement: Placement,
    fixed: Mapping[str, object],
    estimator: Estimator,
    preset: Preset,
    profile: DeviceProfile | None,
) -> Job:
    """What is searched for. Of several cards those without bf16 are left out, if others have it."""
    targets = fixed.get("target_modules")
    if isinstance(targets, tuple) and fixed.get("method") != "full" and isinstance(spec, ModelSpec):
        resolve_targets(spec, targets)
    smallest = _priority(fixed) == "memory"
    many = workload.examples >= MANY_EXAMPLES and not smallest
    job = Job(
        spec,
        workload,
        placement,
        tuple(card for card in cards if has_bf16(card)) or cards,
        fixed,
        estimator,
        rank=HIGH_RANK if many else DEFAULT_RANK,
        smallest=smallest,
        preset={method: preset.values(method) for method in METHODS},
        profile=profile,
    )
    return job._replace(traced=_traced_ways(job, spec)) if isinstance(spec, TracedModel) else job


def _traced_ways(job: Job, model: TracedModel) -> dict[Method, tuple[bool, ...]]:
    """Without and with checkpointing, for every method whose recipe was traced. Raises NotTraced where none was."""
    from advisor.costs.traced import traced_ways

    methods = _methods(job.fixed)
    recipes = {method: first_recipe(job, method) for method in methods}
    found = {method: ways for method in methods if (ways := traced_ways(model, recipes[method]))}
    if not found:
        job.estimate(recipes[methods[0]])  # says what was traced
    return found


def _trainer_notes(preset: Preset) -> list[Reason]:
    """That an estimate for a trainer of its own kind stands on transformers' step."""
    if preset.traced:
        return []
    text = (
        f"{preset.name}'s own step was not traced: the estimate is of transformers' step with its knobs; "
        f"`advise trainers {preset.name}` says what differs."
    )
    return [Reason(code=ASSUMPTION, text=text, source="profiles/trainers")]


def _trainer(preset: Preset, fixed: Mapping[str, object]) -> TrainerChoice:
    """The preset with the knobs that it sets for any method in question and that the question left open."""
    methods = _methods(fixed)
    names = dict.fromkeys(k.name for k in preset.knobs if k.name not in fixed and set(k.methods) & set(methods))
    return TrainerChoice(name=preset.name, version=preset.version, traced=preset.traced, knobs=tuple(names))


def _context(job: Job, trainer: TrainerChoice, stand_ins: tuple[GpuSpec, ...]) -> Context:
    """What the rules look at: the candidates and the question."""
    card = job.smallest_card
    return Context(
        model=job.model,
        workload=job.workload,
        placement=job.placement,
        priority=_priority(job.fixed),
        memory_bytes=card.memory_bytes,
        cards=tuple(one.name for one in job.cards),
        has_bf16=has_bf16(card),
        fixed=job.fixed,
        candidates=_candidates(job, _job_methods(job), stand_ins),
        estimate=job.estimate,
        trainer=trainer,
    )


def _methods(fixed: Mapping[str, object]) -> tuple[Method, ...]:
    """The methods in question, in the order of their rows."""
    return tuple(method for method in METHODS if fixed.get("method", method) == method)


def _job_methods(job: Job) -> tuple[Method, ...]:
    """The methods in question, of a traced model those that were traced."""
    return tuple(method for method in _methods(job.fixed) if job.traced is None or method in job.traced)


def _model(text: str, catalog: Catalog) -> Model:
    """The model by the formula, else by the profile of an earlier trace, which is looked for only then."""
    try:
        return catalog.find_model(text)
    except UnsupportedArchitecture as error:
        from advisor.catalog.traced_models import find_traced

        return find_traced(text, error)


def _traced_notes(job: Job) -> list[Reason]:
    """That the answer stands on a trace, of what, and which methods it leaves out."""
    if not isinstance(job.model, TracedModel):
        return []
    model = job.model
    texts = [
        f"{model.name} ({model.architecture}, {model.kind}) is not known to the formula: memory stands on a trace "
        f"of its own training step on a CPU ({model.traced_with}), times on its FLOP and traffic."
    ]
    left_out = [method for method in _methods(job.fixed) if method not in _job_methods(job)]
    if left_out:
        texts.append(
            f"Left out, not traced with these knobs: {', '.join(left_out)}; `calibrate --dry-run --model "
            f"{model.source} --method {','.join(left_out)}` adds them where they can run."
        )
    return [Reason(code=TRACE, text=text, source="calibrate --dry-run") for text in texts]


def _stand_ins(job: Job, catalog: Catalog) -> tuple[GpuSpec, ...]:
    """Cards of about the same memory, whose times stand for that of a card whose speed nobody knows."""
    if any(card.speed_known for card in job.cards) or isinstance(job.model, TracedModel):
        return ()
    near = catalog.cards_near(job.smallest_card.memory_bytes)
    return tuple(card for card in near if has_bf16(card)) or near


def _candidates(job: Job, methods: Sequence[Method], stand_ins: tuple[GpuSpec, ...]) -> dict[Method, Candidate]:
    """The best recipe of each method, in the order of `methods`."""
    found: dict[Method, Outcome] = {}
    for method, plain, like in _SEARCH_ORDER:
        if method in methods:
            hints = found[like].largest if like in found else None
            found[method] = best_outcome(job, method, hints, found.get(plain) if plain != method else None)
    return {method: _candidate(job, found[method], stand_ins) for method in methods}


def _candidate(job: Job, outcome: Outcome, stand_ins: tuple[GpuSpec, ...]) -> Candidate:
    one = outcome.estimate
    time, fastest, slowest = one.time, "", ""
    spans = len(job.cards) > 1 or bool(stand_ins)
    if spans and outcome.verdict != "does_not_fit":  # what never runs needs no range of times
        times = time_over_cards(job, one, stand_ins or job.cards)
        time = None if times is None else times.time
        fastest, slowest = ("", "") if times is None else (times.fastest, times.slowest)
    price = job.fixed.get("price_per_hour", 0.0)
    assert isinstance(price, float), "price_per_hour was not read by read_knobs"
    return Candidate(
        method=one.recipe.method,
        recipe=one.recipe,
        verdict=outcome.verdict,
        memory=one.memory,
        time=time,
        evidence=one.evidence,
        trainable_parameters=one.trainable_parameters,
        cost=time.total_s.times(price * job.placement.gpus / 3600) if time is not None and price else None,
        fastest_card=fastest,
        slowest_card=slowest,
    )


def _decide(context: Context) -> tuple[tuple[Reason, ...], Recommendation | None]:
    """What the first recommending rule that answers says; its reasons apart when nothing fits."""
    for rule in RULES:
        finding = _finding(rule, context) if rule.kind == "recommends" else None
        if finding is None:
            continue
        if finding.method is None:
            return finding.reasons, None
        chosen = context._replace(recommended=finding.method)
        row = context.candidates[finding.method]
        return (), Recommendation(
            method=finding.method,
            rank=row.recipe.rank if row.recipe.has_adapters else 0,
            rule=rule.code,
            reasons=(*finding.reasons, *_said(chosen, "remarks")),
            warnings=_said(chosen, "warns"),
        )
    raise AssertionError("the last recommending rule answers whenever no other does")


def _finding(rule: Rule, context: Context) -> Finding | None:
    """What a rule says; nothing where it compares with a recipe that the profile of a traced model lacks."""
    try:
        return rule.check(context)
    except InputError:
        if isinstance(context.model, TracedModel):
            return None
        raise


def _said(context: Context, kind: str) -> tuple[Reason, ...]:
    """Everything that the rules of one kind say."""
    findings = (_finding(rule, context) for rule in RULES if rule.kind == kind)
    return tuple(reason for finding in findings if finding is not None for reason in finding.reasons)


def _with_why(row: Candidate, context: Context, recommendation: Recommendation | None) -> Candidate:
    return row.model_copy(update={"why": _why(row, context, recommendation)})


def _why(row: Candidate, context: Context, recommendation: Recommendation | None) -> str:
    """How the row compares: with the card when it does not fit, with LoRA (or the recommended row) when it does."""
    card = format_gib(context.memory_bytes)
    if row.verdict == "does_not_fit":
        return f"{format_gib(row.memory.needed_bytes.likely)} of {card} GiB"
    if recommendation is not None and row.method == recommendation.method:
        return f"recommended by {recommendation.rule}"
    if row.verdict == "tight":
        return f"up to {format_gib(row.memory.needed_bytes.high)} of {card} GiB"
    if recommendation is None:
        return ""
    base = context.candidates[recommendation.method]
    memory = (row.memory.needed_bytes.likely - base.memory.needed_bytes.likely) / GIB
    text = f"{memory:+.1f} GiB" if abs(memory) >= 0.05 else "same memory"
    if row.time is not None and base.time is not None and base.time.total_s.likely > 0:
        text += f", {row.time.total_s.likely / base.time.total_s.likely:.2f}x time"
    return text


def _assumptions(fixed: Mapping[str, object], workload: Workload, data: DataSummary | None) -> list[Reason]:
    """What was assumed about the data because nobody said it."""
    texts = []
    if data is not None:
        used = "--examples given instead" if "examples" in fixed else f"{data.rows:,} rows"
        texts.append(
            f"{used}; row lengths estimated from the file at {data.characters_per_token} characters a token: mean "
            f"{data.mean_tokens:,}, longest {data.longest_tokens:,} tokens; the job uses {workload.mean_seq_len:,} "
            f"and {workload.seq_len:,}."
        )
    else:
        if "examples" not in fixed:
            texts.append(f"{workload.examples:,} examples assumed: give --examples or --data.")
        if not {"seq_len", "mean_seq_len"} <= set(fixed):
            texts.append(
                f"Rows of {workload.mean_seq_len:,} tokens on average and {workload.seq_len:,} at most assumed: "
                "give --mean-seq-len and --seq-len, or --data."
            )
    return [Reason(code=ASSUMPTION, text=text, source=FORMULA) for text in texts]


def _card_notes(cards: Sequence[GpuSpec], usable: Sequence[GpuSpec], stand_ins: Sequence[GpuSpec]) -> list[Reason]:
    """Cards of a bare size that are not part of the answer, or whose speed nobody knows."""
    texts = []
    left_out = [card.name for card in cards if card not in usable]
    if left_out:
        texts.append(f"Left out, having no bf16: {', '.join(left_out)}. Name one to ask about it.")
    unknown = [card.name for card in usable if not card.speed_known]
    if unknown:
        text = f"The speed of {', '.join(unknown)} is not known"
        if stand_ins:
            sizes = sorted(card.memory_bytes for card in stand_ins)
            text += (
                f": times are the range over {len(stand_ins)} catalog cards of {format_gib(sizes[0])} to "
                f"{format_gib(sizes[-1])} GiB; a GPU file with its bandwidth and FLOP/s narrows them"
            )
        texts.append(text + ".")
    return [Reason(code=ASSUMPTION, text=text, source="profiles/gpus") for text in texts]
