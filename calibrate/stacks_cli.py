"""`calibrate stack`: makes the folders of other library versions that a dry run needs. Needs no torch."""

from __future__ import annotations

import click

from advisor.errors import InputError
from advisor.libraries import stack_names
from calibrate.stacks import beside, folder_of, is_complete, make, run_pip


@click.command("stack")
@click.argument("names", nargs=-1, required=True, metavar="LIBRARY-VERSION...")
@click.option("--again", is_flag=True, help="replace folders that are complete")
def make_stack(names: tuple[str, ...], again: bool) -> None:
    r"""Install other versions of transformers, peft and bitsandbytes beside these, for --dry-run --stack.

    \b
    Example:  calibrate stack transformers-4.57
    """
    wanted = beside(stack_names(names))
    if not wanted:
        same = (
            "these versions of transformers, peft and bitsandbytes are installed, and PyTorch stays the installed one"
        )
        raise InputError(f"{', '.join(names)}: nothing to make: {same}")
    for name in wanted:
        if is_complete(name) and not again:
            click.echo(f"{name}: in {folder_of(name)} already")
            continue
        click.echo(f"{name}: {make(name, run_pip)}")
