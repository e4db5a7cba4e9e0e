"""The parameters of layers that mix tokens without attention: one function for each kind of mixer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from advisor.specs import LinearShape, Mixer, ModelSpec, Recurrence


class Parameter(NamedTuple):
    """A parameter outside of linear layers and norms. `wide`: in fp32 whatever the base; `fixed`: never trained."""

    shape: tuple[int, ...]
    wide: bool = False
    fixed: bool = False


class MixerParameters(NamedTuple):
    """What one kind of mixer has: its linear layers in the order of the forward, and its other parameters by name."""

    linears: tuple[LinearShape, ...]
    own: Mapping[str, Parameter]
    norm_width: int = 0  # of the norm that its output goes through; 0 = none


def recurrence_of(m: ModelSpec) -> Recurrence:
    """The sizes of its mixers. ValueError for a model that has none."""
    if m.recurrence is None:
        raise ValueError(f"{m.name} mixes tokens by attention alone")
    return m.recurrence


def _conv(m: ModelSpec) -> MixerParameters:
    """LFM2's gated short convolution. Source: transformers 5.23, models/lfm2/modeling_lfm2.py, Lfm2ShortConv."""
    h, sizes = m.hidden_size, recurrence_of(m)
    linears = (
        LinearShape(name="in_proj", in_features=h, out_features=3 * h, bias=sizes.conv_bias),
        LinearShape(name="out_proj", in_features=h, out_features=h, bias=sizes.conv_bias),
    )
    return MixerParameters(linears, convolution(h, sizes))


def convolution(channels: int, sizes: Recurrence) -> dict[str, Parameter]:
    """The causal convolution of each channel by itself."""
    found = {"conv": Parameter((channels, 1, sizes.conv_size))}
    return found | ({"conv_bias": Parameter((channels,))} if sizes.conv_bias else {})


def _delta(m: ModelSpec) -> MixerParameters:
    """Qwen 3.5's gated delta rule. Source: models/qwen3_5/modeling_qwen3_5.py, Qwen3_5GatedDeltaNet."""
    sizes = recurrence_of(m)
    widths = {
        "in_proj_qkv": 2 * sizes.key_size + sizes.value_size,
        "in_proj_z": sizes.value_size,
        "in_proj_b": sizes.value_heads,
        "in_proj_a": sizes.value_heads,
    }
    return _rule(m, widths, "out_proj")


def _delta_fused(m: ModelSpec) -> MixerParameters:
    """Qwen 3 Next's. Source: models/qwen3_next/modeling_qwen3_next.py, Qwen3NextGatedDeltaNet."""
    sizes = recurrence_of(m)
    widths = {"in_proj_qkvz": 2 * sizes.key_size + 2 * sizes.value_size, "in_proj_ba": 2 * sizes.value_heads}
    return _rule(m, widths, "out_proj")


def _delta_apart(m: ModelSpec) -> MixerParameters:
    """OLMo Hybrid's. Source: models/olmo_hybrid/modeling_olmo_hybrid.py, OlmoHybridGatedDeltaNet."""
    sizes = recurrence_of(m)
    widths = dict.fromkeys(("q_proj", "k_proj"), sizes.key_size) | {"v_proj": sizes.value_size}
    widths |= {"g_proj": sizes.value_size, "b_proj": sizes.value_heads, "a_proj": sizes.value_heads}
    return _rule(m, widths, "o_proj")


def _kda(m: ModelSpec) -> MixerParameters:
    """Kimi's. Source: models/kimi_linear/modeling_kimi_linear.py, KimiLinearDeltaAttention and KimiLinearForgetGate."""
    h, sizes = m.hidden_size, recurrence_of(m)
    width, all_heads = sizes.key_dim, sizes.key_size
    shapes = dict.fromkeys(("q_proj", "k_proj", "v_proj"), (h, all_heads))
    shapes |= {"f_a_proj": (h, width), "f_b_proj": (width, all_heads), "b_proj": (h, sizes.key_heads)}
    shapes |= {"g_a_proj": (h, width), "g_b_proj": (width, all_heads), "o_proj": (all_heads, h)}
    linears = [LinearShape(name=name, in_features=ins, out_features=outs) for name, (ins, outs) in shapes.items()]
    own = {"dt_bias": Parameter((all_heads,)), "A_log": Parameter((1, 1, sizes.key_heads, 1))}
    return MixerParameters(tuple(linears), own | convolution(3 * all_heads, sizes), width)


def _rule(m: ModelSpec, widths: Mapping[str, int], out_name: str) -> MixerParameters:
    """A gated delta rule: projections of these widths and back, a convolution, decays and steps for each value head."""
    h, sizes = m.hidden_size, recurrence_of(m)
    linears = [LinearShape(name=name, in_features=h, out_features=width) for name, width in widths.items()]
    linears.append(LinearShape(name=out_name, in_features=sizes.value_size, out_features=h))
    own = {name: Parameter((sizes.value_heads,)) for name in ("dt_bias", "A_log")}
    own |= convolution(2 * sizes.key_size + sizes.value_size, sizes)
    return MixerParameters(tuple(linears), own, sizes.value_dim)


def _mamba2(m: ModelSpec) -> MixerParameters:
    """Mamba 2's state-space layer: one projection for gate, values, keys, queries and steps, one back.

    Its keys and queries are what its code calls B and C. Source: transformers 5.23,
    models/granitemoehybrid/modeling_granitemoehybrid.py, GraniteMoeHybridMambaLayer, and the others named Mamba.
    """
    h, sizes = m.hidden_size, recurrence_of(m)
    inner, heads = sizes.value_size, sizes.value_heads
    mixed = inner + 2 * sizes.key_size
    linears = (
        LinearShape(name="in_proj", in_features=h, out_features=inner + mixed + heads, bias=sizes.proj_bias),
        LinearShape(name="out_proj", in_features=inner, out_features=h, bias=sizes.proj_bias),
    )
    own = convolution(mixed, sizes) | dict.fromkeys(("dt_bias", "a_log", "d"), Parameter((heads,)))
    return MixerParameters(linears, own | ({"gate_norm": Parameter((inner,))} if sizes.gate_norm else {}))


def _mamba1(m: ModelSpec) -> MixerParameters:
    """Mamba's state-space layer, every channel a head of its own: from its channels to steps, keys and queries.

    Its keys and queries are what its code calls B and C. Source: transformers 5.23, models/jamba/modeling_jamba.py,
    JambaMambaMixer, models/mamba/modeling_mamba.py, MambaMixer, and models/falcon_mamba/modeling_falcon_mamba.py.
    """
    h, sizes = m.hidden_size, recurrence_of(m)
    inner, state, rank, bias = sizes.value_size, sizes.key_dim, sizes.step_rank, sizes.proj_bias
    linears = (
        LinearShape(name="in_proj", in_features=h, out_features=2 * inner, bias=bias),
        LinearShape(name="x_proj", in_features=inner, out_features=rank + 2 * state),
        LinearShape(name=STEPS, in_features=rank, out_features=inner, bias=True, weight_alone=True),
        LinearShape(name=PROJECTION_BACK, in_features=inner, out_features=h, bias=bias),
    )
    own = convolution(inner, sizes) | {"a_log": Parameter((inner, state)), "d": Parameter((inner,))}
    if sizes.step_norms == "learned":
        own |= {name: Parameter((width,)) for name, width in zip(STEP_NORMS, (rank, state, state), strict=True)}
    return MixerParameters(linears, own)


def _none(m: ModelSpec) -> MixerParameters:
    """A layer that is an MLP alone."""
    return MixerParameters((), {})


MIXERS: dict[Mixer, Callable[[ModelSpec], MixerParameters]] = {
    "conv": _conv,
    "delta": _delta,
    "delta_fused": _delta_fused,
    "delta_apart": _delta_apart,
    "kda": _kda,
    "mamba1": _mamba1,
    "mamba2": _mamba2,
    "beside_mamba2": _mamba2,
    "none": _none,
}
"""By `ModelSpec.mixer`, but for attention."""

STATE_SPACES: frozenset[Mixer] = frozenset(["mamba2", "beside_mamba2"])
"""The mixers that are Mamba 2's, or run beside it."""
PROJECTION_BACK = "out_proj"
"""The linear layer at their end."""
STEPS = "dt_proj"
"""The linear layer that makes the steps of Mamba's layers."""
STEP_NORMS = ("dt_norm", "b_norm", "c_norm")
"""The norms of steps, keys and queries in Jamba's state-space layers."""

PACKAGES: dict[Mixer, tuple[str, ...]] = {
    "conv": ("causal_conv1d",),
    **dict.fromkeys(("delta", "delta_fused", "delta_apart", "kda"), ("fla", "causal_conv1d")),
    **dict.fromkeys((*STATE_SPACES, "mamba1"), ("mamba_ssm", "causal_conv1d")),
}
"""Whose functions a mixer calls where they can be imported.

Source: transformers 5.23, models/*/modeling_*.py, use_kernel_func_from_hub_with_fallback.
"""


DISTRIBUTIONS = {"fla": "flash-linear-attention", "causal_conv1d": "causal-conv1d", "mamba_ssm": "mamba-ssm"}
"""What pip calls a package."""


def one_function(m: ModelSpec) -> bool:
    """Whether mamba_ssm runs all of Mamba's layer but the first projection as one function, which Jamba's norms bar.

    Source: transformers 5.23, models/mamba/modeling_mamba.py, MambaMixer.forward: `mamba_inner_fn`.
    """
    return "mamba1" in m.mixers and recurrence_of(m).step_norms != "learned"


def packages_of(m: ModelSpec) -> tuple[str, ...]:
    """The packages that the model's mixers call."""
    return tuple(dict.fromkeys(name for mixer in m.mixers for name in PACKAGES.get(mixer, ())))


def distributions_of(m: ModelSpec) -> tuple[str, ...]:
    """What pip installs for them."""
    return tuple(DISTRIBUTIONS[name] for name in packages_of(m))
