"""Gemma 4's layer: values are normed too, experts run beside the MLP, late layers take keys and values of earlier ones.

Source: transformers 5.23, models/gemma4/modeling_gemma4.py, `Gemma4TextDecoderLayer`, `Gemma4TextAttention`,
`Gemma4TextRouter`. Locals live as long as they do there.
"""

from __future__ import annotations

from advisor.decoders.adapters import linear
from advisor.decoders.decoder import Decoder
from advisor.decoders.experts import Experts, mixed, normalized, shared_expert
from advisor.decoders.gpt_oss import best, picked_rows
from advisor.decoders.layer_inputs import gated_input
from advisor.decoders.norms import rms_norm_power
from advisor.decoders.rope import turned
from advisor.decoders.step_inputs import LayerInputs
from advisor.decoders.weights import Weights
from advisor.tape.graph import Tensor
from advisor.tape.ops import add, mul, scale, softmax
from advisor.tape.tape import Tape


def gemma4_layer(d: Decoder, x: Tensor, w: Weights, given: LayerInputs) -> Tensor:
    """x (B, S, H) -> (B, S, H); its output is multiplied by the layer's own scalar, in place."""
    t = d.t
    before, after, before_mlp, after_mlp, *_ = w.norms
    kept: list[Tensor] = []
    h = after(t, attention(d, before(t, x), w, given, kept))
    x = add(t, x, h)
    h = before_mlp(t, x)
    if isinstance(w.experts, Experts):
        h = shared_expert(t, h, w.m, w.linears)
        h = _with_experts(t, x, h, w, w.experts, kept)
    else:
        h = d.stack.feed_forward(t, h, w.m, w.linears, w.own)
    h = after_mlp(t, h)
    x = add(t, x, h)
    del h
    if given.layer_input is not None:
        x = add(t, x, gated_input(t, [x], given.layer_input, w))
    return _scaled_in_place(t, x)


def _scaled_in_place(t: Tape, x: Tensor) -> Tensor:
    """`x *= scalar`, a buffer of one element, which autograd keeps."""
    shape, dtype = x.shape, x.dtype
    t.kernel("elementwise", dtype, 0, 2 * x.bytes)

    def backward(g: Tensor) -> tuple[Tensor]:
        t.kernel("elementwise", dtype, 0, 2 * g.bytes)
        return (t.empty(shape, dtype),)

    hollow = t.op((x,), (0,), dtype, backward, (Tensor((1,), dtype),))
    out = Tensor(shape, dtype, x.buffer)
    out.node, out.needs_grad = hollow.node, hollow.needs_grad
    return out


def attention(d: Decoder, x: Tensor, w: Weights, given: LayerInputs, kept: list[Tensor]) -> Tensor:
    """Attention of x (B, S, H) whose values are normed, and whose keys and values may be those of a layer before."""
    t, m = d.t, w.m
    batch, length, _ = x.shape
    kv_shape = (batch, m.num_key_value_heads, length, m.head_dim)
    assert given.rope is not None
    early = d.quirks.norms_after_values
    q_name, *k_names = m.qkv_names
    q = t.view(linear(t, x, w.linears[q_name]), (batch, m.num_attention_heads, length, m.head_dim))
    q = w.qk_norms[0](t, q)
    q = turned(t, q, given.rope)
    if k_names:
        k = t.view(linear(t, x, w.linears[k_names[0]]), kv_shape)
        v = None if not early else t.view(linear(t, x, w.linears[k_names[1]]), kv_shape) if k_names[1:] else k
        k = w.qk_norms[1](t, k)
        k = turned(t, k, given.rope)
        v = v or t.view(linear(t, x, w.linears[k_names[1]]), kv_shape)
        v = rms_norm_power(t, v, None)
    else:
        assert given.keys is not None
        k, v = given.keys[given.kind.sliding]
    if given.kind.stores and given.keys is not None:
        given.keys[given.kind.sliding] = k, v
    t.label("attention")
    out = t.view(d.attend(q, k, v, w, given, x.dtype, kept), (batch, length, m.attended_size))
    return linear(t, out, w.linears[m.out_name])


def _with_experts(t: Tape, x: Tensor, h: Tensor, w: Weights, experts: Experts, kept: list[Tensor]) -> Tensor:
    """The MLP's output h (B, S, H) and that of the experts, which read x (B, S, H): each normed, then added."""
    *_, after_mlp, after_experts, before_experts = w.norms
    first = after_mlp(t, h)
    rows = t.view(x, (x.shape[0] * x.shape[1], x.shape[2]))
    kept[:], scores, _indices = _routed(t, rows, w, experts.top_k)
    out = before_experts(t, rows)
    out = t.view(mixed(t, out, scores, w.m, experts), x.shape)
    out = after_experts(t, out)
    return add(t, first, out)


def _routed(t: Tape, x: Tensor, w: Weights, top_k: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """Probabilities (T, E) of x (T, H), and scores and indices (T, K)."""
    t.label("router")
    h = rms_norm_power(t, x, None)
    h = scale(t, mul(t, h, w.own["router_scale"]))
    logits = linear(t, h, w.linears[w.m.router_linear])
    t.label("router")
    probabilities = softmax(t, logits, "float32")
    scores, indices = best(t, probabilities, top_k)
    scores = normalized(t, scores)
    factors = t.view(picked_rows(t, w.own["expert_scale"], scores.count, indices), scores.shape)
    return [probabilities], mul(t, scores, factors), indices
