"""The end of a step: clipping the gradients and the optimizer, as traffic, kernels and host time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from advisor.parameters.trained import Trained
from advisor.specs import Optimizer

FUSED_TENSORS = 36
FUSED_ELEMENTS = 320 * 65_536
"""A multi-tensor kernel of four lists takes so many tensors, or 320 chunks of 65,536 elements, whichever is less.

Source: PyTorch, aten/src/ATen/native/cuda/MultiTensorApply.cuh.
"""

TORCH_TENSOR_S = 6e-6
BITSANDBYTES_TENSOR_S = 50e-6
"""CPU time per parameter tensor: torch's grouping, clipping and zeroing; bitsandbytes' Python loop (our judgement)."""


class OptimizerWork(NamedTuple):
    """What one optimizer step does after the last backward."""

    moved_bytes: float
    launches: float
    host_s: float


def _fused_launches(tensors: int, elements: int) -> float:
    return 1 + tensors / FUSED_TENSORS + elements / FUSED_ELEMENTS


def optimizer_work(shapes: Iterable[Trained], optimizer: Optimizer) -> OptimizerWork:
    """Traffic, kernels and host time of clipping to a norm (Trainer's max_grad_norm) and the optimizer's step.

    Passes over a parameter p with gradient g and moments m, v, in units of one tensor:
        clipping       3 (read g; read and write g)
        adamw          7 (fused: read p, g, m, v; write p, m, v)
        adamw_foreach  20 (nine multi-tensor operations, one after the other)
        sgd            3
    bitsandbytes' 8-bit states move 1 byte each way and moment, its paged 32-bit ones 4; both launch once a tensor.
    Adafactor runs about 25 small kernels a tensor, which move about 60 bytes an element in fp32.
    Sources: PyTorch, torch/optim/adamw.py; bitsandbytes 0.50, optim; transformers 5.23, Adafactor.
    Ignores: paged states that do not fit on the card and travel over PCIe.
    """
    tensors = elements = parameter_bytes = 0
    for p in shapes:
        tensors += p.times
        elements += p.elements * p.times
        parameter_bytes += p.bytes * p.times
    fused = _fused_launches(tensors, elements)
    clip = OptimizerWork(3.0 * parameter_bytes, 2 * fused + 4, tensors * TORCH_TENSOR_S)
    bitsandbytes_s = tensors * BITSANDBYTES_TENSOR_S
    steps: dict[Optimizer, OptimizerWork] = {
        "adamw": OptimizerWork(7.0 * parameter_bytes, fused, 0.0),
        "adamw_foreach": OptimizerWork(20.0 * parameter_bytes, 9 * fused, 0.0),
        "sgd": OptimizerWork(3.0 * parameter_bytes, fused, 0.0),
        "adamw_8bit": OptimizerWork(3.0 * parameter_bytes + 4.0 * elements, tensors, bitsandbytes_s),
        "paged_adamw_8bit": OptimizerWork(3.0 * parameter_bytes + 4.0 * elements, tensors, bitsandbytes_s),
        "paged_adamw": OptimizerWork(3.0 * parameter_bytes + 16.0 * elements, tensors, bitsandbytes_s),
        "adafactor": OptimizerWork(3.0 * parameter_bytes + 60.0 * elements, 25.0 * tensors, 0.0),
    }
    return OptimizerWork(*(a + b for a, b in zip(clip, steps[optimizer], strict=True)))
