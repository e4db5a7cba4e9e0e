"""Hidden states in several parallel streams (N, B, S, H): how a model makes them of one and one of them again.

Source: transformers 5.23, models/gemma3n/modeling_gemma3n.py, `Gemma3nTextModel.forward`; of the operations' gradients
PyTorch 2.13, torch/csrc/autograd/FunctionsManual.cpp, and functions/tensor.cpp, `CopySlices`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

from advisor.blocks import ITEM_BYTES
from advisor.decoders.adapters import linear
from advisor.decoders.linear import Linear
from advisor.parameters.layer_inputs import stream_projections
from advisor.specs import ModelSpec
from advisor.tape.graph import Shape, Tensor
from advisor.tape.layout import alias
from advisor.tape.ops import cast, mean, mean_last, mul, promoted, unary
from advisor.tape.tape import Tape


def spread(t: Tape, m: ModelSpec, x: Tensor, projections: Mapping[str, Linear], kept: list[Tensor]) -> Tensor:
    """The streams (N, B, S, H) made of x (B, S, H): itself, and projections of it that are as long.

    Appends to `kept` what the model's forward keeps a name for: the last projection to its end, the rest until
    `gathered`.
    """
    names, _ = stream_projections(m)
    return _stacked(t, _alike(t, x, lambda _: x, names, projections, kept))


def gathered(t: Tape, m: ModelSpec, x: Tensor, projections: Mapping[str, Linear], kept: list[Tensor]) -> Tensor:
    """The first stream of x (N, B, S, H) and projections of the others that are as long: (N, B, S, H)."""
    _, names = stream_projections(m)
    return _stacked(t, _alike(t, first_of(t, x), lambda index: _stream(t, x, index), names, projections, kept))


def averaged(t: Tape, x: Tensor) -> Tensor:
    """The mean of the streams: (B, S, H)."""
    return mean(t, x, x.shape[1:])


def _alike(
    t: Tape,
    first: Tensor,
    other: Callable[[int], Tensor],
    names: Sequence[str],
    projections: Mapping[str, Linear],
    kept: list[Tensor],
) -> list[Tensor]:
    """`first`, and of each further stream its projection, times the length of `first` over its own."""
    t.label("streams")
    length = _power(t, mean_last(t, _power(t, first)))
    del kept[1:]  # names of the first call that are given again
    found = [first]
    for index, name in enumerate(names, 1):
        projected = linear(t, other(index), projections[name])
        t.label("streams")
        current = cast(t, projected, first.dtype)
        own_length = mean_last(t, _power(t, current))
        own_length = unary(t, clamped(t, own_length), "output", backward_temporaries=1)
        current = _divided(t, mul(t, current, length), own_length)
        found.append(current)
    kept += [projected, *found, own_length, length]
    return found


def _power(t: Tape, x: Tensor) -> Tensor:
    """A power of x, which CUDA's autocast takes in fp32."""
    base = cast(t, x, "float32") if t.autocast and t.device == "cuda" else x
    return unary(t, base, "input", backward_temporaries=2)


def clamped(t: Tape, x: Tensor, both: bool = False) -> Tensor:
    """`x.clamp(...)` from below, or from `both` sides: keeps x; backward compares it and picks."""
    shape, dtype, size = x.shape, x.dtype, x.bytes
    t.kernel("elementwise", dtype, 0, 2 * size)

    def backward(g: Tensor) -> tuple[Tensor]:
        for moved in (*(size,) * (3 if both else 1), 2):  # comparisons, their conjunction, a zero
            t.kernel("elementwise", dtype, 0, moved)
        t.kernel("elementwise", dtype, 0, 3 * size)
        return (t.empty(shape, dtype),)

    return t.op((x,), shape, dtype, backward, (x,))


def _divided(t: Tape, a: Tensor, b: Tensor) -> Tensor:
    """`a / b`, where b (..., 1) is broadcast: its gradient is made at full size, beside three such temporaries."""
    shape, dtype, a_needs, b_needs = a.shape, promoted(a.dtype, b.dtype), a.needs_grad, b.needs_grad
    size = a.count * ITEM_BYTES[dtype]
    t.kernel("elementwise", dtype, 0, a.bytes + b.bytes + size)

    def backward(g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        ga = gb = None
        if a_needs:
            t.kernel("elementwise", dtype, 0, g.bytes + size)
            ga = t.empty(shape, dtype)
        if b_needs:
            scratch = []
            for _ in range(3):  # -g, a / b, and that over b
                t.kernel("elementwise", dtype, 0, 2 * size)
                scratch.append(t.empty(shape, dtype))
            t.kernel("elementwise", dtype, 0, 3 * size)
            gb = t.empty(shape, dtype)
            scratch.clear()
        return ga, gb

    saved = ((b,) if a_needs or b_needs else ()) + ((a,) if b_needs else ())
    return t.op((a, b), shape, dtype, backward, saved)


def _stacked(t: Tape, parts: list[Tensor]) -> Tensor:
    """`torch.stack(parts)`: backward hands out views. Autocast brings all to the widest dtype first."""
    dtype = "float32" if any(part.dtype == "float32" for part in parts) else parts[0].dtype
    parts = [cast(t, part, dtype) for part in parts]
    shape, count = parts[0].shape, len(parts)
    t.kernel("elementwise", dtype, 0, 2 * count * parts[0].bytes)
    return t.op(tuple(parts), (count, *shape), dtype, lambda g: (Tensor(shape, g.dtype, g.buffer),) * count)


def first_of(t: Tape, x: Tensor) -> Tensor:
    """`x[0]` of x (N, B, S, H)."""
    return _stream(t, x, 0)


def _stream(t: Tape, x: Tensor, index: int) -> Tensor:
    """`x[index]`: a view; its backward fills a full tensor with zeros and copies into it."""
    shape, dtype = x.shape, x.dtype

    def backward(g: Tensor) -> tuple[Tensor]:
        full = t.empty(shape, dtype)
        t.kernel("elementwise", dtype, 0, full.bytes)
        t.kernel("elementwise", dtype, 0, 2 * g.bytes)
        return (full,)

    out = alias(t, (x,), backward)
    out.shape, out.count, out.bytes = shape[1:], x.count // shape[0], x.bytes // shape[0]
    return out


def repeated(t: Tape, x: Tensor, times: int) -> Tensor:
    """`x.repeat(times, 1, 1, 1)` of x (B, S, H): the gradient is summed over the repeats."""
    shape, moved = x.shape, x.bytes * (1 + times)
    t.kernel("elementwise", x.dtype, 0, moved)

    def backward(g: Tensor) -> tuple[Tensor]:
        t.kernel("reduce", g.dtype, 0, moved)
        return (t.empty(shape, g.dtype),)

    return t.op((x,), (times, *shape), x.dtype, backward)


def standard_deviation(t: Tape, x: Tensor) -> Tensor:
    """`torch.std(x, dim=-1, keepdim=True)`: keeps x and its result; backward makes x less its mean beside its own."""
    shape, dtype, size = x.shape, x.dtype, x.bytes
    t.kernel("reduce", dtype, 0, size)

    def backward(g: Tensor) -> tuple[Tensor]:
        for _ in range(4):  # over twice the result, where that is not 0, times 2 / N
            t.kernel("elementwise", dtype, 0, 2 * g.bytes)
        t.kernel("reduce", dtype, 0, size)
        apart = t.empty(shape, dtype)
        for _ in range(2):
            t.kernel("elementwise", dtype, 0, 2 * size)
        out = t.empty(shape, dtype)
        del apart
        return (out,)

    return t.op((x,), (*shape[:-1], 1), dtype, backward, (x,), keep_output=True)


def added_to_view(t: Tape, x: Tensor, y: Tensor, view: Shape) -> Tensor:
    """`v += y` of a view v of x, of the shape `view`: the whole gradient of x is copied, and that of the view again."""
    t.kernel("elementwise", x.dtype, 0, 2 * prod(view) * ITEM_BYTES[x.dtype] + y.bytes)
    return alias(t, (x, y), lambda g: _copied(t, g, view))


def added_to_others(t: Tape, x: Tensor, y: Tensor) -> Tensor:
    """`x[1:] += y` of x (N, B, S, H) and y (B, S, H), in the memory of x.

    Two writes into a slice are recorded, the sum and its assignment: each copies the whole gradient and the slice's.
    """
    count, *one = x.shape
    full, rest = x.shape, (count - 1, *one)
    base = added_to_view(t, x, y, rest)

    def sliced(g: Tensor) -> tuple[Tensor]:
        whole = t.empty(full, g.dtype)
        t.kernel("elementwise", g.dtype, 0, whole.bytes)
        t.kernel("elementwise", g.dtype, 0, 2 * g.bytes)
        return (whole,)

    def assigned(g: Tensor) -> tuple[Tensor, Tensor]:
        out, piece = _copied(t, g, rest)
        zeros = t.empty(rest, g.dtype)
        t.kernel("elementwise", g.dtype, 0, zeros.bytes)
        return out, piece

    written = alias(t, (base,), sliced)
    written.shape = rest
    return alias(t, (base, written), assigned)


def _copied(t: Tape, g: Tensor, rest: Shape) -> tuple[Tensor, Tensor]:
    """A copy of the gradient g, and one of its slice, which is then written back."""
    out = t.empty(g.shape, g.dtype)
    t.kernel("elementwise", g.dtype, 0, 2 * g.bytes)
    piece = t.empty(rest, g.dtype)
    for _ in range(2):
        t.kernel("elementwise", g.dtype, 0, 2 * piece.bytes)
    return out, piece
