"""Liger's kernels, as transformers' Trainer lays them over a model that is loaded (use_liger_kernel).

A kernel that the model's type does not get is no error there: the model's own code runs. Here it counts as that, and
`declined` names it.
Source: liger-kernel 0.8.5, transformers/monkey_patch.py, MODEL_TYPE_TO_APPLY_LIGER_FN and the functions in it;
transformers 5.23, integrations/liger.py, apply_liger_kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, NamedTuple

from advisor.decoders.adapters import linear
from advisor.decoders.experts import ExpertsCode
from advisor.decoders.linear import Linear
from advisor.decoders.norms import NormFunction, NormPlace
from advisor.decoders.rope import Rope
from advisor.decoders.stack import LossInputs, Proof, Stack, full_logits
from advisor.parameters.targets import expert_adapters
from advisor.specs import GpuSpec, ModelSpec, Recipe, Workload
from advisor.stacks.liger_experts import fused_experts
from advisor.stacks.liger_tape import (
    chunk_rows,
    contiguous_halves,
    cross_entropy,
    fused_linear_loss,
    gated,
    relu_squared,
    rms_norm,
    rotated,
)
from advisor.tape.graph import Tensor
from advisor.tape.layout import chunk_last
from advisor.tape.tape import Tape

VERSION = "liger-kernel 0.8.5"
SOURCE = f"{VERSION}, transformers/monkey_patch.py"

NormKind = Literal["", "in_place", "new"]
"""'': not patched; how backward makes the gradient: over that of the result, or in a new tensor."""


class Patched(NamedTuple):
    """What Liger replaces in a loaded model of one type."""

    layer: NormKind = "in_place"
    final: NormKind = "in_place"
    heads: NormKind = ""  # norms of queries and keys, or of latents
    rope: bool = True
    rotation_known: bool = True  # its kernel in place of `rope` is mirrored
    mlp: bool = True  # gated MLPs, or the squared ReLU
    experts: bool = False  # the routed experts, by a fused kernel over their 3-D weights
    loss: Literal["fused", "cross_entropy"] = "fused"

    def norm(self, place: NormPlace) -> NormKind:
        """How the norms at `place` are patched."""
        places: dict[NormPlace, NormKind] = {"final": self.final, "heads": self.heads, "layer": self.layer}
        return places.get(place, "")


_LLAMA = Patched()
_LATENT = Patched(heads="in_place", rope=False, experts=True)
_GEMMA = Patched("new", "new")

PATCHED: dict[str, Patched] = {
    "deepseek_v2": _LATENT,
    "deepseek_v3": _LATENT,
    "exaone4": Patched("new", "new", heads="new"),
    "gemma": _LLAMA,
    "gemma2": _GEMMA,
    "gemma3_text": Patched("new", "new", heads="new"),
    "gemma4_text": Patched("new", "new", heads="new", rope=False),
    "glm4": Patched("new", "new", rope=False),
    "gpt_oss": Patched(mlp=False),
    "granite": Patched(loss="cross_entropy"),
    "hunyuan_v1_dense": _LLAMA,
    "hunyuan_v1_moe": Patched(mlp=False, experts=True),
    "llama": _LLAMA,
    "llama4_text": _LLAMA._replace(rotation_known=False),
    "mistral": _LLAMA,
    "mixtral": Patched(mlp=False, experts=True),
    "nemotron": Patched("", "", rope=False),
    "olmo2": Patched("new"),
    "olmo3": Patched("new"),
    "phi3": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": Patched(heads="in_place"),
    "qwen3_5_moe_text": Patched("new", "new", heads="new", rope=False, mlp=False, experts=True),
    "qwen3_5_text": Patched("new", "new", heads="new", rope=False),
    "qwen3_moe": Patched(heads="in_place", mlp=False, experts=True),
    "qwen3_next": Patched("new", "new", heads="new", rope=False, mlp=False, experts=True),
    "smollm3": _LLAMA,
}
"""By transformers' model_type: those of its 54 that `advisor.architectures` has."""

NOTHING = Patched("", "", "", rope=False, mlp=False)


def patched(m: ModelSpec) -> Patched:
    """What Liger replaces in a model: nothing in types that it does not list."""
    return PATCHED.get(m.architecture, NOTHING)


def _proof(proof: Proof, m: ModelSpec) -> Proof:
    return proof if patched(m) is NOTHING else proof.reading(VERSION)


def _says(m: ModelSpec, kernel: str, what: str) -> str:
    has = "does not know" if patched(m) is NOTHING else f"has {what} for"
    return f"{kernel}: {VERSION} {has} {m.architecture}, and says nothing; the model's own code runs"


@dataclass(frozen=True)
class LigerNorm(Stack):
    """RMSNorm in one kernel."""

    def norm(self, m: ModelSpec, place: NormPlace) -> NormFunction | None:
        """One kernel that keeps its input where the type's function patches the norm at `place`."""
        kind = patched(m).norm(place)
        return partial(rms_norm, in_place=kind == "in_place") if kind else super().norm(m, place)

    def proof(self, m: ModelSpec, recipe: Recipe) -> Proof:
        """To the byte."""
        return _proof(super().proof(m, recipe), m)

    def declined(self, m: ModelSpec, recipe: Recipe) -> tuple[str, ...]:
        """Types that are not listed, and layer norms."""
        own = () if patched(m).layer else (_says(m, "liger_norm", "no norm"),)
        return (*super().declined(m, recipe), *own)


@dataclass(frozen=True)
class LigerRope(Stack):
    """Rotary positions in place."""

    def rotated(
        self, t: Tape, m: ModelSpec, q: Tensor, k: Tensor, rope: Rope
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """In the projections' own outputs, unless these are parts of one."""
        if not patched(m).rope:
            return super().rotated(t, m, q, k, rope)
        return *rotated(t, q, k, rope, contiguous=not m.fused_qkv), ()

    def joins_heads(self, m: ModelSpec) -> bool:
        """Nothing is joined: what is turned stays where it is."""
        return not patched(m).rope and super().joins_heads(m)

    def declined(self, m: ModelSpec, recipe: Recipe) -> tuple[str, ...]:
        """Types that are not listed, and those whose positions its kernel cannot turn."""
        own = () if patched(m).rope else (_says(m, "liger_rope", "no rotation"),)
        return (*super().declined(m, recipe), *own)

    def proof(self, m: ModelSpec, recipe: Recipe) -> Proof:
        """Llama 4's rotation of complex numbers is another kernel."""
        proof = _proof(super().proof(m, recipe), m)
        if patched(m).rotation_known:
            return proof
        return proof.not_knowing(f"{VERSION}'s rotation of {m.name}: transformers' is counted")


@dataclass(frozen=True)
class LigerMlp(Stack):
    """Activation and product of a gated MLP in one kernel."""

    def feed_forward(
        self, t: Tape, x: Tensor, m: ModelSpec, linears: Mapping[str, Linear], own: Mapping[str, Tensor] | None
    ) -> Tensor:
        """`down(activation(gate) * up)`. Source: transformers/swiglu.py, geglu.py, relu_squared.py."""
        names = m.mlp_names
        if not patched(m).mlp or own:
            return super().feed_forward(t, x, m, linears, own)
        if m.mlp == "plain":
            return linear(t, relu_squared(t, linear(t, x, linears[names[0]])), linears[names[1]])
        if m.mlp == "gated_fused":
            joined = linear(t, x, linears[names[0]])
            made = [gated(t, *contiguous_halves(t, chunk_last(t, joined, (m.intermediate_size, m.intermediate_size))))]
            return linear(t, made.pop(), linears[names[1]])
        gate = [linear(t, x, linears[names[0]])]
        made = [gated(t, gate.pop(), linear(t, x, linears[names[1]]))]
        return linear(t, made.pop(), linears[names[2]])

    def declined(self, m: ModelSpec, recipe: Recipe) -> tuple[str, ...]:
        """Types that are not listed, and MLPs of another form."""
        has = patched(m)
        own = () if has.mlp or has.experts else (_says(m, "liger_mlp", "no MLP"),)
        return (*super().declined(m, recipe), *own)

    def experts(self, m: ModelSpec) -> ExpertsCode | None:
        """All routed experts in one function."""
        return fused_experts if patched(m).experts else super().experts(m)

    def proof(self, m: ModelSpec, recipe: Recipe) -> Proof:
        """DeepSeek's shared experts are patched as well, which is not mirrored; experts with adapters cannot run."""
        proof = _proof(super().proof(m, recipe), m)
        if not patched(m).experts:
            return proof
        if recipe.has_adapters and expert_adapters(m, recipe, 1).keys() - {"router"}:
            text = f"{VERSION}'s experts with adapters: patched after peft has wrapped them, they fail"
            proof = proof.not_knowing(text)
        if not (patched(m).mlp and m.shared_expert_size):
            return proof
        return proof.not_knowing(f"{VERSION}'s activation of shared experts: transformers' is counted")


@dataclass(frozen=True)
class LigerLoss(Stack):
    """Head and cross entropy in chunks, or cross entropy alone; an evaluation runs the model's own."""

    chunk: int = field(default=0, kw_only=True)
    """Tokens whose logits exist at a time; 0: all."""
    sums_apart: bool = field(default=False, kw_only=True)
    """The head's gradient is summed from products of its size, in fp32: products add to it from capability 8 on."""

    def placed(self, gpu: GpuSpec, workload: Workload) -> Stack:
        """Where the card is older than Ampere, parts of the head's gradient are made apart."""
        capability = gpu.compute_capability
        placed = super().placed(gpu, workload)
        return replace(placed, sums_apart=True) if capability and float(capability) < 8 else placed  # type: ignore[call-arg]

    def shaped(self, m: ModelSpec, recipe: Recipe, batch: int, length: int) -> Stack:
        """With the chunks of that many tokens."""
        shaped = super().shaped(m, recipe, batch, length)
        if patched(m).loss != "fused" or patched(m) is NOTHING:
            return shaped
        rows = chunk_rows(batch * length, m.vocab_size, m.token_size)
        return replace(shaped, chunk=0 if rows == batch * length else rows)  # type: ignore[call-arg]

    def loss(self, t: Tape, given: LossInputs) -> Tensor:
        """In training, `labels` make the model's patched forward skip the logits."""
        has = patched(given.m)
        if has is NOTHING or not t.grad_enabled:
            return super().loss(t, given)
        if has.loss == "cross_entropy":
            return cross_entropy(t, full_logits(t, given))
        t.label("loss")
        return fused_linear_loss(t, given.hidden, given.head, self.chunk, self.sums_apart)

    def proof(self, m: ModelSpec, recipe: Recipe) -> Proof:
        """To the byte."""
        return _proof(super().proof(m, recipe), m)

    def declined(self, m: ModelSpec, recipe: Recipe) -> tuple[str, ...]:
        """Types that are not listed, and Granite, which gets the cross entropy without the head."""
        has = patched(m)
        missing = "no loss" if has is NOTHING else "no fused loss" if has.loss == "cross_entropy" else ""
        own = (_says(m, "liger_loss", missing),) if missing else ()
        return (*super().declined(m, recipe), *own)
