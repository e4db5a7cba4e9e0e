"""Mamba's state-space layer in attention's place.

B rows, S tokens, I channels, a state of N for each, steps from R features. Locals live as long as they do in the code.

Source: transformers 5.23, models/jamba/modeling_jamba.py, `JambaMambaMixer.forward`; models/mamba/modeling_mamba.py,
`MambaMixer.forward`; models/falcon_mamba/modeling_falcon_mamba.py, `FalconMambaMixer.forward`.
"""

from __future__ import annotations

from advisor.blocks import ITEM_BYTES
from advisor.decoders.adapters import linear
from advisor.decoders.convolution import causal_convolution
from advisor.decoders.linear import Linear, autocast_operand, product
from advisor.decoders.mamba_inner import inner_weights, mamba_inner
from advisor.decoders.norms import rms_norm, unit_norm
from advisor.decoders.selective_kernels import fused_selective_scan
from advisor.decoders.selective_scan import Scanned, ScanWeights, selective_scan
from advisor.decoders.step_inputs import LayerInputs, unpadded
from advisor.decoders.weights import Weights
from advisor.parameters.token_mixers import STEP_NORMS, STEPS, recurrence_of
from advisor.specs import Recipe
from advisor.tape.graph import Tensor
from advisor.tape.layout import chunk_last, copy, regathered
from advisor.tape.ops import cast, negate, subtract, unary
from advisor.tape.tape import Tape


def mamba1(t: Tape, x: Tensor, w: Weights, given: LayerInputs, recipe: Recipe) -> Tensor:
    """x (B, S, H) -> (B, S, H)."""
    sizes, own, dtype, chunks = recurrence_of(w.m), w.own, x.dtype, given.chunks
    assert chunks is not None
    inner, state, fused = sizes.value_size, sizes.key_dim, recipe.sequence_kernels == "packages"
    t.label("state-space layer")
    x = unpadded(t, x, given.padding)
    projected = linear(t, x, w.linears["in_proj"])
    t.label("state-space layer")
    decay = negate(t, unary(t, cast(t, own["a_log"], "float32"), "output"))
    if fused and sizes.step_norms != "learned":
        given_weights = inner_weights(t, own, w.linears, decay)
        return mamba_inner(t, projected, given_weights, sizes, chunks.one_row)
    mixed, gate = chunk_last(t, projected, (inner, inner))
    mixed = causal_convolution(t, mixed, own["conv"], own.get("conv_bias"), fused, activated=True)
    mixed = unpadded(t, mixed, given.padding)
    of_channels = w.linears["x_proj"]
    of_channels.apart = not (fused or chunks.one_row)
    parts = chunk_last(t, linear(t, mixed, of_channels), (sizes.step_rank, state, state))
    t.label("state-space layer")
    steps, keys, queries = parts
    del parts
    if sizes.step_norms != "none":
        steps = _normed(t, w, 0, steps)
        keys = _normed(t, w, 1, keys)
        queries = _normed(t, w, 2, queries)
    steps = _projected(t, w.linears[STEPS], steps, recipe, chunks.one_row)
    bias = w.linears[STEPS].bias
    assert bias is not None
    weights = ScanWeights(decay, cast(t, own["d"], "float32"), cast(t, bias, "float32"))
    scanned = Scanned(mixed, steps, keys, queries, gate)
    if fused:
        out = fused_selective_scan(t, scanned, weights, by_channel=not recipe.is_quantized)
    else:
        out = selective_scan(t, scanned, weights, chunks)
    del weights, scanned
    back = w.linears["out_proj"]
    back.apart = not chunks.one_row
    return linear(t, cast(t, out, dtype), back)


def _normed(t: Tape, w: Weights, at: int, x: Tensor) -> Tensor:
    """Jamba's norm of steps, keys or queries, or Falcon Mamba's, which has no weight."""
    weight = w.own.get(STEP_NORMS[at])
    return unit_norm(t, x) if weight is None else rms_norm(t, x, weight)


def _projected(t: Tape, m: Linear, x: Tensor, recipe: Recipe, one_row: bool) -> Tensor:
    """`weight @ x.transpose(1, 2)` of x (B, S, R): (B, S, I), stored channel by channel; an adapter is passed over.

    A weight that trains is multiplied by all rows at once, and the product copied into its layout; one that does not,
    row by row. Of a quantized base the layer is called, and its bias taken off again.
    Source: PyTorch 2.13, aten/src/ATen/native/LinearAlgebra.cpp, should_fold.
    """
    if recipe.is_quantized:
        assert m.bias is not None
        return subtract(t, linear(t, x, m), m.bias)
    t.label(m.name)
    weight = m.weight
    if t.autocast:
        weight, x = autocast_operand(t, weight), autocast_operand(t, x)
    return _folded(t, x, weight, one_row) if weight.needs_grad else _by_row(t, x, weight)


def _folded(t: Tape, x: Tensor, weight: Tensor, one_row: bool) -> Tensor:
    out = product(t, x, weight)
    if not one_row:
        out = regathered(t, out)
    return copy(t, out, out.shape)


def _by_row(t: Tape, x: Tensor, weight: Tensor) -> Tensor:
    """A batched product whose other operand is frozen."""
    batch, length, rank = shape = x.shape
    inner, dtype = weight.shape[0], weight.dtype
    moved = x.bytes + weight.bytes + batch * length * inner * ITEM_BYTES[dtype]
    t.matmul(dtype, inner, length, rank, moved, batch)

    def backward(g: Tensor) -> tuple[Tensor]:
        t.matmul(dtype, rank, length, inner, moved, batch)
        return (t.empty(shape, dtype),)

    return t.op((x,), (batch, length, inner), dtype, backward, (weight,))
