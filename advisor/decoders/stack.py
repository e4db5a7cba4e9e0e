"""The code of a training step that differs between training stacks, as one object passed to the step.

`Stack` is transformers 5.23 with peft 0.21 and bitsandbytes 0.50 in transformers' Trainer, the stack that the decoders
mirror. Other versions of these are thresholds on `Stack.libraries`, where they act. Other code (advisor.stacks) is a
subclass that overrides what it does differently, and calls super() where it declines; nothing else in the tape or the
decoders asks which stack runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from advisor.architectures import architecture_of
from advisor.decoders.adapters import linear
from advisor.decoders.balancing import asks_for_balance, balancing_doubt
from advisor.decoders.ends import head_logits
from advisor.decoders.experts import ExpertsCode
from advisor.decoders.heads import queries_keys_values
from advisor.decoders.kernel_doubts import kernel_doubt
from advisor.decoders.linear import Linear, LinearCode
from advisor.decoders.loss import chunked_loss, log_softmax_loss, masked_loss, shifted
from advisor.decoders.mlp import feed_forward
from advisor.decoders.norms import WRITTEN_OUT, HeadNorms, Norm, NormFunction, NormPlace
from advisor.decoders.rope import Rope, apply_rope, joins_parts
from advisor.libraries import MIRRORED, Libraries, Version, gaps, version_text
from advisor.optimizers import optimizer_row
from advisor.parameters.token_mixers import packages_of
from advisor.specs import GpuSpec, ModelSpec, Recipe, Workload
from advisor.tape.engine import checkpoint
from advisor.tape.graph import LOGITS, SavedTensorHooks, Tensor
from advisor.tape.ops import cast
from advisor.tape.tape import Tape


class LossInputs(NamedTuple):
    """What head and loss start from."""

    m: ModelSpec
    recipe: Recipe
    hidden: Tensor  # (B, S, H)
    head: Linear
    one_tile: bool  # a chunked loss takes all tokens at once
    held: list[Tensor]
    """What the loop holds until after backward: a stack appends to it."""
    transform: Callable[[Tape, Tensor], Tensor] | None = None  # before an encoder's head
    outputs: list[Tensor] | None = None  # what the model's outputs hold of the logits, where another loss follows


class Proof(NamedTuple):
    """What the mirror of a stack stands on, each in words; () where there is nothing of that kind."""

    traced: tuple[str, ...] = ("every tensor, against traces of the real CPU step",)
    read: tuple[str, ...] = ("CUDA's own kernels, from their source",)
    unknown: tuple[str, ...] = ()
    """What runs and is not mirrored: an answer that rests on it says so, and does not say that a job fits."""

    def reading(self, package: str) -> Proof:
        """The same with functions of a package that ran on a CPU, beside the mirrored step."""
        text = f"functions of {package}, whose bytes are those of its own code on a CPU"
        return self if text in self.read else self._replace(read=(*self.read, text))

    def not_knowing(self, text: str) -> Proof:
        """The same with what is not mirrored."""
        return self._replace(unknown=(*self.unknown, text))


@dataclass(frozen=True)
class Stack:
    """Each part of the step whose code may differ. Equal stacks record equal programs."""

    own_kernels: ClassVar[frozenset[str]] = frozenset()
    """Kernels and kinds of offloading that the trainer's own code brings: no other code is laid over it for them."""

    libraries: Libraries = field(default=MIRRORED, kw_only=True)
    adapters_kept: str = field(default="", kw_only=True)
    """As of `LinearCode`: an engine for several cards may say so."""

    @property
    def name(self) -> str:
        """The libraries and versions whose code this is."""
        at = self.libraries
        versions = {"transformers": at.transformers, "peft": at.peft, "bitsandbytes": at.bitsandbytes}
        return ", ".join(f"{name} {version[0]}.{version[1]}" for name, version in versions.items())

    def proof(self, m: ModelSpec, recipe: Recipe) -> Proof:
        """What the bytes of this step stand on: versions between traced ones were read, others are not known."""
        between, beyond = gaps(self.libraries)
        known, at = _with_mixers(m, recipe), self.libraries.transformers
        if at < MIRRORED.transformers and _untraced(m, at):
            beyond = (*beyond, f"transformers {version_text(at)}'s code of {m.architecture} (other models were traced)")
        if m.labels and at < MIRRORED.transformers:
            beyond = (*beyond, f"transformers {version_text(at)}'s classifiers (other tasks were traced)")
        if m.task != "next_token" and (type(self) is not Stack or recipe.loss == "chunked" or recipe.kernels):
            known = known.not_knowing(
                "what code other than transformers' own does with a model that is not trained on next tokens"
            )
        step = optimizer_row(recipe.optimizer).unknown
        balancing = balancing_doubt(m, recipe, self.libraries) if asks_for_balance(m, recipe, self.libraries) else ""
        step = "; ".join(filter(None, (step, kernel_doubt(m, recipe), balancing)))
        unknown = (*known.unknown, *((step,) if step else ()), *(f"what is different in {text}" for text in beyond))
        read = (*known.read, *(f"what {text} changed" for text in between))
        return Proof(() if beyond else known.traced, read, unknown) if between or unknown else known

    def named(self, m: ModelSpec) -> ModelSpec:
        """The model with its linear layers split and called as this code does, which adapters are named by."""
        return m

    def built(self, m: ModelSpec) -> ModelSpec:
        """The model as its code and its libraries build it: what it ties and fuses, which parts run otherwise."""
        if self.libraries == MIRRORED:
            return m
        from advisor.parameters.stored import stored_by

        return stored_by(m, self.libraries)

    def quantized_head(self, recipe: Recipe) -> bool:
        """Whether the head is stored as the linear layers of the decoder are."""
        return False

    def declined(self, m: ModelSpec, recipe: Recipe) -> tuple[str, ...]:
        """The kernels that were asked for and do not run for this model or recipe, each with who says so."""
        return ()

    @property
    def linear(self) -> LinearCode:
        """How a linear layer differs."""
        return LinearCode(libraries=self.libraries, adapters_kept=self.adapters_kept)

    def leaf_under_checkpointing(self, recipe: Recipe) -> bool:
        """Whether checkpointing makes the output of a frozen embedding require a gradient.

        transformers 5 does it for every model of tokens. Before, only what would not train otherwise did: a script
        with re-entrant checkpointing, and peft's k-bit preparation.
        Source: transformers 4.57 and 5.0, modeling_utils.py, gradient_checkpointing_enable; peft 0.21, utils/other.py,
        prepare_model_for_kbit_training.
        """
        prepared = recipe.is_quantized and recipe.kbit_upcast
        return self.libraries.transformers >= (5, 0) or recipe.reentrant or prepared

    @property
    def sees_packed_rows(self) -> bool:
        """Whether position ids that begin anew make a mask, where the model's code does so at all.

        Source: transformers 4.52 and 4.53, masking_utils.py, find_packed_sequence_indices; not there before.
        """
        return self.libraries.transformers >= (4, 53)

    @property
    def copies_heads(self) -> bool:
        """Whether queries, keys and values are made contiguous, head by head, before PyTorch's fused attention.

        Source: transformers 4.48 to 4.55, integrations/sdpa_attention.py, sdpa_attention_forward; not in 4.47 and 4.56.
        """
        return (4, 48) <= self.libraries.transformers < (4, 56)

    def embedded(self, t: Tape, m: ModelSpec, recipe: Recipe, x: Tensor) -> Tensor:
        """What the first layer gets of the embedding's output x (B, S, H)."""
        return x

    @property
    def outputs_outlive_step(self) -> bool:
        """Whether the loop still holds outputs and loss, and what they hold, when the next forward pass begins."""
        return False

    @property
    def graph_outlives_step(self) -> bool:
        """Whether the graph of the step before, as long as this one, is held until this one's loss is made."""
        return False

    @property
    def keeps_attended(self) -> bool:
        """Whether a layer holds attention's result to its end, whatever the model's own code does."""
        return False

    @property
    def windows_inside(self) -> bool:
        """Whether its attention kernel knows the sliding window, so that no mask is made for it."""
        return False

    def masks(self, padded: bool) -> bool:
        """Whether a batch gets an attention mask; `padded`: its rows differ in length."""
        return padded

    def standing_bytes(self, m: ModelSpec, recipe: Recipe, batch: int, length: int) -> tuple[int, ...]:
        """Sizes of the buffers that its own code holds from the first step to the last."""
        return ()

    def norm(self, m: ModelSpec, place: NormPlace) -> NormFunction | None:
        """The code of a norm with a weight; None for `F.layer_norm` and its relatives."""
        return WRITTEN_OUT.get(m.norm)

    def placed(self, gpu: GpuSpec, workload: Workload) -> Stack:
        """The stack as it runs on that card, on those rows, where its code asks for either."""
        return self

    def shaped(self, m: ModelSpec, recipe: Recipe, batch: int, length: int) -> Stack:
        """The stack as it runs a micro-batch of that shape: what it decides by sizes is decided.

        Shapes for which it decides alike share one recording.
        """
        return self

    @property
    def scoring_fewest(self) -> Stack | None:
        """The same where the data leave nearly all tokens unscored; None where that changes nothing."""
        return None

    def keeps_last_apart(self, recipe: Recipe) -> bool:
        """Whether the last layer is checkpointed otherwise than those before."""
        return False

    def unsteady_layers(self, recipe: Recipe) -> int:
        """How many layers after the first leave more or less behind than those after them."""
        return 0

    def checkpoint(
        self,
        t: Tape,
        function: Callable[..., Tensor],
        x: Tensor,
        reentrant: bool,
        last: bool,
        beside: tuple[Tensor, ...] = (),
    ) -> Tensor:
        """`function(x, *beside)`, run again in backward; `last`: the last layer."""
        return checkpoint(t, function, x, reentrant, beside)

    def rope(self, t: Tape, rope: Rope) -> Rope:
        """The rotary tables that a layer works with, from those that were made for all layers."""
        return rope

    def queries_keys_values(
        self, t: Tape, x: Tensor, m: ModelSpec, linears: Mapping[str, Linear], norms: Sequence[Norm | HeadNorms]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, heads, S, D), keys and values (B, KV, S, D) of x (B, S, H); `norms`: of q and k, if any."""
        return queries_keys_values(t, x, m, linears, norms)

    def rotated(
        self, t: Tape, m: ModelSpec, q: Tensor, k: Tensor, rope: Rope
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Queries and keys after RoPE, and the parts that live until attention ends."""
        return apply_rope(t, m, q, k, rope)

    def joins_heads(self, m: ModelSpec) -> bool:
        """Whether rotated queries and keys are stored head by head."""
        return joins_parts(m)

    def attended(self, t: Tape, m: ModelSpec, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, KV, S, D) as attention gets them, after RoPE."""
        return k, v

    def output_projection(self, t: Tape, x: Tensor, layer: Linear) -> Tensor:
        """Attention's output (B, S, Q) as hidden states (B, S, H)."""
        return linear(t, x, layer)

    def feed_forward(
        self, t: Tape, x: Tensor, m: ModelSpec, linears: Mapping[str, Linear], own: Mapping[str, Tensor] | None
    ) -> Tensor:
        """The dense MLP: x (B, S, H) -> (B, S, H); `own` is what its activation learns, if anything."""
        return feed_forward(t, x, m, linears, own)

    def experts(self, m: ModelSpec) -> ExpertsCode | None:
        """What runs the routed experts, if not transformers' own code."""
        return None

    def keys_values(self, t: Tape, m: ModelSpec, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, KV, S, D) as projected, before RoPE."""
        return k, v

    def offloader(self, recipe: Recipe) -> SavedTensorHooks | None:
        """What moves the step's saved tensors to the host; None leaves them on the card."""
        return None

    def cached(self, recipe: Recipe, k: Tensor, v: Tensor) -> list[Tensor]:
        """What the model's outputs hold of a layer's keys and values until after backward."""
        return []

    def host_bytes(self, parts: Sequence[tuple[int, int]]) -> int:
        """Bytes that the host holds for `parts`: (bytes that one layer moved there, layers)."""
        return sum(size * layers for size, layers in parts)

    def balances(self, m: ModelSpec, recipe: Recipe) -> bool:
        """Whether the step adds the loss that balances a mixture's experts, and this code of it is mirrored."""
        asks = asks_for_balance(m, recipe, self.libraries)
        return asks and not balancing_doubt(m, recipe, self.libraries)

    def loss(self, t: Tape, given: LossInputs) -> Tensor:
        """Head and loss: (1,).

        transformers before 4.49 read a copy of the fp32 logits without each row's last token (some models, of those in
        16 bits); before 4.46 the model made them, under the name of the 16-bit ones, which that freed.
        Source: transformers 4.45, models/llama/modeling_llama.py, LlamaForCausalLM.forward; 4.48, loss/loss_utils.py.
        """
        if given.m.task == "embeddings":
            from advisor.decoders.embeddings import embedding_loss

            return embedding_loss(t, given.hidden, not given.m.bidirectional)
        if given.m.task == "classification":
            from advisor.decoders.classifier import classification_loss, scores

            return classification_loss(t, scores(t, given.m, given.hidden, given.head, given.transform))
        if given.recipe.loss == "chunked":
            t.label("loss")
            return chunked_loss(t, transformed(t, given), given.head.weight, given.head.bias, given.one_tile)
        logits = full_logits(t, given)
        if given.outputs is not None:
            given.outputs.append(logits)
        if given.m.task == "masked_tokens":
            return masked_loss(t, logits, upcasts=architecture_of(given.m.architecture).masked_loss_in_float)
        if self.libraries.transformers >= (4, 49):
            return log_softmax_loss(t, logits, given.recipe.upcast_logits)
        as_given = architecture_of(given.m.architecture).loss_as_given_before_4_49
        read = logits if as_given else cast(t, logits, "float32")
        if self.libraries.transformers < (4, 46) and not as_given:
            del logits
        return log_softmax_loss(t, shifted(t, read), not as_given)


def _with_mixers(m: ModelSpec, recipe: Recipe) -> Proof:
    """What the plain step stands on: kernels of packages in place of attention need a card, and were read."""
    known = Proof()
    if not m.mixers or recipe.sequence_kernels == "torch":
        return known
    names = " and ".join(packages_of(m))
    return known._replace(
        traced=(f"every tensor outside of {names}, against traces of the real CPU step",),
        read=(*known.read, f"what the kernels of {names} keep and make, from their source"),
    )


def _untraced(m: ModelSpec, at: Version) -> bool:
    """Whether that version's code of the model was not traced; the list is loaded only where it is asked for."""
    from advisor.architectures.traced import untraced_code

    return untraced_code(architecture=m.architecture, transformers=at)


def transformed(t: Tape, given: LossInputs) -> Tensor:
    """What the head reads: hidden states (B, S, H), which an encoder transforms."""
    if architecture_of(given.m.architecture).head_reads_its_dtype:
        return cast(t, given.hidden, given.head.weight.dtype)
    return given.hidden if given.transform is None else given.transform(t, given.hidden)


def full_logits(t: Tape, given: LossInputs) -> Tensor:
    """Logits (B, S, V) of all tokens; the loss runs next. What the head itself saves is not offloaded."""
    offloader, t.offloader = t.offloader, None
    projected = [linear(t, transformed(t, given), given.head)]
    t.offloader = offloader
    logits = head_logits(t, given.m, projected)
    t.label("loss")
    if logits.buffer is not None:
        logits.buffer.move_to(LOGITS)
    return logits


THIS_STACK = Stack()
"""The stack that the decoders mirror."""
