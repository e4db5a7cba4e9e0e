"""What PyTorch's caching allocator holds beyond the tensors: a share of the bytes that come and go.

Weights, optimizer states and the like fill their segments for good; holes open among the tensors of a step. So the
term is a share of the moving bytes (peak less static). The shares are 5 %, median and 95 % over the 120 traced steps of
six whole models that `python -m benchmarks.fragmentation` replays through `advisor.allocator`.

    reserved   where there is room: what nvidia-smi shows, less the context
    needed     where there is not: before it fails, the allocator empties its cache and tries again
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.interval import Interval
from advisor.specs import Recipe


class Shares(NamedTuple):
    """Bytes that the allocator holds beyond the tensors, over the moving bytes."""

    reserved: Interval
    needed: Interval


# By (full fine-tuning, gradient checkpointing): with checkpointing the large blocks of the loss are cut up by the
# smaller ones of the layers; under full fine-tuning the optimizer's states settle in the holes of the first step.
_SEGMENTS = {
    (False, False): Shares(Interval(0.04, 0.09, 0.16), Interval(0.02, 0.065, 0.125)),
    (False, True): Shares(Interval(0.20, 0.29, 0.76), Interval(0.02, 0.08, 0.28)),
    (True, False): Shares(Interval(0.04, 0.16, 0.25), Interval(0.04, 0.13, 0.25)),
    (True, True): Shares(Interval(0.08, 0.33, 0.56), Interval(0.08, 0.27, 0.43)),
}
_EXPANDABLE = Shares(Interval(0.03, 0.115, 0.29), Interval(0.008, 0.026, 0.096))


def shares_of(recipe: Recipe) -> Shares:
    """The shares of a recipe's kind of step."""
    if recipe.expandable_segments:
        return _EXPANDABLE
    return _SEGMENTS[recipe.method == "full", recipe.gradient_checkpointing]


def held_bytes(share: Interval, allocated: Interval, static: int) -> Interval:
    """Reserved bytes of a peak of `allocated` bytes of which `static` stand for the whole run."""
    return Interval(*(peak + part * max(0.0, peak - static) for part, peak in zip(share, allocated, strict=True)))
