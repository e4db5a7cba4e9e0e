"""The parts of a config.json that mixtures of experts spell alike."""

from __future__ import annotations

from typing import NamedTuple

from advisor.architectures import architecture_of
from advisor.catalog.families.sizes import Structure, expert_layers
from advisor.catalog.fields import Fields

MAX_EXPERTS = 100_000


class ExpertDefaults(NamedTuple):
    """A config class's defaults; 0 where it has none and the file must say."""

    experts: int
    per_token: int
    width: int
    shared: int


def chosen_experts(
    f: Fields, count_keys: tuple[str, ...], count: int, chosen_keys: tuple[str, ...], chosen: int
) -> Structure:
    """How many experts a layer has and how many a token goes through; a default of 0 must be given."""
    experts = needed(f, f.key_of(*count_keys), count, "how many experts does a layer have?", MAX_EXPERTS)
    key = f.key_of(*chosen_keys)
    per_token = needed(f, key, chosen, "how many experts does a token go to?", MAX_EXPERTS)
    if per_token > experts:
        raise f.bad(key, f"is {per_token}: there are {experts} experts")
    return {"num_experts": experts, "experts_per_token": per_token}


def needed(f: Fields, key: str, default: int, question: str, maximum: int) -> int:
    """A whole number that must be there when `default` is 0."""
    if not default and not f.has(key):
        raise f.bad(key, f"is missing: {question}")
    return f.size(key, default, maximum=maximum)


def balance(f: Fields, model_type: str, s: Structure, wrapped: bool) -> Structure:
    """Whether a mixture's config asks for the loss that balances its experts.

    Raises UnsupportedArchitecture where its code would collect the routers' logits and make no loss of them, or fail;
    `wrapped`: that of a multimodal model, which reads no more than an argument of its forward.
    """
    balances, experts = architecture_of(model_type).balances_experts, s.get("num_experts", 0)
    if not (balances or experts) or not f.flag("output_router_logits", False):
        return {}
    if wrapped or not (balances and experts):
        raise f.unsupported("output_router_logits", "logits of routers that its code makes no loss of")
    return {"balanced": True}


def deepseek_mixture(f: Fields, s: Structure, first: int, d: ExpertDefaults) -> Structure:
    """DeepSeek's experts, in the layers from `first` on."""
    layers = s["num_hidden_layers"]
    if first >= layers:
        return s
    if s.get("mlp_bias"):
        raise f.unsupported("mlp_bias", "shared experts with biases")
    keys = ("n_routed_experts", "num_experts", "num_local_experts")
    width = f.size("moe_intermediate_size", d.width)
    shared = needed(f, "n_shared_experts", d.shared, "how many experts do all tokens share?", 1_000)
    return {
        **s,
        "mlp": "experts",
        **chosen_experts(f, keys, d.experts, ("num_experts_per_tok",), d.per_token),
        "expert_size": width,
        **expert_layers([i >= first for i in range(layers)]),
        "shared_expert_size": width * shared,
    }
