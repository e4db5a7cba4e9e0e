"""What an estimate says of one recipe on one card."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

from advisor.frozen import Frozen
from advisor.interval import Interval
from advisor.notebooks import Shown
from advisor.specs.recipe import Placement, Recipe
from advisor.terms import TermName


class Term(Frozen):
    """A named part of a memory peak."""

    name: TermName
    bytes: int


@lru_cache(maxsize=4096)
def _term(name: TermName, size: int) -> Term:
    return Term(name=name, bytes=size)


def terms_of(sizes: Mapping[TermName, int]) -> tuple[Term, ...]:
    """The terms of a peak with so many bytes by name, without those of none. Plans of an answer share most of them."""
    return tuple(_term(name, size) for name, size in sizes.items() if size)


MomentName = Literal["step", "evaluation", "loading", "preparation"]
"""preparation: peft's prepare_model_for_kbit_training."""


class Moment(Frozen):
    """The peak of one part of a job, in bytes."""

    name: MomentName
    peak_allocated_bytes: Interval
    needed_bytes: Interval  # as in MemoryEstimate


class MemoryEstimate(Frozen):
    """Peak memory of one GPU in bytes, by counter: each the largest of its `moments`."""

    peak_allocated_bytes: Interval  # torch.cuda.max_memory_allocated
    peak_reserved_bytes: Interval  # torch.cuda.max_memory_reserved
    needed_bytes: Interval  # what must fit: the least to reserve, plus CUDA context and NCCL's
    device_bytes: Interval  # what nvidia-smi shows where there is room: reserved plus those two
    peak_at: str  # phase and operation at which the peak occurs
    terms: tuple[Term, ...]  # they add up to needed_bytes.likely
    moments: tuple[Moment, ...] = ()  # the parts of the job that were estimated; () = the step alone
    host_bytes: int = 0  # of the host's memory, for what one card keeps there
    machine_bytes: Interval | None = None  # of a machine's memory, for all its cards; null for one card

    @property
    def highest(self) -> str:
        """The name of the moment that needs the most: 'step' where it is the only one."""
        return max(self.moments, key=lambda one: one.needed_bytes.likely).name if self.moments else "step"

    def bytes_of(self, name: TermName) -> int:
        """Bytes of one term; 0 where the peak has no such part."""
        return sum(term.bytes for term in self.terms if term.name is name)


class TimeEstimate(Frozen):
    """Time of the job on one GPU (or over all of a placement), in seconds; start-up and saving excluded."""

    micro_step_s: Interval
    step_s: Interval
    total_s: Interval  # with the evaluations, where their rows are stated
    steps: int
    tokens_per_s: float
    bound: Literal["compute", "memory", "launch", "link"]  # link: what several cards exchange
    flop_per_step: float  # that one card's part of a step needs, recomputation left out
    mfu: float  # model FLOPs utilization: the time of those at the data sheet's rates, over the time they take
    energy_j: Interval | None  # of all cards over the whole job; null when the card's power is not known
    evaluation_s: Interval | None = (
        None  # of all evaluations together; null when none is asked for, or of no stated rows
    )


class AttentionUse(Frozen):
    """A kernel that attention runs on this card, and why PyTorch or the model's code picks it."""

    # math: composed of products; none: what was asked for does not run there
    kernel: Literal["cudnn", "flash", "efficient", "math", "flash_attn", "eager", "unknown", "none"]
    masked: bool = False  # it is given a mask: padding, or a sliding window
    why: str = ""  # '' where the first in PyTorch's order runs
    another_from: str = ""  # math only: the PyTorch from which on a fused kernel runs in its place; '' for none


class Evidence(Frozen):
    """What an estimate is based on."""

    rung: Literal["formula", "trace", "burst"]
    memory: str
    time: str
    attention: tuple[AttentionUse, ...] = ()  # () where it is not known
    stack: str = ""  # the libraries and versions whose step it is; '' of a model that was traced
    declined: tuple[str, ...] = ()  # kernels that were asked for and do not run, each with who says so
    unknown: tuple[str, ...] = ()  # what runs in that step and is not mirrored: where there is any, nothing "fits"


class Estimate(Frozen, Shown):
    """One recipe on one card: what it needs and how long it takes."""

    recipe: Recipe
    memory: MemoryEstimate
    time: TimeEstimate | None  # null when the card's speed is not known
    trainable_parameters: int
    evidence: Evidence
    placement: Placement | None = None  # null for one card
