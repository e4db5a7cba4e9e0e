"""Functions of transformers' image processors, taken from their source: importing them needs Pillow."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest


def functions(file: str, *names: str, **around: Any) -> dict[str, Callable[..., Any]]:
    """The functions and methods of these names of a file of transformers, without decorators and annotations."""
    found = find_spec(pytest.importorskip("transformers").__name__)
    assert found is not None
    assert found.origin is not None
    tree = ast.parse((Path(found.origin).parent / file).read_text(encoding="utf-8"))
    taken = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name in names]
    for node in taken:
        node.decorator_list, node.returns = [], None
        for argument in (*node.args.args, *node.args.kwonlyargs):
            argument.annotation = None
    space: dict[str, Any] = {"math": math, "MAX_IMAGE_SIZE": 4096, **around}
    exec(compile(ast.Module(taken, []), file, "exec"), space)
    return {name: space[name] for name in names}
