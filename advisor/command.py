"""What `advise` and `calibrate` have in common: one line for an error, and a documented exit code for every outcome.

Exit codes besides the command's own: 1 the answer could not be written, 2 bad input, 4 a source is unavailable,
130 interrupted, 141 the reader of the output is gone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from advisor.errors import AdvisorError, InputError, UnknownName

EXIT_NOT_WRITTEN = 1
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
MAX_ERROR = 1_200
"""Characters of an error: what was typed may be longer than any screen."""


class CommandGroup(click.Group):
    """A group whose errors are one line on stderr and whose exit codes are the documented ones.

    Each error starts with its `name`. A command's integer result is its exit code.
    """

    hint = ""
    """A hint for an unknown sub-command, printed after the names of the known ones."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run; in standalone mode turn every expected outcome into a line and an exit code."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **extra)
        try:
            code = super().main(args, prog_name, complete_var, False, **extra)
            sys.stdout.flush()
        except AdvisorError as error:
            self._fail(str(error), error.exit_code)
        except click.exceptions.Exit as error:
            sys.exit(error.exit_code)
        except click.ClickException as error:
            self._fail(error.format_message(), InputError.exit_code)
        except (click.Abort, KeyboardInterrupt):
            click.echo("interrupted", err=True)
            sys.exit(EXIT_INTERRUPTED)
        except OSError as error:
            # Point stdout elsewhere, or Python tries to flush the rest again when it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):
                sys.exit(EXIT_BROKEN_PIPE)
            self._fail(f"the answer could not be written: {error.strerror or error}", EXIT_NOT_WRITTEN)
        sys.exit(code if isinstance(code, int) else 0)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse; --help and --version print here."""
        with _own_code_for_a_broken_pipe():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Call what was parsed."""
        with _own_code_for_a_broken_pipe():
            return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Look a sub-command up; the error for an unknown one lists near matches."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            known = self.list_commands(ctx)
            hints = (f"commands: {', '.join(known)}", self.hint)
            raise UnknownName("command", args[0], known, hint="; ".join(hint for hint in hints if hint))
        return super().resolve_command(ctx, args)

    def _fail(self, message: str, code: int) -> NoReturn:
        tell_error(str(self.name), message)
        sys.exit(code)


def tell_error(command: str, message: str) -> None:
    """Print an error on stderr as one line, which starts with the command's name."""
    # What was typed is repeated in messages, click's too: a terminal must not obey it.
    line = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in " ".join(message.split()))
    shown = line if len(line) <= MAX_ERROR else f"{line[:MAX_ERROR]}..."
    click.echo(f"{command}: error: {shown}", err=True)


@contextmanager
def _own_code_for_a_broken_pipe() -> Iterator[None]:
    """Keep a broken pipe from click, which would exit with its code for any failure, 1."""
    try:
        yield
    except BrokenPipeError:
        raise click.exceptions.Exit(EXIT_BROKEN_PIPE) from None


def run(group: CommandGroup, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run `group` as a console script with these arguments, else those of this process, and end the process."""
    if sys.stdout is None:  # closed by whoever started this process
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a character that the terminal cannot show is not a reason to fail
    group.main(args=None if arguments is None else list(arguments), prog_name=group.name)
    raise AssertionError("click's standalone mode ends the process")
