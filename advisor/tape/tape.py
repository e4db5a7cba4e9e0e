"""Shape-only autograd: one training step as sizes and lifetimes, no numbers.

The idea: CPython frees an object at the moment its last reference goes, exactly as PyTorch's eager mode frees a
tensor. A `Buffer` adds its bytes to the tape when it is made and gives them back when Python drops it, and a
`Node` holds what its backward needs. A forward written like the model code, with the same locals, then has the
real step's lifetimes for free; `engine.run_backward` runs nodes in the order of PyTorch's engine (latest first).

Batch, length and rank enter as powers of two so large that every size is a polynomial in them whose coefficients
can be read off its digits (`program.py` does that): one recording serves all shapes.

What it ignores: strides (a few copies that PyTorch makes for layout are written out where they happen), and
allocator behavior beyond rounding each block to 512 bytes.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import NamedTuple

from advisor.tape.graph import (
    BATCHED,
    MATMUL,
    SAVED,
    TEMPORARY,
    BackwardFunction,
    Buffer,
    Device,
    Frame,
    Node,
    Numbered,
    RawKernel,
    Saved,
    SavedTensorHooks,
    Shape,
    StopRecompute,
    Tensor,
)


class CachedCast(NamedTuple):
    """One of autocast's cached casts. It holds its source: while the entry exists, no other tensor has that id."""

    segment: int
    source: Tensor
    cast: Tensor


class Tape:
    """Records a step: every allocation and release in order, where they happen, and every kernel.

    `events` holds one number per event: slot * 8 + category * 2, plus 1 for a release; `slots` numbers the sizes.
    """

    on_segment: Callable[[int], None] = staticmethod(lambda segment: None)
    """Called when another part of the model begins to run backward."""

    def __init__(self, device: Device, autocast: str = "") -> None:
        """`autocast` is the 16-bit dtype that matrix products are cast to inside `torch.autocast`, or ''."""
        self.device = device
        self.autocast = autocast
        self.autocast_dtype = autocast
        self.autocast_cache: dict[int, CachedCast] = {}  # by the id of the source
        self.events: list[int] = []
        self.slots = Numbered[int]()
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
        self.recomputed = self.hooked = 0  # kernels launched a second time, and under checkpointing's hooks
        self.recomputed_flop = 0
        self.hosted_bytes = 0  # copied to the host
        self.on_gradient: Callable[[Tensor], None] | None = None  # called with a leaf whose gradient is complete
        self.offloader: SavedTensorHooks | None = None
        self.unpacked: Sequence[Saved] = ()  # what the node whose backward runs has saved

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
        beside: tuple[Tensor, ...] = (),
    ) -> Tensor:
        """Run one operation: allocate its output and, if a gradient flows, record a node.

        `saved` are the inputs that backward needs; `keep_output` says that it needs the output, `beside` are outputs
        that only backward needs.
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
            if beside:
                self.save(node, beside)
        return out

    def function(
        self, out: Tensor, inputs: tuple[Tensor, ...], backward: BackwardFunction, saved: tuple[Tensor, ...]
    ) -> Tensor:
        """`out`, made by an autograd function written in Python: it saves after it has run.

        Its backward finds what was saved in `unpacked`.
        """
        if self.grad_enabled and any(i.needs_grad for i in inputs):
            node = Node(self, inputs, backward)
            self.save(node, saved)
            out.node, out.needs_grad = node, True
        return out

    def overwritten(self, like: Tensor, index: int) -> Tensor:
        """A tensor of the shape of `like` in the memory of what the running node saved at `index`."""
        buffer = self.unpacked[index]
        assert isinstance(buffer, Buffer)
        return Tensor(like.shape, like.dtype, buffer)

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
            if self.offloader is not None:
                node.saved += self.offloader.packed(self, tensors)
                return
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
        self.kernels.append((kind, dtype, flop, moved_bytes, 0, 0, 0, ""))

    def matmul(self, dtype: str, m: int, n: int, k: int, moved_bytes: int, batch: int = 0, rows: int = 0) -> None:
        """Note one matrix product (m, k) x (k, n), or a `batch` of them in one launch.

        `rows`: so many of m are computed at a time, where that is given.
        """
        kind, flop = (BATCHED, 2 * batch * m * n * k) if batch else (MATMUL, 2 * m * n * k)
        self.kernels.append((kind, dtype, flop, moved_bytes, rows or m, n, k, ""))

    def to_host(self, x: Tensor) -> None:
        """Note a copy of x into the host's memory, where it stays until the step ends."""
        self.kernel("to_host", x.dtype, 0, x.bytes)
        self.hosted_bytes += x.bytes

    def from_host(self, shape: Shape, dtype: str) -> Tensor:
        """A new tensor with what `to_host` took away."""
        out = self.empty(shape, dtype)
        self.kernel("from_host", dtype, 0, out.bytes)
        return out


class LabeledTape(Tape):
    """A tape whose kernels say in which part of the model they run."""

    def kernel(self, kind: str, dtype: str, flop: int, moved_bytes: int) -> None:
        """Note one kernel launch that is not a matrix product."""
        self.kernels.append((kind, dtype, flop, moved_bytes, 0, 0, 0, self.at))

    def matmul(self, dtype: str, m: int, n: int, k: int, moved_bytes: int, batch: int = 0, rows: int = 0) -> None:
        """Note one matrix product (m, k) x (k, n), or a `batch` of them in one launch.

        `rows`: so many of m are computed at a time, where that is given.
        """
        kind, flop = (BATCHED, 2 * batch * m * n * k) if batch else (MATMUL, 2 * m * n * k)
        self.kernels.append((kind, dtype, flop, moved_bytes, rows or m, n, k, self.at))
