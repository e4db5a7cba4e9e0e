"""What PyTorch's caching allocator holds beyond the tensors: a share of the bytes that come and go.

Weights, optimizer states and the like fill their segments for good; holes open among the tensors of a step. So the
term is a share of the moving bytes (peak less static): one for the head with the loss, one for everything else. The
shares are 5 %, median and 95 % over the 1,020 traced steps of 51 whole models of 46 architectures, mixtures of experts
included, that `python -m benchmarks.fragmentation` replays through `advisor.costs.allocator`. Fitted to all other
architectures, `needed` covers 90 % of an architecture's steps, `reserved` 88 %.

Where steps of different lengths come in random order, the allocator keeps many times more where there is room, and
somewhat more is needed. Those shares are the lowest, the median and the highest of the 280 jobs of seven models, of 300
steps each, that `python -m benchmarks.job_fragmentation` replays. Fitted to all other models, the intervals hold 88% of
a model's jobs for `needed` and 89% for `reserved`.

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
    (False, False, False): Shares(Interval(0.005, 0.040, 0.102), Interval(0.004, 0.035, 0.102)),
    (False, False, True): Shares(Interval(0.013, 0.076, 0.162), Interval(0.007, 0.049, 0.131)),
    (False, True, False): Shares(Interval(0.092, 0.289, 0.877), Interval(0.064, 0.172, 0.347)),
    (False, True, True): Shares(Interval(0.193, 0.338, 0.720), Interval(0.017, 0.109, 0.337)),
    (True, False, False): Shares(Interval(0.025, 0.214, 0.530), Interval(0.023, 0.127, 0.331)),
    (True, False, True): Shares(Interval(0.018, 0.092, 0.493), Interval(0.010, 0.068, 0.278)),
    (True, True, False): Shares(Interval(0.010, 0.083, 0.605), Interval(0.010, 0.063, 0.411)),
    (True, True, True): Shares(Interval(0.089, 0.325, 0.566), Interval(0.089, 0.325, 0.538)),
}
_EXPANDABLE = {
    (False, False, False): Shares(Interval(0.002, 0.018, 0.060), Interval(0.002, 0.009, 0.044)),
    (False, False, True): Shares(Interval(0.005, 0.046, 0.125), Interval(0.003, 0.014, 0.057)),
    (False, True, False): Shares(Interval(0.023, 0.074, 0.258), Interval(0.016, 0.037, 0.107)),
    (False, True, True): Shares(Interval(0.058, 0.173, 0.335), Interval(0.009, 0.036, 0.136)),
    (True, False, False): Shares(Interval(0.016, 0.082, 0.313), Interval(0.005, 0.030, 0.090)),
    (True, False, True): Shares(Interval(0.004, 0.059, 0.223), Interval(0.002, 0.009, 0.071)),
    (True, True, False): Shares(Interval(0.005, 0.037, 0.383), Interval(0.005, 0.019, 0.074)),
    (True, True, True): Shares(Interval(0.195, 0.256, 0.520), Interval(0.011, 0.030, 0.056)),
}

_EVALUATION = {
    (False, False): Shares(Interval(0.045, 0.253, 0.572), Interval(0.043, 0.253, 0.425)),
    (False, True): Shares(Interval(0.004, 0.025, 0.148), Interval(0.002, 0.008, 0.021)),
    (True, False): Shares(Interval(0.040, 0.161, 0.482), Interval(0.023, 0.161, 0.482)),
    (True, True): Shares(Interval(0.004, 0.008, 0.017), Interval(0.002, 0.007, 0.015)),
}
"""The same of an evaluation, by (full fine-tuning, expandable segments): 5 %, median and 95 % over 42 traced ones of
seven whole models, three batches each, which `python -m benchmarks.evaluation_shares` replays. The large blocks of
one batch's logits are cut up by the layers of the next. Ignores: segments that training steps left in the cache.
"""

# The same where steps of different lengths come in random order. Each new longest tensor needs a segment of its own,
# while the shorter ones before it stay reserved: most of that goes back to the driver when the cache is emptied. With
# expandable segments only what is reserved differs from one length: free pages go back one by one (in eight jobs, 0.01
# to 0.03 of the moving bytes were needed beyond the peak).
_SHUFFLED = {
    (False, False, False): Shares(Interval(0.012, 0.031, 0.058), Interval(0.011, 0.024, 0.048)),
    (False, False, True): Shares(Interval(0.025, 0.730, 2.515), Interval(0.021, 0.085, 0.238)),
    (False, True, False): Shares(Interval(0.157, 0.851, 2.288), Interval(0.127, 0.231, 0.374)),
    (False, True, True): Shares(Interval(1.197, 2.748, 4.693), Interval(0.013, 0.206, 0.442)),
    (True, False, False): Shares(Interval(0.583, 0.627, 0.671), Interval(0.379, 0.408, 0.438)),
    (True, False, True): Shares(Interval(0.296, 0.824, 2.545), Interval(0.026, 0.125, 0.261)),
    (True, True, False): Shares(Interval(0.089, 0.966, 3.564), Interval(0.080, 0.174, 0.817)),
    (True, True, True): Shares(Interval(3.141, 3.988, 5.331), Interval(0.150, 0.389, 0.835)),
}
_SHUFFLED_EXPANDABLE = {
    (False, False, False): Interval(0.007, 0.010, 0.018),
    (False, False, True): Interval(0.012, 0.045, 0.149),
    (False, True, False): Interval(0.084, 0.101, 0.158),
    (False, True, True): Interval(0.008, 0.166, 0.255),
    (True, False, False): Interval(0.222, 0.224, 0.226),
    (True, False, True): Interval(0.008, 0.043, 0.129),
    (True, True, False): Interval(0.061, 0.140, 0.586),
    (True, True, True): Interval(0.270, 0.407, 0.716),
}

UNSPLIT_SHARE = 0.0079
"""What `torch.cuda.max_memory_allocated` counts beyond the tensors, over the peak: the 95 % bound of those steps, whose
median is 0.01 % and whose worst is 3.2 %. It counts whole blocks, and from a block beyond 1 MiB no rest of 1 MiB or
less is split off. Models below a billion parameters have many matrices of that size.

Source: c10/cuda/CUDACachingAllocator.cpp, should_split and the statistics of alloc_found_block.
"""


def shares_of(recipe: Recipe, at_head: bool, evaluating: bool = False, shuffled: bool = False) -> Shares:
    """The shares for a recipe's kind of step, with its peak at the head and the loss or elsewhere.

    `shuffled`: steps of different lengths come in random order.
    """
    if evaluating:
        return _EVALUATION[recipe.method == "full", recipe.expandable_segments]
    kind = recipe.method == "full", recipe.gradient_checkpointing, at_head
    found = (_EXPANDABLE if recipe.expandable_segments else _SEGMENTS)[kind]
    if not shuffled:
        return found
    if recipe.expandable_segments:
        return found._replace(reserved=_at_least(found.reserved, _SHUFFLED_EXPANDABLE[kind]))
    reserved, needed = _SHUFFLED[kind]
    return Shares(_at_least(found.reserved, reserved), _at_least(found.needed, needed))


def _at_least(share: Interval, other: Interval) -> Interval:
    """The larger of each of their values: no order of lengths holds less than one length."""
    return Interval(*map(max, share, other))


class Held(NamedTuple):
    """Bytes of segments: where there is room, and where there is not."""

    reserved: Interval
    needed: Interval


def held_bytes(
    recipe: Recipe,
    part_peaks: tuple[Interval, Interval],
    static: int,
    scale: float = 1.0,
    evaluating: bool = False,
    shuffled: bool = False,
) -> Held:
    """Segment bytes of a step, given the peaks of its head and of everything else.

    `static` bytes of each are held for the whole run; `scale` is a measured factor of what is reserved. The larger of
    the two parts counts. `shuffled` is that of `shares_of`.
    """
    found = []
    for at_head, peak in zip((True, False), part_peaks, strict=True):
        shares = shares_of(recipe, at_head, evaluating, shuffled)
        found.append((_held(shares.reserved.times(scale), peak, static), _held(shares.needed, peak, static)))
    return Held(*(Interval(*map(max, *pair)) for pair in zip(*found, strict=True)))


def _held(share: Interval, peak: Interval, static: int) -> Interval:
    return Interval(*(size + part * max(0.0, size - static) for part, size in zip(share, peak, strict=True)))


def counted_bytes(allocated: Interval, held: Interval, recipe: Recipe) -> Interval:
    """The allocated peak as PyTorch counts it, in whole blocks; never more than what is `held`."""
    share = 0.0 if recipe.expandable_segments else UNSPLIT_SHARE
    return allocated._replace(high=min(allocated.high * (1 + share), max(allocated.high, held.high)))
