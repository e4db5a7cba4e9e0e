"""Mamba's scan in PyTorch's own operations, token after token.

B rows, S tokens, I channels, a state of N for each. Keys and queries are what the code calls B and C. States are in
fp32; what is read of them is in the dtype of the values.

Source: transformers 5.23, models/jamba/modeling_jamba.py, `mamba_selective_scan`, which models/{mamba,falcon_mamba}/
modeling_*.py repeat word by word; locals live as long as they do there.
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.decoders.step_inputs import Chunks
from advisor.tape.graph import Tensor
from advisor.tape.layout import part
from advisor.tape.loops import Listed, looped
from advisor.tape.ops import add, batched_matmul, cast, mul, unary
from advisor.tape.pieces import softplus, stacked
from advisor.tape.tape import Tape


class Scanned(NamedTuple):
    """What the scan works on: values, steps and gate (B, S, I), keys and queries (B, S, N)."""

    values: Tensor
    steps: Tensor
    keys: Tensor
    queries: Tensor
    gate: Tensor


class ScanWeights(NamedTuple):
    """Decay (I, N), weight of what skips the state (I,), bias of the steps (I,), all in fp32."""

    decay: Tensor
    skip: Tensor
    step_bias: Tensor


def selective_scan(t: Tape, given: Scanned, weights: ScanWeights, chunks: Chunks) -> Tensor:
    """(B, S, I), stored channel by channel, in fp32."""
    x, steps, keys, queries, gate = given
    batch, length, inner = x.shape
    state, dtype = keys.shape[-1], x.dtype
    each, token = (batch, length, inner, 1), (batch, inner, state)
    steps = add(t, steps, cast(t, weights.step_bias, steps.dtype))
    steps = softplus(t, steps)
    every, wide_keys = (*x.shape, state), cast(t, t.view(keys, (batch, length, 1, state)), "float32")
    decays = unary(t, mul(t, weights.decay, t.view(steps, each), every), "output")
    pushes = mul(t, t.view(steps, each), wide_keys, every)
    del wide_keys
    pushed = mul(t, pushes, cast(t, t.view(x, each), "float32"))
    listed = Listed()
    last = [t.empty(token, dtype)]
    t.kernel("elementwise", dtype, 0, last[0].bytes)

    def turn(before: Tensor) -> Tensor:
        carried = mul(t, part(t, decays, token), before)
        now = add(t, carried, part(t, pushed, token))
        del carried
        wide = cast(t, now, dtype)
        query = t.view(part(t, queries, (batch, state)), (batch, state, 1))
        read = batched_matmul(t, wide, query, (batch, inner, 1), state)
        listed.tensors.append(part(t, read, (batch, inner)))
        return now

    _last = looped(t, chunks.count, last.pop(), turn, listed)
    out = stacked(t, listed.tensors, x.shape)
    out = add(t, out, mul(t, x, weights.skip))
    return mul(t, out, unary(t, gate, "input"))
