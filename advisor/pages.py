"""`advise page`: the page as a folder of static files, or shown on loopback."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from advisor.errors import InputError

if TYPE_CHECKING:
    from advisor.site.server import PageServer

DEFAULT_FOLDER = "advise-page"
DEFAULT_PORT = 8765
MOST_PORT = 65_535


@click.command()
@click.option("--to", "folder", metavar="DIR", help=f"where to write it  [{DEFAULT_FOLDER}]")
@click.option("--serve", "shown", is_flag=True, help="show it on this machine, and write nothing")
@click.option("--port", type=click.IntRange(0, MOST_PORT), metavar="N", help=f"of --serve  [{DEFAULT_PORT}; 0: any]")
@click.option("--runtime", metavar="DIR", help="the files of npm's package pyodide, which npm fetches once otherwise")
@click.option("--force", is_flag=True, help="write beside other files that are in DIR")
def page(folder: str | None, shown: bool, port: int | None, runtime: str | None, force: bool) -> None:
    """Write the page that answers in the browser: static files for any host, with the engine in them.

    Nothing that is asked there leaves the browser, and it works offline after the first visit.
    """
    if shown and (folder is not None or force):
        raise InputError(
            f"{'--to' if folder is not None else '--force'} has no effect with --serve, which writes nothing"
        )
    if port is not None and not shown:
        raise InputError("--port has no effect without --serve")
    from advisor.site.files import page_files
    from advisor.site.runtime import runtime_files

    files = page_files(runtime_files(runtime))
    if shown:
        from advisor.site.server import PageServer

        _show(PageServer(files, DEFAULT_PORT if port is None else port))
        return
    from advisor.site.folder import save_page

    place = folder or DEFAULT_FOLDER
    save_page(files, place, force)
    size = sum(map(len, files.values())) / 1e6
    click.echo(f"Wrote {len(files)} files, {size:.1f} MB, to {place}: any static host gives them out.")


def _show(server: PageServer) -> None:
    """Give out the page until the command is interrupted."""
    with server:
        try:
            click.echo(f"{server.address}  (Ctrl-C ends it)")
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo()
