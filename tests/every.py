"""Whether tests run every combination (EVERY_COMBINATION=1 make test), or leave out those that repeat others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

Case = TypeVar("Case")
EVERY_COMBINATION = bool(os.environ.get("EVERY_COMBINATION"))


def in_turn(cases: Sequence[Case], one_in: int, start: int = 0) -> list[Case]:
    """One in so many of the cases, from `start` on; all of them where every combination is asked for."""
    return list(cases) if EVERY_COMBINATION else list(cases)[start % one_in :: one_in]


def times(count: int) -> int:
    """How often something random is tried: ten times as often where every combination is asked for."""
    return 10 * count if EVERY_COMBINATION else count
