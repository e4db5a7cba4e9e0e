"""Bytes that an autograd function of another package makes, keeps and gives back, against its mirror on the tape.

The package's own code runs on the CPU, its Triton kernels replaced by nothing: what it allocates does not depend on
what they compute. Both sides start from the same inputs, which live throughout.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from benchmarks.tape_bytes import Measured, measured
from calibrate.worker.tracker import AllocationTracker


class Kernel:
    """A Triton kernel that does nothing: `kernel[grid](...)`."""

    def __init__(self, value: Any = None) -> None:
        self.value = value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Kernel()

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *args, **kwargs: None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 - what a decorator or a helper of Triton makes
        return Kernel(args[0] if args else None)


class _Anything(ModuleType):
    """A module in which any name is there."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Kernel()


def bare(source: str, *packages: str) -> None:
    """Let modules of these packages be imported without what the packages import by themselves."""
    for name in packages:
        module = ModuleType(name)
        module.__path__ = [str(Path(source, *name.split(".")))]
        sys.modules[name] = module


def without(module: str) -> None:
    """Put a module in its place in which any name is a kernel, or what makes one, that does nothing."""
    sys.modules[module] = _Anything(module)


def without_triton() -> None:
    """Put modules in the place of Triton's whose kernels do nothing, once PyTorch has looked for the real ones."""
    import_module("torch._dynamo")
    parts = ("", ".language", ".language.math", ".language.extra", ".runtime", ".testing")
    for name in (*parts, *(f".language.extra.{one}" for one in ("libdevice", "cuda", "cuda.libdevice"))):
        without(f"triton{name}")
    triton: Any = sys.modules["triton"]
    triton.__version__ = "3.0.0"
    triton.__path__ = sys.modules["triton.language"].__path__ = sys.modules["triton.language.extra"].__path__ = []
    triton.language = sys.modules["triton.language"]
    triton.jit = lambda function=None, **_: Kernel(function)
    triton.heuristics = triton.autotune = lambda *args, **kwargs: lambda function: Kernel(function)
    triton.Config = lambda *args, **kwargs: None
    triton.cdiv = lambda a, b: -(-a // b)
    triton.next_power_of_2 = lambda n: 1 << (n - 1).bit_length()


def picked(path: Path, names: set[str], around: dict[str, Any]) -> dict[str, Any]:
    """The functions and classes of a file by these names, run among `around`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if getattr(node, "name", "") in names]
    found = dict(around)
    exec(compile(tree, str(path), "exec"), found)
    return found


def real(
    function: Callable[..., Any],
    inputs: Sequence[torch.Tensor | None],
    autocast: bool = False,
    frozen: Sequence[torch.Tensor] = (),
    around: AbstractContextManager[Any] | None = None,
) -> Measured:
    """What PyTorch allocates while `function` runs and its backward gives the gradients of `inputs`.

    `function` returns a tensor or a tuple of them, each of which gets a gradient that lives throughout.
    `frozen`: what it reads besides; `around`: what both run in.
    """
    tracker = AllocationTracker({}, name_modules=False)
    for one in (*inputs, *frozen):
        if one is not None:
            tracker.add(one, "input", "")
    with tracker, around or nullcontext():
        tracker.mark("forward")
        begun = len(tracker.timeline.moves)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = function(*inputs)
        ran = len(tracker.timeline.moves)
        outs = out if isinstance(out, tuple) else (out,)
        gradients = [torch.empty_like(one) for one in outs]
        tracker.mark("backward")
        ready = len(tracker.timeline.moves)
        wanted = [one for one in inputs if one is not None and one.requires_grad]
        found = torch.autograd.grad(outs, wanted, gradients)
        done = len(tracker.timeline.moves)
    assert len(found) == len(wanted)
    sizes = [allocation.exact_bytes for allocation in tracker.timeline.allocations]
    moves = [sizes[at] if at >= 0 else -sizes[-at - 1] for at in tracker.timeline.moves]
    return measured(moves, (begun, ran, ready, done))


def compared(name: str, of_package: Measured, of_tape: Measured) -> bool:
    """Print both, and whether they are equal."""
    equal = of_package == of_tape
    print(f"{name:52} {'equal' if equal else 'DIFFERENT'}")
    print(f"    package {of_package}\n    tape    {of_tape}", flush=True)
    return equal
