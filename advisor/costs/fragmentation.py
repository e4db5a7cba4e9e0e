"""What PyTorch's caching allocator holds beyond the tensors: a share of the bytes that come and go.

Weights, optimizer states and the like fill their segments for good; holes open among the tensors of a step. So the
term is a share of the moving bytes (peak less static): one for the head with the loss, one for everything else. The
shares are 5 %, median and 95 % over the 1,020 traced steps of 51 whole models of 46 architectures, mixtures of experts
included, that `python -m benchmarks.fragmentation` replays through `advisor.costs.allocator`. Fitted to all other
architectures, `needed` covers 90 % of an architecture's steps, `reserved` 88 %.

Where steps of different lengths come in random order, the allocator keeps many times more where there is room, and
somewhat more is needed: the more lengths there are, the more. Those shares are the lowest, the median and the highest
of 540 jobs of nine models, of 300 micro-batches each, that `python -m benchmarks.job_fragmentation` replays. Of 240
jobs of four other models, of which nothing was fitted, they hold 97 % for `reserved` and 97 % for `needed`; of the 24
that train in full with checkpointing 92 and 83 %.

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


class JobShares(NamedTuple):
    """The same of a job whose lengths come in random order."""

    reserved: Interval
    needed: Interval
    expandable: Interval  # reserved with expandable segments


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

FEW = 64
"""Up to so many lengths have shares of their own."""

# The same where steps of different lengths come in random order, by (full fine-tuning, gradient checkpointing, how many
# lengths there are): reserved, needed, and reserved with expandable segments. Each new longest tensor needs a segment
# of its own, while the shorter ones before it stay reserved: most of that goes back to the driver when the cache is
# emptied. With expandable segments only what is reserved differs from one length: free pages go back one by one (in
# eight jobs, 0.01 to 0.03 of the moving bytes were needed beyond the peak).
_SHUFFLED = {
    (False, False, "few"): JobShares(
        Interval(0.013, 0.202, 0.703), Interval(0.000, 0.087, 0.223), Interval(0.000, 0.069, 0.206)
    ),
    (False, False, "many"): JobShares(
        Interval(0.022, 0.636, 3.114), Interval(0.000, 0.086, 0.241), Interval(0.008, 0.064, 0.173)
    ),
    (False, True, "few"): JobShares(
        Interval(0.199, 0.515, 4.174), Interval(0.013, 0.186, 0.323), Interval(0.060, 0.164, 0.275)
    ),
    (False, True, "many"): JobShares(
        Interval(0.148, 2.361, 7.570), Interval(0.007, 0.194, 0.448), Interval(0.062, 0.163, 0.454)
    ),
    (True, False, "few"): JobShares(
        Interval(0.073, 0.219, 0.710), Interval(0.047, 0.118, 0.199), Interval(0.019, 0.067, 0.202)
    ),
    (True, False, "many"): JobShares(
        Interval(0.132, 0.617, 2.449), Interval(0.038, 0.128, 0.410), Interval(0.000, 0.075, 0.221)
    ),
    (True, True, "few"): JobShares(
        Interval(0.075, 0.421, 2.382), Interval(0.075, 0.194, 0.532), Interval(0.038, 0.157, 0.486)
    ),
    (True, True, "many"): JobShares(
        Interval(0.056, 1.862, 5.647), Interval(0.056, 0.192, 0.806), Interval(0.029, 0.162, 0.794)
    ),
}

UNSPLIT_SHARE = 0.0079
"""What `torch.cuda.max_memory_allocated` counts beyond the tensors, over the peak: the 95 % bound of those steps, whose
median is 0.01 % and whose worst is 3.2 %. It counts whole blocks, and from a block beyond 1 MiB no rest of 1 MiB or
less is split off. Models below a billion parameters have many matrices of that size.

Source: c10/cuda/CUDACachingAllocator.cpp, should_split and the statistics of alloc_found_block.
"""


def variety(lengths: int) -> str:
    """The kind of a job by how many lengths its micro-batches can have."""
    return "few" if lengths <= FEW else "many"


def shares_of(recipe: Recipe, at_head: bool, evaluating: bool = False, lengths: int = 1) -> Shares:
    """The shares for a recipe's kind of step, with its peak at the head and the loss or elsewhere.

    `lengths`: how many different ones come in random order.
    """
    full, checkpointing = recipe.method == "full", recipe.gradient_checkpointing
    if evaluating:
        return _EVALUATION[full, recipe.expandable_segments]
    found = (_EXPANDABLE if recipe.expandable_segments else _SEGMENTS)[full, checkpointing, at_head]
    if lengths == 1:
        return found
    reserved, needed, expandable = _SHUFFLED[full, checkpointing, variety(lengths)]
    if recipe.expandable_segments:
        return found._replace(reserved=Interval(*map(max, expandable, found.needed)))
    return Shares(reserved, needed)


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
    lengths: int = 1,
) -> Held:
    """Segment bytes of a step, given the peaks of its head and of everything else.

    `static` bytes of each are held for the whole run; `scale` is a measured factor of what is reserved. The larger of
    the two parts counts. `lengths` is that of `shares_of`.
    """
    found = []
    for at_head, peak in zip((True, False), part_peaks, strict=True):
        shares = shares_of(recipe, at_head, evaluating, lengths)
        found.append((_held(shares.reserved.times(scale), peak, static), _held(shares.needed, peak, static)))
    return Held(*(Interval(*map(max, *pair)) for pair in zip(*found, strict=True)))


def _held(share: Interval, peak: Interval, static: int) -> Interval:
    return Interval(*(size + part * max(0.0, size - static) for part, size in zip(share, peak, strict=True)))


def counted_bytes(allocated: Interval, held: Interval, recipe: Recipe) -> Interval:
    """The allocated peak as PyTorch counts it, in whole blocks; never more than what is `held`."""
    share = 0.0 if recipe.expandable_segments else UNSPLIT_SHARE
    return allocated._replace(high=min(allocated.high * (1 + share), max(allocated.high, held.high)))
