"""The code that mixes the tokens of a layer in attention's place, x (B, S, H) -> (B, S, H), by `ModelSpec.mixer`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache

from advisor.decoders.step_inputs import LayerInputs
from advisor.decoders.weights import Weights
from advisor.specs import Mixer, Recipe
from advisor.tape.graph import Tensor
from advisor.tape.tape import Tape

MixerCode = Callable[[Tape, Tensor, Weights, LayerInputs, Recipe], Tensor]

MIXERS: dict[Mixer, str] = {
    "conv": "advisor.decoders.short_conv:short_conv",
    "delta": "advisor.decoders.gated_delta:gated_delta",
    "delta_apart": "advisor.decoders.gated_delta:apart_delta",
    "delta_fused": "advisor.decoders.gated_delta:fused_delta",
    "kda": "advisor.decoders.kimi_linear:kimi_delta",
    "mamba1": "advisor.decoders.mamba1:mamba1",
    "mamba2": "advisor.decoders.mamba2:mamba2",
}
"""module:function, loaded where a model has such layers: most have none."""


@cache
def mixer_code(mixer: Mixer) -> MixerCode:
    """The code of a mixer."""
    module, _, name = MIXERS[mixer].partition(":")
    code: MixerCode = getattr(importlib.import_module(module), name)
    return code
