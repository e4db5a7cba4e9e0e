"""`calibrate`: what a training step really needs, beside what the formula says.

Exit codes: 0 done; 1 a burst failed; 2 bad input; 4 torch or the Hub is missing; 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from advisor.catalog import find_model
from advisor.catalog.trainers import find_trainer
from advisor.errors import AdvisorError, InputError, SourceUnavailable, UnsupportedArchitecture
from advisor.knobs import TRAINERS
from advisor.specs import ModelSpec
from calibrate.compare import compare
from calibrate.manager import TraceWorker
from calibrate.measurement import Comparison, ModelFacts
from calibrate.options import config_of, methods_of, recipe_of, recipe_options
from calibrate.profiling import keep_profile
from calibrate.show import print_comparisons

DEFAULT_MODEL = "llama-3.2-1b"


@click.command(context_settings={"max_content_width": 80})
@click.option("--dry-run", is_flag=True, help="trace the real step on fake tensors: no GPU, weights or network")
@click.option("--model", "models", multiple=True, metavar="NAME",
              help=f"model name, Hub id or config.json; repeatable [default: {DEFAULT_MODEL}]")
@click.option("--method", default="all", show_default=True, metavar="NAMES",
              help="all, or full, lora, dora, qlora, qdora with commas")
@recipe_options
@click.option("--trainer", metavar="NAME", help=f"set what is left open as it does: {', '.join(TRAINERS)}")
@click.option("--timeout", type=click.FloatRange(1, 86_400), default=600.0, show_default=True,
              help="seconds that one trace may take")
@click.option("--retrace", is_flag=True, help="replace the traced profile of a model that has no formula")
@click.option("--trust-remote-code", is_flag=True, help="run the Python code in the model's own folder")
@click.option("--json", "as_json", is_flag=True, help="one JSON object a line and burst")
def command(
    dry_run: bool, models: tuple[str, ...], method: str, timeout: float, retrace: bool, trust_remote_code: bool,
    as_json: bool, trainer: str | None, **knobs: Any
) -> None:
    """Compare the memory formula with the real training step."""
    if not dry_run:
        raise InputError("measured bursts are not there yet: add --dry-run, which compares formula and traced step")
    failures: list[AdvisorError] = []
    if trainer is not None and not find_trainer(trainer).traced:
        note = f"{trainer}: transformers' step with its knobs; `advise trainers {trainer}` says what differs"
        click.echo(note, err=True)
    with TraceWorker(limit_s=timeout) as worker:
        for name in models or (DEFAULT_MODEL,):
            asked = _question(worker, name, knobs, trust_remote_code, failures)
            if asked is None:
                continue
            found = []
            for comparison in _dry_run(worker, asked, methods_of(method), trainer or "", failures):
                if as_json:
                    click.echo(comparison.model_dump_json())
                found.append(comparison)
            if not as_json:
                print_comparisons(found)
            if asked.facts is not None and found:
                _keep(worker, asked, found, retrace, failures)
    if failures:
        raise SystemExit(failures[0].exit_code)


class _Question(NamedTuple):
    """One model to trace. `facts` are transformers' own where the formula does not know it."""

    name: str
    config: dict[str, Any]
    model: ModelSpec | None
    facts: ModelFacts | None
    code: str
    knobs: dict[str, Any]


def _question(
    worker: TraceWorker, name: str, knobs: dict[str, Any], trust: bool, failures: list[AdvisorError]
) -> _Question | None:
    """What there is to know about a model before it is traced; None, and a line, when it cannot be built."""
    config, model = config_of(name), _known_model(name)
    code = _own_code(name, config) if trust and model is None else ""
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
    return _Question(name, config, model, facts, code, knobs)


def _own_code(name: str, config: dict[str, Any]) -> str:
    """The folder of a model that brings its own code. Raises InputError for one that is no local folder."""
    if "auto_map" not in config:
        return ""
    path = Path(name).expanduser()
    folder = path if path.is_dir() else path.parent
    if not (folder / "config.json").is_file():
        raise InputError(f"--trust-remote-code: {name[:80]} is no local folder; download the model and give its path")
    return str(folder.resolve())


def _dry_run(
    worker: TraceWorker, asked: _Question, methods: tuple[str, ...], trainer: str, failures: list[AdvisorError]
) -> Iterator[Comparison]:
    """Trace every method; one that fails is reported on stderr and left out."""
    for method in methods:
        recipe, seq_len = recipe_of(method, asked.knobs, trainer)
        if sys.stderr.isatty():
            click.echo(f"tracing {asked.name} {method} ...", err=True)
        extra = {"code": asked.code} if asked.code else {}
        try:
            trace, environment = worker.trace(asked.config, recipe, recipe.micro_batch, seq_len, **extra)
            yield compare(asked.name, asked.model, trace, environment)
        except SourceUnavailable:
            raise
        except AdvisorError as error:
            click.echo(f"{asked.name} {method}: {error}", err=True)
            failures.append(error)


def _keep(
    worker: TraceWorker, asked: _Question, found: Sequence[Comparison], retrace: bool, failures: list[AdvisorError]
) -> None:
    """Trace what was asked for at more shapes, and store it; what goes wrong is one line, the answer stands."""
    assert asked.facts is not None
    ways = (None,) if asked.knobs["gradient_checkpointing"] is not None else (True, False)
    recipes = [
        (one.recipe if way is None else one.recipe.model_copy(update={"gradient_checkpointing": way}), one.seq_len)
        for one in found for way in ways
    ]
    try:
        count = keep_profile(worker, asked.name, asked.config, asked.facts, found[0].environment, recipes,
                             lambda text: click.echo(text, err=True), retrace=retrace, code=asked.code)
    except AdvisorError as error:
        click.echo(str(error), err=True)
        failures.append(error)
        return
    if count:
        click.echo(f"profile of {count} recipes stored: advise --model {asked.name} answers from it", err=True)


def _known_model(name: str) -> ModelSpec | None:
    try:
        return find_model(name)
    except UnsupportedArchitecture as error:
        click.echo(f"no formula: {error}", err=True)
        return None


def main() -> None:
    """Entry point: one line and an exit code for every error that a user can cause."""
    try:
        command(standalone_mode=False)
    except AdvisorError as error:
        click.echo(f"calibrate: error: {error}", err=True)
        raise SystemExit(error.exit_code) from None
    except click.exceptions.Exit as stop:
        raise SystemExit(stop.exit_code) from None
    except click.ClickException as error:
        click.echo(f"calibrate: error: {error.format_message()}", err=True)
        raise SystemExit(2) from None
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
