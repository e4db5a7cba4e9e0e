"""How long a short-lived process spends on the catalog: one model looked up, and all cards loaded.

    python -m benchmarks.lookups

Takes the shortest of several times, each with empty caches; exits with 1 when a limit is exceeded.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

from advisor.catalog import gpus, models

TIMES = 7
MODEL = "llama-8b"
MODEL_BAR_S, CARDS_BAR_S = 0.010, 0.015


def caches_of(module: Any) -> list[Any]:
    """The functions in `module` that cache their answers."""
    return [thing for thing in vars(module).values() if isinstance(thing, type(cache(len)))]


def shortest_s(module: Any, ask: Callable[[], object]) -> float:
    """Seconds that `ask` takes with empty caches in `module`; other load can only make it longer."""
    times_s = []
    for _ in range(TIMES):
        for one in caches_of(module):
            one.cache_clear()
        start_s = time.perf_counter()
        ask()
        times_s.append(time.perf_counter() - start_s)
    return min(times_s)


def main() -> int:
    """Print both; returns 1 when a limit is exceeded."""
    model_s = shortest_s(models, partial(models.find_model, MODEL))
    print(f"look-up of {MODEL}:  {model_s * 1e3:6.1f} ms   (bar: {MODEL_BAR_S * 1e3:g})")
    cards_s = shortest_s(gpus, gpus.all_gpus)
    print(f"all {len(gpus.all_gpus())} cards:         {cards_s * 1e3:6.1f} ms   (bar: {CARDS_BAR_S * 1e3:g})")
    return 0 if model_s < MODEL_BAR_S and cards_s < CARDS_BAR_S else 1


if __name__ == "__main__":
    sys.exit(main())
