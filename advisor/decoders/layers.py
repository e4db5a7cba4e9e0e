"""The code of a decoder layer, x (B, S, H) -> (B, S, H), by `Architecture.layer`."""

from __future__ import annotations

from collections.abc import Callable

from advisor.decoders.decoder import Decoder, decoder_layer
from advisor.decoders.early import bloom_layer, gptj_layer, mpt_layer, opt_layer
from advisor.decoders.encoder import encoder_layer
from advisor.decoders.falcon_h1 import falcon_h1_layer
from advisor.decoders.gemma3n import gemma3n_layer
from advisor.decoders.gemma4 import gemma4_layer
from advisor.decoders.mamba import mamba_layer
from advisor.decoders.mllama import mllama_layer
from advisor.decoders.modernbert import modernbert_layer
from advisor.decoders.step_inputs import LayerInputs
from advisor.decoders.weights import Weights
from advisor.tape.graph import Tensor

Layer = Callable[[Decoder, Tensor, Weights, LayerInputs], Tensor]

LAYERS: dict[str, Layer] = {
    "shared": decoder_layer,
    "bert": encoder_layer,
    "bloom": bloom_layer,
    "gemma3n": gemma3n_layer,
    "falcon_h1": falcon_h1_layer,
    "gemma4": gemma4_layer,
    "gptj": gptj_layer,
    "mamba": mamba_layer,
    "mllama": mllama_layer,
    "modernbert": modernbert_layer,
    "mpt": mpt_layer,
    "opt": opt_layer,
}
