"""TRL's offloader against its mirror on the tape, to the byte.

    python -m benchmarks.against_offloading_trl --source FOLDER

FOLDER holds the package trl as its wheel unpacks. The CPU stands for the card: what the offloader makes for the host is
replaced by objects without memory, and its streams by nothing. Exits with 1 when a case differs.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from advisor.decoders.linear import product
from advisor.tape.engine import checkpoint as checkpoint_on_tape
from advisor.tape.graph import Tensor
from advisor.tape.offloading import Offloader
from advisor.tape.ops import add, mul, unary
from advisor.tape.tape import Tape
from benchmarks.kernel_bytes import bare, compared, real
from benchmarks.tape_bytes import mirrored

ROWS, WIDTH = 64, 96


class _Host:
    """A tensor in the host's memory, which is not counted."""

    def __init__(self, like: torch.Tensor) -> None:
        self.shape, self.dtype = like.shape, like.dtype

    def copy_(self, *_: Any, **__: Any) -> None:
        """Its bytes come from the card."""

    def to(self, *_: Any, **__: Any) -> torch.Tensor:
        """They go back to a new tensor."""
        return torch.empty(self.shape, dtype=self.dtype)


class _Torch:
    """torch, for the offloader: its host is not counted, its streams do nothing."""

    accelerator = SimpleNamespace(current_accelerator=lambda: torch.device("cpu"))

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def empty_like(x: torch.Tensor, **_: Any) -> _Host:
        """Only what goes to the host is made this way."""
        return _Host(x)

    @staticmethod
    def get_device_module(*_: Any) -> Any:
        """Streams that run at once."""
        event = SimpleNamespace()
        stream = SimpleNamespace(
            wait_event=lambda event: None,
            wait_stream=lambda other: None,
            record_event=lambda: event,
            synchronize=lambda: None,
        )
        return SimpleNamespace(
            Stream=lambda: stream,
            current_stream=lambda: stream,
            stream=lambda one: nullcontext(),
            empty_cache=lambda: None,
        )


def block(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A residual block that saves one of its tensors twice."""
    y = F.linear(x, weight)
    return x + F.silu(y) * y


def block_on_tape(t: Tape, x: Tensor, weight: Tensor) -> Tensor:
    """The same."""
    y = product(t, x, weight)
    activated = [unary(t, y, "input")]
    return add(t, x, mul(t, activated.pop(), y))


def case(offloading: Any, layers: int, checkpointing: bool, trains: bool) -> bool:
    """Whether both sides agree on `layers` blocks."""
    weights = [torch.nn.Parameter(torch.zeros(WIDTH, WIDTH), requires_grad=trains) for _ in range(layers)]
    x = torch.zeros((1, ROWS, WIDTH), requires_grad=True)

    def of_package(x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        for weight in weights:
            run: Callable[..., torch.Tensor] = partial(block, weight=weight)
            x = checkpoint(run, x, use_reentrant=False) if checkpointing else run(x)
        return x

    t = Tape("cpu")
    t.offloader = Offloader()
    on_tape = t.empty((1, ROWS, WIDTH), "float32")
    on_tape.needs_grad = True
    mirrors = [Tensor((WIDTH, WIDTH), "float32", needs_grad=trains) for _ in range(layers)]

    def mirror(t: Tape, x: Tensor) -> Tensor:
        for weight in mirrors:
            run = partial(block_on_tape, t, weight=weight)
            x = checkpoint_on_tape(t, run, x, reentrant=False) if checkpointing else run(x)
        return x

    hooks = offloading.OffloadActivations(use_pin_memory=False)
    hooks.param_storages = {one.untyped_storage().data_ptr() for one in weights}
    package = real(of_package, (x, *weights), around=hooks)
    name = f"{layers} blocks, checkpointing {'on' if checkpointing else 'off'}, trained={trains}"
    return compared(name, package, mirrored(mirror, [on_tape], t))


def main() -> int:
    """Print every case; 1 if one differs."""
    parser = ArgumentParser()
    parser.add_argument("--source", required=True, help="folder that holds trl")
    bare(parser.parse_args().source, "trl", "trl.models")
    offloading: Any = import_module("trl.models.activation_offloading")
    offloading.torch = _Torch()
    torch.Tensor.record_stream = lambda *_: None  # type: ignore[method-assign]
    cases = [(layers, way, trains) for layers in (2, 3, 8) for way in (False, True) for trains in (True, False)]
    different = sum(not case(offloading, *one) for one in cases)
    print(f"{len(cases)} cases, {different} different")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
