"""The gated delta rule by flash-linear-attention's kernels, which transformers calls where the package is installed.

Source: fla-core 0.6.0, fla/ops/gated_delta_rule/chunk.py, `ChunkGatedDeltaRuleFunction`, and what it calls:
chunk_fwd.py, wy_fast.py, fla/ops/common/chunk_delta_h.py and chunk_o.py, fla/ops/utils/cumsum.py,
fla/modules/norm/l2norm.py; fla/utils/decorators.py, `input_guard`, which copies what is not contiguous.

Read, not run: what is allocated and kept, and the products inside the kernels. Ignored: other backends that fla takes
where they are installed (flash_qla, TileLang), and the second slice of decay gradients on cards with little shared
memory (4 bytes a token and head).
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.blocks import ITEM_BYTES
from advisor.decoders.delta_rule import RuleInputs
from advisor.tape.graph import Shape, Tensor
from advisor.tape.pieces import made
from advisor.tape.program import CHUNKS
from advisor.tape.tape import Tape

CHUNK = 64
"""Tokens of a chunk."""


class _Sizes(NamedTuple):
    batch: int
    length: int
    key_heads: int
    heads: int
    key: int
    value: int
    dtype: str

    @property
    def keys(self) -> Shape:
        return (self.batch, self.length, self.key_heads, self.key)

    @property
    def wide_keys(self) -> Shape:
        """Keys of every value head."""
        return (self.batch, self.length, self.heads, self.key)

    @property
    def values(self) -> Shape:
        return (self.batch, self.length, self.heads, self.value)

    @property
    def states(self) -> Shape:
        """Of each chunk, in the dtype of the keys."""
        return (self.batch, CHUNKS, self.heads, self.key, self.value)

    @property
    def by_head(self) -> Shape:
        return (self.batch, self.length, self.heads)


def fused_delta_rule(t: Tape, given: RuleInputs) -> Tensor:
    """(B, HV, S, V) in the dtype of the queries. Keeps queries and keys as normed, values, decays, and a (C, C) matrix.

    Queries, keys and values are parts of one tensor, hence copied; so are normed queries and keys, which are kept.
    """
    query, key, value, _, beta = given
    batch, heads, length, width = value.shape
    s = _Sizes(batch, length, key.shape[1], heads, key.shape[-1], width, query.dtype)
    copies = [made(t, shape, s.dtype) for shape in (s.keys, s.keys, s.values)]
    values = copies[2]
    kept = []
    for shape in (s.keys, s.keys):
        normed, root = t.empty(shape, s.dtype), t.empty(shape[:-1], "float32")
        t.kernel("reduce", s.dtype, 0, 2 * normed.bytes + root.bytes)
        kept += [normed, root]
    kept += [values, made(t, s.by_head, "float32", "reduce"), beta]
    out, inverse = _forward(t, s)
    kept.append(inverse)
    del copies
    result = t.function(out, tuple(given), lambda g: _backward(t, s, g), tuple(kept))
    result.shape = value.shape
    return result


def _forward(t: Tape, s: _Sizes) -> tuple[Tensor, Tensor]:
    """`chunk_gated_delta_rule_fwd`: the output and the inverted matrices; what lies between goes with it."""
    inverse = t.empty((*s.by_head, CHUNK), s.dtype)
    t.kernel("elementwise", s.dtype, 0, inverse.bytes)
    _launch(t, s, CHUNK * s.key * 10 // 16 + 16 * 16 * 4, 1, 0, inverse.bytes)  # ten of sixteen blocks, then inverted
    w, u = t.empty(s.wide_keys, s.dtype), t.empty(s.values, s.dtype)
    _launch(t, s, CHUNK * (s.key + s.value), 2, 2, inverse.bytes)
    states, fresh = t.empty(s.states, s.dtype), t.empty(s.values, s.dtype)
    _launch(t, s, 2 * s.key * s.value, 2, 2, states.bytes)
    out = t.empty(s.values, s.dtype)
    _launch(t, s, s.key * s.value + CHUNK * (s.key + s.value), 1, 2, states.bytes)
    del w, u, states, fresh
    return out, inverse


def _backward(t: Tape, s: _Sizes, g: Tensor) -> tuple[Tensor, ...]:
    """`chunk_gated_delta_rule_bwd`: all that it makes lives until it returns. Gradients in the order of RuleInputs."""
    square_bytes = s.batch * s.length * s.heads * CHUNK * ITEM_BYTES[s.dtype]
    w, u = t.empty(s.wide_keys, s.dtype), t.empty(s.values, s.dtype)
    _launch(t, s, CHUNK * (s.key + s.value), 2, 2, square_bytes)
    states, fresh = t.empty(s.states, s.dtype), t.empty(s.values, s.dtype)
    _launch(t, s, 2 * s.key * s.value, 2, 2, states.bytes)
    dv = t.empty(s.values, s.dtype)
    _launch(t, s, CHUNK * (s.key + s.value), 1, 2, 0)
    dstates, dvalues = t.empty(s.states, s.dtype), t.empty(s.values, s.dtype)
    _launch(t, s, 3 * s.key * s.value, 2, 3, states.bytes)
    dv = dvalues
    del dvalues
    dquery, dkey, dw = (t.empty(s.wide_keys, s.dtype) for _ in range(3))
    ddecay = t.empty((1, *s.by_head), "float32")
    _launch(t, s, 3 * s.key * s.value + CHUNK * (2 * s.key + s.value), 6, 3, 2 * states.bytes)
    dquery, dkey = _grouped(t, s, [dquery]), _grouped(t, s, [dkey])
    ddecay = made(t, s.by_head, "float32", "reduce")
    dkey2, dvalue = t.empty(s.wide_keys, s.dtype), t.empty(s.values, s.dtype)
    ddecay2, dbeta = t.empty(s.by_head, "float32"), t.empty(s.by_head, s.dtype)
    _launch(t, s, CHUNK * (5 * s.key + 2 * s.value) + 2 * CHUNK * CHUNK, 3, 3, square_bytes)
    dkey2 = _grouped(t, s, [dkey2])
    for one, other in ((dkey, dkey2), (ddecay, ddecay2)):  # in place
        t.kernel("elementwise", one.dtype, 0, 2 * one.bytes + other.bytes)
    ddecay = made(t, s.by_head, "float32", "reduce")
    del w, u, states, fresh, dv, dstates, dw, dkey2, ddecay2
    dquery, dkey = (made(t, s.keys, s.dtype, "reduce", 3) for _ in range(2))
    return dquery, dkey, dvalue, ddecay, dbeta


def _launch(t: Tape, s: _Sizes, products: int, keys: int, values: int, beside_bytes: int) -> None:
    """One kernel that multiplies `products` pairs a token and value head.

    It reads and writes so many tensors of keys and of values for every head, and `beside_bytes`.
    """
    heads = s.batch * s.length * s.heads * ITEM_BYTES[s.dtype]
    moved = heads * (keys * s.key + values * s.value) + beside_bytes
    t.matmul(s.dtype, CHUNK, -(-products // s.key), s.key, moved, s.batch * s.heads * CHUNKS)


def _grouped(t: Tape, s: _Sizes, gradients: list[Tensor]) -> Tensor:
    """The sum over the value heads that share a key head."""
    if s.key_heads == s.heads:
        return gradients.pop()
    t.kernel("reduce", s.dtype, 0, gradients[0].bytes * (s.heads + s.key_heads) // s.heads)
    out = t.empty(s.keys, s.dtype)
    gradients.clear()
    return out
