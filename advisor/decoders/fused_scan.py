"""Mamba 2's layer after its projection as one autograd function: convolution, scan, gated norm and projection back.

B rows, S tokens, C chunks of Q tokens, n heads of P values, G groups of keys and queries, a state of N; I = n * P. It
keeps its input, the scan's output and the norm's roots; backward makes all else again. It reads out_proj's own weight:
an adapter there has no effect. That weight's gradient is made even where it is frozen.

Source: mamba_ssm 2.3.2.post1 (state-spaces/mamba e9594ce1), ops/triton/ssd_combined.py,
`MambaSplitConv1dScanCombinedFn`, and what it calls in ssd_chunk_state.py, ssd_chunk_scan.py, ssd_state_passing.py,
ssd_bmm.py and layernorm_gated.py. Read, not run.
Ignores: the splits over which the gradients of keys and queries are summed where a card has more processors than there
are chunks and heads; the partial sums of vectors' gradients; halves of blocks that causality leaves out.
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.decoders.linear import Linear
from advisor.specs import Recurrence
from advisor.tape.graph import Tensor
from advisor.tape.ops import cast
from advisor.tape.program import CHUNKS
from advisor.tape.tape import Tape


class Learned(NamedTuple):
    """What the function is given beside its input; gradients are made in this order."""

    conv: Tensor
    conv_bias: Tensor | None
    step_bias: Tensor
    decay: Tensor
    skip: Tensor
    norm: Tensor | None


class _Sizes(NamedTuple):
    """The shapes that the kernels work on."""

    batch: int
    length: int
    r: Recurrence

    @property
    def inner(self) -> tuple[int, ...]:
        return self.batch, self.length, self.r.value_size

    @property
    def mixed(self) -> tuple[int, ...]:
        return self.batch, self.length, self.r.value_size + 2 * self.r.key_size

    @property
    def steps(self) -> tuple[int, ...]:
        return self.batch, self.r.value_heads, CHUNKS, self.r.chunk_size

    @property
    def scores(self) -> tuple[int, ...]:
        return self.batch, CHUNKS, self.r.key_heads, self.r.chunk_size, self.r.chunk_size

    @property
    def states(self) -> tuple[int, ...]:
        return self.batch, CHUNKS, self.r.value_heads, self.r.value_dim, self.r.key_dim

    @property
    def keys(self) -> tuple[int, ...]:
        return self.batch, self.length, self.r.key_heads, self.r.key_dim


def fused_scan(t: Tape, x: Tensor, learned: Learned, out_proj: Linear, r: Recurrence) -> Tensor:
    """x (B, S, 2 I + 2 G N + n) -> (B, S, H)."""
    s, dtype = _Sizes(x.shape[0], x.shape[1], r), x.dtype
    t.label("state-space layer")
    _mixed = _convolution(t, s, dtype)
    _steps = t.empty(s.steps, "float32"), t.empty(s.steps, "float32")
    _moving(t, "float32", 2 * _steps[0].bytes)
    _states, _last = _chunk_states(t, s, dtype)
    scores = _chunk_scores(t, s, dtype)
    scanned = t.empty(s.inner, dtype)
    _scan_products(t, s, dtype, scanned.bytes + scores.bytes)
    del scores
    roots: tuple[Tensor, ...] = ()
    out = t.empty(s.inner, dtype)  # behind the gate
    if learned.norm is not None:
        roots = (t.empty((*s.inner[:2], r.key_heads), "float32"),)
        t.kernel("reduce", dtype, 0, 3 * out.bytes)
    weight, bias = out_proj.weight, out_proj.bias
    if t.autocast:  # the function casts by itself, what it has cast is kept
        out, weight = cast(t, out, t.autocast), _detached(cast(t, weight, t.autocast))
        bias = _detached(cast(t, bias, t.autocast)) if bias is not None else None
    projected = _projected(t, out, weight)
    inputs = (
        x,
        *(p for p in learned if p is not None),
        *(p for p in (out_proj.weight, out_proj.bias) if p is not None),
    )
    needs = [p.needs_grad for p in inputs]
    shapes = [(p.shape, p.dtype) for p in inputs[1:]]

    def backward(g: Tensor) -> tuple[Tensor | None, ...]:
        gx = _backward(t, s, dtype, g, learned.norm is not None)
        made = [t.empty(shape, kind) for shape, kind in shapes]  # of every parameter, trained or not
        rows = s.batch * s.length
        t.matmul(dtype, weight.shape[0], weight.shape[1], rows, g.bytes + made[-1].bytes)
        return gx, *(one if wanted else None for one, wanted in zip(made, needs[1:], strict=True))

    saved = (x, *(p for p in learned if p is not None), scanned, *roots, weight, *(() if bias is None else (bias,)))
    return t.function(projected, inputs, backward, saved)


def _backward(t: Tape, s: _Sizes, dtype: str, g: Tensor, normed: bool) -> Tensor:
    """The gradient of the input; locals live as those of the function do."""
    _again, _mixed = t.empty(s.inner, dtype), _convolution(t, s, dtype)
    projected = s.r.value_size * 2 + 2 * s.r.key_size + s.r.value_heads
    out, _gradient_mixed = t.empty((*s.inner[:2], projected), dtype), t.empty(s.mixed, dtype)
    _incoming = t.empty(s.inner, dtype)
    t.matmul(dtype, s.batch * s.length, s.r.value_size, g.shape[-1], g.bytes + _incoming.bytes)
    _behind_gate = t.empty(s.inner, dtype)
    t.kernel("reduce", dtype, 0, 6 * _behind_gate.bytes)
    if not normed:
        _gated = t.empty(s.inner, dtype)
    _scan_backward(t, s, dtype)
    _moving(t, dtype, 4 * _mixed.bytes)
    return out


def _scan_backward(t: Tape, s: _Sizes, dtype: str) -> None:
    """`_mamba_chunk_scan_combined_bwd`."""
    r, chunks = s.r, s.batch * CHUNKS
    _steps_in = t.empty((s.batch, s.length, r.value_heads), dtype)
    _steps = t.empty(s.steps, "float32"), t.empty(s.steps, "float32")
    _moving(t, "float32", 2 * _steps[0].bytes)
    _scores = _chunk_scores(t, s, dtype)
    states, _ = _chunk_states(t, s, "float32")
    gradient = t.empty(s.states, "float32")
    _product(t, s, dtype, (r.value_dim, r.key_dim, r.chunk_size), gradient.bytes)
    _states = t.empty(s.states, dtype), t.empty(s.states, dtype)  # and their gradient, both in 16 bits
    _moving(t, "float32", 2 * states.bytes + 2 * _states[0].bytes)
    del states, gradient
    _of_steps = t.empty(s.steps, "float32")
    inner = s.batch * s.length * r.value_size * 2
    half = r.chunk_size // 2
    _product(t, s, dtype, (r.chunk_size, r.value_dim, half + r.key_dim), 3 * inner)
    _keys, _next = t.empty(s.keys, "float32"), t.empty(s.steps, "float32")
    _product(t, s, dtype, (r.chunk_size, r.key_dim, r.value_dim), inner + _keys.bytes)
    _queries, _before = t.empty(s.keys, "float32"), t.empty(s.steps, "float32")
    _product(t, s, dtype, (r.chunk_size, r.key_dim, r.value_dim), inner + _queries.bytes)
    of_scores = t.empty(s.scores, "float32")
    _product(t, s, dtype, (r.chunk_size, half, r.value_dim), 2 * inner + of_scores.bytes)
    for one in (_keys, _queries):
        t.matmul(dtype, r.chunk_size, r.key_dim, r.chunk_size, of_scores.bytes + 2 * one.bytes, chunks * r.key_heads)
    _turned = [t.empty(s.steps, "float32") for _ in range(3)]
    _moving(t, "float32", 6 * _before.bytes)
    _product(t, s, dtype, (r.chunk_size, half, r.value_dim), 2 * inner + _scores.bytes)
    _moving(t, "float32", 4 * _before.bytes)


def _convolution(t: Tape, s: _Sizes, dtype: str) -> Tensor:
    """causal-conv1d's kernel, its activation inside."""
    out = t.empty(s.mixed, dtype)
    t.kernel("elementwise", dtype, 2 * s.r.conv_size * out.count, 2 * out.bytes)
    return out


def _chunk_states(t: Tape, s: _Sizes, dtype: str) -> tuple[Tensor, Tensor]:
    """Each chunk's state in fp32, then what every chunk begins with, in `dtype`, and what the last one ends with."""
    first = t.empty(s.states, "float32")
    _product(t, s, dtype, (s.r.value_dim, s.r.key_dim, s.r.chunk_size), first.bytes)
    passed = t.empty(s.states, dtype)
    last = t.empty((s.batch, *s.states[2:]), "float32")
    _moving(t, "float32", first.bytes + passed.bytes)
    return passed, last


def _chunk_scores(t: Tape, s: _Sizes, dtype: str) -> Tensor:
    """Queries by keys of each chunk and group, in fp32."""
    out = t.empty(s.scores, "float32")
    size = s.r.chunk_size
    t.matmul(dtype, size, size, s.r.key_dim, out.bytes, s.batch * CHUNKS * s.r.key_heads)
    return out


def _scan_products(t: Tape, s: _Sizes, dtype: str, moved: int) -> None:
    """`_chunk_scan_fwd`: scores by values below the diagonal, queries by the states."""
    _product(t, s, dtype, (s.r.chunk_size, s.r.value_dim, s.r.chunk_size // 2 + s.r.key_dim), moved)


def _product(t: Tape, s: _Sizes, dtype: str, sizes: tuple[int, int, int], moved: int) -> None:
    """A product (m, k) x (k, n) for every head of every chunk."""
    t.matmul(dtype, *sizes, moved, s.batch * CHUNKS * s.r.value_heads)


def _projected(t: Tape, x: Tensor, weight: Tensor) -> Tensor:
    outs, ins = weight.shape
    out = t.empty((*x.shape[:-1], outs), x.dtype)
    t.matmul(x.dtype, x.count // ins, outs, ins, x.bytes + out.bytes + weight.bytes)
    return out


def _detached(x: Tensor) -> Tensor:
    """x without its place in the graph, which a function written in Python does not add to."""
    return Tensor(x.shape, x.dtype, x.buffer)


def _moving(t: Tape, dtype: str, moved: int) -> None:
    t.kernel("elementwise", dtype, 0, moved)
