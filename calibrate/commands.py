"""The commands of `calibrate`: parse, call. Needs no torch.

calibrate --method all              measure bursts on this machine
calibrate --method all --dry-run    compare formula and traced step
calibrate stack NAMES               install other library versions for --dry-run --stack
calibrate show | fit | report | export | import
"""

from __future__ import annotations

from functools import partial
from typing import Any

import click
from click.core import ParameterSource

from advisor.catalog.trainers import find_trainer
from advisor.command import CommandGroup
from advisor.errors import BadValue, InputError
from advisor.knobs import BY_NAME, TRAINERS, read_question
from advisor.knobs.task import names_task
from calibrate.burst_cli import Asked, measure
from calibrate.dry_run_cli import DEFAULT_MODEL, dry_run
from calibrate.fit_cli import fit_records
from calibrate.launch import started_ranks
from calibrate.options import recipe_options
from calibrate.plan import DEFAULT_MODELS
from calibrate.records_cli import export_records, import_records, report, show
from calibrate.stacks_cli import make_stack

SEVERAL = ("micro_batch", "seq_len")
BURST_ONLY = ("device", "budget", "steps", "out", "again")
HELP = f"""Measure short real training bursts on this machine, and compare them with the formula.

Nothing is downloaded: weights and tokens are random. Results are saved; an interrupted run resumes where it stopped.

\b
Models:   {", ".join(DEFAULT_MODELS["cuda"])} on a GPU;
          {", ".join(DEFAULT_MODELS["cpu"])} on a CPU;
          each cut to a few layers where the device is small
Example:  calibrate --method all --budget 5min
"""


@click.group(
    "calibrate", cls=CommandGroup, invoke_without_command=True, help=HELP, context_settings={"max_content_width": 80}
)
@click.option(
    "--dry-run",
    is_flag=True,
    help=f"trace the real step on fake tensors: no GPU, weights or network [default model: {DEFAULT_MODEL}]",
)
@click.option("--model", "models", multiple=True, metavar="NAME", help="model name, Hub id or config.json; repeatable")
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="NAMES",
    help="all, or full, lora, dora, qlora, qdora with commas; repeatable [default: all]",
)
@click.option("--task", metavar="NAME", help=f"with --dry-run: {BY_NAME['task'].explanation}")
@click.option("--labels", metavar="N", help=f"with --dry-run: {BY_NAME['labels'].help}")
@partial(recipe_options, several=SEVERAL)
@click.option("--trainer", metavar="NAME", help=f"use this trainer's defaults: {', '.join(TRAINERS)}")
@click.option("--device", metavar="NAME", default="auto", show_default=True, help="auto, cuda or cpu")
@click.option("--budget", metavar="TIME", help="time for all bursts, such as 90s or 5min [default: 3min; GPU: 8min]")
@click.option(
    "--steps",
    metavar="N",
    type=click.IntRange(1, 100_000),
    help="timed steps of each burst [default: until their median is stable]",
)
@click.option("--out", metavar="DIR", help="save results in this folder [default: the user's data folder]")
@click.option("--again", is_flag=True, help="repeat bursts that have been measured")
@click.option(
    "--timeout",
    type=click.FloatRange(1, 86_400),
    default=600.0,
    show_default=True,
    help="time limit of one burst or trace in seconds",
)
@click.option("--retrace", is_flag=True, help="replace the traced profile of a model that has no formula")
@click.option("--trust-remote-code", is_flag=True, help="run the Python code in the model's own folder")
@click.option("--json", "as_json", is_flag=True, help="one line of JSON per burst")
@click.pass_context
def command(
    context: click.Context,
    /,
    dry_run: bool,
    models: tuple[str, ...],
    methods: tuple[str, ...],
    timeout: float,
    retrace: bool,
    trust_remote_code: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Measure, compare, or pass control to a sub-command."""
    if context.invoked_subcommand is not None:
        _refuse_stray_flags(context)
        return 0
    if given["trainer"] is not None:
        find_trainer(given["trainer"])
    if (ranks := started_ranks()) > 1 and given["gpus"] is None:
        given["gpus"] = str(ranks)
    method = ",".join(methods) if methods else "all"
    knobs = {name: value for name, value in given.items() if name not in (*BURST_ONLY, "trainer")}
    if dry_run:
        return _dry_run(context, models, method, knobs, given, timeout, retrace, trust_remote_code, as_json)
    if names_task(read_question({name: knobs.pop(name) for name in ("task", "labels")})):
        raise BadValue("--task", "classification", "is known with --dry-run alone: bursts train what a config names")
    return measure(
        Asked(
            models=models,
            method=method,
            knobs=knobs,
            trainer=given["trainer"] or "",
            device=given["device"],
            budget=given["budget"],
            steps=given["steps"] or 0,
            out=given["out"],
            again=given["again"],
            timeout_s=timeout,
            trust=trust_remote_code,
            as_json=as_json,
        )
    )


def _dry_run(
    context: click.Context,
    models: tuple[str, ...],
    method: str,
    knobs: dict[str, Any],
    given: dict[str, Any],
    timeout_s: float,
    retrace: bool,
    trust: bool,
    as_json: bool,
) -> int:
    for name in SEVERAL:
        if len(knobs[name]) > 1:
            raise BadValue(f"--{name.replace('_', '-')}", ", ".join(knobs[name]), "give one with --dry-run")
        knobs[name] = knobs[name][0] if knobs[name] else None
    idle = [f"--{name}" for name in BURST_ONLY if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if idle:
        click.echo(
            f"calibrate: warning: {', '.join(idle)} {'has' if len(idle) == 1 else 'have'} no effect with --dry-run",
            err=True,
        )
    return dry_run(models, method, knobs, given["trainer"] or "", timeout_s, retrace, trust, as_json)


def _refuse_stray_flags(context: click.Context) -> None:
    """Refuse flags in front of a sub-command, where they would have no effect."""
    for name in context.params:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise InputError(
                "options before a subcommand have no effect: remove those before "
                f"`calibrate {context.invoked_subcommand}`"
            )


for one in (make_stack, show, fit_records, report, export_records, import_records):
    command.add_command(one)
