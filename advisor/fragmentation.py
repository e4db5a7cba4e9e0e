"""What PyTorch's caching allocator holds beyond the tensors: a share of the bytes that come and go.

Weights, optimizer states and the like fill their segments for good; holes open among the tensors of a step. So the
term is a share of the moving bytes (peak less static). The shares are 5 %, median and 95 % over the 612 traced steps of
51 whole models of 46 architectures, mixtures of experts included, that `python -m benchmarks.fragmentation` replays
through `advisor.allocator`.

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
    (False, False): Shares(Interval(0.013, 0.070, 0.158), Interval(0.007, 0.048, 0.130)),
    (False, True): Shares(Interval(0.166, 0.331, 0.731), Interval(0.018, 0.142, 0.341)),
    (True, False): Shares(Interval(0.023, 0.152, 0.493), Interval(0.014, 0.095, 0.318)),
    (True, True): Shares(Interval(0.012, 0.095, 0.605), Interval(0.010, 0.083, 0.527)),
}
_EXPANDABLE = {
    (False, False): Shares(Interval(0.005, 0.044, 0.127), Interval(0.003, 0.014, 0.057)),
    (False, True): Shares(Interval(0.026, 0.166, 0.373), Interval(0.010, 0.037, 0.151)),
    (True, False): Shares(Interval(0.006, 0.065, 0.279), Interval(0.004, 0.017, 0.082)),
    (True, True): Shares(Interval(0.007, 0.051, 0.520), Interval(0.005, 0.019, 0.074)),
}

UNSPLIT_SHARE = 0.0085
"""What `torch.cuda.max_memory_allocated` counts beyond the tensors, over the peak: 95 % of those steps; their median is
0.01 %, their worst 3.2 %. It counts whole blocks, and of one beyond 1 MiB no rest of 1 MiB or less is split off: models
below a billion parameters have many matrices of that size.

Source: c10/cuda/CUDACachingAllocator.cpp, should_split and the statistics of alloc_found_block.
"""


def shares_of(recipe: Recipe) -> Shares:
    """The shares of a recipe's kind of step."""
    table = _EXPANDABLE if recipe.expandable_segments else _SEGMENTS
    return table[recipe.method == "full", recipe.gradient_checkpointing]


def held_bytes(share: Interval, allocated: Interval, static: int) -> Interval:
    """Reserved bytes of a peak of `allocated` bytes of which `static` stand for the whole run."""
    return Interval(*(peak + part * max(0.0, peak - static) for part, peak in zip(share, allocated, strict=True)))


def counted_bytes(allocated: Interval, held: Interval, recipe: Recipe) -> Interval:
    """The allocated peak as PyTorch counts it, in whole blocks; never more than what is `held`."""
    share = 0.0 if recipe.expandable_segments else UNSPLIT_SHARE
    return allocated._replace(high=min(allocated.high * (1 + share), max(allocated.high, held.high)))
