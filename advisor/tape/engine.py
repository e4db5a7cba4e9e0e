"""Backward on the tape: PyTorch's autograd engine and its two kinds of checkpointing, modeling lifetimes only."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from advisor.tape.graph import GRADIENT, PENDING, Buffer, Frame, Hosted, Node, Output, StopRecompute, Tensor
from advisor.tape.tape import Tape

_Heap = list[tuple[int, Any]]
"""Nodes by the negative of their sequence, which is never the same for two: nodes themselves are not compared."""


def checkpoint(
    t: Tape, function: Callable[..., Tensor], x: Tensor, reentrant: bool, beside: tuple[Tensor, ...] = ()
) -> Tensor:
    """Run `function(x, *beside)` without keeping what its backward needs; it runs again during backward.

    Source: torch/utils/checkpoint.py (PyTorch 2.13).
    """
    if reentrant:
        return _checkpoint_reentrant(t, function, x, beside)
    frame, launched = Frame(function, (x, *beside)), len(t.kernels)
    if t.offloader is not None and t.grad_enabled:
        _offload_input(t, frame, x)
    t.frame = frame
    try:
        return function(x, *beside)
    finally:
        t.frame = None
        t.hooked += len(t.kernels) - launched


def _offload_input(t: Tape, frame: Frame, x: Tensor) -> None:
    """Hooks on saved tensors see what checkpointing itself saves: x.

    Source: PyTorch 2.13, torch/utils/checkpoint.py, _CheckpointFrame.save_inputs.
    """
    assert t.offloader is not None
    frame.hosted = t.offloader.packed(t, (x,))[0]
    if isinstance(frame.hosted, Hosted):
        waiting = Tensor(x.shape, x.dtype, None, x.needs_grad)
        waiting.node = x.node
        frame.inputs = (waiting, *frame.inputs[1:])


def hosted_checkpoint(
    t: Tape,
    function: Callable[..., Tensor],
    x: Tensor,
    stored: str,
    staged: bool = False,
    beside: tuple[Tensor, ...] = (),
) -> Tensor:
    """Re-entrant checkpointing whose x waits in the host's memory, in dtype `stored`.

    It comes back into a new tensor; `staged`: into memory that the stack holds anyway, if its dtype is that of x.
    """
    waiting, dtype = Tensor(x.shape, stored), x.dtype

    def returned() -> Buffer | None:
        t.kernel("from_host", stored, 0, waiting.bytes)
        back = t.empty((0,) if staged and stored == dtype else waiting.shape, dtype)
        if stored != dtype:
            t.kernel("elementwise", dtype, 0, waiting.bytes + back.bytes)
        return back.buffer

    if x.needs_grad and t.grad_enabled:
        t.to_host(waiting)
    return _checkpoint_reentrant(t, function, x, beside, returned)


def _checkpoint_reentrant(
    t: Tape,
    function: Callable[..., Tensor],
    x: Tensor,
    beside: tuple[Tensor, ...],
    returned: Callable[[], Buffer | None] | None = None,
) -> Tensor:
    """Tensors that `function` puts into `side` are further outputs, which get zeros for gradients.

    `returned` brings x back in backward; without it, x is saved.
    """
    node = None
    shape, dtype = x.shape, x.dtype
    further: list[Tensor] = []
    if t.grad_enabled and any(one.needs_grad for one in (x, *beside)):
        held = [x.buffer] if returned is None else []
        others = [(one.shape, one.dtype, one.buffer, one.needs_grad) for one in beside]

        def backward(g: Tensor) -> tuple[Tensor | None, ...]:
            zeros = [t.empty(one.shape, one.dtype) for one in further]
            for one in zeros:
                t.kernel("elementwise", one.dtype, 0, one.bytes)
            again = Tensor(shape, dtype, returned() if returned else held.pop(), needs_grad=True)
            own = [Tensor(*other) for other in others]
            others.clear()
            _enter_recompute(t)
            t.rerunning, t.side, launched = True, [], len(t.kernels)
            out, side = function(again, *own), t.side
            t.rerunning, t.side = False, None
            _note_recomputed(t, launched)
            _leave_recompute(t)
            run_backward(t, out, g, *zip(side, zeros, strict=True))
            return (again.grad, *(one.grad for one in own))

        node = Node(t, (x, *beside), backward)
        t.save(node, beside if returned is not None else (x, *beside))
    was_enabled, t.grad_enabled, t.side = t.grad_enabled, False, []
    out = function(Tensor(shape, dtype, x.buffer), *(Tensor(one.shape, one.dtype, one.buffer) for one in beside))
    t.grad_enabled = was_enabled
    further += [Tensor(one.shape, one.dtype) for one in t.side]
    t.side = None
    if node is not None:
        out.node = node
        out.needs_grad = True
    return out


def _note_recomputed(t: Tape, launched: int) -> None:
    """All kernels after the first `launched` ran a second time."""
    again = t.kernels[launched:]
    t.recomputed += len(again)
    t.recomputed_flop += sum(flop for _, _, flop, *_ in again)


def _enter_recompute(t: Tape) -> None:
    t.autocast = t.autocast_dtype


def _leave_recompute(t: Tape) -> None:
    t.autocast = ""
    t.autocast_cache.clear()


def _recompute(t: Tape, frame: Frame) -> None:
    t.frame, t.replaying = frame, True
    frame.next_slot = 0
    _enter_recompute(t)
    was_enabled, t.grad_enabled = t.grad_enabled, True
    launched = len(t.kernels)
    if t.offloader is not None and isinstance(frame.hosted, Hosted):
        frame.inputs[0].buffer = t.offloader.returned(t, frame.hosted)
    try:
        frame.function(*frame.inputs)
    except StopRecompute:
        pass
    finally:
        _note_recomputed(t, launched)
        t.hooked += len(t.kernels) - launched
        t.frame, t.replaying = None, False
        t.grad_enabled = was_enabled
        _leave_recompute(t)
    if frame.hosted is not None:
        frame.inputs = ()
    frame.done = True


def run_backward(t: Tape, root: Tensor, grad: Tensor, *further: tuple[Tensor, Tensor]) -> None:
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
        if node.segment != t.segment:
            t.segment = node.segment
            t.on_segment(node.segment)
        if node.at != t.at:
            t.label(node.at)
        frame = node.frame
        held: list[Buffer | None] = []
        if frame is not None:
            if not frame.done:
                _recompute(t, frame)
            held = [frame.store.pop(s, None) for s in range(node.first_slot, node.first_slot + node.slots)]
        incoming = node.take_grad()  # the engine lets go of it once the outgoing ones are checked
        t.unpacked = held if frame is not None else node.saved
        if t.offloader is not None:
            t.unpacked = t.offloader.unpacked(t, t.unpacked)
        grads = list(node.backward(incoming))
        held.clear()
        node.frame = frame = None
        if t.offloader is not None:
            t.unpacked = ()
            t.offloader.finish_node(t)
        _validate(t, node, grads)
        del incoming
        node.saved.clear()
        for index, edge in enumerate(node.edges):
            g, target = grads[index], edge[0] if edge is not None else None
            if target is None or g is None:
                continue
            grads[index] = None
            if isinstance(target, Node):
                if target.grad is None:
                    target.grad = g
                    heappush(heap, (-target.sequence, target))
                else:
                    target.grad = _sum(t, [target.take_grad()], g)
            elif isinstance(target, Output):
                _route_output(t, heap, target, g)
            else:
                _accumulate(t, target, g)
            g = None
        grads.clear()


def _validate(t: Tape, node: Node, grads: list[Tensor | None]) -> None:
    """Reduce gradients to the shape and cast them to the dtype of the inputs they belong to, one after the other.

    Source: PyTorch 2.13, torch/csrc/autograd/engine.cpp, call_function and validate_outputs.
    """
    for index, g in enumerate(grads):
        if g is None or (edge := node.edges[index]) is None:
            continue
        _, shape, dtype = edge
        if g.shape != shape:
            moved = g.bytes
            grads[index] = g = t.empty(shape, g.dtype)
            t.kernel("reduce", g.dtype, 0, moved + g.bytes)
        if g.dtype != dtype:
            moved = g.bytes
            grads[index] = g = t.empty(shape, dtype)
            t.kernel("elementwise", dtype, 0, moved + g.bytes)


def _sum(t: Tape, held: list[Tensor], new: Tensor) -> Tensor:
    """Two gradients for one node: in place where PyTorch may, else into a third tensor.

    PyTorch adds in place when it holds the only reference; a trace with a dispatch mode never does. Whether `held`
    is the only one shows when it is dropped: its memory is given back, and that is undone. Reference counts would
    tell the same, but they differ between versions of Python.

    Source: PyTorch 2.13, torch/csrc/autograd/input_buffer.cpp, can_accumulate_inplace.
    """
    old = held.pop()
    shape, dtype, buffer_code = old.shape, old.dtype, old.buffer.code if old.buffer is not None else None
    t.kernel("elementwise", dtype, 0, 3 * old.bytes)
    if t.device != "cuda":
        return t.empty(shape, dtype)
    events = len(t.events)
    del old
    if len(t.events) == events or buffer_code is None:
        return t.empty(shape, dtype)
    t.events.pop()
    return Tensor(shape, dtype, Buffer.standing(t, buffer_code))


def _route_output(t: Tape, heap: _Heap, output: Output, g: Tensor) -> None:
    many, index = output.node, output.index
    if all(part is None for part in many.parts):
        heappush(heap, (-many.sequence, many))
        many.grad = PENDING
    held = [part for part in many.parts[index : index + 1] if part is not None]
    many.parts[index] = None
    many.parts[index] = _sum(t, held, g) if held else g


def _accumulate(t: Tape, leaf: Tensor, g: Tensor) -> None:
    """Store a leaf's gradient, or add it to the existing one."""
    old = leaf.grad
    if old is not None:
        t.kernel("elementwise", old.dtype, 0, 3 * old.bytes)
        if leaf.buffer is None:
            return  # into the existing .grad, in place
        leaf.grad = t.empty(old.shape, old.dtype)
        return
    leaf.grad = g
    if g.buffer is not None and leaf.buffer is None:
        g.buffer.move_to(GRADIENT)
    if t.on_gradient is not None and leaf.buffer is None:  # not the input that re-entrant checkpointing detaches
        t.on_gradient(leaf)
