"""The parts of a config.json that most families spell alike: sizes, heads, RoPE, sliding windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from advisor.catalog.fields import Fields

Structure = dict[str, Any]
Family = Callable[[Fields], Structure]

MAX_LAYERS = 1_000
MAX_HEADS = 10_000
MAX_HEAD_DIM = 100_000
MAX_POSITIONS = 1_000_000_000

_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_new",
    "gelu_fast": "gelu_fast",
    "relu": "relu",
    "relu2": "relu2",
}


class Defaults(NamedTuple):
    """A config class's defaults. `kv_heads` 0 = as many as heads; `head_dim` 0 = hidden_size / heads."""

    vocab: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    positions: int
    kv_heads: int = 0
    head_dim: int = 0
    tied: bool = False
    activation: str = "silu"


def sizes(f: Fields, d: Defaults, *, explicit_head_dim: bool = True, must_divide: bool = False) -> Structure:
    """Sizes, vocabulary and tying, which most families spell alike.

    `explicit_head_dim`: the code reads `head_dim`; `must_divide`: the config class refuses a hidden_size that
    is not a multiple of the heads even when head_dim is given.
    """
    hidden = f.size("hidden_size", d.hidden)
    heads = f.size("num_attention_heads", d.heads, maximum=MAX_HEADS)
    given = explicit_head_dim and (f.has("head_dim") or d.head_dim > 0)
    if hidden % heads and (must_divide or not given):
        raise f.bad("num_attention_heads", f"is {heads}: hidden_size {hidden} is not a multiple of it")
    head_dim = (
        f.optional_size("head_dim", d.head_dim or hidden // heads, maximum=MAX_HEAD_DIM) if given else hidden // heads
    )
    return {
        "hidden_size": hidden,
        "intermediate_size": f.size("intermediate_size", d.intermediate),
        "num_hidden_layers": f.size("num_hidden_layers", d.layers, maximum=MAX_LAYERS),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads(f, "num_key_value_heads", heads, d.kv_heads or heads),
        "head_dim": head_dim,
        "vocab_size": f.size("vocab_size", d.vocab),
        "max_position_embeddings": f.size("max_position_embeddings", d.positions, maximum=MAX_POSITIONS),
        "tie_word_embeddings": f.flag("tie_word_embeddings", d.tied),
        "activation": activation(f, "hidden_act", d.activation),
        "attention_dropout": f.number("attention_dropout", 0.0),
    }


def kv_heads(f: Fields, key: str, heads: int, default: int) -> int:
    """Key/value heads; null means one per query head. They must divide the query heads."""
    found = heads if f.is_null(key) else f.size(key, default, maximum=MAX_HEADS)
    if heads % found:
        raise f.bad(key, f"is {found}: it must divide the {heads} attention heads")
    return found


def activation(f: Fields, key: str, default: str) -> str:
    """The activation as ModelSpec names it. Raises UnsupportedArchitecture."""
    name = f.text(key, default)
    if name not in _ACTIVATIONS:
        raise f.unsupported(key, f"the activation {name[:40]!r}")
    return _ACTIVATIONS[name]


def rope(f: Fields, s: Structure, factor: float = 1.0) -> Structure:
    """The rotated part of a head: `factor` of it, which must be an even number of features."""
    head_dim: int = s["head_dim"]
    rotated = int(head_dim * factor)
    if rotated < 2 or rotated % 2:
        raise f.bad("head_dim", f"is {head_dim}, of which RoPE rotates {rotated} features: that must be an even number")
    return {**s, "position": "rope", "rotary_dim": 0 if rotated == head_dim else rotated}


def rotary_factor(f: Fields, default: float, old_key: str = "partial_rotary_factor") -> float:
    """`partial_rotary_factor`, which newer files keep in `rope_parameters`."""
    for part in ("rope_scaling", "rope_parameters"):
        inner = f.part(part)
        if inner.has("partial_rotary_factor"):
            return inner.number("partial_rotary_factor", default)
    return f.number(old_key, default)


def window(f: Fields, default: int) -> int:
    """`sliding_window` in tokens; null is no window."""
    return 0 if f.is_null("sliding_window") else f.size("sliding_window", default, maximum=MAX_POSITIONS)


def sliding_layers(f: Fields, layers: int, pattern: Callable[[int], bool]) -> list[bool]:
    """Which layers look through the sliding window: `layer_types`, or `pattern` of the layer's index."""
    if not f.has("layer_types"):
        return [pattern(i) for i in range(layers)]
    types = f.items("layer_types")
    if len(types) != layers:
        raise f.bad("layer_types", f"has {len(types)} entries for {layers} layers")
    for kind in types:
        if kind not in ("full_attention", "sliding_attention"):
            raise f.unsupported("layer_types", f"{str(kind)[:40]!r} layers")
    return [kind == "sliding_attention" for kind in types]


def windowed(size: int, slides: list[bool]) -> Structure:
    """The window of a model in which some layers slide, and which layers those are if not all."""
    if not size or not any(slides):
        return {}
    return {"sliding_window": size, "sliding_layers": () if all(slides) else tuple(slides)}


def every_nth(f: Fields, key: str, flags: list[bool]) -> int:
    """The n for which exactly every n-th of `flags` is set; 0 when none is. Raises UnsupportedArchitecture."""
    if not any(flags):
        return 0
    n = flags.index(True) + 1
    if flags != [(i + 1) % n == 0 for i in range(len(flags))]:
        raise f.unsupported(key, "layers without RoPE at irregular places")
    return n


def expert_layers(flags: list[bool]) -> Structure:
    """Which layers have experts, if not all do."""
    return {} if all(flags) else {"expert_layers": tuple(flags)}
