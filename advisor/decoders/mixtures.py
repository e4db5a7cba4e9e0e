"""The code of a mixture of gated experts, x (B, S, H) -> (B, S, H)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from advisor.architectures import architecture_of
from advisor.decoders.deepseek import deepseek_v2_feed_forward, deepseek_v3_feed_forward
from advisor.decoders.experts import Experts, sparse_feed_forward
from advisor.decoders.lfm2_moe import lfm2_feed_forward
from advisor.decoders.linear import Linear
from advisor.decoders.nemotron_h import nemotron_feed_forward
from advisor.decoders.phimoe import phi_feed_forward
from advisor.decoders.shared_experts import ernie_feed_forward, granite_feed_forward, hunyuan_feed_forward
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.tape import Tape

Mixture = Callable[[Tape, Tensor, ModelSpec, Experts, Mapping[str, Linear]], Tensor]

MIXTURES: dict[str, Mixture] = {
    "shared": sparse_feed_forward,
    "deepseek_v2": deepseek_v2_feed_forward,
    "deepseek_v3": deepseek_v3_feed_forward,
    "ernie": ernie_feed_forward,
    "granite": granite_feed_forward,
    "hunyuan": hunyuan_feed_forward,
    "lfm2": lfm2_feed_forward,
    "nemotron_h": nemotron_feed_forward,
    "phi": phi_feed_forward,
}
"""By `Architecture.mixture`; those of `sigmoid_mixtures` are loaded only where one of them is asked about."""


def mixture_of(m: ModelSpec) -> Mixture:
    """The code of the model's mixture; that of older versions is loaded only where a stack is named."""
    quirks = architecture_of(m.architecture)
    if m.experts == "linears":
        from advisor.decoders.expert_loop import LOOPS

        return LOOPS[quirks.expert_loop]
    if quirks.mixture not in MIXTURES:
        from advisor.decoders.sigmoid_mixtures import SIGMOID_MIXTURES

        return SIGMOID_MIXTURES[quirks.mixture]
    return MIXTURES[quirks.mixture]
