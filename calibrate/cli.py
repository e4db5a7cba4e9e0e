"""`calibrate`: what a training step really needs, compared with the formula. The entry point.

Exit codes: 0 done; 1 a burst or trace failed, or the answer could not be written; 2 bad input; 4 torch, the Hub or the
store is missing; 130 interrupted.
"""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Turn every error that a user can cause into one line and an exit code, from the first import on."""
    try:
        from advisor.command import run
        from calibrate.commands import command
    except KeyboardInterrupt:  # as `run` ends
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    run(command)


if __name__ == "__main__":
    main()
