"""Bytes that an autograd function holds and makes on a CPU, and those of the tape's function, counted alike.

A kernel writes into tensors that the code around it makes, so a function whose kernels do nothing shows all of them.
Scalars, which take less than 64 bytes, are left out.
"""

from __future__ import annotations

import ast
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from advisor.tape.engine import run_backward
from advisor.tape.graph import Tensor
from advisor.tape.tape import Tape

SCALAR_BYTES = 64


class Found(NamedTuple):
    """Bytes beyond those that were alive before: when forward has returned, at its peak, at backward's peak."""

    kept: int
    forward: int
    backward: int


class Live(TorchDispatchMode):
    """Counts the bytes of storages that are alive, without scalars."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf)
        return out

    def know(self, *tensors: torch.Tensor) -> None:
        """Leave these out: weights."""
        self._known |= {one.untyped_storage()._cdata for one in tensors}

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known or size < SCALAR_BYTES:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def picked(path: Path, names: set[str], around: dict[str, Any]) -> dict[str, Any]:
    """The functions and classes of a file by these names, run among `around`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if getattr(node, "name", "") in names]
    found = dict(around)
    exec(compile(tree, str(path), "exec"), found)
    return found


class Nothing:
    """A kernel that does nothing."""

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *args, **kwargs: None


class Leaf(torch.autograd.Function):
    """A tensor of its own that takes a gradient and drops it."""

    @staticmethod
    def forward(ctx: Any, at: torch.Tensor, shape: Any, dtype: torch.dtype) -> torch.Tensor:
        """The tensor."""
        return torch.empty(shape, dtype=dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        """No gradient goes on."""
        return None, None, None


class Root(torch.autograd.Function):
    """A scalar whose backward makes a new gradient for each input."""

    @staticmethod
    def forward(ctx: Any, *outs: torch.Tensor) -> torch.Tensor:
        """A scalar."""
        ctx.like = [(one.shape, one.dtype) for one in outs]
        return torch.zeros(())

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        """New gradients."""
        return tuple(torch.empty(shape, dtype=dtype) for shape, dtype in ctx.like)


def measured(make: Callable[[Callable[..., torch.Tensor]], Any], parameters: list[torch.Tensor]) -> Found:
    """What a function of leaves does: `make` gets the maker of leaves, and returns one output or several."""
    at = torch.zeros((), requires_grad=True)
    live = Live()
    live.know(*parameters)
    with live:
        made = make(lambda shape, dtype=torch.bfloat16: Leaf.apply(at, shape, dtype))
        outs = made if isinstance(made, tuple) else (made,)
        del made
        kept, forward = live.now, live.peak
        root = Root.apply(*outs)
        del outs
        live.peak = before = live.now
        root.backward()
    for parameter in parameters:
        parameter.grad = None
    return Found(kept, forward, live.peak - before)


# -- the tape -----------------------------------------------------------------------------------------------


def taped(make: Callable[[Tape, Callable[..., Tensor]], Any], autocast: str = "bfloat16") -> Found:
    """The same on the tape."""
    t = Tape("cuda", autocast)
    at = Tensor((), "float32", needs_grad=True)

    def leaf(shape: tuple[int, ...], dtype: str = "bfloat16") -> Tensor:
        return t.op((at,), shape, dtype, lambda g: (None,))

    def root(*outs: Tensor) -> Tensor:
        like = [(one.shape, one.dtype) for one in outs]
        return t.op(outs, (), "float32", lambda g: tuple(t.empty(*one) for one in like))

    made = make(t, leaf)
    outs = made if isinstance(made, tuple) else (made,)
    del made
    kept, forward = bytes_of(t, 0)
    last = root(*outs)
    del outs
    before, events = bytes_of(t, 0)[0], len(t.events)
    run_backward(t, last, t.empty((), "float32"))
    del last
    return Found(kept, forward, bytes_of(t, events, before)[1] - before)


def bytes_of(t: Tape, start: int, now: int = 0) -> tuple[int, int]:
    """(alive, peak) after the events from `start` on, without scalars."""
    sizes = [size if size >= SCALAR_BYTES else 0 for size in t.slots]
    peak = now
    for event in t.events[start:]:
        now += -sizes[event >> 3] if event & 1 else sizes[event >> 3]
        peak = max(peak, now)
    return now, peak


class Case(NamedTuple):
    """One function at one shape: what its own code does, from the loaded functions, and what the tape does."""

    name: str
    theirs: Callable[[dict[str, Any]], Found]
    ours: Callable[[], Found]


def compared(cases: list[Case], found: dict[str, Any]) -> int:
    """Print every comparison; 1 where one differs."""
    worst = 0
    for case in cases:
        theirs, ours = case.theirs(found), case.ours()
        print(f"{case.name:32}", end="")
        for name, their, our in zip(Found._fields, theirs, ours, strict=True):
            worst = max(worst, abs(our - their))
            print(f"  {name} {their:11,} {our - their:+,}", end="")
        print()
    return int(worst > 0)
