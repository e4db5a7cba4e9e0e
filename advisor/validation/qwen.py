"""Rows run with Qwen's own model code and finetune.py: transformers' Trainer of 2023 and peft 0.5."""

from __future__ import annotations

from advisor.catalog import find_gpus
from advisor.costs.card_memory import memory_estimate
from advisor.costs.device import profile_for
from advisor.costs.memory import predict_step_memory
from advisor.specs import ModelSpec, Recipe
from advisor.validation.figures import GB, Figure, Predicted, PublishedRun, Row, Unanswered


def _model(name: str, hidden: int, inner: int, layers: int, heads: int, vocabulary: int) -> ModelSpec:
    """QWenLMHeadModel: one biased product for queries, keys and values, a gated MLP of w1, w2 and c_proj."""
    return ModelSpec(
        name=name,
        architecture="qwen",
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=hidden // heads,
        vocab_size=vocabulary,
        fused_qkv=True,
        qkv_names=("c_attn",),
        qkv_bias=True,
        out_name="attn.c_proj",
        mlp_names=("w2", "w1", "mlp.c_proj"),
    )


MODELS = {
    "Qwen/Qwen-1_8B-Chat": _model("Qwen-1_8B-Chat", 2048, 5504, 24, 16, 151_936),
    "Qwen/Qwen-7B-Chat": _model("Qwen-7B-Chat", 4096, 11_008, 32, 32, 151_936),
    "Qwen/Qwen-14B-Chat": _model("Qwen-14B-Chat", 5120, 13_696, 40, 40, 152_064),
}
TARGETS = {"c_attn": ("c_attn",), "c_proj": ("attn.c_proj", "mlp.c_proj"), "w1": ("w1",), "w2": ("w2",)}


def finetune_run(row: Row) -> PublishedRun:
    """finetune_lora_single_gpu.sh: the model is in bf16 by itself, peft 0.5 leaves its adapters in fp32.

    Sources: modeling_qwen.py, QWenLMHeadModel; peft 0.5.0, tuners/lora.py, LoraLayer.update_layer.
    """
    recipe = Recipe(
        method="lora",
        rank=row["rank"],
        dropout=row["lora_dropout"],
        autocast=True,
        optimizer="adamw_foreach",
        target_modules=tuple(name for given in row["target_modules"] for name in TARGETS[given]),
        gradient_checkpointing=True,
        reentrant=True,
        micro_batch=row["micro_batch"],
        gradient_accumulation=row["grad_accum"],
    )
    return PublishedRun(MODELS[row["model_id"]], recipe, "NVIDIA A100-SXM4-80GB")


def finetune(row: Row) -> Predicted | Unanswered:
    """The README does not say how memory was counted or what its G is; assumed: what the card shows, in 10^9 bytes.

    Ignores: the padding's mask, and the gradients of earlier micro-batches.
    """
    if row["method"] != "lora":
        return Unanswered("GPTQ weights or sharding, which the tape does not know")
    model, recipe, gpu, *_ = finetune_run(row)
    recipe = recipe.model_copy(update={"gradient_accumulation": 1})
    card = find_gpus(gpu)[0]
    step = predict_step_memory(model, recipe, row["micro_batch"], row["seq_len"], "cuda")
    memory = memory_estimate(step, recipe, profile_for(card))
    stated = memory.device_bytes
    figure = Figure("on the card", "on the card", row["peak_mem_gib"] * GB, stated.likely, stated)
    return Predicted((figure,), memory, card.memory_bytes)
