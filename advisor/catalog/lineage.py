"""Which models are kin: those whose names differ only in version and size."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

_SIZE = re.compile(r"(?:\d+x)?\d+(?:[._]\d+)?[mb]")
_ACTIVE = re.compile(r"(?:a|\d+e)\d*\.?\d*[mb]?|\d+e")
_VERSION = re.compile(r"v?(\d+(?:\.\d+)*)")
_KINDS = frozenset({"base", "chat", "instruct", "it", "pt", "hf", "lite", "mini", "small", "medium", "large", "xl"})
"""Words that tell sizes and stages of one lineage apart, not lineages."""


class Name(NamedTuple):
    """A model's name taken apart."""

    lineage: tuple[str, ...]
    version: tuple[int, ...]


def taken_apart(name: str) -> Name:
    """'llama-3.2-1b' is (('llama',), (3, 2)); 'qwen2.5-coder-7b' (('qwen', 'coder'), (2, 5)).

    What remains without numbers, sizes and stages is the lineage; the first number that is not a size is the version.
    """
    words: list[str] = []
    version: tuple[int, ...] = ()
    for part in name.lower().split("-"):
        if _SIZE.fullmatch(part) or (words and _ACTIVE.fullmatch(part)):
            continue
        letters = re.match(r"[a-z_]*[a-z]", part)
        word = letters[0] if letters else ""
        rest = part[len(word) :]
        if word == "v" and rest:
            word = ""
        found = _VERSION.match(rest)
        if found and not version:
            version = tuple(int(digits) for digits in found[1].split(".")[:3])
        if word and word not in _KINDS:
            words.append(word)
    return Name(tuple(words), version)


def smaller_models(name: str, sizes: Mapping[str, int]) -> list[str]:
    """Names in `sizes` (parameters by name) of the same lineage, smaller, and of no older major version.

    A model of an older generation does not stand in for one that was chosen for being newer. The newest major version
    first, in it the largest, of two equally large the newer.
    """
    own = sizes.get(name)
    if own is None:
        return []
    mine = taken_apart(name)
    kin = [(other, taken_apart(other)) for other, size in sizes.items() if size < own]
    kin = [
        (other, parts)
        for other, parts in kin
        if parts.lineage == mine.lineage and parts.version[:1] >= mine.version[:1]
    ]
    kin.sort(key=lambda one: (one[1].version[:1], sizes[one[0]], one[1].version), reverse=True)
    return [other for other, _ in kin]


def nearest_kin(name: str, sizes: Mapping[str, int], count: int = 4) -> tuple[str, ...]:
    """Names in `sizes` (parameters by name) of the same lineage, those nearest in version and size first.

    'qwen3-27b', which does not exist, is near to qwen3-32b. Of a name without a size, the smallest; () without kin.
    """
    mine, asked = taken_apart(name), _stated_parameters(name)

    def distance(other: str) -> float:
        """One doubling of a stated size counts as much as one major version, ten minor ones as one major."""
        (major, minor), (other_major, other_minor) = ((*one.version, 0, 0)[:2] for one in (mine, taken_apart(other)))
        versions = abs(major - other_major) + abs(minor - other_minor) / 10
        return abs(math.log2(sizes[other] / (asked or 1))) + versions * (1 if asked else 1_000)

    kin = [other for other in sizes if mine.lineage and taken_apart(other).lineage == mine.lineage]
    return tuple(sorted(kin, key=distance)[:count])


def _stated_parameters(name: str) -> float:
    """The size that a name states, in parameters; 0 for a name without one."""
    stated = _SIZE.search(name.lower())
    if stated is None:
        return 0.0
    number, unit = stated[0].rpartition("x")[2][:-1], stated[0][-1]
    return float(number.replace("_", ".")) * (1e9 if unit == "b" else 1e6)
