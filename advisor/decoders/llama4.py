"""Llama 4's queries and keys: turned on complex numbers and normed where a layer has RoPE, else scaled by position.

Source: transformers 5.23, models/llama4/modeling_llama4.py, `Llama4TextAttention.forward` and `apply_rotary_emb`.
"""

from __future__ import annotations

from advisor.decoders.norms import unit_norm
from advisor.decoders.rope import Rope
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.ops import cast, mul
from advisor.tape.tape import Tape


def placed(t: Tape, m: ModelSpec, q: Tensor, k: Tensor, rope: Rope | None) -> tuple[Tensor, Tensor]:
    """Queries (B, heads, S, D) and keys (B, KV, S, D) with their positions; `rope` is None in a layer without RoPE."""
    if rope is not None:
        q, k = _turned(t, q, k, rope)
        if m.qk_norm == "unit":
            q = unit_norm(t, q)
            k = unit_norm(t, k)
    elif m.attention_temperature:
        q = cast(t, mul(t, q, position_factors(t, q.shape[2], "float32")), q.dtype)
    return q, k


def position_factors(t: Tape, length: int, dtype: str) -> Tensor:
    """A number for each position (1, 1, S, 1), made anew in every layer by a handful of small kernels."""
    for _ in range(7):  # scaled, floored, shifted, logarithm, scaled, shifted, cast
        t.kernel("elementwise", "float32", 0, 8 * length)
    return t.empty((1, 1, length, 1), dtype)


def _turned(t: Tape, q: Tensor, k: Tensor, rope: Rope) -> tuple[Tensor, Tensor]:
    wide_q, wide_k = cast(t, q, "float32"), cast(t, k, "float32")
    q_out = mul(t, wide_q, rope.cos)
    k_out = mul(t, wide_k, rope.cos)
    return cast(t, q_out, q.dtype), cast(t, k_out, k.dtype)
