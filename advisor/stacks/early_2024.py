"""transformers of early 2024 (4.37 and 4.38) with bitsandbytes 0.42 and 0.43, in fsdp_qlora's loop and notebook."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from advisor.decoders.linear import LinearCode
from advisor.decoders.loss import log_softmax_loss, shifted
from advisor.decoders.norms import NormFunction, NormPlace, rms_norm
from advisor.decoders.rope import Rope
from advisor.decoders.stack import LossInputs, Stack, full_logits
from advisor.specs import ModelSpec, Recipe
from advisor.tape.graph import Tensor
from advisor.tape.ops import cast, mean
from advisor.tape.tape import Tape


@dataclass(frozen=True)
class Early2024(Stack):
    """Logits upcast in the model, rotary tables made in each layer, 4-bit inputs held; the loop holds the outputs."""

    @property
    def name(self) -> str:
        """The libraries and versions whose code this is."""
        return "transformers 4.37 and 4.38, bitsandbytes 0.42 and 0.43"

    @property
    def linear(self) -> LinearCode:
        """bitsandbytes before 0.43: its 4-bit product holds its input."""
        return LinearCode(libraries=self.libraries._replace(bitsandbytes=(0, 42)))

    def rope(self, t: Tape, rope: Rope) -> Rope:
        """transformers before 4.39: each layer indexes or makes its own tables, which autograd then keeps."""
        return rope.spread(t)

    def loss(self, t: Tape, given: LossInputs) -> Tensor:
        """transformers before 4.45: logits upcast in the model; the loss reads a copy without the last token's."""
        logits = full_logits(t, given)
        logits = cast(t, logits, "float32")
        given.held.append(logits)
        return log_softmax_loss(t, shifted(t, logits))


@dataclass(frozen=True)
class Notebook2024(Early2024):
    """fsdp_qlora's notebook: its loss is the mean of the logits, and it enables checkpointing after peft's wrapping."""

    def leaf_under_checkpointing(self, recipe: Recipe) -> bool:
        """Checkpointing was enabled when peft had wrapped the model: a frozen embedding's output takes no gradient."""
        return False

    def norm(self, m: ModelSpec, place: NormPlace) -> NormFunction | None:
        """Each RMSNorm whose input takes a gradient keeps two fp32 tensors, as if `x.float()` ran twice.

        Not found in any source: it follows from the notebook, whose versions are not stated. What the card held after
        forward beyond today's code is 4 bytes per hidden unit and token for 49 norms of 49 in full fine-tuning, 48 in
        LoRA and QLoRA (the first one sees a frozen embedding), and one under checkpointing (the last, outside its
        regions).
        """
        return partial(rms_norm, keeps_twice=True) if m.norm == "rms" else super().norm(m, place)

    def cached(self, recipe: Recipe, k: Tensor, v: Tensor) -> list[Tensor]:
        """transformers before 5: `use_cache` stays on in training, so that the outputs hold keys and values.

        They are the tensors that attention saved; checkpointing turns the cache off.
        """
        return [] if recipe.gradient_checkpointing else [k, v]

    def loss(self, t: Tape, given: LossInputs) -> Tensor:
        """The mean of fp32 logits."""
        logits = full_logits(t, given)
        logits = cast(t, logits, "float32")
        given.held.append(logits)
        return mean(t, logits, (1,))
