"""Shape-only autograd: one training step as sizes and lifetimes, no numbers.

The idea: CPython frees an object at the moment its last reference goes, exactly as PyTorch's eager mode frees a
tensor. A `Buffer` adds its bytes to the tape when it is made and gives them back when Python drops it, and a
`Node` holds what its backward needs. A forward written like the model code, with the same locals, then has the
real step's lifetimes for free; `backward` runs nodes in the order of PyTorch's engine (latest first).

Batch, length and rank enter as powers of two so large that every size is a polynomial in them whose coefficients
can be read off its digits (`program.py` does that): one recording serves all shapes.

What it ignores: strides (a few copies that PyTorch makes for layout are written out where they happen), and
allocator behaviour beyond rounding each block to 512 bytes.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from advisor.tape.graph import (
    GRADIENT,
    PENDING,
    SAVED,
    TEMPORARY,
    BackwardFunction,
    Buffer,
    Device,
    Frame,
    Node,
    RawKernel,
    Shape,
    Slot,
    StopRecompute,
    Tensor,
)
from advisor.tape.stack import Stack

_Heap = list[tuple[int, Any]]
"""Nodes by the negative of their sequence, which is never the same for two: nodes themselves are not compared."""


class Tape:
    """Records a step: every allocation and release in order, where they happen, and every kernel.

    `events` holds one number an event: slot * 8 + category * 2, plus 1 for a release; `slots` numbers the sizes.
    """

    on_segment: Callable[[int], None] = staticmethod(lambda segment: None)
    """Called when another part of the model begins to run backward."""

    def __init__(self, device: Device, autocast: str = "", stack: Stack | None = None) -> None:
        """`autocast` is the 16-bit dtype that matrix products are cast to inside `torch.autocast`, or ''."""
        self.device = device
        self.stack = stack or Stack()
        self.autocast = autocast
        self.autocast_dtype = autocast
        self.autocast_cache: dict[int, tuple[int, Tensor]] = {}
        self.events: list[int] = []
        self.slots: dict[int, int] = {}
        self.labels: list[tuple[int, str]] = []
        self.at = ""
        self.grad_enabled = True
        self.sequence = 0
        self.segment = 0
        self.frame: Frame | None = None
        self.replaying = False
        self.rerunning = False
        self.side: list[Tensor] | None = None
        self.kernels: list[RawKernel] = []

    # -- allocation and recording ---------------------------------------------------------------------------

    def empty(self, shape: Shape, dtype: str, category: int = TEMPORARY) -> Tensor:
        """A new tensor with memory of its own, outside the graph."""
        out = Tensor(shape, dtype)
        out.buffer = Buffer(self, out.bytes, category)
        return out

    def label(self, at: str) -> None:
        """Name the part of the model that runs from here on."""
        if at != self.at:
            self.at = at
            self.labels.append((len(self.events), at))

    def op(
        self,
        inputs: tuple[Tensor, ...],
        shape: Shape,
        dtype: str,
        backward: BackwardFunction,
        saved: tuple[Tensor, ...] = (),
        keep_output: bool = False,
    ) -> Tensor:
        """Run one operation: allocate its output and, if a gradient flows, record a node.

        `saved` are the inputs that backward needs; `keep_output` says that it needs the output.
        """
        node = None
        if self.grad_enabled:
            for i in inputs:
                if i.needs_grad:
                    node = Node(self, inputs, backward)
                    if saved:
                        self.save(node, saved, ran=False)
                    break
        out = Tensor(shape, dtype)
        out.buffer = Buffer(self, out.bytes, TEMPORARY)
        if node is not None:
            out.node = node
            out.needs_grad = True
            if keep_output:
                self.save(node, (out,))
        return out

    def view(self, x: Tensor, shape: Shape) -> Tensor:
        """The same memory under another shape."""
        out = Tensor(shape, x.dtype, x.buffer)
        if x.needs_grad and self.grad_enabled:
            before = x.shape
            out.node = Node(self, (x,), lambda g: (Tensor(before, g.dtype, g.buffer),))
            out.needs_grad = True
        return out

    def save(self, node: Node, tensors: tuple[Tensor, ...], ran: bool = True) -> None:
        """Keep `tensors` for the backward of `node`, or note them in the checkpoint frame that will remake them.

        Autograd saves an operation's inputs before its kernel runs: a recomputation that ends there (`ran` is off)
        does not launch the kernel that was noted last.
        """
        frame = self.frame
        if frame is None:
            for tensor in tensors:
                buffer = tensor.buffer
                if buffer is not None:
                    node.saved.append(buffer)
                    if buffer.category == TEMPORARY:
                        buffer.move_to(SAVED)
            return
        if not self.replaying:
            if node.frame is None:
                node.frame = frame
                node.first_slot = len(frame.holders)
            node.slots += len(tensors)
            frame.holders += [weakref.ref(node)] * len(tensors)
            return
        for tensor in tensors:
            slot = frame.next_slot
            frame.next_slot = slot + 1
            buffer = tensor.buffer
            if buffer is not None and buffer.category == TEMPORARY:
                buffer.move_to(SAVED)
            if frame.holders[slot]() is not None:
                frame.store[slot] = buffer
            node.saved.append(buffer)
            if frame.next_slot == len(frame.holders):
                if not ran:
                    self.kernels.pop()
                raise StopRecompute

    def kernel(self, kind: str, dtype: str, flop: int, moved_bytes: int) -> None:
        """Note one kernel launch that is not a matrix product."""
        self.kernels.append((kind, dtype, flop, moved_bytes, 0, 0, 0))

    def matmul(self, dtype: str, m: int, n: int, k: int, moved_bytes: int) -> None:
        """Note one matrix product (m, k) x (k, n)."""
        self.kernels.append(("matmul", dtype, 2 * m * n * k, moved_bytes, m, n, k))

    # -- checkpointing --------------------------------------------------------------------------------------

    def checkpoint(self, function: Callable[..., Tensor], x: Tensor, reentrant: bool) -> Tensor:
        """Run `function(x)` without keeping what its backward needs; it runs again during backward.

        Source: torch/utils/checkpoint.py (PyTorch 2.13).
        """
        if reentrant:
            return self._checkpoint_reentrant(function, x)
        self.frame = Frame(function, (x,))
        try:
            return function(x)
        finally:
            self.frame = None

    def _checkpoint_reentrant(self, function: Callable[..., Tensor], x: Tensor) -> Tensor:
        """Tensors that `function` puts into `side` are further outputs, which get zeros for gradients."""
        node = None
        shape, dtype = x.shape, x.dtype
        further: list[Tensor] = []
        if x.needs_grad and self.grad_enabled:
            held = [x.buffer]

            def backward(g: Tensor) -> tuple[Tensor | None, ...]:
                zeros = [self.empty(one.shape, one.dtype) for one in further]
                for one in zeros:
                    self.kernel("elementwise", one.dtype, 0, one.bytes)
                again = Tensor(shape, dtype, held.pop(), needs_grad=True)
                self._enter_recompute()
                self.rerunning, self.side = True, []
                out, side = function(again), self.side
                self.rerunning, self.side = False, None
                self._leave_recompute()
                self.backward(out, g, *zip(side, zeros, strict=True))
                return (again.grad,)

            node = Node(self, (x,), backward)
            self.save(node, (x,))
        was_enabled, self.grad_enabled, self.side = self.grad_enabled, False, []
        out = function(Tensor(shape, dtype, x.buffer))
        self.grad_enabled = was_enabled
        further += [Tensor(one.shape, one.dtype) for one in self.side]
        self.side = None
        if node is not None:
            out.node = node
            out.needs_grad = True
        return out

    def _enter_recompute(self) -> None:
        self.autocast = self.autocast_dtype

    def _leave_recompute(self) -> None:
        self.autocast = ""
        self.autocast_cache.clear()

    def _recompute(self, frame: Frame) -> None:
        self.frame, self.replaying = frame, True
        frame.next_slot = 0
        self._enter_recompute()
        was_enabled, self.grad_enabled = self.grad_enabled, True
        try:
            frame.function(*frame.inputs)
        except StopRecompute:
            pass
        finally:
            self.frame, self.replaying = None, False
            self.grad_enabled = was_enabled
            self._leave_recompute()
        frame.done = True

    # -- backward -------------------------------------------------------------------------------------------

    def backward(self, root: Tensor, grad: Tensor, *further: tuple[Tensor, Tensor]) -> None:
        """Run the graph behind `root`, whose gradient is `grad`, latest node first, as PyTorch's engine does.

        `further` are other roots with their gradients.
        """
        heap: _Heap = []
        for one, gradient in ((root, grad), *further):
            node = one.node
            assert isinstance(node, Node)
            node.grad = gradient
            heappush(heap, (-node.sequence, node))
        del grad, gradient, further
        while heap:
            node = heappop(heap)[1]
            if node.segment != self.segment:
                self.segment = node.segment
                self.on_segment(node.segment)
            if node.at != self.at:
                self.label(node.at)
            frame = node.frame
            held: list[Buffer | None] = []
            if frame is not None:
                if not frame.done:
                    self._recompute(frame)
                held = [frame.store.pop(s, None) for s in range(node.first_slot, node.first_slot + node.slots)]
            incoming = node.take_grad()  # the engine lets go of it once the outgoing ones are checked
            grads = list(node.backward(incoming))
            held.clear()
            node.frame = frame = None
            self._validate(node, grads)
            del incoming
            node.saved.clear()
            for index, target in enumerate(node.edges):
                g = grads[index]
                if target is None or g is None:
                    continue
                grads[index] = None
                if isinstance(target, Node):
                    old = target.grad
                    if old is None:
                        target.grad = g
                        heappush(heap, (-target.sequence, target))
                        g = None
                        continue
                    target.grad = None
                    target.grad = self._sum(old, g)
                    old = None
                elif isinstance(target, Slot):
                    self._route_slot(heap, target, g)
                else:
                    self._accumulate(target, g)
                g = None
            grads.clear()

    def _validate(self, node: Node, grads: list[Tensor | None]) -> None:
        """Reduce gradients to the shape and cast them to the dtype of the inputs they belong to, one after the other.

        Source: PyTorch 2.13, torch/csrc/autograd/engine.cpp, call_function and validate_outputs.
        """
        for index, g in enumerate(grads):
            if g is None or node.edges[index] is None:
                continue
            shape, dtype = node.meta[index]
            if g.shape != shape:
                moved = g.bytes
                grads[index] = g = self.empty(shape, g.dtype)
                self.kernel("reduce", g.dtype, 0, moved + g.bytes)
            if g.dtype != dtype:
                moved = g.bytes
                grads[index] = g = self.empty(shape, dtype)
                self.kernel("elementwise", dtype, 0, moved + g.bytes)

    def _sum(self, old: Tensor, new: Tensor) -> Tensor:
        """Two gradients for one node: in place where PyTorch may, else into a third tensor.

        PyTorch adds in place when it holds the only reference; a trace with a dispatch mode never does.
        """
        self.kernel("elementwise", old.dtype, 0, 3 * old.bytes)
        # Seen here: this function's argument and its caller's local, and getrefcount's own.
        if self.device == "cuda" and sys.getrefcount(old) <= 3 and sys.getrefcount(old.buffer) <= 2:
            return Tensor(old.shape, old.dtype, old.buffer)
        return self.empty(old.shape, old.dtype)

    def _route_slot(self, heap: _Heap, slot: Slot, g: Tensor) -> None:
        many = slot.node
        if all(part is None for part in many.parts):
            heappush(heap, (-many.sequence, many))
            many.grad = PENDING
        old = many.parts[slot.index]
        many.parts[slot.index] = g if old is None else self._sum(old, g)

    def _accumulate(self, leaf: Tensor, g: Tensor) -> None:
        """Store a leaf's gradient, or add it to the one that is there."""
        old = leaf.grad
        if old is not None:
            self.kernel("elementwise", old.dtype, 0, 3 * old.bytes)
            if leaf.buffer is None:
                return  # into the existing .grad, in place
            leaf.grad = self.empty(old.shape, old.dtype)
            return
        leaf.grad = g
        if g.buffer is not None and leaf.buffer is None:
            g.buffer.move_to(GRADIENT)
