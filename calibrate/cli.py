"""`calibrate`: what a training step really needs, beside what the formula says.

Exit codes: 0 done; 1 a burst failed; 2 bad input; 4 torch or the Hub is missing; 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from advisor.catalog import find_model
from advisor.errors import AdvisorError, InputError, SourceUnavailable, UnsupportedArchitecture
from advisor.specs import ModelSpec, Recipe
from calibrate.compare import compare
from calibrate.manager import TraceWorker
from calibrate.measurement import Comparison
from calibrate.options import config_of, methods_of, recipe_of, recipe_options
from calibrate.show import print_comparisons

DEFAULT_MODEL = "llama-3.2-1b"


@click.command(context_settings={"max_content_width": 80})
@click.option("--dry-run", is_flag=True, help="trace the real step on fake tensors: no GPU, weights or network")
@click.option("--model", "models", multiple=True, metavar="NAME",
              help=f"model name, Hub id or config.json; repeatable [default: {DEFAULT_MODEL}]")
@click.option("--method", default="all", show_default=True, metavar="NAMES",
              help="all, or full, lora, dora, qlora, qdora with commas")
@recipe_options
@click.option("--timeout", type=click.FloatRange(1, 86_400), default=600.0, show_default=True,
              help="seconds that one trace may take")
@click.option("--json", "as_json", is_flag=True, help="one JSON object a line and burst")
def command(
    dry_run: bool, models: tuple[str, ...], method: str, timeout: float, as_json: bool, **knobs: Any
) -> None:
    """Compare the memory formula with the real training step."""
    if not dry_run:
        raise InputError("measured bursts are not there yet: add --dry-run, which compares formula and traced step")
    failures: list[AdvisorError] = []
    with TraceWorker(limit_s=timeout) as worker:
        for name in models or (DEFAULT_MODEL,):
            found = []
            for comparison in _dry_run(worker, name, methods_of(method), knobs, failures):
                if as_json:
                    click.echo(comparison.model_dump_json())
                found.append(comparison)
            if not as_json:
                print_comparisons(found)
    if failures:
        raise SystemExit(failures[0].exit_code)


def _dry_run(
    worker: TraceWorker, name: str, methods: tuple[str, ...], knobs: dict[str, Any], failures: list[AdvisorError]
) -> Iterator[Comparison]:
    """Trace every method; one that fails is reported on stderr and left out."""
    config, model = config_of(name), _known_model(name)
    for method in methods:
        recipe, seq_len = _recipe(method, knobs, model)
        if sys.stderr.isatty():
            click.echo(f"tracing {name} {method} ...", err=True)
        try:
            trace, environment = worker.trace(config, recipe, recipe.micro_batch, seq_len)
            yield compare(name, model, trace, environment)
        except SourceUnavailable:
            raise
        except AdvisorError as error:
            click.echo(f"{name} {method}: {error}", err=True)
            failures.append(error)


def _recipe(method: str, knobs: dict[str, Any], model: ModelSpec | None) -> tuple[Recipe, int]:
    """The recipe, with the attention that transformers would pick when none was asked for."""
    if model is not None and knobs["attention"] is None:
        knobs = knobs | {"attention": model.default_attention}
    return recipe_of(method, knobs)


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
