"""The models and cards that the catalog lists, and those of a list that contain some words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from advisor.catalog.entries import model_entries
from advisor.catalog.gpus import all_gpus, gpu_aliases


class Listed(NamedTuple):
    """One thing of a list: its names, what else a filter may look at, and what it is in JSON."""

    item: Any
    names: tuple[str, ...]
    more: str
    document: dict[str, Any]


def listed_models() -> list[Listed]:
    """All models of the catalog, by name."""
    return [
        Listed(
            (entry.name, entry.parameters, entry.hub_id, (*entry.aliases, *entry.bare)),
            entry.labels,
            "",
            entry._asdict(),
        )
        for entry in model_entries()
    ]


def listed_gpus() -> list[Listed]:
    """All cards of the catalog, in the order of the files."""
    aliases: dict[str, list[str]] = {}
    for alias, name in gpu_aliases().items():
        aliases.setdefault(name, []).append(alias)
    return [
        Listed(
            card,
            (card.name, *aliases.get(card.name, ())),
            f"{card.generation} {card.marketed_gb:g}gb",
            {**dict(card), "aliases": aliases.get(card.name, [])},
        )
        for card in all_gpus()
    ]


def containing(rows: Iterable[Listed], words: Sequence[str]) -> list[Listed]:
    """The rows that contain every word as it is written; if there are none, whatever the dashes and spaces.

    Capitals do not matter.
    """
    rows = list(rows)
    found: list[Listed] = []
    for spelled in (str.lower, _squashed):
        wanted = [spelled(word) for word in words]
        texts = (" ".join(map(spelled, (*row.names, row.more))) for row in rows)
        found = found or [row for row, text in zip(rows, texts, strict=True) if all(word in text for word in wanted)]
    return found


def _squashed(text: str) -> str:
    return re.sub(r"[\s_-]+", "", text.lower())
