"""Packages that a trainer's modules import and that are not installed: any name is there, and none is run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _Anything:
    """Stands for any class, also for a false answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __bool__(self) -> bool:
        return False

    def __class_getitem__(cls, item: Any) -> Any:
        return cls


def _any_name(name: str) -> type[_Anything]:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Anything


class _Absent(MetaPathFinder, Loader):
    """Finds the modules of some packages, whatever they are called."""

    def __init__(self, packages: Sequence[str]) -> None:
        self.packages = packages

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """A module in which any name is there."""
        return ModuleSpec(fullname, self, is_package=True) if fullname.split(".")[0] in self.packages else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An empty one, whose `__getattr__` answers for its names."""
        module = ModuleType(spec.name)
        module.__dict__["__getattr__"] = _any_name
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


def import_from(source: str, absent: Sequence[str]) -> None:
    """Make the packages in the folder `source` importable, and those named `absent`."""
    sys.path.insert(0, source)
    sys.meta_path.append(_Absent(absent))
