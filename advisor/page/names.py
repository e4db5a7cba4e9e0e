"""Names on the page: models and cards of the catalog, never a path, a driver or the network."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from advisor.catalog.by_name import ByName
from advisor.catalog.listing import Listed, containing, listed_gpus, listed_models
from advisor.errors import BadConfig, InputError
from advisor.specs import ModelSpec
from advisor.units import format_count, format_gib

MOST = 12
"""Names that a search offers."""
_LONGEST = 120
"""Characters of a search that are looked at."""
_SIZES = ("8GB", "12GB", "16GB", "24GB", "32GB", "40GB", "48GB", "80GB", "96GB", "141GB", "180GB")


class Names(ByName):
    """Those of the page: what no list has is dropped on it."""

    def __init__(self) -> None:
        """Say what to do on the page."""
        super().__init__(
            "is not in the catalog: drop its config.json here",
            "a page reads no machine and no file; give a card's name, or a size as 24GB",
        )

    def find_model(self, text: str) -> ModelSpec:
        """The model of this name or Hub id. Raises InputError or SourceUnavailable."""
        try:
            return super().find_model(text)
        except BadConfig as error:  # a text that ends like a file, say
            raise InputError(f"{error}; drop the file here") from None


def offered_models(query: str) -> list[dict[str, str]]:
    """What to offer for the letters typed so far: name, and beside it size and Hub id."""
    rows = _best(listed_models(), query)
    return [{"name": row.names[0], "beside": f"{format_count(row.item[1])}, {row.item[2]}"} for row in rows]


def offered_cards(query: str) -> list[dict[str, str]]:
    """The same of cards: sizes first, where the letters begin one."""
    typed = query.strip().upper().replace(" ", "")
    sizes = [size for size in _SIZES if typed and size.startswith(typed)]
    found = [{"name": size, "beside": "every card of that size"} for size in sizes]
    for row in _best(listed_gpus(), query):
        card = row.item
        name = row.names[1] if len(row.names) > 1 else row.names[0]
        found.append({"name": name, "beside": f"{card.name}, {format_gib(card.memory_bytes)} GiB"})
    return found[:MOST]


def _best(rows: Sequence[Listed], query: str) -> list[Listed]:
    """Rows that contain the words, first those that begin with them; where there are none, those spelled alike."""
    typed = query[:_LONGEST].strip().lower()
    found = containing(rows, typed.split())
    if not found:
        by_name = {name.lower(): row for row in rows for name in row.names}
        alike = get_close_matches(typed, by_name, n=MOST, cutoff=0.5)
        return list({id(by_name[name]): by_name[name] for name in alike}.values())

    def rank(row: Listed) -> tuple[bool, int]:
        return not any(name.lower().startswith(typed) for name in row.names), len(row.names[0])

    return sorted(found, key=rank)[:MOST]
