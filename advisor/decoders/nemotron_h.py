"""Nemotron-H's experts, which have no gate.

Source: transformers 5.23, models/nemotron_h/modeling_nemotron_h.py, `NemotronHMoE.forward`.
"""

from __future__ import annotations

from collections.abc import Mapping

from advisor.decoders.adapters import linear
from advisor.decoders.deepseek import deepseek_v3_routed
from advisor.decoders.experts import Experts, mixed
from advisor.decoders.linear import Linear
from advisor.decoders.mlp import activation
from advisor.parameters.modules import LATENT
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.ops import add
from advisor.tape.tape import Tape


def nemotron_feed_forward(t: Tape, x: Tensor, m: ModelSpec, w: Experts, linears: Mapping[str, Linear]) -> Tensor:
    """x (B, S, H) -> (B, S, H): the chosen experts, on a narrower projection if the model has one, then the shared."""
    rows = t.view(x, (x.shape[0] * x.shape[1], x.shape[2]))
    _logits, scores, _indices = deepseek_v3_routed(t, rows, m, w)
    h = linear(t, rows, linears[LATENT[0]]) if m.expert_latent else rows
    h = mixed(t, h, scores, m, w)
    if m.expert_latent:
        h = linear(t, h, linears[LATENT[1]])
    h = t.view(h, x.shape)
    up, down = (linears[name] for name in m.mlp_names)
    return add(t, h, linear(t, activation(t, m.activation, linear(t, x, up)), down))
