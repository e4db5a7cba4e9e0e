"""Models that are named after one of the catalog: what was made from it, by its name, and what is no longer its size.

A fine-tune, a longer context or a merge of equals keep the sizes of its base but for a few rows of the vocabulary. A
name that speaks of other sizes, of parts that the base does not have or of another task is asked back.
"""

from __future__ import annotations

import re

from advisor.catalog.entries import Match, ModelEntry
from advisor.catalog.matching import by_spelling, match_of
from advisor.catalog.names import read_names, shorter, squashed
from advisor.errors import AmbiguousName

UNLIKE_ITS_BASE = (
    "by its name a derivative, which may differ in size, and its own config.json is not here: give a path to it, or "
    "take its base"
)
_BETWEEN = re.compile("[-_.]+")
_SIZED = re.compile(r"\d[bm]\b")
_OTHER_SIZE = re.compile(r"(?:[ae]|\d+x)?\d+b|\d{2,}m|\d+x\d+|\d{2,}e|\d+(?:experts?|layers?|l)")
"""Of a word beside the base's name: a size, or a number of experts or layers. Not a context (1m) or a rate (1e-5)."""
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
    for name in read_names(text):
        found = _contained(name.base)
        if found is None:
            continue
        entries, spelling, beside = found
        entry = entries[0]
        unlike = any(_OTHER_SIZE.fullmatch(word) or _OTHER_BUILD.fullmatch(word) for word in beside)
        if unlike or len(entries) > 1 or spelling in map(squashed, entry.bare):
            raise AmbiguousName("model", name.text, (one.hub_id for one in entries), UNLIKE_ITS_BASE)
        *_, (_, taken) = shorter(name.base)
        return match_of(entry, name, taken)._replace(derivative=True)
    return None


def _contained(base: str) -> tuple[tuple[ModelEntry, ...], str, list[str]] | None:
    """The entries of the longest listed name, with its size, inside another; its spelling; and the words beside it."""
    marks = list(_BETWEEN.finditer(base))
    starts, ends = [0, *(mark.end() for mark in marks)], [*(mark.start() for mark in marks), len(base)]
    spans = [(start, end) for start in starts for end in ends if start < end]
    for start, end in sorted(spans, key=lambda span: span[0] - span[1]):
        part = base[start:end]
        for spelling in (squashed(part), squashed(part.replace("_", "-"))) if _SIZED.search(part) else ():
            entries = by_spelling().get(spelling, ())
            if entries:
                return entries, spelling, [word for word in _BETWEEN.split(f"{base[:start]}-{base[end:]}") if word]
    return None
