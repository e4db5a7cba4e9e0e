"""The quick tests, `pytest --quick`: no torch, no process, nothing slow.

Left out are the tests marked `process` and `slow`. For the others torch and its libraries are not installed, even where
they are: `pytest.importorskip` skips, and a plain import fails. A test that starts a process or sleeps fails too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import NoReturn

import pytest

HEAVY = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "trl", "datasets")
LEFT_OUT = ("process", "slow")
FORBIDDEN: tuple[tuple[object, str], ...] = (
    (subprocess.Popen, "__init__"),
    (BaseProcess, "start"),
    (os, "system"),
    (os, "fork"),
    (os, "posix_spawn"),
    (time, "sleep"),
)


class NotInQuick(MetaPathFinder):
    """Finds torch and its libraries missing, as a light install does."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Refuse the heavy; leave the others to the finders behind."""
        if name.partition(".")[0] in HEAVY:
            raise ModuleNotFoundError(f"quick tests have no {name}; ask for it with pytest.importorskip", name=name)
        return None


def refusal_of(name: str) -> Callable[..., NoReturn]:
    """A function that fails the test which calls it, whatever the code in between catches."""

    def refuse(*_: object, **__: object) -> NoReturn:
        pytest.fail(f"{name} in a quick test: mark it with pytest.mark.process or pytest.mark.slow")

    return refuse


def pytest_addoption(parser: pytest.Parser) -> None:
    """Know the flag."""
    parser.addoption("--quick", action="store_true", help="no torch, no process, nothing slow: a minute")


def pytest_configure(config: pytest.Config) -> None:
    """From here on nothing heavy can be imported, and no process started."""
    if config.getoption("quick"):
        sys.meta_path.insert(0, NotInQuick())
        for holder, name in FORBIDDEN:
            if hasattr(holder, name):  # Windows has not all of them
                setattr(holder, name, refusal_of(f"{getattr(holder, '__name__', holder)}.{name}"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked."""
    if config.getoption("quick"):
        left_out = {item for item in items if any(item.get_closest_marker(name) for name in LEFT_OUT)}
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]
