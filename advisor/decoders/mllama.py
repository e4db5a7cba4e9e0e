"""Llama 3.2 Vision's layers: Llama's, and some that attend to what the tower makes of images.

Source: transformers 5.23, models/mllama/modeling_mllama.py. Locals live as long as they do there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from advisor.decoders.adapters import linear
from advisor.decoders.decoder import Decoder, decoder_layer
from advisor.decoders.step_inputs import LayerInputs
from advisor.decoders.weights import Weights
from advisor.tape.graph import Tensor
from advisor.tape.ops import add, mul, unary
from advisor.tape.tape import Tape

if TYPE_CHECKING:
    from advisor.decoders.vision import Across


def mllama_layer(d: Decoder, x: Tensor, w: Weights, given: LayerInputs) -> Tensor:
    """x (B, S, H) -> (B, S, H)."""
    if d.seen is None or d.seen.across is None or not w.m.crosses:
        return decoder_layer(d, x, w, given)
    return _crossing(d, x, w, given, d.seen.tokens, d.seen.across)


def _crossing(d: Decoder, x: Tensor, w: Weights, given: LayerInputs, tokens: Tensor, across: Across) -> Tensor:
    """A layer that attends to images' tokens (N, P, H), through gates. Source: MllamaCrossAttentionDecoderLayer."""
    t = d.t
    h = w.norms[0](t, x)
    h = _attention(d, h, w, given._replace(mask=across.mask, window=0), tokens)
    x = add(t, x, gated(t, h, w.own["attention_gate"]))
    del h
    h = w.norms[1](t, x)
    h = d.mlp(h, w)
    h = mul(t, h, across.attending)
    return add(t, x, gated(t, h, w.own["mlp_gate"]))


def gated(t: Tape, x: Tensor, gate: Tensor) -> Tensor:
    """`gate.tanh() * x`."""
    return mul(t, unary(t, gate, "output"), x)


def _attention(d: Decoder, x: Tensor, w: Weights, given: LayerInputs, tokens: Tensor) -> Tensor:
    """Source: MllamaTextCrossAttention.forward."""
    t, m, (batch, length, _) = d.t, w.m, x.shape
    keys = tokens.count // tokens.shape[-1] // batch
    kv_shape, (q_name, k_name, v_name) = (batch, m.num_key_value_heads, keys, m.head_dim), m.qkv_names
    q = t.view(linear(t, x, w.linears[q_name]), (batch, m.num_attention_heads, length, m.head_dim))
    q = w.qk_norms[0](t, q)
    k = linear(t, tokens, w.linears[k_name])
    v = t.view(linear(t, tokens, w.linears[v_name]), kv_shape)
    k = w.qk_norms[1](t, t.view(k, kv_shape))
    t.label("attention")
    out = t.view(d.attend(q, k, v, w, given, x.dtype, []), (batch, length, m.attended_size))
    return linear(t, out, w.linears[m.out_name])
