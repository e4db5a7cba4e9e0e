"""Which mixtures of gated experts have code of their own, by architecture; all others run `sparse_feed_forward`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from advisor.decoders.deepseek_moe import deepseek_feed_forward
from advisor.decoders.experts import Experts
from advisor.decoders.linear import Linear
from advisor.decoders.phimoe import phi_feed_forward
from advisor.decoders.shared_experts import ernie_feed_forward, granite_feed_forward, hunyuan_feed_forward
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.tape import Tape

Mixture = Callable[[Tape, Tensor, ModelSpec, Experts, Mapping[str, Linear]], Tensor]

OWN_MIXTURES: dict[str, Mixture] = {
    "deepseek_v2": deepseek_feed_forward,
    "deepseek_v3": deepseek_feed_forward,
    "dots1": deepseek_feed_forward,
    "ernie4_5_moe": ernie_feed_forward,
    "glm4_moe": deepseek_feed_forward,
    "glm4_moe_lite": deepseek_feed_forward,
    "granitemoeshared": granite_feed_forward,
    "hunyuan_v1_moe": hunyuan_feed_forward,
    "phimoe": phi_feed_forward,
}
