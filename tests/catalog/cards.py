"""Cards as a test asks for them."""

from __future__ import annotations

from advisor.catalog.gpus import find_gpus
from advisor.specs import GpuSpec

FIGURES = {"memory", "bandwidth", "flops", "capability", "power"}
"""What each card of the catalog has a source for."""


def one(text: str) -> GpuSpec:
    """The only card that `text` means."""
    found = find_gpus(text)
    assert len(found) == 1, [card.name for card in found]
    return found[0]
