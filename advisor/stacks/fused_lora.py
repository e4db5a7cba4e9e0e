"""axolotl's own kernels for LoRA, which it switches on by itself where they can run.

Source: axolotl 0.19.0, monkeypatch/lora_kernels.py, apply_lora_kernel_patches; utils/schemas/config.py,
check_auto_enable_lora_kernels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from advisor.architectures import architecture_of
from advisor.decoders.linear import Linear
from advisor.decoders.norms import HeadNorms, Norm
from advisor.decoders.stack import Proof, Stack
from advisor.parameters.targets import targets_in
from advisor.specs import ModelSpec, Recipe
from advisor.stacks.fused_lora_tape import gated_mlp, projections
from advisor.tape.graph import Tensor
from advisor.tape.tape import Tape

ACTIVATIONS = ("silu", "gelu", "gelu_tanh")
"""Those whose names hold 'gelu' run its tanh form. Source: SUPPORTED_ACTIVATIONS, APPLY_FN_MAPPING."""


def _adapted(linears: Mapping[str, Linear], names: Sequence[str]) -> bool:
    """Whether all of these layers exist by these names and have adapters, on a base in 16 or 4 bits."""
    return all(
        name in linears
        and linears[name].lora_a is not None
        and linears[name].weight.dtype != "float32"
        and linears[name].quant != "int8"
        for name in names
    )


def _separate(m: ModelSpec) -> bool:
    """Whether attention has layers q_proj, k_proj, v_proj and o_proj, and no gate: no other is looked at."""
    plain = not m.kv_lora_rank and m.attention_gate == "none"
    return plain and {*m.qkv_names, m.out_name} == {"q_proj", "k_proj", "v_proj", "o_proj"}


def refusal(m: ModelSpec, recipe: Recipe) -> str:
    """Why none of them runs for this model and recipe; '' where some do."""
    if not recipe.has_adapters:
        return "they are for adapters"
    if recipe.quant == "int8":
        return "a base in 8 bits leaves them off"
    if recipe.base_dtype == "float32":
        return "they need a base in 16 or 4 bits"
    targets = targets_in(m, recipe.target_modules)
    attention = [m.qkv_names, (m.out_name,)] if _separate(m) else []
    mlp = [m.mlp_names] if m.mlp == "gated" and m.activation in ACTIVATIONS else []
    if not any(set(group) <= targets for group in (*attention, *mlp)):
        return "they need adapters on all of q, k and v, on o, or on all of gate, up and down, as layers of their own"
    return ""


@dataclass(frozen=True)
class FusedLora(Stack):
    """LoRA_QKV, LoRA_O and LoRA_MLP; what lacks an adapter in a group runs peft's code.

    Ignores: LoRA_QK, for layers whose keys are their values.
    """

    looks_at_attention: bool = field(default=True, kw_only=True)

    def shaped(self, m: ModelSpec, recipe: Recipe, batch: int, length: int) -> Stack:
        """With what it finds of attention."""
        return replace(super().shaped(m, recipe, batch, length), looks_at_attention=_separate(m))  # type: ignore[call-arg]

    def queries_keys_values(
        self, t: Tape, x: Tensor, m: ModelSpec, linears: Mapping[str, Linear], norms: Sequence[Norm | HeadNorms]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All three before their norms, which follow. Source: kernels/lora.py, LoRA_QKV."""
        quirks = architecture_of(m.architecture)
        if not self.looks_at_attention or quirks.scales_projected_queries or not _adapted(linears, m.qkv_names):
            return super().queries_keys_values(t, x, m, linears, norms)
        t.label("q, k and v, fused LoRA")
        made = projections(t, x, [linears[name] for name in m.qkv_names])
        batch, length, _ = x.shape
        heads = (m.num_attention_heads, m.num_key_value_heads, m.num_key_value_heads)
        shapes = [(batch, count, length, m.head_dim) for count in heads]
        normed = m.qk_norm if not quirks.norms_after_rope else "none"
        if normed == "full":
            made[0], made[1] = norms[0](t, made[0]), norms[1](t, made[1])
        q, k, v = (t.view(made.pop(0), shape) for shape in shapes)
        if normed not in ("none", "full", "unit"):  # Llama 4 brings heads to unit length after RoPE
            q = norms[0](t, q)
            k = norms[1](t, k)
        return q, k, v

    def output_projection(self, t: Tape, x: Tensor, layer: Linear) -> Tensor:
        """Source: kernels/lora.py, LoRA_O."""
        if not self.looks_at_attention or not _adapted({layer.name: layer}, (layer.name,)):
            return super().output_projection(t, x, layer)
        t.label(f"{layer.name}, fused LoRA")
        return projections(t, x, [layer])[0]

    def feed_forward(
        self, t: Tape, x: Tensor, m: ModelSpec, linears: Mapping[str, Linear], own: Mapping[str, Tensor] | None
    ) -> Tensor:
        """Source: kernels/lora.py, LoRA_MLP."""
        if m.mlp != "gated" or m.activation not in ACTIVATIONS or own or not _adapted(linears, m.mlp_names):
            return super().feed_forward(t, x, m, linears, own)
        t.label("MLP, fused LoRA")
        return gated_mlp(t, x, [linears[name] for name in m.mlp_names])

    def proof(self, m: ModelSpec, recipe: Recipe) -> Proof:
        """To the byte, on a base in 16 bits."""
        proof = super().proof(m, recipe)
        if m.mixers:
            return proof.not_knowing(f"which of axolotl's LoRA functions run in layers of {m.architecture}")
        return proof if refusal(m, recipe) else proof.reading("axolotl 0.19.0")

    def declined(self, m: ModelSpec, recipe: Recipe) -> tuple[str, ...]:
        """What keeps all of them off."""
        why = refusal(m, recipe)
        own = (f"fused_lora: {why} (axolotl 0.19.0, monkeypatch/lora_kernels.py); peft's code runs",) if why else ()
        return (*super().declined(m, recipe), *own)
