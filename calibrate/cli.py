"""`calibrate`: what a training step really needs, beside what the formula says. The entry point.

Exit codes: 0 done; 1 a burst or trace failed, or the answer could not be written; 2 bad input; 4 torch, the Hub or the
store is missing; 130 interrupted.
"""

from __future__ import annotations

import os
import sys

EXIT_NOT_WRITTEN = 1
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


def main() -> None:
    """One line and an exit code for every end that a user can cause, from the first import on."""
    try:
        sys.exit(_run())
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(EXIT_INTERRUPTED)


def _run() -> int:
    import click

    from advisor.errors import AdvisorError
    from calibrate.commands import command

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without a character's glyph is no reason to die
    try:
        # Not `command.main()`: it has an exit code of its own for a reader that has gone.
        with command.make_context("calibrate", sys.argv[1:]) as context:
            code = command.invoke(context)
        sys.stdout.flush()
    except AdvisorError as error:
        return _fail(str(error), error.exit_code)
    except click.exceptions.Exit as stop:
        return int(stop.exit_code)
    except click.ClickException as error:
        return _fail(error.format_message(), 2)
    except click.Abort:
        raise KeyboardInterrupt from None
    except OSError as error:
        # Point stdout elsewhere, or Python tries to write what is left once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return EXIT_BROKEN_PIPE  # what reads our output is gone
        return _fail(f"the answer could not be written: {error.strerror or error}", EXIT_NOT_WRITTEN)
    return int(code or 0)


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"calibrate: error: {' '.join(message.split())}\n")
    return code


if __name__ == "__main__":
    main()
