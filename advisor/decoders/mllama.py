"""Llama 3.2 Vision's layers: Llama's, and some that attend to what the tower makes of images.

Source: transformers 5.23, models/mllama/modeling_mllama.py. Locals live as long as they do there.
"""

from __future__ import annotations

from advisor.decoders.decoder import Decoder, decoder_layer
from advisor.decoders.step_inputs import LayerInputs
from advisor.decoders.weights import Weights
from advisor.tape.graph import Tensor


def mllama_layer(d: Decoder, x: Tensor, w: Weights, given: LayerInputs) -> Tensor:
    """x (B, S, H) -> (B, S, H)."""
    return decoder_layer(d, x, w, given)
