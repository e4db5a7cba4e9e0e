"""NeMo AutoModel as far as its source says: its norms and RoPE, and transformers' step in place of other code."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.decoders.norms import NormFunction, NormPlace
from advisor.decoders.rope import Rope
from advisor.decoders.stack import Proof, Stack
from advisor.libraries import version_text
from advisor.specs import ModelSpec, Recipe
from advisor.tape.graph import Tensor
from advisor.tape.ops import cast
from advisor.tape.tape import Tape

OWN_NORMS = ("llama", "qwen2", "qwen3_moe", "deepseek_v3", "glm4_moe", "glm4_moe_lite", "ernie4_5_moe", "gpt_oss")
"""Architectures for which it brings models of its own with norms of its own."""
OWN_MODELS = (*OWN_NORMS, "qwen3", "ministral3")
"""Those for which it brings models of its own (_transformers/registry.py); others are transformers'.

The dense ones' SwiGLU is transformers' (components/models/llama/model.py, LlamaMLP).
"""
WIDE_ROPE = ("llama", "qwen2", "qwen3")
"""Those whose RoPE is computed in fp32; no version fuses it (components/models/common/utils.py, BackendConfig)."""


@dataclass(frozen=True)
class NemoAutomodel(Stack):
    """Its own norms and RoPE; the plain step for the rest, which keeps more; what else runs is not known."""

    @property
    def name(self) -> str:
        """The libraries and versions whose code this is."""
        return f"nemo-automodel {version_text(self.libraries.code_version)} over {super().name}"

    def proof(self, m: ModelSpec, recipe: Recipe) -> Proof:
        """What its source says, and what depends on what is installed.

        Source: nemo-automodel 0.7.0, components/models/common/utils.py, BackendConfig; _transformers/auto_model.py,
        from_pretrained (use_liger_kernel = True); components/_peft/lora.py, PeftConfig.use_memory_efficient_lora.
        """
        read = "its norms, RoPE, dtypes, loss and optimizer; the plain step in place of its other kernels"
        unknown = (
            "Transformer Engine's linear layers and attention, which run where it is installed"
            if m.architecture in OWN_MODELS
            else "which of Liger's kernels run: it patches transformers' models with them where they are installed",
        )
        experts = ("its experts",) if m.architecture in OWN_MODELS and m.num_experts else ()
        lora = ("its LoRA function, which keeps less than peft's",) if recipe.has_adapters else ()
        return Proof((), (read,), (*unknown, *experts, *lora))

    def norm(self, m: ModelSpec, place: NormPlace) -> NormFunction | None:
        """That of its own models, BackendConfig.rms_norm = "torch_fp32"."""
        return opaque_rms_norm if m.architecture in OWN_NORMS and m.norm == "rms" else super().norm(m, place)

    def rotated(
        self, t: Tape, m: ModelSpec, q: Tensor, k: Tensor, rope: Rope
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Queries and keys cast to fp32, turned and cast back.

        Source: nemo-automodel 0.7.0, components/models/llama/rope_utils.py, apply_rotary_pos_emb. Ignores: that its
        tables are in fp32, too.
        """
        if m.architecture not in WIDE_ROPE:
            return super().rotated(t, m, q, k, rope)
        turned_q, turned_k, parts = super().rotated(t, m, cast(t, q, "float32"), cast(t, k, "float32"), rope)
        return cast(t, turned_q, q.dtype), cast(t, turned_k, k.dtype), parts


def opaque_rms_norm(t: Tape, x: Tensor, weight: Tensor) -> Tensor:
    """An RMSNorm in fp32 as one operation, which keeps its inputs and computes all else again in backward.

    Forward runs as it is written; backward is compiled, so that what it makes in between stays in its kernels, but for
    one number a row. Source: nemo-automodel 0.7.0, components/models/common/utils.py, _float32_rms_norm_impl and
    _float32_rms_norm_backward. Ignores: partial sums of the weight's gradient.
    """
    shape, dtype, like = x.shape, x.dtype, (weight.shape, weight.dtype)
    needs = x.needs_grad, weight.needs_grad
    size = x.bytes
    wide = t.empty(shape, "float32")
    t.kernel("elementwise", "float32", 0, size + wide.bytes)
    wide_weight = t.empty(weight.shape, "float32")
    normed, roots = t.empty(shape, "float32"), t.empty(shape[:-1], "float32")
    t.kernel("reduce", "float32", 0, 2 * wide.bytes)
    out = t.empty(shape, dtype)
    t.kernel("elementwise", dtype, 0, size + normed.bytes)
    del wide, wide_weight, normed, roots

    def backward(g: Tensor) -> tuple[Tensor | None, ...]:
        roots = t.empty(shape[:-1], "float32")
        t.kernel("reduce", dtype, 0, 2 * g.bytes + roots.bytes)
        gx = t.empty(shape, dtype) if needs[0] else None
        if gx is not None:
            t.kernel("reduce", dtype, 0, 3 * g.bytes + roots.bytes)
        gw = t.empty(*like) if needs[1] else None
        if gw is not None:
            t.kernel("reduce", dtype, 0, 2 * g.bytes + roots.bytes)
        del roots
        return gx, gw

    return t.function(out, (x, weight), backward, (x, weight))
