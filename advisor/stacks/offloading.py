"""Activations that wait in the host's memory: TRL's offloader, which axolotl uses as well, and torchtune's.

With checkpointing only the layers' inputs are saved outside its own hooks, so that these alone are moved; without, all
saved tensors of 1 KiB and more are, the log-softmax of the logits included. The head's own module is left out.
Source: trl 1.16, trainer/sft_trainer.py, training_step, and models/activation_offloading.py,
get_act_offloading_ctx_manager; axolotl 0.19.0, core/trainers/mixins/activation_checkpointing.py; torchtune 0.6.1,
training/_activation_offloading.py. Torchtune needs checkpointing, where its tensors are saved once: no difference.
"""

from __future__ import annotations

from dataclasses import dataclass

from advisor.decoders.stack import Proof, Stack
from advisor.specs import ModelSpec, Recipe
from advisor.tape.offloading import STASH, Offloader


@dataclass(frozen=True)
class OffloadedActivations(Stack):
    """Hooks on saved tensors around forward and backward."""

    def offloader(self, recipe: Recipe) -> Offloader | None:
        """A new one for each step."""
        return Offloader()

    def unsteady_layers(self, recipe: Recipe) -> int:
        """With checkpointing, the stash is full after as many layers as it holds tensors, at most."""
        return STASH if recipe.gradient_checkpointing else 0

    def keeps_last_apart(self, recipe: Recipe) -> bool:
        """Only after the last layer there is something that came back for the layer before in the queue."""
        return True

    def proof(self, m: ModelSpec, recipe: Recipe) -> Proof:
        """Re-entrant checkpointing offloads what it computes again, in another graph. Slices were not traced."""
        proof = super().proof(m, recipe).reading("trl 1.16's offloader")
        again = recipe.gradient_checkpointing and recipe.reentrant
        if m.layer_input_size:
            proof = proof.not_knowing("offloading of what each layer gets of a token, slices of one tensor")
        return proof.not_knowing("offloading of what re-entrant checkpointing computes again") if again else proof
