"""A mixture as a version of the libraries builds it."""

from __future__ import annotations

from functools import lru_cache
from typing import overload

from advisor.architectures import architecture_of
from advisor.errors import UnsupportedArchitecture
from advisor.libraries import Libraries, libraries_of, version_text
from advisor.specs import Model, ModelSpec

ROUTER = "gate"
"""The router's name where it is a linear layer of its own before transformers 5."""


@overload
def as_stored(m: ModelSpec, names: tuple[str, ...]) -> ModelSpec: ...


@overload
def as_stored(m: Model, names: tuple[str, ...]) -> Model: ...


def as_stored(m: Model, names: tuple[str, ...]) -> Model:
    """The model as the libraries of a recipe's `stack` build it (see `stored_by`); a traced one as it is."""
    return stored_by(m, libraries_of(names)) if names and isinstance(m, ModelSpec) else m


@lru_cache(maxsize=256)
def stored_by(m: ModelSpec, libraries: Libraries) -> ModelSpec:
    """The model as transformers stores its experts, and as peft finds them.

    transformers 5 fuses the experts of a layer, which bitsandbytes then passes over; before, each was linear layers of
    its own, which bitsandbytes quantizes and peft adapts, and so was the router of most. peft adapts fused experts by
    'all-linear' since 0.19.
    Sources: transformers 4.57 and 5.0, models/*/modeling_*.py; peft 0.18 and 0.19, tuners/tuners_utils.py,
    inject_adapter (`convert_peft_config_for_transformers`).
    Raises UnsupportedArchitecture for experts before transformers 5 whose code is not mirrored.
    """
    alone = m.experts == "fused_alone" and libraries.transformers < (5, 0)  # a text part, of another class
    if m.experts != "fused" and not alone:
        return m
    if not m.num_experts or libraries.transformers >= (5, 0):  # a model of a mixture's family may have none
        return m if libraries.peft >= (0, 19) else m.model_copy(update={"experts": "fused_alone"})
    found = m if alone else as_linears(m)
    if found is m:
        version = version_text(libraries.transformers)
        raise UnsupportedArchitecture(
            f"the experts of {m.architecture} in transformers {version} are not mirrored: use --stack transformers-5.0 "
            "or newer; `calibrate --dry-run --stack` traces them"
        )
    return found


def as_linears(m: ModelSpec) -> ModelSpec:
    """The model with linear layers of each expert, as before transformers 5; itself where that is not mirrored."""
    loop = architecture_of(m.architecture).expert_loop
    if m.mlp != "experts" or m.experts == "linears" or loop == "none":
        return m
    changes = {"experts": "linears"} if loop == "wide_sum" else {"experts": "linears", "router_linear": ROUTER}
    return m.model_copy(update=changes)
