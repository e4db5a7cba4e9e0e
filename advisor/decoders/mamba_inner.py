"""Mamba's layer after its projection as one autograd function: convolution, steps, scan and the projection back.

B rows, S tokens, I channels, a state of N for each, steps from R features. It keeps a copy of its input, the projection
of the channels, keys, queries, the states at the ends of chunks and what was read of them; backward makes all else
again. It reads the weights of x_proj, dt_proj and out_proj: adapters there have no effect. Gradients of all weights are
made even where they are frozen.

Source: mamba_ssm 2.3.2.post1 (state-spaces/mamba e9594ce1), ops/selective_scan_interface.py, `MambaInnerFn`;
csrc/selective_scan/selective_scan.cpp; ops/triton/layer_norm.py, `_layer_norm_fwd`. Read, not run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from advisor.decoders.linear import Linear
from advisor.decoders.selective_kernels import BACKWARD_FLOP, FORWARD_FLOP, note_scan, states_shape
from advisor.parameters.token_mixers import STEPS
from advisor.specs import Recurrence
from advisor.tape.graph import Shape, Tensor
from advisor.tape.ops import cast
from advisor.tape.pieces import made
from advisor.tape.tape import Tape


class InnerWeights(NamedTuple):
    """What the function is given beside its input; gradients are made in this order."""

    conv: Tensor
    conv_bias: Tensor | None
    channels: Tensor  # x_proj's
    steps: Tensor  # dt_proj's
    back: Tensor  # out_proj's
    back_bias: Tensor | None
    decay: Tensor
    skip: Tensor
    step_bias: Tensor


class _Sizes(NamedTuple):
    """The shapes that the function works on; `one_row`: the batch is one row, whose rows and columns swap by a view."""

    batch: int
    length: int
    r: Recurrence
    dtype: str
    one_row: bool

    @property
    def inner(self) -> Shape:
        return self.batch, self.length, self.r.value_size

    @property
    def keys(self) -> Shape:
        return self.batch, self.length, self.r.key_dim

    @property
    def channels(self) -> Shape:
        return self.batch * self.length, self.r.step_rank + 2 * self.r.key_dim

    @property
    def normed(self) -> bool:
        return self.r.step_norms == "unit"


def inner_weights(t: Tape, own: Mapping[str, Tensor], linears: Mapping[str, Linear], decay: Tensor) -> InnerWeights:
    """The weights as the layer hands them over: vectors in fp32."""
    back, steps = linears["out_proj"], linears[STEPS]
    assert steps.bias is not None
    back_bias = cast(t, back.bias, "float32") if back.bias is not None else None
    skip, step_bias = cast(t, own["d"], "float32"), cast(t, steps.bias, "float32")
    channels, matrices = linears["x_proj"].weight, (steps.weight, back.weight)
    return InnerWeights(own["conv"], own.get("conv_bias"), channels, *matrices, back_bias, decay, skip, step_bias)


def mamba_inner(t: Tape, x: Tensor, given: InnerWeights, r: Recurrence, one_row: bool) -> Tensor:
    """x (B, S, 2 I) -> (B, S, H)."""
    s = _Sizes(x.shape[0], x.shape[1], r, x.dtype, one_row)
    t.label("state-space layer")
    matrices = [_in_autocast(t, one) for one in (given.channels, given.steps, given.back)]
    back_bias = _in_autocast(t, given.back_bias) if given.back_bias is not None else None
    held = made(t, x.shape, x.dtype)  # channel by channel
    projected, keys, queries, states, out, gated = _scanned(t, s, matrices)
    back = matrices[2]
    result = t.empty((*s.inner[:2], back.shape[0]), s.dtype)
    t.matmul(s.dtype, s.channels[0], back.shape[0], back.shape[1], gated.bytes + result.bytes + back.bytes)
    del gated
    inputs = (x, *(p for p in given if p is not None))
    needs, like = [p.needs_grad for p in inputs], [(p.shape, p.dtype) for p in inputs[1:]]

    def backward(g: Tensor) -> tuple[Tensor | None, ...]:
        gx = _backward(t, s, g, matrices)
        made = [t.empty(*one) for one in like]  # of every parameter, trained or not
        return gx, *(one if wanted else None for one, wanted in zip(made, needs[1:], strict=True))

    vectors = (given.conv, given.conv_bias, given.decay, given.skip, given.step_bias, back_bias)
    saved = (held, projected, *matrices, keys, queries, states, out, *(p for p in vectors if p is not None))
    return t.function(result, inputs, backward, saved)


def _scanned(t: Tape, s: _Sizes, matrices: list[Tensor]) -> tuple[Tensor, ...]:
    """The projection of the channels, keys and queries, states, what was read of them, and that behind the gate."""
    mixed = _convolution(t, s)
    rows = _regrouped(t, s, mixed)
    projected = t.empty(s.channels, s.dtype)
    t.matmul(s.dtype, s.channels[0], s.channels[1], s.r.value_size, mixed.bytes + projected.bytes)
    del rows
    delta = _steps(t, s, projected, matrices[1])
    keys, queries = (_normed_keys(t, s, made(t, s.keys, s.dtype)) for _ in range(2))
    out, states = t.empty(s.inner, s.dtype), t.empty(states_shape(s.inner, s.r.key_dim), "float32")
    gated = t.empty(s.inner, s.dtype)
    note_scan(t, s.dtype, out.count * s.r.key_dim * FORWARD_FLOP, 5 * delta.bytes + states.bytes)
    return projected, keys, queries, states, out, gated


def _backward(t: Tape, s: _Sizes, g: Tensor, matrices: list[Tensor]) -> Tensor:
    """The gradient of the input; locals live as those of the function do."""
    tokens, inner, (_, width) = s.channels[0], s.r.value_size, s.channels
    mixed = _convolution(t, s)
    _delta = _steps(t, s, Tensor(s.channels, s.dtype), matrices[1])
    if s.normed:
        _keys, _queries = (_normed_keys(t, s, Tensor(s.keys, s.dtype)) for _ in range(2))
    out = t.empty((*s.inner[:2], 2 * inner), s.dtype)
    _incoming = t.empty(s.inner, s.dtype)
    t.matmul(s.dtype, inner, tokens, g.shape[-1], g.bytes + _incoming.bytes + matrices[2].bytes)
    _gated, du, ddelta = (t.empty(s.inner, s.dtype) for _ in range(3))
    wide = [t.empty(s.keys, "float32") for _ in range(2)]
    note_scan(t, s.dtype, du.count * s.r.key_dim * BACKWARD_FLOP, 9 * du.bytes + 2 * wide[0].bytes)
    narrow = [cast(t, one, s.dtype) for one in wide]
    del wide
    behind = _regrouped(t, s, _gated) if s.normed else _gated  # stored as the steps are
    t.matmul(s.dtype, g.shape[-1], inner, tokens, g.bytes + behind.bytes)
    del behind
    dprojected = t.empty(s.channels, s.dtype)
    for one in narrow:
        t.kernel("elementwise", s.dtype, 0, 4 * one.bytes)
    narrow.clear()
    if s.normed:
        ddelta = _regrouped(t, s, ddelta)
    t.matmul(s.dtype, inner, s.r.step_rank, tokens, ddelta.bytes + dprojected.bytes)
    t.matmul(s.dtype, tokens, s.r.step_rank, inner, ddelta.bytes + dprojected.bytes)
    du = _regrouped(t, s, du)
    rows = _regrouped(t, s, mixed)
    t.matmul(s.dtype, width, inner, tokens, dprojected.bytes + mixed.bytes)
    del rows
    t.matmul(s.dtype, inner, tokens, width, dprojected.bytes + 2 * du.bytes)
    t.kernel("elementwise", s.dtype, 4 * s.r.conv_size * du.count, 4 * du.bytes)
    return out


def _convolution(t: Tape, s: _Sizes) -> Tensor:
    """causal-conv1d's kernel, its activation inside."""
    out = t.empty(s.inner, s.dtype)
    t.kernel("elementwise", s.dtype, 2 * s.r.conv_size * out.count, 2 * out.bytes)
    return out


def _steps(t: Tape, s: _Sizes, projected: Tensor, weight: Tensor) -> Tensor:
    """The product of dt_proj's weight by R features; Falcon Mamba norms it token by token, and turns it back."""
    delta = t.empty(s.inner, s.dtype)
    t.matmul(s.dtype, s.r.value_size, projected.shape[0], s.r.step_rank, delta.bytes + weight.bytes)
    if not s.normed:
        return delta
    delta = made(t, s.inner, s.dtype)
    delta = made(t, s.inner, s.dtype, "reduce")
    return made(t, s.inner, s.dtype)


def _normed_keys(t: Tape, s: _Sizes, x: Tensor) -> Tensor:
    """Keys or queries, which Falcon Mamba norms in the same way."""
    if not s.normed:
        return x
    x = made(t, s.keys, s.dtype)
    x = made(t, s.keys, s.dtype, "reduce")
    return made(t, s.keys, s.dtype)


def _regrouped(t: Tape, s: _Sizes, x: Tensor) -> Tensor:
    """x with all its rows side by side: a copy, but of one row."""
    return x if s.one_row else made(t, x.shape, x.dtype)


def _in_autocast(t: Tape, x: Tensor) -> Tensor:
    """x as the function casts it by itself, without its place in the graph; what it has cast is kept."""
    found = cast(t, x, t.autocast) if t.autocast else x
    return Tensor(found.shape, found.dtype, found.buffer)
