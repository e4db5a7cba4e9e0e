"""Which model of the catalog a typed name means, by the rules for names; a name that fits two is never guessed.

In this order: the whole name; then without one ending after the other (`names.shorter`) the whole name again, and the
name without its organization. What was left out on the way stays in the match, and the answer says it. For a name that
means none, `derivatives` looks inside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from advisor.catalog.entries import Match, ModelEntry, listed, model_entries, only_one
from advisor.catalog.names import MIRRORS, STORING, Ending, Name, read_names, shorter, squashed, storage_of
from advisor.errors import AmbiguousName

_DATE = r"-(\d{4}|\d{2}-20\d{2})"
_UNLIKE = (
    (
        "unsloth",
        r"phi-?[34]",
        "Unsloth's copies of Phi may have Llama's separate projections, not Phi's fused ones: "
        "give a path to its config.json, or take the original",
    ),
)
"""Copies whose code may differ from the original's: organization, base, and what to do. Source: a conversion of
unsloth's Phi-3 mini lists q_proj, k_proj, v_proj, gate_proj and up_proj (unslothai/unsloth#413)."""


def matched(text: str) -> Match | None:
    """The model of the catalog that `text` means, or None. Raises AmbiguousName where it fits several, or is unlike."""
    found = listed(text)
    if found is not None:
        return found
    for name in read_names(text):
        found = _by_rule(name)
        if found is not None:
            for organization, pattern, what in _UNLIKE:
                if name.organization == organization and re.match(pattern, name.base):
                    raise AmbiguousName("model", text, (original_id(found),), what)
            return found
    return None


def _by_rule(name: Name) -> Match | None:
    as_typed = _known(name, name.base, (), ())
    if as_typed is not None:
        return as_typed
    steps = list(shorter(name.base))
    stored = [index for index, (_, taken) in enumerate(steps) if taken and taken[0].kind == "storage"]
    for base, taken in steps[max(stored, default=0) :]:  # no listed name says how it is stored
        found = _known(name, base, taken, by_spelling().get(squashed(base), ()))
        if found is not None:
            return found
        kin = _kin().get(squashed(base))
        if kin is not None:
            return match_of(kin, name, taken)._replace(derivative=True)
        dated = tuple(_dated(base))
        if dated:
            raise AmbiguousName("model", name.text, dated, "no listed model has exactly this name; give one")
    return None


def _known(name: Name, base: str, taken: tuple[Ending, ...], spelled: tuple[ModelEntry, ...]) -> Match | None:
    """The match of the whole name or of its base, as it is or else as the entries that are `spelled` so."""
    whole = listed(f"{name.organization}/{base}") if name.organization else None
    if whole is not None:
        return match_of(whole.entry, name, taken)._replace(derived=whole.derived)
    entries = _by_base().get(base, spelled)
    if not entries:
        return None
    own = [entry for entry in entries if squashed(base) not in map(squashed, entry.bare)]
    if name.organization and not own:
        why = "it names no version; give one that does"
        raise AmbiguousName("model", name.text, (entry.hub_id for entry in entries), why)
    entry = only_one(name.text, entries)
    foreign = bool(name.organization) and not name.path and not _same_files(name.organization, taken, entry)
    return match_of(entry, name, taken)._replace(bare=not own, foreign=foreign, derived=_is_derived(base, entry))


def match_of(entry: ModelEntry, name: Name, taken: tuple[Ending, ...]) -> Match:
    """A name read as an entry, when these endings were taken off it."""
    spelled = "".join(f"-{ending.text}" for ending in taken if ending.kind == "tuning")
    base = name.base
    for ending in reversed(taken):
        base = base[: -len(ending.text) - 1]
    return Match(
        entry, name.text.strip(), base + spelled, path=name.path, storage=storage_of(taken), tuned=bool(spelled)
    )


def _same_files(organization: str, taken: tuple[Ending, ...], entry: ModelEntry) -> bool:
    """Whether that organization's model of this name is the maker's: its own, or a mirror's copy."""
    if organization in MIRRORS or (organization in STORING and storage_of(taken)):
        return True
    return organization in {label.partition("/")[0].lower() for label in entry.labels if "/" in label}


@cache
def _by_base() -> dict[str, tuple[ModelEntry, ...]]:
    """The entries of every name without its organization, in lower case.

    A maker's id gives its base, a mirror's does not: `unsloth/mistral-7b` says nothing about `mistral-7b`.
    """
    found: dict[str, tuple[ModelEntry, ...]] = {}
    for entry in model_entries():
        for label in entry.labels:
            organization, _, base = label.lower().rpartition("/")
            key = base.replace(":", "-")
            if organization not in MIRRORS and entry not in found.get(key, ()):
                found[key] = (*found.get(key, ()), entry)
    return found


@cache
def by_spelling() -> dict[str, tuple[ModelEntry, ...]]:
    """The same by `squashed` names."""
    found: dict[str, tuple[ModelEntry, ...]] = {}
    for base, entries in _by_base().items():
        key = squashed(base)
        found[key] = tuple(dict.fromkeys((*found.get(key, ()), *entries)))
    return found


def _is_derived(base: str, entry: ModelEntry) -> bool:
    """Whether only a derivative of the entry, whose config.json nobody read, has this base name."""
    spelling = squashed(base)
    return any(squashed(label.rpartition("/")[2]) == spelling for label in entry.derived)


@cache
def _kin() -> dict[str, ModelEntry]:
    """The models that known derivatives are asked back as, by the derivative's spellings with and without endings."""
    labels = ((label.lower().rpartition("/")[2], entry) for entry in model_entries() for label in entry.kin)
    return {squashed(base): entry for label, entry in labels for base, _ in shorter(label)}


def _dated(base: str) -> Iterator[str]:
    """Listed Hub ids whose name is `base` and a date."""
    for entry in model_entries():
        for label in entry.ids:
            tail = label.lower().rpartition("/")[2]
            if tail.startswith(base) and re.fullmatch(_DATE, tail[len(base) :]):
                yield label


def spelled_id(match: Match) -> str:
    """The Hub id for a script: the one that was typed, the one that a short name spells, or the catalog's.

    'llama-3-8b-instruct' is meta-llama/Meta-Llama-3-8B-Instruct, 'llama-2-7b-chat' meta-llama/Llama-2-7b-chat-hf.
    """
    entry, text = match.entry, match.text
    if match.path or match.derivative:
        return text
    ids = entry.ids
    if "/" in text:
        return next((label for label in ids if label.lower() == text.lower()), text)
    typed = squashed(match.base.replace(":", "-"))
    if typed == squashed(entry.name):
        return entry.hub_id
    tails = [(squashed(label.rpartition("/")[2]), label) for label in ids]
    for fits in (str.__eq__, str.endswith, str.startswith):
        found = next((label for tail, label in tails if fits(tail, typed)), None)
        if found is not None:
            return found
    return entry.hub_id


def original_id(match: Match) -> str:
    """A listed Hub id of the same model in 16 bits: of 'TheBloke/Llama-2-7B-GPTQ', meta-llama/Llama-2-7b-hf.

    '' of a derivative, whose own is not known.
    """
    return "" if match.derivative else spelled_id(match._replace(text=match.base, path=False))
