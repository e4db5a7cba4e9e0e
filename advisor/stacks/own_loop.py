"""The mirrored libraries in a training loop of one's own."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.decoders.linear import Linear, LinearCode
from advisor.decoders.loss import log_softmax_loss
from advisor.decoders.stack import Stack, full_logits
from advisor.specs import ModelSpec, Recipe
from advisor.tape.graph import Tensor
from advisor.tape.tape import Tape


@dataclass(frozen=True)
class OwnLoop(Stack):
    """`out = model(...)`: the loop holds the model's outputs, hence the logits, until after backward."""

    freezes_lora_a: bool = False
    """peft's LoRA-FA: the A matrices are not trained."""

    @property
    def name(self) -> str:
        """The libraries and versions whose code this is."""
        return f"{super().name}, in a loop that holds the outputs"

    @property
    def linear(self) -> LinearCode:
        """LoRA-FA freezes A."""
        return LinearCode(trains_lora_a=not self.freezes_lora_a)

    def loss(
        self,
        t: Tape,
        m: ModelSpec,
        recipe: Recipe,
        hidden: Tensor,
        head: Linear,
        one_tile: bool,
        held: list[Tensor],
    ) -> Tensor:
        """Full logits, held."""
        logits = full_logits(t, m, hidden, head)
        held.append(logits)
        return log_softmax_loss(t, logits)
