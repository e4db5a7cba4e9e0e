"""Kimi's delta rule by flash-linear-attention's kernels."""

from __future__ import annotations

from advisor.decoders.delta_rule import RuleInputs
from advisor.tape.graph import Tensor
from advisor.tape.tape import Tape


def fused_kimi_rule(t: Tape, given: RuleInputs) -> Tensor:
    raise NotImplementedError
