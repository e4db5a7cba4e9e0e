"""Unsloth: its own models of six architectures with fused LoRA, its loss for all, and checkpoints in host memory.

Versions are thresholds on `libraries.code_version`. Models that it does not write by hand run transformers' layers,
compiled block by block: what the compiler keeps is not mirrored, so they are estimated as not compiled.
Source: unsloth and unsloth_zoo 2026.10.9; the versions before, where said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from advisor.blocks import pinned_bytes
from advisor.decoders.linear import Linear
from advisor.decoders.norms import HeadNorms, Norm, NormFunction, NormPlace
from advisor.decoders.rope import Rope, joins_parts
from advisor.decoders.stack import LossInputs, Proof, Stack
from advisor.libraries import version_text
from advisor.parameters.layers import layer_groups
from advisor.parameters.modules import layer_linears
from advisor.parameters.targets import targets_in
from advisor.specs import GpuSpec, ModelSpec, Recipe, Workload
from advisor.stacks.unsloth_layers import (
    norm_apart,
    norm_in_place,
    normed_and_rotated,
    rotated_apart,
    rotated_in_place,
)
from advisor.stacks.unsloth_lora import fuses, lora_many, lora_mlp, lora_one, scratch_bytes
from advisor.stacks.unsloth_loss import (
    FULL_UP_TO_TOKENS,
    SMALL_CARD_BYTES,
    LossForm,
    cut_loss,
    fixed_form,
    fixed_loss,
    full_loss,
    split_form,
    split_loss,
)
from advisor.stacks.unsloth_memory import free_bytes
from advisor.tape.engine import checkpoint, hosted_checkpoint
from advisor.tape.graph import Tensor
from advisor.tape.layout import repeat_kv
from advisor.tape.tape import Tape
from advisor.units import GIB

BY_HAND = frozenset({"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2"})
"""Architectures whose models it writes by hand. Source: models/loader.py, FastLanguageModel.from_pretrained."""

FIXED_LOSS, FREE_LOSS, SPLIT_LOSS, CUT_LOSS = (2026, 10), (2025, 11), (2025, 8), (2024, 11)
"""The first versions read with the loss of fixed size, with splits by free memory, with splits of 1 GiB, with cut
cross entropy; before that full logits."""
TWO_BUFFERS = DROPS_INSIDE = (2026, 10)
"""The first version read that stages in two buffers, and whose fused LoRA takes dropout."""
KEEPS_LAST = SMALL_IN_FULL = (2025, 3)
"""The first version read that stages in a buffer that it keeps, leaves the last layer and small inputs on the card,
and takes full logits for few tokens. Source of what was before: unsloth 2024.9, models/_utils.py."""

HOSTED_ABOVE_BYTES = 2 * 1024**2
PLAIN_BELOW_TOKENS = 512
STAGING_BYTES = 1024**2
"""What a staging buffer begins with. Source: gradient_checkpointing.py, initialize_unsloth_gradient_checkpointing."""


@dataclass(frozen=True)
class Unsloth(Stack):
    """What its code decides by card, rows and shape is in fields: `placed` and `shaped` fill them."""

    own_kernels: ClassVar[frozenset[str]] = frozenset({"activations"})

    decided: bool = False
    """`shaped` has been asked."""
    card_bytes: int = 80 * GIB
    capability: tuple[int, int] = (8, 0)
    keeps_apart: bool = False
    """Rows come one after the other, or packed: attention and positions know where each begins."""
    longest: int = PLAIN_BELOW_TOKENS
    """`max_seq_length`."""
    by_hand: bool = False
    repeats: bool = False
    """xformers runs, which gets keys and values for every query head."""
    hosts: bool = False
    form: LossForm = LossForm()  # noqa: RUF009 - immutable

    @property
    def name(self) -> str:
        """The libraries and versions whose code this is."""
        return f"Unsloth {version_text(self.libraries.code_version)}, {super().name}"

    def proof(self, m: ModelSpec, recipe: Recipe) -> Proof:
        """Its functions were run on a CPU with their kernels replaced; the rest was read."""
        at, unknown = self.libraries.code_version, list(super().proof(m, recipe).unknown)
        if recipe.modules_to_save and recipe.has_adapters:
            unknown.append("when it moves the originals of trained modules off the card: counted there")
        if not _by_hand(m, recipe):
            unknown.append("what torch.compile keeps of this model's layers: counted as not compiled")
        if m.attention_softcap:
            unknown.append("attention with a soft cap: counted as eager")
        if SPLIT_LOSS <= at < FIXED_LOSS and recipe.loss == "chunked":
            unknown.append(f"what torch.compile keeps of the loss of {version_text(at)}: counted as not compiled")
        return Proof(
            traced=("its LoRA functions and its loss, against their own code on a CPU",),
            read=("its norms, rotary positions, offloading and choice of attention, from their source",),
            unknown=tuple(unknown),
        )

    # -- what is decided by card, rows and shape ------------------------------------------------------------

    def placed(self, gpu: GpuSpec, workload: Workload) -> Stack:
        """The card's memory and compute capability, and whether rows are kept apart."""
        major, _, minor = gpu.compute_capability.partition(".")
        known = major.isdigit() and minor.isdigit()
        return replace(
            self,
            card_bytes=gpu.memory_bytes,
            capability=(int(major), int(minor)) if known else self.capability,
            keeps_apart=workload.packing or workload.padding == "none",
            longest=workload.seq_len,
        )

    def shaped(self, m: ModelSpec, recipe: Recipe, batch: int, length: int) -> Stack:
        """Every decision made, and nothing else of the card left, so that cards that decide alike share a recording."""
        if self.decided:
            return self
        by_hand = _by_hand(m, recipe)
        before_hopper, ampere = self.capability < (9, 0), self.capability >= (8, 0)
        return type(self)(
            libraries=self.libraries,
            decided=True,
            keeps_apart=by_hand and self.keeps_apart,
            by_hand=by_hand,
            repeats=by_hand and before_hopper and not (self.keeps_apart and ampere),
            hosts=self._hosts(m, recipe, batch, length),
            form=self._loss_form(m, recipe, batch, length),
        )

    def _hosts(self, m: ModelSpec, recipe: Recipe, batch: int, length: int) -> bool:
        """Whether inputs of layers wait in the host's memory: those above 2 MiB, unless rows are cut below 512.

        Source: unsloth_zoo, gradient_checkpointing.py, UnslothCheckpointFunction.forward; models/_utils.py.
        """
        if not (recipe.gradient_checkpointing and recipe.offload == "activations"):
            return False
        if self.libraries.code_version < KEEPS_LAST:
            return True
        return self.longest >= PLAIN_BELOW_TOKENS and 2 * batch * length * m.hidden_size > HOSTED_ABOVE_BYTES

    def _loss_form(self, m: ModelSpec, recipe: Recipe, batch: int, length: int) -> LossForm:
        tokens, at = batch * length, self.libraries.code_version
        by_hand, ampere = _by_hand(m, recipe), self.capability >= (8, 0)
        if recipe.loss == "full":  # UNSLOTH_RETURN_LOGITS=1
            return LossForm("full" if by_hand else "plain")
        if at >= FIXED_LOSS:
            scored, small = batch * (length - 1), self.card_bytes <= SMALL_CARD_BYTES
            return fixed_form(scored, m.hidden_size, m.vocab_size, recipe.method != "full", small, ampere)
        if at >= SPLIT_LOSS:
            target = free_bytes(m, recipe, self.card_bytes) / 2 if at >= FREE_LOSS else GIB
            return split_form(tokens, m.vocab_size, target)
        if not by_hand:
            return LossForm("plain")
        few = at >= SMALL_IN_FULL and tokens <= FULL_UP_TO_TOKENS
        return LossForm("cut" if at >= CUT_LOSS and ampere and not few else "full")

    def standing_bytes(self, m: ModelSpec, recipe: Recipe, batch: int, length: int) -> tuple[int, ...]:
        """Staging buffers of the input that comes back from the host, and the buffer of decoded weights.

        The second staging buffer exists where more than 512 MiB are free: taken as so.
        """
        at = self.libraries.code_version
        buffers = 2 if at >= TWO_BUFFERS else 1 if at >= KEEPS_LAST else 0
        found = []
        if recipe.gradient_checkpointing and recipe.offload == "activations":
            size = 2 * batch * length * m.hidden_size if self.hosts else 0
            found += [max(size, STAGING_BYTES)] * buffers
        decoded = scratch_bytes(self._fused_weights(m, recipe), recipe) if _by_hand(m, recipe) else 0
        return (*found, decoded) if decoded else tuple(found)

    def _fused_weights(self, m: ModelSpec, recipe: Recipe) -> list[int]:
        """Elements of the weights of all groups of layers that run fused."""
        if not recipe.has_adapters or recipe.is_dora:
            return []
        found = []
        for part, _ in layer_groups(m):
            linears, targets = layer_linears(part), targets_in(part, recipe.target_modules)
            for group in (part.qkv_names, (part.out_name,), part.mlp_names):
                layers = [linears[name] for name in group]
                if set(group) <= set(targets) and not any(layer.bias for layer in layers):
                    found += [layer.weight_count for layer in layers]
        return found

    def keeps_last_apart(self, recipe: Recipe) -> bool:
        """The last layer's input stays on the card."""
        return self.hosts and self.libraries.code_version >= KEEPS_LAST

    def host_bytes(self, parts: Sequence[tuple[int, int]]) -> int:
        """Pinned blocks, each for the input of one layer."""
        return sum(pinned_bytes(size) * layers for size, layers in parts)

    @property
    def windows_inside(self) -> bool:
        """xformers and varlen kernels take a window; PyTorch's dense attention, from Hopper on, gets a mask of it."""
        return self.by_hand and (self.repeats or self.keeps_apart)

    def masks(self, padded: bool) -> bool:
        """Its own models train without: causal attention alone is right for rows padded on the right."""
        return padded and not self.by_hand

    # -- the step --------------------------------------------------------------------------------------------

    def checkpoint(
        self,
        t: Tape,
        function: Callable[..., Tensor],
        x: Tensor,
        reentrant: bool,
        last: bool,
        beside: tuple[Tensor, ...] = (),
    ) -> Tensor:
        """Always re-entrant; what waits in the host's memory is in 16 bits."""
        staged = self.libraries.code_version >= KEEPS_LAST
        if not self.hosts or (last and staged):
            return checkpoint(t, function, x, True, beside)
        stored = "bfloat16" if staged and x.dtype == "float32" else x.dtype
        return hosted_checkpoint(t, function, x, stored, staged, beside)

    def norm(self, m: ModelSpec, place: NormPlace) -> NormFunction | None:
        """One kernel; Gemma's makes a new gradient."""
        own = {"rms": norm_in_place, "rms_unit_offset": norm_apart}
        return own.get(m.norm) if self.by_hand and m.norm in own else super().norm(m, place)

    def _fuses(self, t: Tape, x: Tensor, layers: Sequence[Linear]) -> bool:
        return self.by_hand and fuses(t, x, layers, self.libraries.code_version >= DROPS_INSIDE)

    def queries_keys_values(
        self, t: Tape, x: Tensor, m: ModelSpec, linears: Mapping[str, Linear], norms: Sequence[Norm | HeadNorms]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Three fused projections; Qwen 3's norms of heads run with the rotation, which is then done."""
        layers = [linears[name] for name in m.qkv_names]
        together = self.by_hand and m.qk_norm == "head"
        if self._fuses(t, x, layers):
            apart = self.keeps_apart and not together
            made = lora_many(t, x, layers, copied=2 if apart else 0)
            q, k, v = (_heads(t, one, m) for one in made)
        elif together:
            bare = m.model_copy(update={"qk_norm": "none"})
            q, k, v = super().queries_keys_values(t, x, bare, linears, ())
        else:
            return super().queries_keys_values(t, x, m, linears, norms)
        if together:
            q, k = normed_and_rotated(t, q, k)
        return q, k, v

    def rotated(
        self, t: Tape, m: ModelSpec, q: Tensor, k: Tensor, rope: Rope
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """In place, unless positions are given."""
        if not self.by_hand or joins_parts(m):
            return super().rotated(t, m, q, k, rope)
        if m.qk_norm == "head":
            return q, k, ()
        turn = rotated_apart if self.keeps_apart else rotated_in_place
        return *turn(t, q, k), ()

    def attended(self, t: Tape, m: ModelSpec, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """For every query head where xformers runs: dense rows before Hopper, and all rows before Ampere.

        Source: utils/attention_dispatch.py, select_attention_backend, run_attention. flash-attn, which goes first
        where it is installed, and which would not repeat, is not among its requirements; xformers is.
        """
        if not self.repeats:
            return k, v
        groups = m.num_attention_heads // k.shape[1]
        return repeat_kv(t, k, groups), repeat_kv(t, v, groups)

    def output_projection(self, t: Tape, x: Tensor, layer: Linear) -> Tensor:
        """LoRA_W."""
        return lora_one(t, x, layer) if self._fuses(t, x, [layer]) else super().output_projection(t, x, layer)

    def feed_forward(
        self, t: Tape, x: Tensor, m: ModelSpec, linears: Mapping[str, Linear], own: Mapping[str, Tensor] | None
    ) -> Tensor:
        """LoRA_MLP."""
        layers = [linears[name] for name in m.mlp_names]
        if len(layers) == 3 and m.mlp == "gated" and self._fuses(t, x, layers):
            return lora_mlp(t, x, *layers)
        return super().feed_forward(t, x, m, linears, own)

    def loss(self, t: Tape, given: LossInputs) -> Tensor:
        """The loss of its version."""
        match self.form.kind:
            case "tiled" | "chunked":
                return fixed_loss(t, given, self.form)
            case "split":
                return split_loss(t, given, self.form)
            case "cut":
                return cut_loss(t, given)
            case "full":
                return full_loss(t, given, in_place=self.libraries.code_version < FIXED_LOSS)
        return super().loss(t, given._replace(recipe=given.recipe.model_copy(update={"loss": "full"})))


def _by_hand(m: ModelSpec, recipe: Recipe) -> bool:
    """Full fine-tuning and 8-bit bases go through the generated models. Source: models/llama.py, from_pretrained."""
    return m.architecture in BY_HAND and recipe.method != "full" and recipe.quant != "int8"


def _heads(t: Tape, x: Tensor, m: ModelSpec) -> Tensor:
    """(B, S, heads * D) as (B, heads, S, D)."""
    batch, length, width = x.shape
    return t.view(x, (batch, width // m.head_dim, length, m.head_dim))
