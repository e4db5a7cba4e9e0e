"""What each architecture's code builds from its config.json: one small function per family, and a table in each file.

Structure (which linear layers exist, where biases, norms and softcaps sit) follows modeling_*.py and the
defaults of missing keys follow configuration_*.py of transformers 5.23 under src/transformers/models/<model_type>.
tests/catalog builds every family on the meta device and compares.

Files are loaded until the family is found, the most common first: most questions are about one model.
"""

from __future__ import annotations

import importlib
from functools import cache
from pkgutil import iter_modules

from advisor.catalog.families.llama import FAMILIES as COMMON
from advisor.catalog.families.sizes import Family


@cache
def tables() -> tuple[str, ...]:
    """The files of this folder other than llama.py, by name."""
    return tuple(module.name for module in iter_modules(__path__) if module.name != "llama")


def _table(name: str) -> dict[str, Family]:
    """What a file calls FAMILIES; empty for what families share."""
    found: dict[str, Family] = getattr(importlib.import_module(f"{__name__}.{name}"), "FAMILIES", {})
    return found


@cache
def find_family(model_type: str) -> Family | None:
    """The function for transformers' `model_type`, None where no file has one."""
    if model_type in COMMON:
        return COMMON[model_type]
    return next((table[model_type] for table in map(_table, tables()) if model_type in table), None)


def all_families() -> dict[str, Family]:
    """Every family by its model_type. ValueError for one that stands in two files."""
    found = dict(COMMON)
    for name in tables():
        table = _table(name)
        if twice := found.keys() & table.keys():
            raise ValueError(f"families in two files: {', '.join(sorted(twice))}")
        found |= table
    return found
