"""The layer of models that are state-space layers alone: a norm and a mixer, around which the residual is in fp32.

Source: transformers 5.23, models/mamba2/modeling_mamba2.py, `Mamba2Block.forward`.
"""

from __future__ import annotations

from advisor.decoders.decoder import Decoder
from advisor.decoders.step_inputs import LayerInputs
from advisor.decoders.weights import Weights
from advisor.parameters.own_weights import own_weights
from advisor.parameters.storage import other_dtype
from advisor.tape.graph import Tensor
from advisor.tape.ops import add, cast


def mamba_layer(d: Decoder, x: Tensor, w: Weights, given: LayerInputs) -> Tensor:
    """x (B, S, H) -> (B, S, H) in fp32."""
    own = own_weights(d.m, d.recipe)
    h = w.norms[0](d.t, cast(d.t, x, own.dtype if own.norms else other_dtype(d.recipe)))
    residual = cast(d.t, x, "float32")
    h = d.attention(h, w, given, [])
    return add(d.t, residual, h)
