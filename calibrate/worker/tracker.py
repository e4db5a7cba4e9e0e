"""Records every tensor storage that a piece of PyTorch code allocates and frees.

A `TorchDispatchMode` sees the output of every operation below autograd; a weak reference to its storage tells
when it is freed. Works on real CPU tensors and on fake ones.

Not seen: what a kernel allocates and frees internally (workspaces) and, on CUDA, the caching allocator's rounding
and fragmentation. Storages are rounded up to 512 bytes, CUDA's smallest block.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from advisor.blocks import block_bytes
from calibrate.timeline import Allocation, Timeline
from calibrate.worker.kernels import cost_of


class AllocationTracker(TorchDispatchMode):
    """Records allocations and releases into `timeline`, each with its phase, operation and module.

    `names` maps `id(module)` to the path to show for it.
    """

    def __init__(self, names: Mapping[int, str], name_modules: bool = True) -> None:
        super().__init__()
        self.timeline = Timeline()
        self.counts: dict[tuple[str, str], list[int]] = {}  # (phase, operation): [kernels, FLOP, bytes]
        self._names = names
        self._name_modules = name_modules
        self._live: dict[int, tuple[int, weakref.ref[Any]]] = {}
        self._phase = "load"
        self._stack: list[str] = []
        self._module_of_node: dict[int, str] = {}
        self._op_names: dict[Any, str] = {}
        self._hooks: list[Any] = []
        self._recording = True

    def mark(self, phase: str) -> None:
        """Begin a phase: 'forward', 'backward' or 'optimizer'."""
        self._phase = phase
        self.timeline.mark(phase)

    def add(self, tensor: torch.Tensor, category: str, module: str) -> None:
        """Count a tensor that is alive before the step."""
        self._track(tensor, category, "", module)

    def label_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Label storages that became gradients as gradients, whatever operation made them."""
        for parameter in parameters:
            if parameter.grad is None:
                continue
            known = self._live.get(parameter.grad.untyped_storage()._cdata)
            if known is not None:
                self.timeline.allocations[known[0]].category = "gradients"

    def watch_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> list[Any]:
        """Record when each parameter's gradient is complete; returns the hooks, so that they can be removed."""

        def complete(parameter: Any) -> None:
            known = self._live.get(parameter.grad.untyped_storage()._cdata)
            if known is not None:
                self.timeline.accumulated.append((len(self.timeline.moves), known[0]))

        return [parameter.register_post_accumulate_grad_hook(complete) for parameter in parameters]

    def __enter__(self) -> AllocationTracker:
        if self._name_modules:
            self._hooks = [
                register_module_forward_pre_hook(self._enter_module),
                # Early stop of a recomputation leaves modules through an exception, hence always_call.
                register_module_forward_hook(self._leave_module, always_call=True),
            ]
        super().__enter__()
        return self

    def __exit__(self, *stop: Any) -> None:
        super().__exit__(*stop)
        self._recording = False
        for hook in self._hooks:
            hook.remove()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.namespace == "prim":  # a query about a tensor, such as its device
            return out
        op = self._op_names.get(func)
        if op is None:
            op = self._op_names[func] = str(func).removesuffix(".default")
        phase, module = self._where()
        cost = cost_of(func, args, kwargs or {}, out)
        if cost.kernels:
            count = self.counts.setdefault((phase, op), [0, 0, 0])
            for index, amount in enumerate(cost):
                count[index] += amount
        if isinstance(out, torch.Tensor):
            self._track(out, phase, op, module)
        else:
            for leaf in tree_leaves(out):
                if isinstance(leaf, torch.Tensor):
                    self._track(leaf, phase, op, module)
        return out

    def _where(self) -> tuple[str, str]:
        """The phase and the module of the running operation."""
        if self._phase == "forward":
            # The autograd node of a forward operation exists already, and its number is the last one given out.
            module = self._stack[-1] if self._stack else ""
            self._module_of_node.setdefault(torch._C._autograd._get_sequence_nr() - 1, module)
            return "forward", module
        if self._phase != "backward":
            return self._phase, ""
        node = torch._C._current_autograd_node()
        module = "" if node is None else self._module_of_node.get(node._sequence_nr(), "")
        # Only the recomputation of a checkpointed layer enters modules, or enables gradients, inside an autograd node.
        if not self._stack and (node is None or not torch.is_grad_enabled()):
            return "backward", module
        module = self._stack[-1] if self._stack else _layer_of(module)
        self._module_of_node[torch._C._autograd._get_sequence_nr() - 1] = module
        return "recompute", module

    def _track(self, tensor: torch.Tensor, category: str, op: str, module: str) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live:
            return
        exact_bytes = storage.nbytes()
        size_bytes = block_bytes(exact_bytes)
        if size_bytes == 0:
            return
        timeline = self.timeline
        index = len(timeline.allocations)
        dtype = str(tensor.dtype).removeprefix("torch.")
        timeline.allocations.append(
            Allocation(size_bytes, category, op, module, tuple(tensor.shape), dtype, exact_bytes)
        )
        timeline.moves.append(index)
        self._live[key] = (index, weakref.ref(storage, self._on_release(key, index)))

    def _on_release(self, key: int, index: int) -> Callable[[Any], None]:
        def release(_: Any) -> None:
            del self._live[key]
            if self._recording:
                self.timeline.moves.append(-index - 1)

        return release

    def _enter_module(self, module: torch.nn.Module, args: Any) -> None:
        self._stack.append(self._names.get(id(module), ""))

    def _leave_module(self, module: torch.nn.Module, args: Any, output: Any) -> None:
        self._stack.pop()


def _layer_of(module: str) -> str:
    """The decoder layer that contains a module path: 'layers.3' of 'layers.3.mlp.up_proj'."""
    parts = module.split(".")
    for position, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[: position + 1])
    return module
