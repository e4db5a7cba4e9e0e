"""Kimi's delta rule by flash-linear-attention's kernels, which transformers calls where the package is installed.

Source: fla-core 0.6.0, fla/ops/kda/chunk.py, `ChunkKDAFunction`, and what it calls: chunk_fwd.py, chunk_bwd.py,
chunk_intra.py, chunk_intra_token_parallel.py, wy_fast.py; fla/ops/common/chunk_delta_h.py, fla/ops/gla/chunk.py,
fla/ops/utils/cumsum.py, fla/modules/norm/l2norm.py; fla/utils/decorators.py, `input_guard`, which copies what is not
contiguous.

Read, not run: what is allocated and kept, and the products inside the kernels. Ignored: other backends that fla takes
where they are installed.
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.blocks import ITEM_BYTES
from advisor.decoders.delta_kernels import CHUNK
from advisor.decoders.delta_rule import RuleInputs
from advisor.tape.graph import Shape, Tensor
from advisor.tape.ops import cast
from advisor.tape.pieces import made
from advisor.tape.program import CHUNKS
from advisor.tape.tape import Tape

BLOCK = 16
"""Tokens of the blocks on a chunk's diagonal, which are weighed token by token."""
FEATURES = 32
"""Features that a launch of the backward within a chunk takes at once: each has sums of beta's gradient of its own."""


class _Sizes(NamedTuple):
    batch: int
    length: int
    heads: int
    width: int
    dtype: str

    @property
    def rows(self) -> Shape:
        """Queries, keys, values or decays."""
        return (self.batch, self.length, self.heads, self.width)

    @property
    def by_head(self) -> Shape:
        return (self.batch, self.length, self.heads)

    @property
    def states(self) -> Shape:
        """Of each chunk, in the dtype of the keys."""
        return (self.batch, CHUNKS, self.heads, self.width, self.width)


def fused_kimi_rule(t: Tape, given: RuleInputs) -> Tensor:
    """(B, S, H, K) in the dtype of the queries, of queries, keys, values and decays (B, S, H, K), beta (B, S, H).

    Keeps queries and keys as normed, values, decays as given and as summed, beta, and two (C, C) matrices.
    """
    query, key, value, decay, beta = given
    batch, length, heads, width = value.shape
    s = _Sizes(batch, length, heads, width, query.dtype)
    copies = [made(t, s.rows, s.dtype) for _ in (query, key, value)]
    kept = []
    for _ in (query, key):
        normed, root = t.empty(s.rows, s.dtype), t.empty(s.by_head, "float32")
        t.kernel("reduce", s.dtype, 0, 2 * normed.bytes + root.bytes)
        kept += [normed, root]
    kept += [copies[2], made(t, s.rows, "float32", "reduce"), decay, beta]
    out, weighed = _forward(t, s)
    del copies
    return t.function(out, tuple(given), lambda g: _backward(t, s, beta.dtype), (*kept, *weighed))


def _forward(t: Tape, s: _Sizes) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """`chunk_kda_fwd` after the decays are summed: the output, and the matrices of a chunk that backward reads."""
    weighed = tuple(t.empty((*s.by_head, CHUNK), s.dtype) for _ in range(2))
    t.kernel("elementwise", s.dtype, 0, weighed[1].bytes)
    diagonal = t.empty((*s.by_head, BLOCK), "float32")
    rows_bytes = s.batch * s.length * s.heads * s.width * ITEM_BYTES[s.dtype]
    pairs = s.batch * s.length * s.heads * (BLOCK // 2)  # in each: decays, and two sums of products
    t.kernel("elementwise", s.dtype, 7 * pairs * s.width, 4 * rows_bytes + diagonal.bytes)
    _launch(t, s, 2 * 6 * BLOCK * BLOCK * s.width // CHUNK + 10 * BLOCK * BLOCK // 4, 4, 2 * weighed[0].bytes)
    w, u, scaled = (t.empty(s.rows, s.dtype) for _ in range(3))
    _launch(t, s, 2 * CHUNK * s.width, 7, weighed[0].bytes)
    del diagonal
    states, fresh = t.empty(s.states, s.dtype), t.empty(s.rows, s.dtype)
    _launch(t, s, 2 * s.width * s.width, 6, states.bytes)
    out = made(t, s.rows, s.dtype, passes=1)
    _launch(t, s, s.width * s.width + CHUNK * s.width, 5, states.bytes)
    del w, u, scaled, states, fresh
    return out, (weighed[0], weighed[1])


def _backward(t: Tape, s: _Sizes, beta: str) -> tuple[Tensor, ...]:
    """`chunk_kda_bwd`: what it makes lives until it returns. Gradients in the order of RuleInputs."""
    square_bytes = s.batch * s.length * s.heads * CHUNK * ITEM_BYTES[s.dtype]
    w, u, scaled_q, scaled_k = (t.empty(s.rows, s.dtype) for _ in range(4))
    _launch(t, s, 2 * CHUNK * s.width, 9, square_bytes)
    states, fresh = t.empty(s.states, s.dtype), t.empty(s.rows, s.dtype)
    _launch(t, s, 2 * s.width * s.width, 6, states.bytes)
    dweighed, dv = t.empty((*s.by_head, CHUNK), "float32"), t.empty(s.rows, s.dtype)
    _launch(t, s, 2 * CHUNK * s.width, 3, square_bytes + dweighed.bytes)
    dstates, dvalue = t.empty(s.states, s.dtype), t.empty(s.rows, s.dtype)
    _launch(t, s, 3 * s.width * s.width, 7, states.bytes)
    dv = dvalue
    del dvalue
    dquery, dkey = (t.empty(s.rows, "float32") for _ in range(2))
    dvalue, ddecay = t.empty(s.rows, s.dtype), t.empty(s.rows, "float32")
    dbeta, dsystem = t.empty(s.by_head, "float32"), t.empty((*s.by_head, CHUNK), "float32")
    products = 3 * s.width * s.width + 4 * CHUNK * s.width + 2 * CHUNK * CHUNK
    _launch(t, s, products, 16, 2 * states.bytes + square_bytes + dsystem.bytes)
    del dv
    inner = [t.empty(s.rows, "float32") for _ in range(2)]
    sums = t.empty((-(-s.width // FEATURES), *s.by_head), "float32")
    inner.append(t.empty(s.rows, "float32"))
    _launch(t, s, 2 * CHUNK * s.width, 16, dweighed.bytes + dsystem.bytes + sums.bytes)
    dbeta = made(t, s.by_head, "float32", "reduce")
    t.kernel("elementwise", "float32", 0, 3 * dbeta.bytes)
    del sums, dquery, dkey, ddecay
    ddecay = made(t, s.rows, "float32", "reduce")
    del inner[2]
    del w, u, scaled_q, scaled_k, states, fresh, dweighed, dstates, dsystem
    dquery = made(t, s.rows, s.dtype, "reduce", 3)
    inner.pop(0)
    dkey = made(t, s.rows, s.dtype, "reduce", 3)
    return dquery, dkey, dvalue, ddecay, cast(t, dbeta, beta)


def _launch(t: Tape, s: _Sizes, products: int, rows: int, beside_bytes: int) -> None:
    """One kernel that multiplies `products` pairs a token and head.

    It reads and writes so many tensors of rows, those in fp32 counted twice, and `beside_bytes`.
    """
    moved = s.batch * s.length * s.heads * s.width * ITEM_BYTES[s.dtype] * rows + beside_bytes
    t.matmul(s.dtype, CHUNK, -(-products // s.width), s.width, moved, s.batch * s.heads * CHUNKS)
