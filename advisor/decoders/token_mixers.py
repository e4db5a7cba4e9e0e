"""The code that mixes the tokens of a layer in attention's place, x (B, S, H) -> (B, S, H), by `ModelSpec.mixer`."""

from __future__ import annotations

from collections.abc import Callable

from advisor.decoders.gated_delta import apart_delta, fused_delta, gated_delta
from advisor.decoders.mamba2 import mamba2
from advisor.decoders.short_conv import short_conv
from advisor.decoders.step_inputs import LayerInputs
from advisor.decoders.weights import Weights
from advisor.specs import Mixer, Recipe
from advisor.tape.graph import Tensor
from advisor.tape.tape import Tape

MixerCode = Callable[[Tape, Tensor, Weights, LayerInputs, Recipe], Tensor]

MIXERS: dict[Mixer, MixerCode] = {
    "conv": short_conv,
    "delta": gated_delta,
    "delta_apart": apart_delta,
    "delta_fused": fused_delta,
    "mamba2": mamba2,
}
