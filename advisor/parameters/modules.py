"""Which parameters a decoder has: the linear layers, norms and embeddings that its code builds.

One table for all: parameter counts, adapters, quantization and the tape all read it.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Literal, NamedTuple

from advisor.architectures import architecture_of
from advisor.architectures.classifiers import classifier_of
from advisor.errors import expect
from advisor.parameters.layer_inputs import (
    OUTPUT_SCALE,
    further_outer_linears,
    inner_linears,
    inner_norms,
    layer_table,
)
from advisor.parameters.layers import layer_groups
from advisor.parameters.token_mixers import MIXERS, Parameter
from advisor.specs import LinearShape, ModelSpec

SINKS = "sinks"
"""The attention's sinks, counted with the norms: a learned vector as they are."""

GATED_NORM = "gated_norm"
"""The norm of what a layer's recurrence returns, head by head."""

HEAD_NORMS = ("q_norm", "k_norm")
"""Norms of queries and keys, where a model has them."""

LATENT = ("fc1_latent_proj", "fc2_latent_proj")
"""The projections around experts that work on narrower states (Nemotron-H)."""
INDEX_WEIGHTS = "weights_proj"
"""The linear layer of an indexer that weighs its heads."""
PLAIN_NORM = "norm_"
"""What the name of a norm begins with that is known by its place among the layer's blocks."""

EXPERTS = "experts."
"""What the name of an expert's own linear layer begins with."""

OSS_PARAMETERS = ("router", "router_bias", "gate_up", "gate_up_bias", "down", "down_bias")


class NormVectors(NamedTuple):
    """A norm of `width` features and how many learned vectors of that width it has (0, 1 or 2)."""

    name: str
    width: int
    vectors: int


@lru_cache(maxsize=256)
def layer_linears(m: ModelSpec) -> dict[str, LinearShape]:
    """The linear layers of one decoder layer by name, in the order in which the forward calls them."""

    def linear(name: str, in_features: int, out_features: int, bias: bool) -> LinearShape:
        return LinearShape(name=name, in_features=in_features, out_features=out_features, bias=bias)

    h, inner = m.hidden_size, m.intermediate_size
    found = [] if m.mixer == "attention" else list(MIXERS[m.mixer](m).linears)
    if m.attends:
        if m.kv_lora_rank:
            found += _latent_linears(m)
        elif m.fused_qkv:
            found.append(linear(m.qkv_names[0], h, m.q_size + 2 * m.kv_size, m.qkv_bias))
        else:
            queries = 2 * m.q_size if m.attention_gate == "with_queries" else m.q_size
            sizes = (queries, m.kv_size, m.num_key_value_heads * m.value_dim)
            found += [linear(n, h, size, m.qkv_bias) for n, size in zip(m.qkv_names, sizes, strict=False)]
        if m.attention_gate in ("head", "feature"):
            found.append(gate_linear(m))
        if m.index_heads:
            found += _index_linears(m)
        found.append(linear(m.out_name, m.attended_size, h, m.attention_out_bias))
    if m.num_experts or m.mlp == "none":
        return {shape.name: shape for shape in (*found, *_mixture_linears(m), *inner_linears(m))}
    if m.mlp == "gated":
        gate, up, down = m.mlp_names
        found += [linear(gate, h, inner, m.mlp_bias), linear(up, h, inner, m.mlp_bias)]
    elif m.mlp == "gated_fused":
        up, down = m.mlp_names
        found.append(linear(up, h, 2 * inner, m.mlp_bias))
    else:
        up, down = m.mlp_names
        found.append(linear(up, h, inner, m.mlp_bias))
    found.append(linear(down, inner, h, m.mlp_bias))
    return {shape.name: shape for shape in (*found, *inner_linears(m))}


def _mixture_linears(m: ModelSpec) -> list[LinearShape]:
    """The linear layers of a mixture: its router where that is one, and the expert that every token goes through."""
    h, inner = m.hidden_size, m.shared_expert_size
    found = []
    if m.router_linear:
        wide = architecture_of(m.architecture).router_in_float
        found.append(LinearShape(name=m.router_linear, in_features=h, out_features=m.num_experts, wide=wide))
    if m.experts == "linears":
        found += [shape for index in range(m.num_experts) for shape in _expert_linears(m, index)]
    if m.expert_latent and m.num_experts:
        narrow = (h, m.expert_latent), (m.expert_latent, h)
        found += [
            LinearShape(name=name, in_features=ins, out_features=outs, bias=m.mlp_bias)
            for name, (ins, outs) in zip(LATENT, narrow, strict=True)
        ]
    if not inner:
        return found
    *gates, up, down = m.mlp_names
    found += [LinearShape(name=gate, in_features=h, out_features=inner, bias=m.mlp_bias) for gate in gates]
    found += [
        LinearShape(
            name=up, in_features=h, out_features=inner if gates or not m.expert_gated else 2 * inner, bias=m.mlp_bias
        ),
        LinearShape(name=down, in_features=inner, out_features=h, bias=m.mlp_bias),
    ]
    if m.shared_expert_gated:
        found.append(LinearShape(name="shared_expert_gate", in_features=h, out_features=1))
    return found


def _expert_linears(m: ModelSpec, index: int) -> list[LinearShape]:
    """The three linear layers of one routed expert."""
    gate, up, down = (expert_linear(index, name) for name in architecture_of(m.architecture).expert_names)
    h, inner = m.hidden_size, m.expert_size
    return [
        LinearShape(name=gate, in_features=h, out_features=inner),
        LinearShape(name=up, in_features=h, out_features=inner),
        LinearShape(name=down, in_features=inner, out_features=h),
    ]


def expert_linear(index: int, name: str) -> str:
    """The name of a linear layer of one expert among those of its decoder layer."""
    return f"{EXPERTS}{index}.{name}"


def _latent_linears(m: ModelSpec) -> list[LinearShape]:
    """The projections of latent attention: to the latents (with the bias, if any) and from them to the heads."""
    h, heads = m.hidden_size, m.num_attention_heads
    *q_names, kv_a, kv_b = m.qkv_names
    plain = m.head_dim - m.rotary_dim
    if m.q_lora_rank:
        found = [
            LinearShape(name=q_names[0], in_features=h, out_features=m.q_lora_rank, bias=m.qkv_bias),
            LinearShape(name=q_names[1], in_features=m.q_lora_rank, out_features=m.q_size),
        ]
    else:
        found = [LinearShape(name=q_names[0], in_features=h, out_features=m.q_size)]
    return [
        *found,
        LinearShape(name=kv_a, in_features=h, out_features=m.kv_lora_rank + m.rotary_dim, bias=m.qkv_bias),
        LinearShape(name=kv_b, in_features=m.kv_lora_rank, out_features=heads * (plain + m.value_dim)),
    ]


def gate_linear(m: ModelSpec) -> LinearShape:
    """The linear layer that gates the attention's output."""
    out = m.num_attention_heads if m.attention_gate == "head" else m.q_size
    return LinearShape(name=architecture_of(m.architecture).gate_name, in_features=m.hidden_size, out_features=out)


def _index_linears(m: ModelSpec) -> list[LinearShape]:
    """The projections of an indexer: its queries of the queries' latent, its one key, the weights of its heads."""
    heads, width = m.index_heads, m.index_head_dim
    return [
        LinearShape(name="wq_b", in_features=m.q_lora_rank, out_features=heads * width, idle=True),
        LinearShape(name="wk", in_features=m.hidden_size, out_features=width, idle=True),
        LinearShape(name=INDEX_WEIGHTS, in_features=m.hidden_size, out_features=heads, idle=True),
    ]


@lru_cache(maxsize=256)
def layer_norms(m: ModelSpec) -> tuple[NormVectors, ...]:
    """The norms of one decoder layer, and the sinks of its attention."""
    vectors = int(m.norm_weight) + int(m.norm_bias)
    count = (
        1 if m.one_block or m.attention_norm == "none" else {"sandwich": 4, "parallel_one": 1}.get(m.norm_placement, 2)
    )
    if m.num_experts and architecture_of(m.architecture).experts_beside_mlp:  # before, after and beside them
        count += 3
    found = [NormVectors(f"{PLAIN_NORM}{i}", m.hidden_size, vectors) for i in range(count)]
    found += [NormVectors(name, m.hidden_size, vectors) for name in inner_norms(m)]
    if not m.attends:
        width = MIXERS[m.mixer](m).norm_width
        return (*found, NormVectors(GATED_NORM, width, 1)) if width else tuple(found)
    each = (m.q_size, m.kv_size)
    sizes = {"head": (m.head_dim,) * 2, "queries": (m.head_dim,), "full": each, "each": each}
    widths = sizes.get(m.qk_norm, ())
    if m.qk_norm == "each_apart":
        heads = (m.num_attention_heads, m.num_key_value_heads)
        found += [NormVectors(name, m.head_dim, count) for name, count in zip(HEAD_NORMS, heads, strict=True)]
    if m.kv_lora_rank:
        widths = (m.q_lora_rank, m.kv_lora_rank)
    found += [NormVectors(name, width, 1) for name, width in zip(HEAD_NORMS, widths, strict=False) if width]
    if m.attention_sinks:
        found.append(NormVectors(SINKS, m.num_attention_heads, 1))
    return tuple(found)


@lru_cache(maxsize=256)
def own_parameters(m: ModelSpec) -> dict[str, Parameter]:
    """A layer's parameters that belong to no linear layer or norm: of its mixer, routers, experts, an activation's.

    bitsandbytes does not quantize them. Llama 4's and Phi's routers are linear layers of a class that it passes over.
    """
    mixing = {} if m.mixer == "attention" else dict(MIXERS[m.mixer](m).own)
    if m.crosses:
        mixing |= {"attention_gate": Parameter((1,)), "mlp_gate": Parameter((1,))}
    if m.index_heads:
        vector = Parameter((m.index_head_dim,), fixed=True)
        mixing |= {"index_norm": vector, "index_norm_bias": vector}
    return mixing | _own_of_mlp(m)


def _own_of_mlp(m: ModelSpec) -> dict[str, Parameter]:
    count, h, inner = m.num_experts, m.hidden_size, m.expert_size or m.intermediate_size
    if m.activation == "xielu":
        return {"alpha_p": Parameter((1,)), "alpha_n": Parameter((1,))}
    if m.mlp == "llama4_experts":
        return {
            "router": Parameter((count, h)),
            "gate_up": Parameter((count, h, 2 * inner)),
            "down": Parameter((count, inner, h)),
        }
    if m.mlp == "oss_experts":
        shapes = (count, h), (count,), (count, h, 2 * inner), (count, 2 * inner), (count, inner, h), (count, h)
        return dict(zip(OSS_PARAMETERS, map(Parameter, shapes), strict=True))
    if m.streams is not None:
        return {OUTPUT_SCALE: Parameter((h,))}
    if m.mlp != "experts":
        return {}
    width = m.expert_latent or h
    found = {
        "gate_up": Parameter((count, (1 + m.expert_gated) * inner, width)),
        "down": Parameter((count, width, inner)),
    }
    if m.experts == "linears":
        found = {}
    quirks = architecture_of(m.architecture)
    if quirks.experts_beside_mlp:
        return found | {"router_scale": Parameter((h,)), "expert_scale": Parameter((count,))}
    if quirks.balancing_bias == "base_parameter":
        found["router_bias"] = Parameter((count,), fixed=True)
    if m.router_linear:
        return found
    found = {"router": Parameter((count, h), wide=quirks.router_in_float), **found}
    if quirks.balancing_bias == "parameter":
        found["router_bias"] = Parameter((1, count), wide=True, fixed=True)
    return found


def own_dtype(p: Parameter, other: str) -> str:
    """Its dtype, where `other` is that of the weights that are not quantized."""
    return "float32" if p.wide else other


@lru_cache(maxsize=256)
def outer_linears(m: ModelSpec) -> dict[str, LinearShape]:
    """The linear layers around the decoder layers, the head apart.

    From narrower embeddings and back, what layers get of each token, and the layer before an encoder's head.
    """
    if m.bidirectional and m.task != "embeddings":
        h, name = m.hidden_size, architecture_of(m.architecture).transform_name
        if m.task == "classification":
            name = classifier_of(model_type=m.architecture).inner
        return {name: LinearShape(name=name, in_features=h, out_features=h, bias=m.transform_bias)}
    found = further_outer_linears(m)
    if m.token_size != m.hidden_size:
        found.append(LinearShape(name="project_in", in_features=m.token_size, out_features=m.hidden_size))
        found.append(LinearShape(name="project_out", in_features=m.hidden_size, out_features=m.token_size))
    return {shape.name: shape for shape in found}


def transforms_head(m: ModelSpec) -> bool:
    """Whether a linear layer, an activation and a norm come before the head."""
    return m.task == "masked_tokens" or (
        m.task == "classification" and m.bidirectional and classifier_of(model_type=m.architecture).normed
    )


@lru_cache(maxsize=256)
def head_linear(m: ModelSpec) -> LinearShape:
    """The output embedding, which has the same name in all decoders of transformers 5, or the scores of a row."""
    if m.task == "classification":
        name = classifier_of(model_type=m.architecture).head
        return LinearShape(name=name, in_features=m.token_size, out_features=m.labels, bias=m.bidirectional)
    name = architecture_of(m.architecture).head_name
    return LinearShape(name=name, in_features=m.token_size, out_features=m.vocab_size, bias=m.lm_head_bias)


class OuterParameter(NamedTuple):
    """A parameter around the decoder layers, and how often it occurs."""

    shape: tuple[int, ...]
    times: int
    part: Literal["tokens", "head", "layer tokens", "positions", "scores", "head bias", "norms"]


def outer_parameters(m: ModelSpec) -> list[OuterParameter]:
    """The parameters around the decoder layers outside of `outer_linears`.

    Tokens and head: one tensor where they are tied; what every layer gets of a token;
    positions, and token types with them; the norms before and after.
    """
    vectors = (int(m.norm_weight) + int(m.norm_bias)) * (
        int(m.final_norm) + int(m.embedding_norm) + int(transforms_head(m))
    )
    found = [
        OuterParameter((m.embedding_rows, m.token_size), 1, "tokens"),
        OuterParameter((m.vocab_size, m.token_size), int(not m.tie_word_embeddings), "head"),
        OuterParameter(layer_table(m), int(m.layer_input_size > 0), "layer tokens"),
        OuterParameter((m.position_rows, m.hidden_size), int(m.position == "learned"), "positions"),
        OuterParameter((m.token_types, m.hidden_size), int(m.token_types > 0), "positions"),
        OuterParameter((m.vocab_size,), int(m.lm_head_bias), "head bias"),
        OuterParameter((m.labels, m.token_size), int(m.labels > 0), "scores"),
        OuterParameter((m.labels,), int(m.labels > 0 and m.bidirectional), "head bias"),
        OuterParameter((m.hidden_size,), vectors, "norms"),
        OuterParameter((m.layer_input_size,), int(m.layer_input_size > 0), "norms"),
    ]
    return [one for one in found if one.times]


def layer_parameter_count(m: ModelSpec) -> int:
    """Parameters of one decoder layer."""
    linears = sum(s.weight_count + (s.out_features if s.bias else 0) for s in layer_linears(m).values())
    norms = sum(n.width * n.vectors for n in layer_norms(m))
    return linears + norms + sum(prod(p.shape) for p in own_parameters(m).values())


def parameter_count(m: ModelSpec) -> int:
    """All parameters, tied embeddings counted once: what `sum(p.numel() for p in model.parameters())` gives."""
    expect("model", m, ModelSpec)
    count = sum(prod(one.shape) * one.times for one in outer_parameters(m))
    count += sum(shape.weight_count + shape.bias * shape.out_features for shape in outer_linears(m).values())
    if m.vision is not None:
        from advisor.parameters.towers import tower_parameter_count

        count += tower_parameter_count(m.vision)
    return count + sum(layers * layer_parameter_count(part) for part, layers in layer_groups(m))
