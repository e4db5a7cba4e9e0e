"""`calibrate --dry-run`: the traced step compared with the formula. Needs no torch itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import click

from advisor.catalog import find_model
from advisor.catalog.trainers import find_trainer
from advisor.costs.micro_batches import MicroBatch
from advisor.errors import AdvisorError, BadValue, InputError, SourceUnavailable, UnsupportedArchitecture
from advisor.files.guarded import named_path
from advisor.knobs import read_question
from advisor.knobs.task import names_task, on_task
from advisor.parameters.replacing import targets_by_default
from advisor.parameters.stored import as_stored
from advisor.parameters.targets import fails_on_all_linear
from advisor.specs import REPLACING, ModelSpec, Placement, Recipe, Variant
from calibrate.batches import NO_VARLEN, evaluated_batch, micro_batch_of, pictures_in, rows_of, seeing
from calibrate.compare import compare
from calibrate.loading import traced_loading
from calibrate.manager import TraceWorker
from calibrate.measurement import Comparison, ModelFacts, TracedLoading
from calibrate.model_traces import keep_profile
from calibrate.options import config_of, methods_of, recipe_of, trained_as
from calibrate.ranks import placed, rank_memory, traced_rank
from calibrate.sequence_kernels import as_run, note_on
from calibrate.show import print_comparisons
from calibrate.stacks import beside, folders, gap_notes, installed_stack

DEFAULT_MODEL = "llama-3.2-1b"


def dry_run(
    models: Sequence[str],
    method: str,
    knobs: Mapping[str, Any],
    trainer: str,
    timeout_s: float,
    retrace: bool,
    trust: bool,
    as_json: bool,
) -> int:
    """Trace and compare every model and method; returns the exit code. Raises errors that stop all of them."""
    failures: list[AdvisorError] = []
    if trainer and not find_trainer(trainer).traced:
        note = f"{trainer}: transformers' step with its defaults; `advise trainers {trainer}` says what differs"
        click.echo(note, err=True)
    stack = read_question({"stack": knobs["stack"]}).stack or installed_stack()
    placement = placed(knobs)
    if placement is not None and beside(stack):
        raise BadValue("--stack", ",".join(stack), "is traced on one card alone; leave it out, or --gpus")
    for note in gap_notes(stack):
        click.echo(f"calibrate: warning: {note}", err=True)
    with TraceWorker(limit_s=timeout_s, folders=folders(beside(stack))) as worker:
        for name in models or (DEFAULT_MODEL,):
            asked = _question(worker, name, dict(knobs), trust, failures, stack)
            if asked is None:
                continue
            found = []
            for comparison in _dry_run(worker, asked, methods_of(method), trainer, placement, failures):
                if as_json:
                    click.echo(comparison.model_dump_json())
                found.append(comparison)
            if not as_json:
                print_comparisons(found)
            if asked.facts is not None and found and placement is None:
                _keep(worker, asked, found, retrace, failures)
    return failures[0].exit_code if failures else 0


class _Traced(NamedTuple):
    """One model to trace. `facts` come from transformers where the formula does not know the model."""

    name: str
    config: dict[str, Any]
    model: ModelSpec | None
    facts: ModelFacts | None
    code: str
    knobs: dict[str, Any]


def _question(
    worker: TraceWorker,
    name: str,
    knobs: dict[str, Any],
    trust: bool,
    failures: list[AdvisorError],
    stack: tuple[str, ...],
) -> _Traced | None:
    """The facts about a model before it is traced; prints a line and returns None when it cannot be built."""
    config, model = config_of(name), known_model(name)
    asked = read_question({name: knobs.get(name) for name in ("task", "labels")})
    if names_task(asked):
        if model is None:
            raise BadValue("--task", asked.task or "", f"is known of models with a formula alone, not of {name}")
        model = cast(ModelSpec, on_task(model, asked))
        config = trained_as(config, model)
    code = own_code(name, config) if trust and model is None else ""
    facts = None
    if model is None:
        try:
            facts = worker.facts(config, code)
        except SourceUnavailable:
            raise
        except AdvisorError as error:
            click.echo(f"{name}: {error}", err=True)
            failures.append(error)
            return None
    source = facts or model
    if source is not None and knobs["attention"] is None:  # what transformers would pick
        knobs = knobs | {"attention": source.default_attention}
    variant = cast(Variant, knobs.get("variant") or "plain")
    unnamed = knobs.get("target_modules") is None
    if model is not None and unnamed and (variant in REPLACING or fails_on_all_linear(model)):
        knobs = knobs | {"target_modules": targets_by_default(model, variant)}
    return _Traced(name, config, seeing(model and _as_built(model, stack), knobs), facts, code, knobs)


def own_code(name: str, config: dict[str, Any]) -> str:
    """The folder of a model that brings its own code. Raises InputError when it is not a local folder."""
    if "auto_map" not in config:
        return ""
    path = named_path(name)
    folder = path if path.is_dir() else path.parent
    if not (folder / "config.json").is_file():
        raise InputError(f"--trust-remote-code: {name[:80]} is not a local folder: download it and give its path")
    return str(folder.resolve())


def _dry_run(
    worker: TraceWorker,
    asked: _Traced,
    methods: tuple[str, ...],
    trainer: str,
    placement: Placement | None,
    failures: list[AdvisorError],
) -> Iterator[Comparison]:
    """Trace every method; one that fails is reported on stderr and left out."""
    for method in methods:
        recipe, seq_len = recipe_of(method, asked.knobs, trainer)
        recipe = as_run(recipe, asked.model, "cpu")
        if recipe.loss == "chunked" and beside(recipe.stack):
            raise BadValue("--loss", "chunked", "TRL's own is traced with the installed libraries: leave out --stack")
        if method == methods[0] and (note := note_on(asked.model, recipe)):
            click.echo(note, err=True)
        pictures = pictures_in(asked.model)
        seq_len = _with_images(asked.knobs, seq_len, sum(one.tokens for one in pictures))
        rows = rows_of(asked.knobs, seq_len, trainer)
        evaluated = evaluated_batch(recipe, seq_len, rows)
        if rows is not None and rows.packing and rows.packing_strategy == "varlen" and method == methods[0]:
            click.echo(NO_VARLEN, err=True)
        if sys.stderr.isatty():
            click.echo(f"tracing {asked.name} {method} ...", err=True)
        extra: dict[str, Any] = {"code": asked.code} if asked.code else {}
        extra |= {"pictures": pictures} if pictures else {}
        try:
            batch = micro_batch_of(recipe, seq_len, rows)
            if placement is not None:
                yield _rank(worker, asked, recipe, batch, placement)
                continue
            trace, environment = worker.trace(asked.config, recipe, batch, evaluated, **extra)
            loading = _loading(worker, asked, recipe)
            yield compare(asked.name, asked.model, trace, environment, evaluated, loading)
        except SourceUnavailable:
            raise
        except AdvisorError as error:
            click.echo(f"{asked.name} {method}: {error}", err=True)
            failures.append(error)


def _rank(worker: TraceWorker, asked: _Traced, recipe: Recipe, batch: MicroBatch, placement: Placement) -> Comparison:
    """Formula and trace of one of several cards; what the formula says cannot run is not traced."""
    predicted = None if asked.model is None else rank_memory(asked.model, recipe, placement, batch)
    trace, environment = worker.trace(asked.config, recipe, batch, code=asked.code, placement=placement)
    return Comparison(
        model=asked.name,
        method=recipe.method,
        recipe=recipe,
        batch=trace.batch,
        seq_len=trace.seq_len,
        placement=placement,
        rows=trace.rows,
        source="trace",
        predicted=predicted,
        measured=traced_rank(trace),
        environment=environment,
    )


def _with_images(knobs: Mapping[str, Any], seq_len: int, held: int) -> int:
    """The tokens of a row: as many of text as without images, unless the length is given.

    Raises BadValue for a length that the images fill, and for what is not traced with images.
    """
    if not held:
        return seq_len
    if knobs["eval_batch"]:
        raise BadValue("--eval-batch", knobs["eval_batch"], "must be 0: evaluations of images are not traced")
    if knobs["seq_len"] is None:
        return seq_len + held
    if seq_len <= held:
        raise BadValue("--seq-len", seq_len, f"must be more than {held:,}, the tokens of a row's images")
    return seq_len


def _loading(worker: TraceWorker, asked: _Traced, recipe: Recipe) -> TracedLoading | None:
    """Loading of a quantized model that the formula knows; a line on stderr where it cannot be traced."""
    if asked.model is None or not recipe.is_quantized:
        return None
    found = traced_loading(worker, asked.name, asked.config, asked.model, recipe)
    if isinstance(found, TracedLoading):
        return found
    click.echo(found, err=True)
    return None


def _keep(
    worker: TraceWorker, asked: _Traced, found: Sequence[Comparison], retrace: bool, failures: list[AdvisorError]
) -> None:
    """Trace the same recipes at more shapes and store them; an error is one line and leaves the answer unchanged."""
    assert asked.facts is not None
    ways = (None,) if asked.knobs["gradient_checkpointing"] is not None else (True, False)
    recipes = [
        (one.recipe if way is None else one.recipe.model_copy(update={"gradient_checkpointing": way}), one.seq_len)
        for one in found
        for way in ways
    ]
    try:
        count = keep_profile(
            worker,
            asked.name,
            asked.config,
            asked.facts,
            found[0].environment,
            recipes,
            lambda text: click.echo(text, err=True),
            retrace=retrace,
            code=asked.code,
        )
    except AdvisorError as error:
        click.echo(str(error), err=True)
        failures.append(error)
        return
    if count:
        click.echo(f"profile of {count} recipes stored: advise --model {asked.name} answers from it", err=True)


def known_model(name: str) -> ModelSpec | None:
    """The formula's model; for an unknown architecture, prints a line to stderr and returns None.

    Also prints what is not known of one that was taken as the model which it is named after.
    """
    try:
        found = find_model(name)
    except UnsupportedArchitecture as error:
        _say_without_formula(error)
        return None
    if found.unread:
        click.echo(f"not known: {found.unread}", err=True)
    return found.model_copy(update={"checkpoint": None})  # weights are made here, and stored as the recipe says


def _as_built(model: ModelSpec, stack: tuple[str, ...]) -> ModelSpec | None:
    """The model as those libraries build it; where that code is not mirrored, prints a line and returns None."""
    try:
        return as_stored(model, stack)
    except UnsupportedArchitecture as error:
        _say_without_formula(error)
        return None


def _say_without_formula(error: UnsupportedArchitecture) -> None:
    reason, _, _ = str(error).partition("; `calibrate")  # which is what runs here
    click.echo(f"no formula: {reason}", err=True)
