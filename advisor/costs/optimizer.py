"""What an optimizer costs, summed over the trained tensors: what it keeps, and the end of a step with its clipping.

What differs between optimizers is in `advisor.optimizers`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from advisor.blocks import block_bytes
from advisor.optimizers import optimizer_row
from advisor.parameters.trained import Trained
from advisor.terms import TermName

FUSED_TENSORS = 36
FUSED_ELEMENTS = 320 * 65_536
"""A multi-tensor kernel of four lists takes at most this many tensors, and at most 320 chunks of 65,536 elements.

Source: PyTorch, aten/src/ATen/native/cuda/MultiTensorApply.cuh.
"""

TORCH_TENSOR_S = 6e-6
"""CPU time per parameter tensor for torch's grouping, clipping and zeroing (our judgment)."""
CLIPPING_PASSES = 3.0
"""Read g; read and write g."""


class KeptTensor(NamedTuple):
    """A tensor that the optimizer keeps, and how many of it there are."""

    term: TermName
    bytes: int
    times: int


def kept_tensors(shapes: Sequence[Trained], optimizer: str) -> Iterator[KeptTensor]:
    """What the optimizer keeps for the whole run, paged memory left out. Raises UnknownName."""
    row = optimizer_row(optimizer)
    for p in shapes:
        for size in row.states(p):
            yield KeptTensor(TermName.OPTIMIZER_STATES, size, p.times)
    if row.step_counter_bytes:
        yield KeptTensor(TermName.STEP_COUNTERS, row.step_counter_bytes, sum(p.times for p in shapes))
    for size in row.table_bytes:
        yield KeptTensor(TermName.OPTIMIZER_STATES, size, 1)


def temporary_bytes(shapes: Sequence[Trained], optimizer: str) -> int:
    """Most that the optimizer's step allocates beside what it keeps, in blocks. Raises UnknownName."""
    row = optimizer_row(optimizer)
    sizes = [(sum(map(block_bytes, row.temporaries(p))), p.times) for p in shapes]
    if row.temporaries_at_once:
        return sum(size * times for size, times in sizes)
    return max((size for size, _ in sizes), default=0)


class OptimizerWork(NamedTuple):
    """What one optimizer step does after the last backward."""

    moved_bytes: float
    launches: float
    host_s: float


def _fused_launches(tensors: int, elements: int) -> float:
    return 1 + tensors / FUSED_TENSORS + elements / FUSED_ELEMENTS


def optimizer_work(shapes: Sequence[Trained], optimizer: str, one_by_one: bool = False) -> OptimizerWork:
    """Memory traffic, kernels and host time of clipping to a norm (Trainer's max_grad_norm) and the optimizer's step.

    `one_by_one`: each tensor has an optimizer of its own, and nothing is clipped. Raises UnknownName.
    Ignores: paged states that do not fit on the card and travel over PCIe.
    """
    tensors = elements = parameter_bytes = 0
    for p in shapes:
        tensors += p.times
        elements += p.elements * p.times
        parameter_bytes += p.bytes * p.times
    fused = tensors + _fused_launches(0, elements) if one_by_one else _fused_launches(tensors, elements)
    step = optimizer_row(optimizer).step
    clipping = 0.0 if one_by_one else CLIPPING_PASSES
    return OptimizerWork(
        moved_bytes=clipping * parameter_bytes + (step.passes * parameter_bytes + step.element_bytes * elements),
        launches=(0 if one_by_one else 2 * fused + 4) + (step.fused_kernels * fused + step.tensor_kernels * tensors),
        host_s=tensors * TORCH_TENSOR_S + tensors * step.tensor_s,
    )
