"""Rows run with lit-gpt of October 2023 (finetune/lora.py): its own model code, LoRA and loss."""

from __future__ import annotations

from typing import Any

from advisor.catalog import find_gpus
from advisor.costs.card_memory import memory_estimate
from advisor.costs.device import profile_for
from advisor.costs.memory import predict_step_memory
from advisor.optimizers import Optimizer
from advisor.specs import ModelSpec, Recipe
from advisor.stacks.litgpt import HEAD_TOKENS, LitGpt2023
from advisor.validation.figures import Predicted, Row, Unanswered, peak_figure


def _model(name: str, hidden: int, inner: int, layers: int, heads: int, vocabulary: int, **more: Any) -> ModelSpec:
    """A model as lit_gpt/config.py describes it; one product makes queries, keys and values."""
    return ModelSpec(
        **{
            "name": name,
            "architecture": "lit-gpt",
            "hidden_size": hidden,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "head_dim": hidden // heads,
            "vocab_size": vocabulary,
            "fused_qkv": True,
            "qkv_names": ("attn",),
            "out_name": "proj",
            "mlp": "plain",
            "mlp_names": ("fc", "mlp.proj"),
            "activation": "gelu",
            "norm": "layer",
            "norm_bias": True,
            **more,
        }
    )


# RMSNorm in fp32, cast back at its end, as lit_gpt/rmsnorm.py has it since commit 98898ca; before, in 16 bits.
_LLAMA = {
    "norm": "rms_float",
    "norm_bias": False,
    "mlp": "gated",
    "mlp_names": ("fc_1", "fc_2", "mlp.proj"),
    "activation": "silu",
}
_BIASES = {"qkv_bias": True, "attention_out_bias": True, "mlp_bias": True}
MODELS = {
    "microsoft/phi-1_5": _model(
        "phi-1_5",
        2048,
        8192,
        24,
        32,
        51_200,
        norm_placement="parallel_one",
        rotary_dim=32,
        lm_head_bias=True,
        **_BIASES,
    ),
    "stabilityai/stablelm-base-alpha-3b": _model(
        "stablelm-base-alpha-3b", 4096, 16_384, 16, 32, 50_688, norm_placement="parallel_two", rotary_dim=32, **_BIASES
    ),
    "meta-llama/Llama-2-7b-hf": _model("Llama-2-7b-hf", 4096, 11_008, 32, 32, 32_000, **_LLAMA),
    "meta-llama/Llama-2-13b-hf": _model("Llama-2-13b-hf", 5120, 13_824, 40, 40, 32_000, **_LLAMA),
    "tiiuae/falcon-40b": _model(
        "falcon-40b", 8192, 32_768, 60, 128, 65_024, norm_placement="parallel_two", num_key_value_heads=8
    ),
}


def _optimizer(row: Row) -> Optimizer:
    if row["optimizer"] == "SGD":
        return "sgd"
    return "paged_adamw" if "Paged" in row["optimizer"] else "adamw_foreach"


def finetune_lora(row: Row) -> Predicted | Unanswered:
    """The iteration of the longest sample; the counter is the allocated peak.

    finetune/lora.py forces it to be the first. Where a row does not say so, all its samples are as long, and the second
    iteration holds what is left of the first.
    """
    if row["num_gpus"] > 1:
        return Unanswered("weights sharded over cards")
    if "gpu" not in row:
        return Unanswered("card, version and LoRA settings are not stated")
    if "lm_head" in row["target_modules"]:
        return Unanswered("LoRA on a head that is run in slices")
    if row["target_modules"] != ["q", "v"]:
        return Unanswered("LoRA on layers other than queries and values")
    if row["model_id"] not in MODELS:
        return Unanswered("the model is not described here")
    model, quant = MODELS[row["model_id"]], row["quant"]
    mixed = "mixed" in row["base_dtype"]
    recipe = Recipe(
        method=row["method"],
        rank=row["rank"],
        target_modules=("attn",),
        dropout=row["lora_dropout"],
        base_dtype="float32" if mixed else "bfloat16",
        adapter_dtype="float32" if mixed else "bfloat16",
        autocast=mixed,
        quant=quant,
        double_quant=bool(row.get("double_quant")),
        kbit_upcast=False,
        optimizer=_optimizer(row),
        gradient_checkpointing=False,
    )
    later = "iteration 0" not in row["seq_kind"]
    stack = LitGpt2023(model.q_size + model.kv_size, -row["seq_len"] % HEAD_TOKENS, later)
    step = predict_step_memory(model, recipe, row["micro_batch"], row["seq_len"], "cuda", stack)
    card = find_gpus("a100-40gb")[0]
    memory = memory_estimate(step, recipe, profile_for(card))
    return Predicted(peak_figure(row, "allocated", memory), memory, card.memory_bytes)
