"""Which models and cards there are, by the words of their names."""

from __future__ import annotations

import json

from advisor.catalog.listing import Listed, containing, listed_gpus, listed_models
from advisor.errors import BadValue, UnknownName
from advisor.frozen import Frozen
from advisor.units import GIB

MOST_NAMES = 20
MOST_BYTES = 930
"""Of the JSON text: 600 tokens of o200k at 1.55 bytes; names have 1.55 to 2."""
_KEYS_BYTES = 60
_MOST_GIB = 10_000.0


class Found(Frozen):
    """Names to ask with, and how many more there are of each."""

    models: tuple[str, ...]
    more_models: int
    gpus: tuple[str, ...]
    more_gpus: int


def find(query: object = "", min_gib: object = 0) -> Found:
    """The models and cards that contain all words of `query`; cards of at least so many GiB.

    Raises BadValue for what is no text or no number, UnknownName where nothing has such a name.
    """
    if not isinstance(query, str):
        raise BadValue("query", query, "must be text")
    if isinstance(min_gib, bool) or not isinstance(min_gib, int | float) or not 0 <= min_gib <= _MOST_GIB:
        raise BadValue("min_gib", min_gib, f"must be a number from 0 to {_MOST_GIB:,.0f}")
    words = query[:200].split()
    all_models, all_cards = listed_models(), listed_gpus()
    models, cards = containing(all_models, words), containing(all_cards, words)
    if not models and not cards:
        known = [name for row in (*all_models, *all_cards) for name in row.names]
        raise UnknownName("model or GPU", query, known, "fewer words find more")
    cards = [row for row in cards if row.item.memory_bytes >= min_gib * GIB]
    names = [
        [f"{row.names[0]} ({row.item[1] / 1e9:.3g}B)" for row in models[:MOST_NAMES]],
        [f"{_short(row)} ({row.item.memory_bytes / GIB:.3g} GiB)" for row in cards[:MOST_NAMES]],
    ]
    while len(json.dumps(names).encode()) > MOST_BYTES - _KEYS_BYTES:
        max(names, key=len).pop()
    return Found(
        models=tuple(names[0]),
        more_models=len(models) - len(names[0]),
        gpus=tuple(names[1]),
        more_gpus=len(cards) - len(names[1]),
    )


def _short(row: Listed) -> str:
    """The shortest name of a card that says which it is: its first alias."""
    return row.names[1] if len(row.names) > 1 else row.names[0]
