"""What PyTorch's caching allocator holds beyond the tensors: a share of the bytes that come and go.

Weights, optimizer states and the like fill their segments for good; holes open among the tensors of a step. So the
term is a share of the moving bytes (peak less static): one for the head with the loss, one for everything else. The
shares are 5 %, median and 95 % over 766 traced steps of 51 whole models, one at least of every architecture, mixtures
of experts included, that `python -m benchmarks.fragmentation` replays through `advisor.allocator`.

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


# By (full fine-tuning, gradient checkpointing, peak at the head and the loss). With checkpointing the large blocks of
# the loss are cut up by the smaller ones of the layers, but have segments of their own that go back to the driver when
# the cache is emptied; under full fine-tuning the optimizer's states settle in the holes of the first step.
_SEGMENTS = {
    (False, False, False): Shares(Interval(0.005, 0.042, 0.158), Interval(0.004, 0.034, 0.146)),
    (False, False, True): Shares(Interval(0.013, 0.077, 0.167), Interval(0.007, 0.046, 0.132)),
    (False, True, False): Shares(Interval(0.092, 0.287, 0.877), Interval(0.068, 0.172, 0.347)),
    (False, True, True): Shares(Interval(0.190, 0.324, 0.696), Interval(0.016, 0.096, 0.328)),
    (True, False, False): Shares(Interval(0.025, 0.245, 0.583), Interval(0.023, 0.112, 0.331)),
    (True, False, True): Shares(Interval(0.024, 0.147, 0.493), Interval(0.013, 0.097, 0.318)),
    (True, True, False): Shares(Interval(0.007, 0.042, 0.606), Interval(0.007, 0.038, 0.411)),
    (True, True, True): Shares(Interval(0.086, 0.325, 0.560), Interval(0.084, 0.325, 0.538)),
}
_EXPANDABLE = {
    (False, False, False): Shares(Interval(0.002, 0.018, 0.063), Interval(0.002, 0.012, 0.047)),
    (False, False, True): Shares(Interval(0.004, 0.047, 0.127), Interval(0.003, 0.014, 0.057)),
    (False, True, False): Shares(Interval(0.018, 0.065, 0.226), Interval(0.015, 0.037, 0.103)),
    (False, True, True): Shares(Interval(0.104, 0.172, 0.279), Interval(0.009, 0.034, 0.131)),
    (True, False, False): Shares(Interval(0.016, 0.089, 0.319), Interval(0.005, 0.025, 0.076)),
    (True, False, True): Shares(Interval(0.005, 0.086, 0.223), Interval(0.002, 0.012, 0.079)),
    (True, True, False): Shares(Interval(0.004, 0.025, 0.383), Interval(0.004, 0.013, 0.103)),
    (True, True, True): Shares(Interval(0.188, 0.234, 0.505), Interval(0.011, 0.028, 0.116)),
}

UNSPLIT_SHARE = 0.0085
"""What `torch.cuda.max_memory_allocated` counts beyond the tensors, over the peak: 95 % of those steps; their median is
0.01 %, their worst 3.2 %. It counts whole blocks, and of one beyond 1 MiB no rest of 1 MiB or less is split off: models
below a billion parameters have many matrices of that size.

Source: c10/cuda/CUDACachingAllocator.cpp, should_split and the statistics of alloc_found_block.
"""


def shares_of(recipe: Recipe, at_head: bool) -> Shares:
    """The shares of a recipe's kind of step whose peak is at the head and the loss, or elsewhere."""
    table = _EXPANDABLE if recipe.expandable_segments else _SEGMENTS
    return table[recipe.method == "full", recipe.gradient_checkpointing, at_head]


class Held(NamedTuple):
    """Bytes of segments: where there is room, and where there is not."""

    reserved: Interval
    needed: Interval


def held_bytes(recipe: Recipe, part_peaks: tuple[Interval, Interval], static: int, scale: float = 1.0) -> Held:
    """What is held for a step whose head peaks at the first, and whose other parts peak at the second of `part_peaks`.

    `static` bytes of each stand for the whole run; `scale` is a measured factor of what is reserved. The larger of the
    two parts counts.
    """
    found = []
    for at_head, peak in zip((True, False), part_peaks, strict=True):
        shares = shares_of(recipe, at_head)
        found.append((_held(shares.reserved.times(scale), peak, static), _held(shares.needed, peak, static)))
    return Held(*(Interval(*map(max, *pair)) for pair in zip(*found, strict=True)))


def _held(share: Interval, peak: Interval, static: int) -> Interval:
    return Interval(*(size + part * max(0.0, size - static) for part, size in zip(share, peak, strict=True)))


def counted_bytes(allocated: Interval, held: Interval, recipe: Recipe) -> Interval:
    """The allocated peak as PyTorch counts it, in whole blocks; never more than what is `held`."""
    share = 0.0 if recipe.expandable_segments else UNSPLIT_SHARE
    return allocated._replace(high=min(allocated.high * (1 + share), max(allocated.high, held.high)))
