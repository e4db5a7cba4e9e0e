"""A mixture as a version of the libraries builds it."""

from __future__ import annotations

from functools import lru_cache

from advisor.architectures import architecture_of
from advisor.errors import UnsupportedArchitecture
from advisor.libraries import MIRRORED, Libraries, version_text
from advisor.specs import ModelSpec

ROUTER = "gate"
"""The router's name where it is a linear layer of its own before transformers 5."""


@lru_cache(maxsize=256)
def as_stored(m: ModelSpec, libraries: Libraries = MIRRORED) -> ModelSpec:
    """The model as transformers stores its experts, and as peft finds them.

    transformers 5 fuses the experts of a layer, which bitsandbytes then passes over; before, each was linear layers of
    its own, which bitsandbytes quantizes and peft adapts, and so was the router of most. peft adapts fused experts by
    'all-linear' since 0.19.
    Sources: transformers 4.57 and 5.0, models/*/modeling_*.py; peft 0.18 and 0.19, tuners/tuners_utils.py,
    inject_adapter (`convert_peft_config_for_transformers`).
    Raises UnsupportedArchitecture for experts before transformers 5 whose code is not mirrored.
    """
    if not m.num_experts or m.experts != "fused":
        return m
    if libraries.transformers >= (5, 0):
        return m if libraries.peft >= (0, 19) else m.model_copy(update={"experts": "fused_alone"})
    loop = architecture_of(m.architecture).expert_loop
    if m.mlp != "experts" or loop == "none":
        version = version_text(libraries.transformers)
        raise UnsupportedArchitecture(
            f"the experts of {m.architecture} in transformers {version} are not mirrored: use --stack transformers-5.0 "
            "or newer; `calibrate --dry-run --stack` traces them"
        )
    changes = {"experts": "linears"} if loop == "deepseek_v3" else {"experts": "linears", "router_linear": ROUTER}
    return m.model_copy(update=changes)
