"""A gate on the attention's output: a linear layer of its input, by feature or by head.

Source: transformers 5.23, models/{afmoe,laguna}/modeling_*.py, `...Attention.forward`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from advisor.decoders.adapters import linear
from advisor.decoders.heads import Triple
from advisor.decoders.linear import Linear
from advisor.decoders.norms import HeadNorms, Norm
from advisor.parameters.modules import gate_linear
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.ops import cast, mul, unary
from advisor.tape.tape import Tape


def heads_and_gate(
    t: Tape, x: Tensor, m: ModelSpec, linears: Mapping[str, Linear], norms: Sequence[Norm | HeadNorms]
) -> tuple[Triple, Tensor]:
    """AFMoE's queries, keys and values of x (B, S, H), and the gate (B, S, heads * D), projected before their norms."""
    batch, length, _ = x.shape
    q_shape = (batch, m.num_attention_heads, length, m.head_dim)
    kv_shape = (batch, m.num_key_value_heads, length, m.head_dim)
    q, k, v = (
        t.view(linear(t, x, linears[name]), shape)
        for name, shape in zip(m.qkv_names, (q_shape, kv_shape, kv_shape), strict=True)
    )
    gate = linear(t, x, linears[gate_linear(m).name])
    q = norms[0](t, q)
    k = norms[1](t, k)
    return (q, k, v), gate


def gated(t: Tape, out: Tensor, x: Tensor, m: ModelSpec, linears: Mapping[str, Linear], gate: Tensor | None) -> Tensor:
    """`output * sigmoid(gate)` of out (B, S, heads * D), or Laguna's product where the gate is not made yet."""
    return mul(t, out, unary(t, gate, "output")) if gate is not None else _gated_by_softplus(t, out, x, m, linears)


def _gated_by_softplus(t: Tape, out: Tensor, x: Tensor, m: ModelSpec, linears: Mapping[str, Linear]) -> Tensor:
    """Laguna's `output * softplus(g_proj(x).float())`, one number a head or one a feature; out (B, S, heads * D)."""
    batch, length, width = out.shape
    projected = [cast(t, linear(t, x, linears[gate_linear(m).name]), "float32")]
    gate = cast(t, unary(t, projected.pop(), "input"), out.dtype)
    if m.attention_gate == "feature":
        return mul(t, out, gate)
    heads = t.view(out, (batch, length, m.num_attention_heads, m.head_dim))
    return t.view(mul(t, heads, t.view(gate, (batch, length, m.num_attention_heads, 1))), (batch, length, width))
