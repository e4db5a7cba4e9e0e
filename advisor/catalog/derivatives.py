"""Models that are named after one of the catalog: what was made from it, by its name, and what is no longer its size.

A fine-tune, a longer context or a merge of equals keep the sizes of its base but for a few rows of the vocabulary. A
name that speaks of other sizes, of parts that the base does not have or of another task is asked back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from advisor.catalog.entries import Match, ModelEntry
from advisor.catalog.matching import by_base, match_of
from advisor.catalog.names import Name, read_names, shorter, squashed
from advisor.errors import AmbiguousName

UNLIKE_ITS_BASE = (
    "by its name a derivative, which may differ in size, and its own config.json is not here: give a path to it, or "
    "take its base"
)
_SIZED = re.compile(r"\d[bm]\b")
_OTHER_SIZE = re.compile(r"(?:[ae]|\d+x)?\d+b|\d{2,}m|\d+x\d+|\d+(?:e|experts?|layers?|l)")
"""Of a word beside the base's name: a size, or a number of experts or layers. One digit and m is a context."""
_OTHER_BUILD = re.compile(
    # grown, cut or thinned out
    r"pro|solar|franken.*|passthrough|.*upscal.*|expand.*|double.*|depth|width|deep|shallow|half|tiny|mini|small|nano"
    r"|big|pruned?|pruning|minitron|shear.*|slim|random|dummy|lineari[sz]ed"
    # other layers, or a drafter
    r"|moe|mixture|upcycl.*|mamba\d*|hybrid|retnet|rwkv|bitnet|diffu.*|draft.*|eagle\d*|medusa|speculat.*|mtp|assistant"
    # parts that read or write something else than text
    r"|.*vl|vlm|.*vision.*|visual|.*llava.*|intern.*|omni.*|multimodal|.*audio.*|speech.*|tts|asr|ocr|voice|video|image"
    # a head that scores
    r"|reward.*|[op]?rm|classif.*|critic"
)
"""Of a word beside the base's name: what such names have been seen to mean for layers, parts and heads."""


def derivative(text: str) -> Match | None:
    """The model whose name stands inside `text`, or None. Raises AmbiguousName where it is not sure."""
    name, base, entries = _contained(read_names(text))
    if name is None:
        return None
    entry = entries[0]
    unlike = any(_OTHER_SIZE.fullmatch(word) or _OTHER_BUILD.fullmatch(word) for word in _beside(name.base, base))
    bare = squashed(base) in map(squashed, entry.bare)
    if unlike or bare or len(entries) > 1:
        raise AmbiguousName("model", name.text, (one.hub_id for one in entries), UNLIKE_ITS_BASE)
    *_, (_, taken) = shorter(name.base)
    return match_of(entry, name, taken)._replace(derivative=True)


def _contained(names: Iterable[Name]) -> tuple[Name | None, str, tuple[ModelEntry, ...]]:
    """The name and the longest listed one, with its size, inside it, and what that one fits."""
    found: tuple[Name | None, str, tuple[ModelEntry, ...]] = (None, "", ())
    for name in names:
        wrapped = _dashed(name.base)
        for base, entries in by_base().items():
            if len(base) > len(found[1]) and _dashed(base) in wrapped and _SIZED.search(base):
                found = (name, base, entries)
    return found


def _dashed(base: str) -> str:
    """A spelling in which all that may stand between words is one sign, around it, too."""
    return f"-{re.sub('[_.]', '-', base)}-"


def _beside(whole: str, base: str) -> list[str]:
    """The words of a name before and after that of its base."""
    before, _, after = _dashed(whole).partition(_dashed(base))
    return [word for word in (*before.split("-"), *after.split("-")) if word]
