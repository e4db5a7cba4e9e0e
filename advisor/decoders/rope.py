"""Rotary positions: the tables, made once per step, and the tensors made in rotating queries and keys by them.

Source: `apply_rotary_pos_emb` and the rotary embeddings of transformers 5.23, models/*/modeling_*.py.
"""

from __future__ import annotations

from advisor.architectures import Architecture, architecture_of
from advisor.parameters.buffers import rope_kinds, rope_width
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.layout import cat_last, chunk_last, copy, regathered, slice_last
from advisor.tape.ops import add, cast, mul, negate, subtract
from advisor.tape.tape import Tape


class Rope:
    """The tables of the rotary embedding: cos and sin (1, 1, S, rotary)."""

    __slots__ = ("cos", "sin", "width")

    def __init__(self, t: Tape, m: ModelSpec, rows: int, length: int, dtype: str, sliding: bool = False) -> None:
        """`rows`: of the batch, where each has tables of its own."""
        self.width = rope_width(m, sliding)
        tables = architecture_of(m.architecture).rope_tables
        table_dtype = "float32" if tables in ("float", "complex") else dtype
        shape = (rows, 1, length, self.width // 2 if tables == "half" else self.width)
        self.cos = t.empty(shape, table_dtype)
        self.sin = self.cos
        if tables != "complex":
            self.sin = t.empty(shape, table_dtype)
        if architecture_of(m.architecture).rope_by_axis:
            self._note_axes(t, rows * length)
        else:
            self._note_kernels(t, length, tables in ("half", "complex"))

    def _note_kernels(self, t: Tape, length: int, single: bool) -> None:
        """Positions to fp32, times the frequencies, doubled; cosine and sine, each scaled and cast."""
        angles = 4 * length * (self.width // 2)
        table = angles if single else 2 * angles
        for moved in (12 * length, 4 * length + angles, *(() if single else (2 * table,)), *(2 * table,) * 4):
            t.kernel("elementwise", "float32", 0, moved)
        if self.cos.dtype != "float32":
            for one in (self.cos, self.sin):
                t.kernel("elementwise", "float32", 0, table + one.bytes)

    def _note_axes(self, t: Tape, tokens: int) -> None:
        """The same for three axes, whose angles are put together before they are doubled."""
        angles, table = 4 * tokens * (self.width // 2), 4 * tokens * self.width
        for moved in (24 * tokens, 12 * tokens + 3 * angles, *(6 * angles,) * 4, *(angles,) * 4, *(3 * angles,) * 2):
            t.kernel("elementwise", "float32", 0, moved)
        for one in (self.cos, self.sin):
            t.kernel("elementwise", "float32", 0, table + one.bytes)

    def spread(self, t: Tape) -> Rope:
        """Copies of the same size, made of half of each table."""
        out = Rope.__new__(Rope)
        out.width = self.width
        out.cos, out.sin = copy(t, self.cos, self.cos.shape), copy(t, self.sin, self.sin.shape)
        return out

    def standing(self) -> Rope:
        """Tables of the same width in fp32 that are held for good, and counted elsewhere."""
        out = Rope.__new__(Rope)
        out.width = self.width
        out.cos = out.sin = Tensor(self.cos.shape, "float32")
        return out


def rope_tables(t: Tape, m: ModelSpec, batch: int, length: int, dtype: str) -> dict[bool, Rope]:
    """The tables for layers that slide (True) and for those that do not; `batch`: rows, which may have their own."""
    by_axes = architecture_of(m.architecture).rope_by_axis or (m.vision is not None and m.vision.places_by_axes)
    rows = batch if by_axes else 1
    made = {sliding: Rope(t, m, rows, length, dtype, sliding) for sliding in sorted(rope_kinds(m))}
    return {kind: made.get(kind) or made[next(iter(made))] for kind in (False, True)} if made else {}


def joins_parts(m: ModelSpec) -> bool:
    """Whether the rotated part of a head is joined with the rest by `cat`, which makes the result head-major."""
    return architecture_of(m.architecture).rope_parts != "whole" or m.rotary_dim not in (0, m.head_dim)


def rotate_half(t: Tape, x: Tensor) -> Tensor:
    """`cat((-x2, x1))` of the two halves of a head, or of its even and odd features."""
    half = x.shape[-1] // 2
    first = slice_last(t, x, half)
    second = slice_last(t, x, x.shape[-1] - half)
    return cat_last(t, negate(t, second), first)


def turned(t: Tape, x: Tensor, rope: Rope) -> Tensor:
    """x (B, heads, S, D), rotated by tables."""
    return turned_by(t, x, rope.cos, rope.sin)


def turned_by(t: Tape, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`x * cos + rotate_half(x) * sin`."""
    x = regathered(t, x)  # its gradient comes head by head
    return add(t, mul(t, x, cos), mul(t, rotate_half(t, x), sin))


def _split(t: Tape, x: Tensor, width: int) -> tuple[Tensor, Tensor]:
    return slice_last(t, x, width), slice_last(t, x, x.shape[-1] - width)


def _turned_float(t: Tape, x: Tensor, rope: Rope) -> Tensor:
    """A rotation whose two parts are cast to fp32 separately."""
    first = [mul(t, cast(t, x, "float32"), rope.cos)]  # popped: no operand outlives its operation
    return add(t, first.pop(), mul(t, cast(t, rotate_half(t, x), "float32"), rope.sin))


def _turned_twice(t: Tape, x: Tensor, rope: Rope) -> Tensor:
    """A rotation in fp32 whose input is cast once for each of its two parts."""
    first = [mul(t, cast(t, x, "float32"), rope.cos)]  # popped: no operand outlives its operation
    return add(t, first.pop(), mul(t, rotate_half(t, cast(t, x, "float32")), rope.sin))


def _turned_whole(t: Tape, quirks: Architecture, q: Tensor, k: Tensor, rope: Rope) -> tuple[Tensor, Tensor]:
    dtype = q.dtype
    if quirks.rope_turn == "float_parts":
        turned_q, turned_k = _turned_float(t, q, rope), _turned_float(t, k, rope)
        return cast(t, turned_q, dtype), cast(t, turned_k, dtype)
    if quirks.rope_turn == "float_twice":
        turned_q, turned_k = _turned_twice(t, q, rope), _turned_twice(t, k, rope)
        return cast(t, turned_q, dtype), cast(t, turned_k, dtype)
    if quirks.rope_turn == "float":
        q, k = cast(t, q, "float32"), cast(t, k, "float32")
    turned_q, turned_k = turned(t, q, rope), turned(t, k, rope)
    if quirks.rope_turn == "float" or quirks.rope_tables == "float":
        return cast(t, turned_q, dtype), cast(t, turned_k, dtype)
    return turned_q, turned_k


def turned_pairs(t: Tape, first: Tensor, second: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The halves of the features, each rotated by half a table, and joined."""
    a = subtract(t, mul(t, first, cos), mul(t, second, sin))
    return cat_last(t, a, add(t, mul(t, second, cos), mul(t, first, sin)))


def _turned_halves(t: Tape, x: Tensor, rope: Rope) -> Tensor:
    first, second = chunk_last(t, x, (rope.width // 2, rope.width // 2))
    return turned_pairs(t, first, second, rope.cos, rope.sin)


def apply_rope(t: Tape, m: ModelSpec, q: Tensor, k: Tensor, rope: Rope) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Queries (B, heads, S, D) and keys (B, KV, S, D), rotated, and the parts that stay alive until attention ends."""
    quirks = architecture_of(m.architecture)
    if quirks.spreads_rope_tables:
        rope = rope.spread(t)
    if not joins_parts(m):
        return *_turned_whole(t, quirks, q, k, rope), ()
    if quirks.rope_tables == "half":
        q = _turned_halves(t, q, rope)
        return q, _turned_halves(t, k, rope), ()
    (q_part, q_rest), (k_part, k_rest) = _split(t, q, rope.width), _split(t, k, rope.width)
    if quirks.rope_parts == "joined_at_return":
        q_part, k_part = turned(t, q_part, rope), turned(t, k_part, rope)
        return cat_last(t, q_part, q_rest), cat_last(t, k_part, k_rest), ()
    if quirks.rope_parts == "joined_in_expression":
        q = cat_last(t, turned(t, q_part, rope), q_rest)
        return q, cat_last(t, turned(t, k_part, rope), k_rest), ()
    q_part, k_part = turned(t, q_part, rope), turned(t, k_part, rope)
    kept = (q_part, k_part) if quirks.rope_parts == "kept_in_attention" else ()
    q = cat_last(t, q_part, q_rest)
    if not kept:
        del q_part
    return q, cat_last(t, k_part, k_rest), kept
