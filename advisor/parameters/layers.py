"""Which kinds of layers a model has, how many of each, and the model as a layer of each kind sees it."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import NamedTuple

from advisor.specs import ATTENDING, Mixer, ModelSpec


class Kind(NamedTuple):
    """What decides which parameters a layer has."""

    dense: bool  # no experts, in a model whose other layers have some
    sliding: bool  # uses the sliding window
    mixer: Mixer = "attention"
    chooses: bool = True  # the tokens that it attends to, in a model whose other layers take over its choice
    shares: bool = False  # takes keys and values from a layer before
    unnormed: bool = False  # lacks the norm before attention that others have
    crosses: bool = False  # attends to what the tower makes of images


def sliding_flags(m: ModelSpec) -> tuple[bool, ...]:
    """For each layer, whether it uses the sliding window."""
    return m.sliding_layers or (bool(m.sliding_window),) * m.num_hidden_layers


def dense_flags(m: ModelSpec) -> tuple[bool, ...]:
    """For each layer, whether it lacks the experts that others have."""
    return tuple(not expert for expert in m.expert_layers) or (False,) * m.num_hidden_layers


def mixers_of(m: ModelSpec) -> tuple[Mixer, ...]:
    """For each layer, what mixes its tokens."""
    return m.mixers or (m.mixer,) * m.num_hidden_layers


def attends_anywhere(m: ModelSpec) -> bool:
    """Whether any layer has attention."""
    return any(mixer in ATTENDING for mixer in mixers_of(m))


def choosing_flags(m: ModelSpec) -> tuple[bool, ...]:
    """For each layer, whether it chooses itself the tokens that it attends to."""
    return m.choosing_layers or (True,) * m.num_hidden_layers


def sharing_flags(m: ModelSpec) -> tuple[bool, ...]:
    """For each layer, whether it takes keys and values from a layer before."""
    own = m.num_hidden_layers - m.kv_shared_layers
    return (False,) * own + (True,) * m.kv_shared_layers


@lru_cache(maxsize=256)
def kinds_of(m: ModelSpec) -> tuple[Kind, ...]:
    """The kind of every layer, in order."""
    unnormed = [m.attention_norm == "after_first" and not i for i in range(m.num_hidden_layers)]
    crossing = m.cross_layers or (False,) * m.num_hidden_layers
    flags = dense_flags(m), sliding_flags(m), mixers_of(m), choosing_flags(m), sharing_flags(m), unnormed, crossing
    return tuple(map(Kind, *flags))


def least_layers(m: ModelSpec) -> int:
    """The fewest first layers that hold one with experts and one of each mixer, where only some have them."""
    mixers = mixers_of(m)
    return 1 + max(dense_flags(m).index(False), *(mixers.index(mixer) for mixer in set(mixers)))


@lru_cache(maxsize=256)
def part_of(m: ModelSpec, kind: Kind) -> ModelSpec:
    """The model as a layer of that kind sees it: a model with only such layers."""
    changes: dict[str, object] = {}
    if m.mixers:
        changes |= {"mixer": kind.mixer, "mixers": ()}
        if kind.mixer != "attention" and m.mixer_norm_placement:
            changes["norm_placement"] = m.mixer_norm_placement
    if m.cross_layers:
        changes |= {"cross_layers": (True,), "qk_norm": "head"} if kind.crosses else {"cross_layers": ()}
    if m.choosing_layers:
        changes |= {"index_heads": m.index_heads if kind.chooses else 0, "choosing_layers": ()}
    if m.sinks_slide:
        changes |= {"attention_sinks": kind.sliding, "sinks_slide": False}
    if m.attention_norm == "after_first":
        changes["attention_norm"] = "none" if kind.unnormed else "every"
    if kind.dense or (m.one_block and kind.mixer != "none"):
        mlp = "gated" if not m.one_block else "plain" if kind.mixer == "none" else "none"
        changes |= {"mlp": mlp, "num_experts": 0, "shared_expert_size": 0, "expert_layers": ()}
    if m.global_head_dim and not kind.sliding:
        changes |= {
            "head_dim": m.global_head_dim,
            "num_key_value_heads": m.global_key_value_heads,
            "global_head_dim": 0,
            "global_key_value_heads": 0,
        }
        if m.keys_are_values:
            changes["qkv_names"] = m.qkv_names[:2]
    if kind.shares:
        inner = m.intermediate_size * (2 if m.wide_where_shared else 1)
        changes |= {"qkv_names": m.qkv_names[:1], "qk_norm": "queries", "intermediate_size": inner}
        if m.shared_expert_size:
            changes["shared_expert_size"] = inner
    return m.model_copy(update=changes) if changes else m


@lru_cache(maxsize=256)
def layer_groups(m: ModelSpec, begin: int = 0, end: int | None = None) -> tuple[tuple[ModelSpec, int], ...]:
    """The model as each group of equal layers sees it, and how many layers are in the group.

    Of all layers, or of those from `begin` up to `end`.
    """
    apart = m.mixers or m.choosing_layers or m.kv_shared_layers or m.sinks_slide or m.cross_layers
    apart = apart or m.attention_norm == "after_first"
    if not (m.expert_layers or m.global_head_dim or apart):
        count = len(range(m.num_hidden_layers)[begin:end])
        return ((m, count),) if count else ()
    groups: Counter[ModelSpec] = Counter()
    for kind, count in Counter(kinds_of(m)[begin:end]).items():
        groups[part_of(m, kind)] += count
    return tuple(groups.items())
