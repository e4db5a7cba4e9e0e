"""`advise check`: a gate for training configurations, by its exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from advisor.command import tell_error
from advisor.errors import AdvisorError, InputError, UnknownName
from advisor.options import knob_options

if TYPE_CHECKING:
    from advisor.advice.check import Checked

EXIT_NOTHING_FITS = 3
EXIT_NOT_SURE = 5
GATES = ("tight", "unknown", "does-not-fit")
"""Verdicts of `advise check` that can fail a pipeline, the worst last."""


def judge(files: Sequence[str], knobs: dict[str, Any], as_json: bool, explain: bool, fail_on: str = "tight") -> int:
    """Judge files and print what is found; the exit code. Raises UnknownName for a verdict that is none.

    Of several files each that can be judged is, before the error of another is raised. One that cannot be read is an
    error for all: it may say how the others share their cards.
    """
    if fail_on not in GATES:
        raise UnknownName("verdict", fail_on, GATES, f"known: {', '.join(GATES)}")
    checked, errors = _checked(files, knobs)
    if as_json and (checked or not errors):
        click.echo("[" + ",\n".join(one.model_dump_json(indent=2) for one in checked) + "]")
    elif checked:
        from advisor.render.check import render_check

        for number, one in enumerate(checked):
            if number:
                click.echo()
            render_check(one, sys.stdout, explain=explain)
    for error in errors[:-1]:
        tell_error("advise", str(error))
    if errors:
        raise errors[-1]
    failing = GATES[GATES.index(fail_on) :]
    failed = [one.verdict for one in checked if one.verdict.replace("_", "-") in failing]
    if "does_not_fit" in failed:
        return EXIT_NOTHING_FITS
    return EXIT_NOT_SURE if failed else 0


def _checked(files: Sequence[str], knobs: dict[str, Any]) -> tuple[list[Checked], list[AdvisorError]]:
    """What is found of each run, and the errors of those that cannot be judged, each said once."""
    from advisor.advice.check import check as checked_file
    from advisor.configs.reading import is_engine, read_text_of

    gpu = knobs.pop("gpu")
    texts = [read_text_of(path) for path in files]
    beside = [one for one in texts if is_engine(one)]
    runs = [one for one in texts if one not in beside]
    if not runs:
        told = "says how cards share a job, not which: give the training configuration as well"
        raise InputError(f"{beside[0].path} {told}")
    checked: list[Checked] = []
    errors: dict[str, AdvisorError] = {}
    for one in runs:
        try:
            checked.append(checked_file(one, gpu, beside=beside, **knobs))
        except AdvisorError as error:
            errors.setdefault(str(error), error)
    return checked, list(errors.values())


def refuse_beside_from(given: dict[str, Any]) -> None:
    """Raises InputError for a flag that does nothing for a file that is judged as it is."""
    judging = ("from_file", "as_json", "explain")
    for name, value in given.items():
        if name not in judging and value not in (None, False):
            flags = {"target": "--write", "folder": "--to", "show_script": "--script", "steps": "--simulate-steps"}
            raise InputError(
                f"{flags.get(name, '--' + name.replace('_', '-'))} has no effect with --from; leave it out"
            )


@click.command("check")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@knob_options()
@click.option("--json", "as_json", is_flag=True, help="print a list of judged files as JSON")
@click.option("--explain", is_flag=True, help="every key, and every change that is worth knowing")
@click.option("--fail-on", metavar="VERDICT", default="tight", help=f"least bad verdict that fails: {', '.join(GATES)}")
def check(files: Sequence[str], as_json: bool, explain: bool, fail_on: str, **knobs: Any) -> int:
    """Judge training configurations before they are launched: does exactly this run fit?

    Reads YAML of Axolotl, LLaMA-Factory, TRL, torchtune, LitGPT, Unsloth and ms-swift, Python scripts, notebooks, shell
    scripts of ms-swift, with files of accelerate or DeepSpeed beside them, and what scripts of Slurm and tasks of
    SkyPilot start. Flags win over files. Exits with 0 where all fit, 3 where one does not, 5 where it is not known or
    only just fits, 2 or 4 where a file cannot be judged, after judging the others.
    """
    return judge(files, knobs, as_json, explain, fail_on)
