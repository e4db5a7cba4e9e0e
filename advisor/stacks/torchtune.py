"""torchtune 0.4 in plain PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.decoders.attention import model_repeat_kv
from advisor.decoders.stack import Stack
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.tape import Tape


@dataclass(frozen=True)
class Torchtune(Stack):
    """Its own attention, which expands keys and values."""

    @property
    def name(self) -> str:
        """The libraries and versions whose code this is."""
        return "torchtune 0.4"

    def keys_values(self, t: Tape, m: ModelSpec, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Expanded to every query head. Source: torchtune 0.4, modules/attention.py."""
        return model_repeat_kv(t, m, k), model_repeat_kv(t, m, v)
