"""NeMo AutoModel as far as its source says: transformers' step in place of fused and compiled code."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.decoders.stack import Proof, Stack
from advisor.libraries import version_text
from advisor.specs import ModelSpec, Recipe

OWN_MODELS = ("llama", "qwen2", "qwen3_moe", "deepseek_v3", "glm4_moe", "gpt_oss")
"""Architectures for which it brings models of its own (nemo_automodel/components/models); others are transformers'."""


@dataclass(frozen=True)
class NemoAutomodel(Stack):
    """The plain step, which keeps more than fused norms, RoPE and SwiGLU do; what runs of those is not known."""

    @property
    def name(self) -> str:
        """The libraries and versions whose code this is."""
        return f"nemo-automodel {version_text(self.libraries.code_version)} over {super().name}"

    def proof(self, m: ModelSpec, recipe: Recipe) -> Proof:
        """What its source says, and what depends on what is installed.

        Source: nemo-automodel 0.7.0, components/models/common/utils.py, BackendConfig; _transformers/auto_model.py,
        from_pretrained (use_liger_kernel = True); components/_peft/lora.py, PeftConfig.use_memory_efficient_lora.
        """
        read = "its dtypes, loss and optimizer; the plain step in place of its kernels"
        unknown = (
            "its norms, which torch.compile fuses, and Transformer Engine's layers, attention and RoPE where installed"
            if m.architecture in OWN_MODELS
            else "which of Liger's kernels run: it patches transformers' models with them where they are installed",
        )
        lora = ("its LoRA function, which keeps less than peft's",) if recipe.has_adapters else ()
        return Proof((), (read,), (*unknown, *lora))
