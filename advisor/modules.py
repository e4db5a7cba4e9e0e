"""Which parameters a decoder has: the linear layers, norms and embeddings that its code builds.

One table for everybody: parameter counts, adapters, quantisation and the tape all read it.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import NamedTuple

from advisor.errors import BadValue, UnknownName
from advisor.specs import LinearShape, Model, ModelSpec, Recipe

SINKS = "sinks"
"""The attention's sinks, counted with the norms: a learnt vector as they are."""

FUSED_EXPERTS = frozenset({"deepseek_v2", "deepseek_v3", "mixtral", "olmoe", "qwen3_moe"})
"""peft takes the gate, up and down projections of these for parts of fused experts: no dense MLP gets an adapter.

With 'all-linear' it adapts router and fused experts themselves, but not by DoRA and not with dropout.

Source: peft 0.21, utils/transformers_weight_conversion.py, _convert_peft_config_moe.
"""

EXPERT_PARAMETERS = ("router", "gate_up", "down")
"""What `own_parameters` holds for a mixture of gated experts."""

UNGATED_SHARED = frozenset({"deepseek_v2", "deepseek_v3"})
"""The output of their shared expert is added as it is."""

LLAMA4_ROUTER = ("peft 0.21 fails on Llama 4's router, which returns two tensors; ask for 'attention' or name modules,"
                 " for example q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj")

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
    if m.kv_lora_rank:
        found = _latent_linears(m)
    elif m.fused_qkv:
        found = [linear(m.qkv_names[0], h, m.q_size + 2 * m.kv_size, m.qkv_bias)]
    else:
        sizes = (m.q_size, m.kv_size, m.kv_size)
        found = [linear(n, h, size, m.qkv_bias) for n, size in zip(m.qkv_names, sizes, strict=True)]
    found.append(linear(m.out_name, m.attended_size, h, m.attention_out_bias))
    if m.mlp == "oss_experts":
        return {shape.name: shape for shape in found}
    if m.mlp == "experts":
        return {shape.name: shape for shape in (*found, *_shared_expert_linears(m))}
    if m.mlp in ("gated", "llama4_experts"):
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


def _shared_expert_linears(m: ModelSpec) -> list[LinearShape]:
    """The expert that every token goes through, and the gate on its output."""
    h, inner = m.hidden_size, m.shared_expert_size
    if not inner:
        return []
    gate, up, down = m.mlp_names
    found = [
        LinearShape(name=gate, in_features=h, out_features=inner),
        LinearShape(name=up, in_features=h, out_features=inner),
        LinearShape(name=down, in_features=inner, out_features=h),
    ]
    if m.architecture not in UNGATED_SHARED:
        found.append(LinearShape(name="shared_expert_gate", in_features=h, out_features=1))
    return found


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


@lru_cache(maxsize=256)
def layer_norms(m: ModelSpec) -> tuple[Norm, ...]:
    """The norms of one decoder layer, and the sinks of its attention."""
    vectors = int(m.norm_weight) + int(m.norm_bias)
    count = {"pre": 2, "sandwich": 4, "post": 2, "parallel_one": 1, "parallel_two": 2}[m.norm_placement]
    found = [Norm(f"norm_{i}", m.hidden_size, vectors) for i in range(count)]
    each = (m.q_size, m.kv_size)
    widths = {"none": (), "head": (m.head_dim, m.head_dim), "full": each, "each": each}.get(m.qk_norm, ())
    if m.qk_norm == "each_apart":
        heads = (m.num_attention_heads, m.num_key_value_heads)
        found += [Norm(name, m.head_dim, count) for name, count in zip(HEAD_NORMS, heads, strict=True)]
    if m.kv_lora_rank:
        widths = (m.q_lora_rank, m.kv_lora_rank)
    found += [Norm(name, width, 1) for name, width in zip(HEAD_NORMS, widths, strict=False) if width]
    if m.attention_sinks:
        found.append(Norm(SINKS, m.num_attention_heads, 1))
    return tuple(found)


@lru_cache(maxsize=256)
def own_parameters(m: ModelSpec) -> tuple[tuple[int, ...], ...]:
    """Shapes of a layer's parameters that stand in no linear layer or norm: routers and fused experts.

    bitsandbytes does not quantise them. Llama 4's router is a linear layer whose class it does not replace.
    """
    count, h, inner = m.num_experts, m.hidden_size, m.intermediate_size
    if m.mlp == "experts":
        return (count, h), (count, 2 * m.expert_size, h), (count, h, m.expert_size)
    if m.mlp == "llama4_experts":
        return (count, h), (count, h, 2 * inner), (count, inner, h)
    if m.mlp != "oss_experts":
        return ()
    return ((count, h), (count,), (count, h, 2 * inner), (count, 2 * inner), (count, inner, h), (count, h))


def last_norm(m: ModelSpec) -> Norm:
    """The norm after the last layer, and with it the one after the embedding where there is one."""
    return Norm("final_norm", m.hidden_size, (int(m.norm_weight) + int(m.norm_bias)) * (2 if m.embedding_norm else 1))


def layer_parameter_count(m: ModelSpec) -> int:
    """Parameters of one decoder layer."""
    linears = sum(s.weight_count + (s.out_features if s.bias else 0) for s in layer_linears(m).values())
    return linears + sum(n.width * n.vectors for n in layer_norms(m)) + sum(map(prod, own_parameters(m)))


def parameter_count(m: ModelSpec) -> int:
    """All parameters, tied embeddings counted once: what `sum(p.numel() for p in model.parameters())` gives."""
    embedding = m.vocab_size * m.hidden_size
    count = embedding * (1 if m.tie_word_embeddings else 2)
    if m.lm_head_bias:
        count += m.vocab_size
    if m.position == "learned":
        count += m.position_rows * m.hidden_size
    last = last_norm(m)
    count += last.width * last.vectors
    return count + sum(layers * layer_parameter_count(part) for part, layers in layer_groups(m))


@lru_cache(maxsize=256)
def layer_groups(m: ModelSpec) -> tuple[tuple[ModelSpec, int], ...]:
    """The model as each group of equal layers knows it, and how many layers are in the group."""
    if not m.dense_layers:
        return ((m, m.num_hidden_layers),)
    return (dense_part(m), m.dense_layers), (m, m.num_hidden_layers - m.dense_layers)


@lru_cache(maxsize=256)
def dense_part(m: ModelSpec) -> ModelSpec:
    """The model as its layers without experts know it."""
    return m.model_copy(update={"mlp": "gated", "num_experts": 0, "shared_expert_size": 0, "dense_layers": 0})


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
    if m.architecture in FUSED_EXPERTS:
        names = {name: shape for name, shape in names.items() if name not in m.mlp_names}
    if target_modules == ("all-linear",):
        if m.mlp == "llama4_experts":
            raise BadValue("target modules", "all-linear", LLAMA4_ROUTER)
        return frozenset(names)
    if target_modules == ("attention",):
        return frozenset(attention_names(m))
    for name in target_modules:
        if name not in names:
            raise UnknownName("target module", name, names, hint=f"{m.name} has {', '.join(names)}")
    return frozenset(target_modules)


def default_targets(m: Model) -> tuple[str, ...]:
    """What is adapted when nothing is asked for: every linear layer, or the attention's where peft fails on that."""
    return ("attention",) if isinstance(m, ModelSpec) and m.mlp == "llama4_experts" else ("all-linear",)


def same_layers(m: Model) -> bool:
    """Whether LoRA and DoRA adapt the same layers by default: peft's DoRA does not reach fused experts."""
    return not (isinstance(m, ModelSpec) and m.mlp == "experts" and m.architecture in FUSED_EXPERTS)


def adapts_experts(m: ModelSpec, target_modules: tuple[str, ...], dora: bool, dropout: float) -> bool:
    """Whether peft adapts the fused experts; it refuses to where the recipe asks for DoRA or dropout."""
    known = m.mlp == "experts" and m.architecture in FUSED_EXPERTS
    return known and target_modules == ("all-linear",) and not dora and not dropout


def spelt_targets(m: ModelSpec, recipe: Recipe) -> tuple[str, ...]:
    """The recipe's targets as peft must be told: by name where its 'all-linear' would reach experts and be refused."""
    fused = m.mlp == "experts" and m.architecture in FUSED_EXPERTS
    if fused and recipe.target_modules == ("all-linear",) and (recipe.is_dora or recipe.dropout):
        return tuple(name for name in layer_linears(m) if name in resolve_targets(m, recipe.target_modules))
    return recipe.target_modules


Pair = tuple[tuple[int, int], tuple[int, int]]


def _expert_adapter_shapes(m: ModelSpec, rank: int) -> dict[str, Pair]:
    """Shapes of A and B for router, gate_up (whose rank is doubled, for it holds two projections) and down."""
    count, h, inner = m.num_experts, m.hidden_size, m.expert_size
    return {
        "router": ((rank, h), (count, rank)),
        "gate_up": ((count * 2 * rank, h), (2 * inner, count * 2 * rank)),
        "down": ((count * rank, inner), (h, count * rank)),
    }


def expert_adapters(m: ModelSpec, recipe: Recipe, rank: int) -> dict[str, Pair]:
    """Shapes of A and B of each adapted parameter of a layer's experts; empty where peft adapts none.

    Source: peft 0.21, utils/transformers_weight_conversion.py and tuners/lora/layer.py, ParamWrapper.
    """
    if not recipe.has_adapters or not adapts_experts(m, recipe.target_modules, recipe.is_dora, recipe.dropout):
        return {}
    return _expert_adapter_shapes(m, rank)


def adapter_parameter_count(m: ModelSpec, target_modules: tuple[str, ...], rank: int, dora: bool) -> int:
    """Parameters that LoRA adds, rank * (in + out) per adapted linear layer; DoRA adds out more (its magnitude).

    Source: Hu et al. 2021, arXiv:2106.09685, section 4.1; Liu et al. 2024, arXiv:2402.09353, section 4.1.
    """
    total = 0
    for part, layers in layer_groups(m):
        linears = layer_linears(part)
        per_layer = sum(
            rank * (linears[n].in_features + linears[n].out_features) + (linears[n].out_features if dora else 0)
            for n in resolve_targets(part, target_modules)
        )
        if adapts_experts(part, target_modules, dora, 0.0):
            per_layer += sum(prod(a) + prod(b) for a, b in _expert_adapter_shapes(part, rank).values())
        total += per_layer * layers
    return total
