"""Gradients of trained weights: those that are there before a micro-step, of a weight used twice, and used at once."""

from __future__ import annotations

from advisor.optimizers import optimizer_row
from advisor.parameters.trained import Trained
from advisor.tape.graph import GRADIENT, Node, Tensor
from advisor.tape.tape import Tape


def existing_gradients(t: Tape, parameters: list[Tensor]) -> None:
    """Under accumulation, gradients of the earlier micro-steps exist from the start."""
    for p in parameters:
        if p.grad is None:
            p.grad = t.empty(p.shape, p.dtype, GRADIENT)


def updated_at_once(t: Tape, optimizer: str, p: Tensor) -> None:
    """An optimizer of this tensor alone makes its step, then the gradient goes; its work is counted with the others'.

    Source: torchtune 0.6.1, training/memory.py, register_optim_in_bwd_hooks.
    """
    rows = p.shape[0]
    shape = Trained(rows, p.count // rows if len(p.shape) > 1 else 0, 1, p.dtype)
    made = [t.empty((size,), "uint8") for size in optimizer_row(optimizer).temporaries(shape)]
    made.clear()
    p.grad = None


def shared_weight(t: Tape, weight: Tensor) -> Tensor:
    """A weight used twice: its gradients meet before they reach it."""
    if not weight.needs_grad:
        return weight
    out = Tensor(weight.shape, weight.dtype, needs_grad=True)
    out.node = Node(t, (weight,), lambda g: (g,))
    return out
