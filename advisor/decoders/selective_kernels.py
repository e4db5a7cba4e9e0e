"""Mamba's scan by mamba_ssm's kernel, which transformers calls in Jamba's layers where the package is installed.

B rows, S tokens, I channels, a state of N for each; the states at the ends of chunks are kept in fp32.

Source: mamba_ssm 2.3.2.post1 (state-spaces/mamba e9594ce1), ops/selective_scan_interface.py, `SelectiveScanFn`;
csrc/selective_scan/selective_scan.cpp, `selective_scan_fwd` and `selective_scan_bwd`; operations are counted in
selective_scan_fwd_kernel.cuh and selective_scan_bwd_kernel.cuh. Read, not run.
Ignores: that keys and queries are read again for every channel, from the cache, and that their gradients are summed
there by atomic additions.
"""

from __future__ import annotations

from advisor.decoders.selective_scan import Scanned, ScanWeights
from advisor.tape.graph import Shape, Tensor
from advisor.tape.ops import cast
from advisor.tape.pieces import made
from advisor.tape.program import CHUNKS
from advisor.tape.tape import Tape

FORWARD_FLOP, BACKWARD_FLOP = 8, 28
"""Operations of each state of each token: its decay, what is added, the scan, what is read; and all their gradients."""


def fused_selective_scan(t: Tape, given: Scanned, weights: ScanWeights, by_channel: bool) -> Tensor:
    """(B, S, I), stored channel by channel, in the dtype of the values; what is not stored so is copied, and kept.

    `by_channel`: steps are stored so.
    """
    values, steps, keys, queries, gate = given
    dtype, shape, state = values.dtype, values.shape, keys.shape[-1]
    u, z, b, c = (made(t, one.shape, dtype) for one in (values, gate, keys, queries))
    delta = steps if by_channel else made(t, steps.shape, dtype)
    out, states = t.empty(shape, dtype), t.empty(states_shape(shape, state), "float32")
    gated = t.empty(shape, dtype)
    note_scan(t, dtype, u.count * state * FORWARD_FLOP, 5 * u.bytes + states.bytes)
    inputs = (*given, *weights)
    needs = [one.needs_grad for one in inputs]
    vectors, keys_shape = [(one.shape, one.dtype) for one in weights], keys.shape

    def backward(g: Tensor) -> tuple[Tensor | None, ...]:
        _incoming = made(t, g.shape, g.dtype)
        dz, du, ddelta = (t.empty(shape, dtype) for _ in range(3))
        da, dkeys, dqueries = (
            made(t, *vectors[0], passes=1),
            *(made(t, keys_shape, "float32", passes=1) for _ in range(2)),
        )
        dskip, dbias = (made(t, *one, passes=1) for one in vectors[1:])
        note_scan(t, dtype, du.count * state * BACKWARD_FLOP, 8 * du.bytes + dkeys.bytes + dqueries.bytes)
        narrow = [cast(t, one, dtype) for one in (dkeys, dqueries)]
        del dkeys, dqueries
        found = (du, ddelta, *narrow, dz, da, dskip, dbias)
        return tuple(one if needed else None for one, needed in zip(found, needs, strict=True))

    return t.function(gated, inputs, backward, (u, delta, b, c, z, states, out, *weights))


def states_shape(shape: Shape, state: int) -> Shape:
    """The states that are kept of values (B, S, I), each with the product of the decays before it."""
    batch, _, inner = shape
    return batch, inner, CHUNKS, 2 * state


def note_scan(t: Tape, dtype: str, flop: int, moved: int) -> None:
    """One launch of the scan."""
    t.kernel("elementwise", dtype, flop, moved)
