"""Words for values of knobs that other tools use, and what stands in for words that name nothing here."""

from __future__ import annotations

from advisor.optimizers import OPTIMIZERS

DTYPE_ALIASES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
OPTIMIZER_ALIASES = {
    word: name for name, row in OPTIMIZERS.items() for word in (row.transformers_name, row.axolotl_name) if word
}
ATTENTION_ALIASES = {"flash_attention_2": "flash", "flash_attn": "flash", "fa2": "flash", "flash_2": "flash"}
STAND_INS: dict[str, dict[str, tuple[str, str]]] = {
    "attention": {
        **dict.fromkeys(
            ("flash_attention_3", "flash_attn_3", "fa3", "flash_attention_4", "kernels_community/vllm_flash_attn3"),
            ("flash", "it keeps the same tensors as flash attention 2, whose times are taken, too"),
        ),
        "xformers": ("sdpa", "PyTorch's own kernels keep the same tensors"),
        "flex_attention": ("sdpa", "its kernel keeps the same tensors, but no dense mask"),
        "flex": ("sdpa", "its kernel keeps the same tensors, but no dense mask"),
        "unfused": ("eager", "the model's own products and softmax"),
    },
    "trainer": {
        **dict.fromkeys(("peft", "accelerate", "lmflow", "fastchat"), ("transformers", "it runs that Trainer or loop")),
        **dict.fromkeys(("alignment_handbook", "sfttrainer"), ("trl", "it runs that SFTTrainer")),
        "llm_foundry": ("transformers", "its own loop, Composer's, has no preset"),
    },
}
"""Words that are no choice: what is taken in their place, and why that is near."""
QUANT_ALIASES = {"4bit": "nf4", "int4": "nf4", "8bit": "int8"}
VARIANT_ALIASES = {"lora": "plain", "lora+": "loraplus", "lora_plus": "loraplus", "use_rslora": "rslora"}
TARGET_ALIASES = {"all": "all-linear", "all_linear": "all-linear"}
KERNEL_ALIASES = {
    "liger": "liger_norm liger_rope liger_mlp liger_loss",
    "cut_cross_entropy": "cce",
    "lora": "fused_lora",
    "none": "",
}
PADDING_ALIASES = {"true": "longest", "batch": "longest", "false": "none", "no": "none"}
PACKING_ALIASES = {"bfd": "position_ids"}
TRAINER_ALIASES = {
    "ms_swift": "ms-swift",
    "swift": "ms-swift",
    "nemo_automodel": "nemo-automodel",
    "automodel": "nemo-automodel",
    "nemo": "nemo-automodel",
    "llama_factory": "llamafactory",
    "open_instruct": "open-instruct",
    "lit_gpt": "litgpt",
}
