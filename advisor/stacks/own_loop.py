"""The mirrored libraries in a training loop of one's own."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.decoders.linear import LinearCode
from advisor.decoders.loss import log_softmax_loss
from advisor.decoders.stack import LossInputs, Stack, full_logits
from advisor.tape.graph import Tensor
from advisor.tape.tape import Tape


@dataclass(frozen=True)
class OwnLoop(Stack):
    """`out = model(...)`: the loop holds the model's outputs, hence the logits, until after backward."""

    freezes_lora_a: bool = False
    """peft's LoRA-FA: the A matrices are not trained."""

    upcasts_logits: bool = True
    """Off where the loop itself calls cross entropy, on logits as they are."""

    @property
    def name(self) -> str:
        """The libraries and versions whose code this is."""
        return f"{super().name}, in a loop that holds the outputs"

    @property
    def linear(self) -> LinearCode:
        """LoRA-FA freezes A."""
        return LinearCode(trains_lora_a=not self.freezes_lora_a)

    @property
    def outputs_outlive_step(self) -> bool:
        """Until `out` is assigned again."""
        return True

    def loss(self, t: Tape, given: LossInputs) -> Tensor:
        """Full logits, held."""
        logits = full_logits(t, given)
        given.held.append(logits)
        return log_softmax_loss(t, logits, self.upcasts_logits and given.recipe.upcast_logits)
