"""`advise mcp`: the tools for agents, over stdin and stdout."""

from __future__ import annotations

import os
import sys

import click

from advisor.errors import InputError


@click.command("mcp")
@click.option("--folder", metavar="DIR", help="let agents name files in this folder: config.json, data, cards")
@click.option("--text", "as_text", is_flag=True, help="answers as text, for clients that ignore structured content")
def mcp(folder: str | None, as_text: bool) -> None:
    """Serve agents by the Model Context Protocol (stdio): estimates, explanations, names.

    No network, and agents can name no file but those in --folder. Needs `pip install 'finetune-advisor[mcp]'`.
    """
    if sys.stdin is None:
        raise InputError("advise mcp is started by a client, which speaks to it over stdin, and stdin is closed")
    from advisor.mcp.confined import Confined

    try:
        from advisor.mcp.server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types", "anyio"):
            raise
        raise InputError("advise mcp needs a package: pip install 'finetune-advisor[mcp]'") from None
    files = Confined(folder)
    if files.folder is not None:
        os.chdir(files.folder)  # whatever path is meant, it is one of this folder
    if sys.stdin.isatty():
        click.echo("advise mcp waits for a client on stdin; Ctrl-C ends it", err=True)
    serve(files, as_text)
