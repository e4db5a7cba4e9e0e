"""The text of scripts and notebooks as the calls that configure a run (`calls`). Nothing is executed."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from advisor.configs.calls import Calls
from advisor.configs.tree import Tree
from advisor.errors import BadConfig

_SHELL = re.compile(r"^([ \t]*)[!%](?:.*\\\n)*.*", re.MULTILINE)
"""Shell commands and magics of a cell, over all lines that they go on for; `pass` keeps the block around them whole."""
LONGEST_TEXT = 100_000
"""Letters of Python in a script, or in all cells of a notebook: of 84 that people publish the longest has 27,346."""
_HINT = "give a script or a notebook that trains"


def python_tree(text: str, name: str) -> Tree:
    """The calls of a script as a tree; `loader` is the class that loads the model. Raises BadConfig."""
    try:
        module = _parsed(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        where = f"line {error.lineno}" if isinstance(error, SyntaxError) else "nested too deep"
        where = str(error) if isinstance(error, ValueError) else where
        raise BadConfig(f"{name}: not Python that can be read ({where}); {_HINT}") from None
    return Calls().tree([module])


def notebook_tree(text: str, name: str) -> Tree:
    """The calls in a notebook's cells, and the card that Colab's metadata names. Raises BadConfig."""
    try:
        book = json.loads(text)
        cells = [one for one in book["cells"] if one.get("cell_type") == "code"]
        metadata = book.get("metadata") or {}
        card = (metadata.get("colab") or {}).get("gpuType")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadConfig(f"{name}: not a notebook; {_HINT}") from None
    tree = Calls().tree(list(_parsed_cells(cells, name)))
    return Tree({**tree.values, **({"card": card} if isinstance(card, str) else {})}, {})


def _parsed_cells(cells: list[Any], name: str) -> Iterator[ast.Module]:
    """The cells that are Python."""
    left = LONGEST_TEXT
    for cell in cells:
        source = cell.get("source", "")
        text = "".join(map(str, source) if isinstance(source, list) else [str(source)])
        left -= len(text)
        if left < 0:
            raise BadConfig(f"{name}: not a notebook that can be read (more than {LONGEST_TEXT:,} letters of Python)")
        with suppress(SyntaxError, ValueError, RecursionError, MemoryError):
            yield _parsed(_SHELL.sub(r"\1pass", text))


def _parsed(text: str) -> ast.Module:
    """The syntax of a text, without what Python would warn of. Raises ValueError for one that is far too long."""
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"more than {LONGEST_TEXT:,} letters of Python")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)
