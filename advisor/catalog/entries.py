"""The lines of the catalog's index of models.

Each model is a file profiles/models/<name>.json; profiles/models/index.json repeats their names, Hub ids, aliases
and parameter counts so that a look-up opens two files instead of hundreds. It is generated: after a change run
`python -m advisor.catalog.index` (a test compares).
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from advisor.catalog.data import data_folder, data_text
from advisor.errors import AmbiguousName

if TYPE_CHECKING:
    from pathlib import Path


class ModelEntry(NamedTuple):
    """One line of the catalog. `parameters` is the published count, tied embeddings counted once."""

    name: str
    hub_id: str
    parameters: int
    aliases: tuple[str, ...]
    bare: tuple[str, ...] = ()
    """Names without a version ("llama-8b") of which this is the newest model in the catalog: taken, and said.

    One that is also an older model's own ("qwen-7b") stands in both, and is asked back.
    """
    derived: tuple[str, ...] = ()
    """Hub ids whose sizes follow from their name and kinship: nobody read their config.json. Taken, and said."""
    kin: tuple[str, ...] = ()
    """Hub ids of derivatives that differ a little or that nobody checked: taken as this, and said to be unread."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Every name that the catalog lists for it."""
        return (self.name, self.hub_id, *self.aliases, *self.bare, *self.derived)

    @property
    def ids(self) -> tuple[str, ...]:
        """The Hub ids among them."""
        return tuple(label for label in (self.hub_id, *self.aliases, *self.derived) if "/" in label)


class Match(NamedTuple):
    """How a typed name was read, and the model that it means."""

    entry: ModelEntry
    text: str
    base: str = ""
    """What the name spells without its organization and without the endings that say how it is stored."""
    path: bool = False
    """It is a path that is not here: its last telling part decided."""
    storage: str = ""
    """The ending that says how the named checkpoint is stored; '' for a plain one."""
    tuned: bool = False
    """An ending such as -Instruct was taken off, because no listed name has it."""
    bare: bool = False
    """It names no version: the newest of that size was taken."""
    foreign: bool = False
    """Of an organization that is neither the model's own nor a mirror: its own config.json would say more."""
    derived: bool = False
    """Its sizes follow from its name and kinship."""
    derivative: bool = False
    """It was made from this model and may differ: only its own config.json says, so that nothing surely fits."""


def model_folder() -> Path:
    """Where the catalog's files are."""
    return data_folder("models")


@cache
def model_entries() -> tuple[ModelEntry, ...]:
    """All models of the catalog, by name."""
    rows = json.loads(data_text("models", "index.json"))
    return tuple(
        ModelEntry(
            row["name"],
            row["hub_id"],
            row["parameters"],
            tuple(row["aliases"]),
            tuple(row.get("bare", ())),
            tuple(row.get("derived", ())),
            tuple(row.get("kin", ())),
        )
        for row in rows
    )


def model_names() -> tuple[str, ...]:
    """Canonical names of all models of the catalog."""
    return tuple(entry.name for entry in model_entries())


@cache
def by_label() -> dict[str, tuple[ModelEntry, ...]]:
    """The entries of every listed name, in lower case; of two where a name fits two models."""
    found: dict[str, tuple[ModelEntry, ...]] = {}
    for entry in model_entries():
        for label in entry.labels:
            key = label.lower()
            found[key] = (*found[key], entry) if key in found else (entry,)
    return found


def listed(text: str) -> Match | None:
    """The model that the catalog lists under exactly this name; capitals do not matter. Raises AmbiguousName."""
    label = text.strip().lower()
    entries = by_label().get(label)
    if entries is None:
        return None
    entry = only_one(text, entries)
    bare, derived = (label in map(str.lower, names) for names in (entry.bare, entry.derived))
    return Match(entry, text.strip(), label.rpartition("/")[2], bare=bare, derived=derived)


def only_one(text: str, entries: tuple[ModelEntry, ...]) -> ModelEntry:
    """The entry that a name fits. Raises AmbiguousName where it fits several."""
    if len(entries) > 1:
        raise AmbiguousName("model", text, tuple(entry.hub_id for entry in entries), "it fits several; give one")
    return entries[0]
