"""Which parameters a decoder has: the linear layers, norms and embeddings that its code builds.

One table for everybody: parameter counts, adapters, quantisation and the tape all read it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from advisor.errors import UnknownName
from advisor.specs import LinearShape, ModelSpec

HEAD_NORMS = ("q_norm", "k_norm")
"""Norms of queries and keys, where a model has them."""


class Norm(NamedTuple):
    """A norm of `width` features and how many learnt vectors of that width it has (0, 1 or 2)."""

    name: str
    width: int
    vectors: int


@lru_cache(maxsize=256)
def layer_linears(m: ModelSpec) -> dict[str, LinearShape]:
    """The linear layers of one decoder layer by name, in the order in which the forward calls them."""

    def linear(name: str, in_features: int, out_features: int, bias: bool) -> LinearShape:
        return LinearShape(name=name, in_features=in_features, out_features=out_features, bias=bias)

    h, inner = m.hidden_size, m.intermediate_size
    if m.fused_qkv:
        found = [linear(m.qkv_names[0], h, m.q_size + 2 * m.kv_size, m.qkv_bias)]
    else:
        sizes = (m.q_size, m.kv_size, m.kv_size)
        found = [linear(n, h, size, m.qkv_bias) for n, size in zip(m.qkv_names, sizes, strict=True)]
    found.append(linear(m.out_name, m.q_size, h, m.attention_out_bias))
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
    return {shape.name: shape for shape in found}


@lru_cache(maxsize=256)
def layer_norms(m: ModelSpec) -> tuple[Norm, ...]:
    """The norms of one decoder layer."""
    vectors = int(m.norm_weight) + int(m.norm_bias)
    count = {"pre": 2, "sandwich": 4, "post": 2, "parallel_one": 1, "parallel_two": 2}[m.norm_placement]
    found = [Norm(f"norm_{i}", m.hidden_size, vectors) for i in range(count)]
    widths = {"none": (), "head": (m.head_dim, m.head_dim), "full": (m.q_size, m.kv_size)}[m.qk_norm]
    found += [Norm(name, width, 1) for name, width in zip(HEAD_NORMS, widths, strict=False)]
    return tuple(found)


def last_norm(m: ModelSpec) -> Norm:
    """The norm after the last layer."""
    return Norm("final_norm", m.hidden_size, int(m.norm_weight) + int(m.norm_bias))


def layer_parameter_count(m: ModelSpec) -> int:
    """Parameters of one decoder layer."""
    linears = sum(s.weight_count + (s.out_features if s.bias else 0) for s in layer_linears(m).values())
    return linears + sum(n.width * n.vectors for n in layer_norms(m))


def parameter_count(m: ModelSpec) -> int:
    """All parameters, tied embeddings counted once: what `sum(p.numel() for p in model.parameters())` gives."""
    embedding = m.vocab_size * m.hidden_size
    count = embedding * (1 if m.tie_word_embeddings else 2)
    if m.lm_head_bias:
        count += m.vocab_size
    if m.position == "learned":
        count += m.max_position_embeddings * m.hidden_size
    last = last_norm(m)
    count += last.width * last.vectors
    return count + m.num_hidden_layers * layer_parameter_count(m)


def attention_names(m: ModelSpec) -> tuple[str, ...]:
    """The linear layers of the attention block."""
    return (*m.qkv_names, m.out_name)


@lru_cache(maxsize=1024)
def resolve_targets(m: ModelSpec, target_modules: tuple[str, ...]) -> frozenset[str]:
    """Names of the linear layers that get an adapter.

    'all-linear' is every linear layer but the output embedding, as in peft; 'attention' those of the attention.
    Raises UnknownName for a module that the model does not have.
    """
    names = layer_linears(m)
    if target_modules == ("all-linear",):
        return frozenset(names)
    if target_modules == ("attention",):
        return frozenset(attention_names(m))
    for name in target_modules:
        if name not in names:
            raise UnknownName("target module", name, names, hint=f"{m.name} has {', '.join(names)}")
    return frozenset(target_modules)


def adapter_parameter_count(m: ModelSpec, target_modules: tuple[str, ...], rank: int, dora: bool) -> int:
    """Parameters that LoRA adds, rank * (in + out) per adapted linear layer; DoRA adds out more (its magnitude).

    Source: Hu et al. 2021, arXiv:2106.09685, section 4.1; Liu et al. 2024, arXiv:2402.09353, section 4.1.
    """
    linears = layer_linears(m)
    per_layer = sum(
        rank * (linears[n].in_features + linears[n].out_features) + (linears[n].out_features if dora else 0)
        for n in resolve_targets(m, target_modules)
    )
    return per_layer * m.num_hidden_layers
