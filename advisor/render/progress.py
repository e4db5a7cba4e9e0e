"""A progress bar on stderr for what takes more than a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress

SHOWN_AFTER_S = 1.0


@contextmanager
def progress_of(text: str) -> Iterator[Callable[[int, int], None] | None]:
    """What is told how much of how much is done; None, so that nothing is shown, where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    begun = time.monotonic()
    bars: list[Progress] = []

    def report(done: int, total: int) -> None:
        if not bars and time.monotonic() - begun > SHOWN_AFTER_S:
            bars.append(_bar(text))
        for bar in bars:
            bar.update(bar.task_ids[0], completed=done, total=max(total, 1))

    try:
        yield report
    finally:
        for bar in bars:
            bar.stop()


def _bar(text: str) -> Progress:
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(stderr=True, markup=False), transient=True)
    bar.add_task(text, total=1)
    bar.start()
    return bar
