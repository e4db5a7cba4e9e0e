"""The terms of a memory peak in groups, as pictures color them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from advisor.terms import TermName

GROUPS: Mapping[str, tuple[str, tuple[TermName, ...]]] = {
    "weights": ("base weights", (TermName.BASE_WEIGHTS, TermName.QUANTIZATION_CONSTANTS, TermName.BUFFERS)),
    "adapters": ("adapters", (TermName.ADAPTERS,)),
    "optimizer": ("optimizer states", (TermName.OPTIMIZER_STATES, TermName.STEP_COUNTERS)),
    "gradients": ("gradients", (TermName.GRADIENTS, TermName.REDUCTION)),
    "activations": ("activations", (TermName.SAVED_ACTIVATIONS, TermName.BATCH)),
    "logits": ("logits and loss", (TermName.LOGITS,)),
    "temporaries": ("temporaries", (TermName.TEMPORARIES, TermName.GATHERED)),
    "outside": (
        "context, allocator",
        (TermName.WORKSPACE, TermName.FRAGMENTATION, TermName.CONTEXT, TermName.COMMUNICATION),
    ),
}
"""By class: the name that people read, and the terms; in the order in which bars stack them."""


def grouped(terms: Iterable[tuple[TermName, int]]) -> dict[str, int]:
    """Bytes of every group; below 0 only for 'temporaries' and 'outside', where a term is a difference."""
    sizes: dict[TermName, int] = {}
    for name, size in terms:
        sizes[name] = sizes.get(name, 0) + size
    return {kind: sum(sizes.get(one, 0) for one in members) for kind, (_, members) in GROUPS.items()}


def shown(groups: Mapping[str, int]) -> dict[str, int]:
    """The same to be drawn: what is below 0 comes off the largest group, so that the sum stays."""
    found = dict(groups)
    for kind, size in groups.items():
        if size < 0:
            largest = max(found, key=lambda one: found[one])
            found[kind], found[largest] = 0, found[largest] + size
    return found
