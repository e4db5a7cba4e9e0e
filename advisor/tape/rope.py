"""Rotary positions: the tables, made once a step, and what turning queries and keys by them makes.

Source: `apply_rotary_pos_emb` and the rotary embeddings of transformers 5.23, models/*/modeling_*.py.
"""

from __future__ import annotations

from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.ops import add, cast, cat_last, copy, mul, negate, slice_last
from advisor.tape.tape import Tape

FLOAT_TABLES = frozenset({"olmo", "olmo2"})
"""Their tables stay in fp32, so that the turn happens in fp32."""

FLOAT_TURN = frozenset({"cohere", "cohere2"})
"""Their queries and keys are cast to fp32 before the turn."""

SPREAD_TABLES = frozenset({"glm", "glm4"})
"""Each layer spreads half of the tables over neighbouring features, in new tensors."""

NAMED_PARTS = frozenset({"phi", "stablelm"})
"""Their code keeps a name for the turned parts until attention ends."""


def rope_kinds(m: ModelSpec) -> frozenset[bool]:
    """For which kinds of layers, sliding or not, there are tables of their own: {False} is one for all.

    Gemma 3 has tables for each kind; Falcon's code makes them with ALiBi too and does not read them.
    """
    if m.position not in ("rope", "alibi"):
        return frozenset()
    if m.architecture.startswith("gemma3") and m.sliding_window:
        return frozenset(m.sliding_layers or (True,))
    return frozenset({False})


class Rope:
    """The tables of the rotary embedding: cos and sin (1, 1, S, rotary)."""

    __slots__ = ("cos", "sin", "width")

    def __init__(self, t: Tape, m: ModelSpec, length: int, dtype: str) -> None:
        self.width = m.rotary_dim or m.head_dim
        table_dtype = "float32" if m.architecture in FLOAT_TABLES else dtype
        self.cos = t.empty((1, 1, length, self.width), table_dtype)
        self.sin = t.empty((1, 1, length, self.width), table_dtype)

    def spread(self, t: Tape) -> Rope:
        """Copies of the same size, made of half of each table."""
        out = Rope.__new__(Rope)
        out.width = self.width
        out.cos, out.sin = copy(t, self.cos, self.cos.shape), copy(t, self.sin, self.sin.shape)
        return out


def rope_tables(t: Tape, m: ModelSpec, length: int, dtype: str) -> dict[bool, Rope]:
    """The tables for layers that slide (True) and for those that do not."""
    made = {sliding: Rope(t, m, length, dtype) for sliding in sorted(rope_kinds(m))}
    return {kind: made.get(kind) or made[next(iter(made))] for kind in (False, True)} if made else {}


def joins_parts(m: ModelSpec) -> bool:
    """Whether the turned part of a head is joined with the rest by `cat`, which makes the result head-major.

    Phi-3's code and GLM's do it even when nothing is left over.
    """
    return m.architecture in ("phi", "phi3", "gpt_neox", "stablelm", *SPREAD_TABLES) or m.rotary_dim not in (
        0, m.head_dim)  # fmt: skip


def _rotate_half(t: Tape, x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    first = slice_last(t, x, half)
    second = slice_last(t, x, x.shape[-1] - half)
    return cat_last(t, negate(t, second), first)


def _turned(t: Tape, x: Tensor, rope: Rope) -> Tensor:
    return add(t, mul(t, x, rope.cos), mul(t, _rotate_half(t, x), rope.sin))


def _split(t: Tape, x: Tensor, width: int) -> tuple[Tensor, Tensor]:
    return slice_last(t, x, width), slice_last(t, x, x.shape[-1] - width)


def _turned_whole(t: Tape, m: ModelSpec, q: Tensor, k: Tensor, rope: Rope) -> tuple[Tensor, Tensor]:
    dtype = q.dtype
    if m.architecture in FLOAT_TURN:
        q, k = cast(t, q, "float32"), cast(t, k, "float32")
    turned_q, turned_k = _turned(t, q, rope), _turned(t, k, rope)
    if m.architecture in FLOAT_TURN | FLOAT_TABLES:
        return cast(t, turned_q, dtype), cast(t, turned_k, dtype)
    return turned_q, turned_k


def apply_rope(
    t: Tape, m: ModelSpec, q: Tensor, k: Tensor, rope: Rope
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Queries (B, heads, S, D) and keys (B, KV, S, D), turned, and the parts that stay alive until attention ends."""
    if not joins_parts(m):
        return *_turned_whole(t, m, q, k, rope), ()
    if m.architecture in SPREAD_TABLES:
        rope = rope.spread(t)
    (q_part, q_rest), (k_part, k_rest) = _split(t, q, rope.width), _split(t, k, rope.width)
    if m.architecture == "phi3":
        q = cat_last(t, _turned(t, q_part, rope), q_rest)
        return q, cat_last(t, _turned(t, k_part, rope), k_rest), ()
    q_part, k_part = _turned(t, q_part, rope), _turned(t, k_part, rope)
    kept = (q_part, k_part) if m.architecture in NAMED_PARTS else ()
    q = cat_last(t, q_part, q_rest)
    if not kept:
        del q_part
    return q, cat_last(t, k_part, k_rest), kept
