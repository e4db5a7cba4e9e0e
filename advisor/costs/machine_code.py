"""Functions over one array of integers, compiled by numba (the [simulate] extra) or run as they are on a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

try:
    import numba
    import numpy
except ImportError:
    COMPILED = False
else:
    COMPILED = True


def jitted(function: Callable[P, R]) -> Callable[P, R]:
    """The function, compiled where numba is there; the machine code is kept on disk."""
    if not COMPILED:
        return function
    compiled: Callable[P, R] = numba.njit(cache=True)(function)
    return compiled


def array(values: Sequence[int]) -> Any:
    """The integers as the functions take them."""
    return numpy.array(values, dtype=numpy.int64) if COMPILED else list(values)


def zeros(words: int) -> Any:
    """The array of so many zeros."""
    return numpy.zeros(words, dtype=numpy.int64) if COMPILED else [0] * words
