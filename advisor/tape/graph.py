"""What the tape's graph is made of: buffers with lifetimes, tensors, and the nodes that keep them for backward."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Literal, NamedTuple, Protocol, Self, TypeVar

from advisor.blocks import ITEM_BYTES
from advisor.terms import TermName

Shape = tuple[int, ...]
Device = Literal["cpu", "cuda"]

SAVED, TEMPORARY, GRADIENT, LOGITS = range(4)
CATEGORY_NAMES = (TermName.SAVED_ACTIVATIONS, TermName.TEMPORARIES, TermName.GRADIENTS, TermName.LOGITS)

MATMUL, BATCHED = "matmul", "batched matmul"
"""Kinds of matrix products: one, and one for each row and head or expert, in one launch."""

RawKernel = tuple[str, str, int, int, int, int, int, str]
"""(kind, dtype, FLOP, bytes read and written, m, n, k of a matrix product or 0, place), as the tape records it.

`place` is the part of the model, or '' where the tape does not note it. A bare tuple, because thousands are made per
step: with a NamedTuple, recording took a tenth longer.
"""


Key = TypeVar("Key")


class Numbered(dict[Key, int]):
    """Numbers what it is asked for, in the order in which it is."""

    def __missing__(self, key: Key) -> int:
        number = self[key] = len(self)
        return number


class StopRecompute(Exception):
    """Raised inside a recomputation once every tensor that backward needs exists again (PyTorch's early stop)."""


class Recorder(Protocol):
    """What buffers and nodes need from the tape: where they note their events, and where in the model they are made."""

    events: list[int]
    slots: Numbered[int]
    sequence: int
    segment: int
    at: str


class Buffer:
    """Bytes that live as long as this object. Events are size slots with category and sign: see `Tape.events`."""

    __slots__ = ("code", "events")

    def __init__(self, tape: Recorder, size: int, category: int) -> None:
        self.events = events = tape.events
        self.code = code = tape.slots[size] * 8 + category * 2
        events.append(code)

    @classmethod
    def standing(cls, tape: Recorder, code: int) -> Self:
        """Bytes that were noted before, by the `code` of their event, and are still there."""
        buffer = cls.__new__(cls)
        buffer.events, buffer.code = tape.events, code
        return buffer

    def __del__(self) -> None:
        self.events.append(self.code + 1)

    @property
    def category(self) -> int:
        """What these bytes are counted under."""
        return self.code % 8 // 2

    def move_to(self, category: int) -> None:
        """Count these bytes under another category from now on."""
        events = self.events
        events.append(self.code + 1)
        self.code = self.code // 8 * 8 + category * 2
        events.append(self.code)


class Tensor:
    """A shape, a dtype, the buffer behind it (None for weights, which are counted apart) and its place in the graph."""

    __slots__ = ("buffer", "bytes", "count", "dtype", "grad", "needs_grad", "node", "shape")

    def __init__(self, shape: Shape, dtype: str, buffer: Buffer | None = None, needs_grad: bool = False) -> None:
        """`count` is the number of elements, `bytes` the size of its data without rounding."""
        self.shape = shape
        self.count = count = prod(shape)
        self.bytes = count * ITEM_BYTES[dtype]
        self.dtype = dtype
        self.buffer = buffer
        self.needs_grad = needs_grad
        self.node: Node | Output | None = None
        self.grad: Tensor | None = None


PENDING = Tensor((), "float32")
"""Marks a node with several outputs whose gradients wait in its parts."""

Edge = tuple["Node | Output | Tensor", Shape, str]
"""Where the gradient of an input goes, and the input's shape and dtype."""

BackwardFunction = Callable[[Tensor], "tuple[Tensor | None, ...]"]


class Hosted(NamedTuple):
    """A saved tensor that waits in the host's memory."""

    number: int
    shape: Shape
    dtype: str


Saved = Buffer | Hosted | None
"""What a node keeps of a tensor: None of one whose bytes are counted elsewhere."""


class SavedTensorHooks(Protocol):
    """What a node keeps in place of a tensor, and what its backward gets of it (advisor.tape.offloading)."""

    number: int  # of the tensor that was saved last

    def packed(self, t: Any, tensors: Sequence[Tensor]) -> list[Buffer | Hosted]:
        """What a node holds."""

    def unpacked(self, t: Any, saved: Sequence[Saved]) -> list[Buffer | None]:
        """What its backward works with."""

    def returned(self, t: Any, one: Hosted) -> Buffer:
        """One of them."""

    def finish_node(self, t: Any) -> None:
        """Its backward has run."""

    def finish_backward(self) -> None:
        """All have run."""


class Node:
    """One recorded operation: where its gradients go, and what it keeps for computing them."""

    __slots__ = (
        "__weakref__",
        "at",
        "backward",
        "context",
        "edges",
        "first_slot",
        "frame",
        "grad",
        "saved",
        "segment",
        "sequence",
        "slots",
    )

    def __init__(self, tape: Recorder, inputs: tuple[Tensor, ...], backward: BackwardFunction) -> None:
        self.backward = backward
        self.edges: list[Edge | None] = []
        for i in inputs:
            self.edges.append((i.node or i, i.shape, i.dtype) if i.needs_grad else None)
        self.saved: list[Saved] = []
        self.context: tuple[Buffer | None, ...] = ()
        self.grad: Tensor | None = None
        self.frame: Frame | None = None
        self.first_slot = 0
        self.slots = 0
        self.segment = tape.segment
        self.at = tape.at
        tape.sequence = self.sequence = tape.sequence + 1

    def take_grad(self) -> Tensor:
        """Hand over the gradient, so that nobody else holds it while backward runs."""
        grad = self.grad
        assert grad is not None
        self.grad = None
        return grad


class Output:
    """One output of an operation with several outputs (chunk, split)."""

    __slots__ = ("index", "node")

    def __init__(self, node: ManyNode, index: int) -> None:
        self.node = node
        self.index = index


class ManyNode(Node):
    """An operation with several outputs; the gradients of outputs nobody used are zeros made for it."""

    __slots__ = ("parts",)
    parts: list[Tensor | None]


class Frame:
    """A checkpointed region: the recipe for running it again and what the rerun brought back."""

    __slots__ = ("done", "function", "holders", "hosted", "inputs", "next_slot", "store")

    def __init__(self, function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> None:
        self.function = function
        self.inputs = inputs
        self.hosted: Saved = None  # what the one input waits as, if it is offloaded
        self.holders: list[weakref.ref[Node]] = []
        self.store: dict[int, Buffer | None] = {}
        self.next_slot = 0
        self.done = False
