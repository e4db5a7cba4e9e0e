"""The `advise` command: parse, call, print.

Exit codes: 0 advice given, 1 it could not be written, 2 bad input, 3 nothing fits, 4 a source is unavailable,
5 not known or not sure (`gate`), 130 interrupted.
"""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn, cast

import click

from advisor.command import CommandGroup, run
from advisor.errors import InputError, UnknownName
from advisor.export import TARGETS
from advisor.gate import EXIT_NOTHING_FITS, check, judge, refuse_beside_from
from advisor.knobs import KNOBS
from advisor.lists import COMMANDS
from advisor.mcp.command import mcp
from advisor.options import knob_options
from advisor.pages import page

if TYPE_CHECKING:
    from advisor.answer import Advice
    from advisor.export import Target
    from advisor.export.run import TrainingFile

EXAMPLE = "advise --model llama-8b --gpu 24GB --examples 3000"
HELP = f"""LoRA, QLoRA or DoRA? Will it fit? How long will it take? What next?

Flags that you set are kept; everything else is chosen, and the answer says which is which.

\b
Example:    {EXAMPLE}
Exit codes: 0 advice, 1 not written, 2 bad input, 3 nothing fits,
            4 source unavailable, 5 not known (check), 130 interrupted
"""


class AdviseGroup(CommandGroup):
    """The group; a stray word is most often a value that lost its quotes."""

    hint = (
        "a model and a card are flags (--model, --gpu), a value with a space needs quotes, and switches take no value "
        "(--packing, --no-packing)"
    )


def _refuse_compile(context: click.Context, option: click.Parameter, asked: bool) -> None:
    if asked:
        raise InputError("--compile: torch.compile changes memory and time and is not estimated; leave it out")


def _show_version(context: click.Context, option: click.Parameter, asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        try:
            click.echo(f"advise {version('finetune-advisor')}")
        except PackageNotFoundError:
            click.echo("advise (not installed)")
        context.exit()


@click.group("advise", cls=AdviseGroup, invoke_without_command=True, help=HELP)
@knob_options()
@click.option("--from", "from_file", metavar="FILE", help="judge a training configuration, as `advise check` does")
@click.option("--simulate", is_flag=True, help="replay the job's steps through PyTorch's allocator: some seconds")
@click.option("--simulate-steps", "steps", type=int, metavar="N", help="optimizer steps to replay")
@click.option("--seed", type=int, metavar="N", help="of the order of the rows in --simulate  [0]")
@click.option("--json", "as_json", is_flag=True, help="print the answer as JSON")
@click.option("--brief", is_flag=True, help="with --json: what matters, in at most 1,200 tokens")
@click.option("--explain", is_flag=True, help="everything: sources, bytes, other plans, prices, knobs")
@click.option(
    "--explain-time", is_flag=True, help="list the most expensive kernels, and where each method's step spends its time"
)
@click.option("--script", "show_script", is_flag=True, help="print the file to run after the answer")
@click.option("--write", "target", metavar="TARGET", help=f"write the file to run: {', '.join(TARGETS)}")
@click.option("--to", "folder", metavar="DIR", help="where --write puts it  [this folder]")
@click.option("--force", is_flag=True, help="let --write replace files")
@click.option("--compile", is_flag=True, hidden=True, expose_value=False, callback=_refuse_compile)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="print the version"
)
@click.pass_context
def cli(context: click.Context, /, **given: Any) -> int:
    """Answer the question that the flags ask, or hand over to a sub-command."""
    knobs = {knob.name: given.pop(knob.name) for knob in KNOBS}
    if context.invoked_subcommand is not None:
        _refuse_stray_flags(context.invoked_subcommand, [*knobs.values(), *given.values()])
        return 0
    if given["from_file"] is not None:
        refuse_beside_from(given)
        return judge([given["from_file"]], knobs, given["as_json"], given["explain"])
    for name, hint in (("model", "llama-8b"), ("gpu", "24GB, or 'auto' for this machine's")):
        if knobs[name] is None:
            raise InputError(f"no --{name} given, for example --{name} {hint}; try: {EXAMPLE}")
    target = _target_of(given["target"], given["folder"] is not None, given["force"])
    if given["brief"] and not given["as_json"]:
        raise InputError("--brief has no effect without --json")
    answer = _answer(knobs, given["simulate"], given["steps"], given["seed"])
    script = _script_of(answer, target, given["folder"] or "") if target or given["show_script"] else None
    written: tuple[str, ...] = ()
    if script is not None and target is not None:
        from advisor.export.saving import save

        written = save(script, given["folder"] or "", given["force"])
    if given["as_json"]:
        _print_json(answer, given)
    else:
        _print_text(answer, given, script if given["show_script"] else None)
    if script is not None and written:
        _print_written(script, given["folder"], written, to_stderr=given["as_json"])
    return 0 if answer.recommendation else EXIT_NOTHING_FITS


def _answer(knobs: dict[str, Any], simulate: bool, steps: int | None, seed: int | None) -> Advice:
    """The answer, with a progress bar for what takes its time. Raises InputError for flags without --simulate."""
    from advisor.advice.advise import advise

    if not simulate:
        for flag, value in (("--simulate-steps", steps), ("--seed", seed)):
            if value is not None:
                raise InputError(f"{flag} has no effect without --simulate")
        if knobs["data"] is None:
            return advise(**knobs)
    from advisor.render.progress import progress_of

    what = "replaying the job" if simulate else "reading --data"
    with progress_of(what) as progress:
        if not simulate:
            return advise(progress=progress, **knobs)
        from advisor.advice.simulation import Simulating

        return advise(progress=progress, simulate=Simulating(steps or 0, seed or 0), **knobs)


def _target_of(name: str | None, has_folder: bool, force: bool) -> Target | None:
    """What --write asks for. Raises UnknownName, and InputError for flags that have no effect without it."""
    if name is None:
        for flag, given in (("--to", has_folder), ("--force", force)):
            if given:
                raise InputError(f"{flag} has no effect without --write, for example --write auto")
        return None
    if name.strip().lower() not in TARGETS:
        raise UnknownName("file to --write", name, TARGETS, f"known: {', '.join(TARGETS)}")
    return cast("Target", name.strip().lower())


def _script_of(answer: Advice, target: Target | None, folder: str) -> TrainingFile | None:
    """The file that runs what is recommended; None, with a warning, where nothing is."""
    if answer.recommendation is None:
        click.echo("advise: warning: nothing fits, so there is no file to run", err=True)
        return None
    from advisor.export.training_file import training_file

    return training_file(answer, answer.candidate(answer.recommendation.method), target or "auto", folder)


def _print_json(answer: Advice, given: dict[str, Any]) -> None:
    if given["brief"]:
        from advisor.advice.brief import brief

        click.echo(brief(answer).model_dump_json())
        return
    click.echo(answer.model_dump_json(indent=2))
    for warning in answer.recommendation.warnings if answer.recommendation else ():
        click.echo(f"advise: warning: {warning.text}", err=True)
    for flag, name in (("--explain", "explain"), ("--explain-time", "explain_time"), ("--script", "show_script")):
        if given[name]:
            click.echo(f"advise: warning: {flag} has no effect with --json", err=True)


def _print_text(answer: Advice, given: dict[str, Any], script: TrainingFile | None) -> None:
    from advisor.render.answer import render

    breakdown = None
    if given["explain_time"]:
        from advisor.advice.breakdown import time_breakdown

        breakdown = time_breakdown(answer)
    next_step = given["target"] is None and script is None
    render(answer, sys.stdout, explain=given["explain"], breakdown=breakdown, script=script, next_step=next_step)


def _print_written(script: TrainingFile, folder: str | None, paths: Sequence[str], to_stderr: bool) -> None:
    """Name the files, and the command that starts the run."""
    import shlex

    start = f"cd {shlex.quote(folder)} && {script.command}" if folder else script.command
    where = f" on each of the {script.machines:,} machines" if script.machines > 1 else ""
    caution = f"{script.caution}\n" if script.caution else ""
    click.echo(f"\n{caution}Wrote {' and '.join(paths)}. Start it{where} with:\n{start}", err=to_stderr)


def _refuse_stray_flags(command: str, values: Sequence[object]) -> None:
    """Refuse flags in front of a sub-command, where they would have no effect."""
    if any(value not in (None, False) for value in values):
        raise InputError(f"options before a subcommand have no effect: remove those before `advise {command}`")


for _command in (*COMMANDS, check, mcp, page):
    cli.add_command(_command)


@cli.command()
@knob_options(repeated=("model", "gpu", "price_per_hour"))
@click.option("--json", "as_json", is_flag=True, help="print a list of {model, gpu, advice} as JSON")
def compare(
    model: Sequence[str], gpu: Sequence[str], price_per_hour: Sequence[str], as_json: bool, **knobs: Any
) -> int:
    """Answer for every --model on every --gpu, side by side.

    --price-per-hour holds for all cards, or is given once for each --gpu. Exits with 3 if nothing fits anywhere.
    """
    from advisor.advice.compare import compare as compared

    pairs = compared(model, gpu, price_per_hour, **knobs)
    if as_json:
        click.echo("[" + ",\n".join(pair.model_dump_json(indent=2) for pair in pairs) + "]")
    else:
        from advisor.render.compare import render_comparison

        render_comparison(pairs, sys.stdout)
    return 0 if any(pair.advice.recommendation for pair in pairs) else EXIT_NOTHING_FITS


@cli.command("data")
@click.argument("file")
@knob_options(
    *("model", "tokenizer", "data_columns", "skip_bad_lines", "seq_len", "micro_batch", "batch_size", "epochs"),
    "packing",
)
@click.option("--json", "as_json", is_flag=True, help="print the summary as JSON")
def data_command(file: str, as_json: bool, **knobs: Any) -> None:
    """Show how long the rows of FILE are, and what a job makes of them: cut, padded, packed."""
    from advisor.advice.data import describe
    from advisor.render.data import render_data
    from advisor.render.progress import progress_of

    with progress_of("reading") as progress:
        found = describe(file, knobs, progress)
    if as_json:
        click.echo(found.summary.model_dump_json(indent=2))
    else:
        render_data(found.file, found.summary, sys.stdout)


@cli.command()
@click.option("--time", "of_time", is_flag=True, help="step times instead of memory")
@click.option("--coverage", is_flag=True, help="how many figures lie in the stated intervals, by counter, and how wide")
@click.option("--group", metavar="NAME", help="rows of one source only, for example peft-mm")
@click.option("--framework", metavar="NAME", help="rows of one framework only, for example lit-gpt (memory)")
@click.option("--json", "as_json", is_flag=True, help="print the table as one JSON document")
def validate(of_time: bool, coverage: bool, group: str | None, framework: str | None, as_json: bool) -> None:
    """Compare predicted with measured memory or step time, row by row, for runs that others published."""
    import json

    from advisor.validation.text import report_lines, time_lines

    if coverage:
        if of_time or group is not None or framework is not None:
            raise InputError("--coverage is about all rows; leave out --time, --group and --framework")
        from advisor.validation.coverage import coverage_document, coverage_lines, held_figures

        held = held_figures()
        document, lines = coverage_document(held), coverage_lines(held)
    elif of_time:
        if framework is not None:
            raise InputError("--framework selects memory rows; give --group with --time")
        from advisor.validation.timing import validate_time

        times = validate_time(group)
        document, lines = times.document(), time_lines(times)
    else:
        from advisor.validation.report import validate as compared

        report = compared(group, framework)
        document, lines = report.document(), report_lines(report)
    click.echo(json.dumps(document, indent=2) if as_json else "\n".join(lines))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the console script."""
    gc.disable()  # one answer, then the process ends: looking for cyclic garbage costs more than it brings
    atexit.register(gc.freeze)  # and so does Python's own search when it ends
    run(cli, arguments)


if __name__ == "__main__":
    main()
