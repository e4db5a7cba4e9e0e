"""A configuration file of TRL: the keys and values of trl 1.16.0's `trl sft`, read in ModelConfig and SFTConfig.

What the format cannot express is stated in a comment.
"""

from __future__ import annotations

from advisor.export.command import run_line
from advisor.export.peft_snippet import ATTENTION, loadable
from advisor.export.yaml_values import (
    Value,
    flat_yaml,
    half_dtype,
    targets_of,
    training_arguments,
    unsaid,
)
from advisor.optimizers import optimizer_row
from advisor.specs import ModelSpec, Recipe, Workload

FILE_NAME = "train.yaml"


def write(model_id: str, model: ModelSpec, recipe: Recipe, workload: Workload, *, gpus: int, bf16: bool) -> str:
    """A file for `trl sft --config` that trains as `recipe` says on rows {"text": ...} of train.jsonl."""
    run = "trl sft --config train.yaml" + ("" if gpus == 1 else f" --num_processes {gpus}")
    packages = "'trl[peft]'" + (
        " bitsandbytes" if recipe.is_quantized or optimizer_row(recipe.optimizer).needs_bitsandbytes else ""
    )
    values: dict[str, Value] = {
        "model_name_or_path": loadable(model_id),
        "dtype": recipe.base_dtype,
        "attn_implementation": ATTENTION[recipe.attention],
        "datasets": [{"path": "json", "data_files": "train.jsonl"}],
        "max_length": workload.seq_len,
        "packing": workload.packing,
        **({"packing_strategy": "wrapped"} if workload.packing else {}),
        **training_arguments(model, recipe, workload),
        "bf16": recipe.autocast and half_dtype(recipe, bf16) == "bf16",
        "fp16": recipe.autocast and half_dtype(recipe, bf16) == "fp16",
        "gradient_checkpointing": recipe.gradient_checkpointing,
    }
    if recipe.gradient_checkpointing:
        values["gradient_checkpointing_kwargs"] = {"use_reentrant": recipe.reentrant}
    if recipe.has_adapters:
        values |= {
            "use_peft": True,
            "lora_r": recipe.rank,
            "lora_alpha": round(recipe.alpha),
            "lora_dropout": recipe.dropout,
            "lora_target_modules": targets_of(model, recipe),
            "use_dora": recipe.is_dora,
        }
    if recipe.quant == "int8":
        values["load_in_8bit"] = True
    elif recipe.is_quantized:
        values |= {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": recipe.quant,
            "use_bnb_nested_quant": recipe.double_quant,
        }
    usual = "bfloat16" if recipe.is_quantized else "float32"
    missing = unsaid(
        (recipe.loss == "full", "full-logits loss (TRL always uses its chunked loss)"),
        (recipe.has_adapters and recipe.adapter_dtype != usual, f"adapter-dtype {recipe.adapter_dtype}"),
        (recipe.is_dora and recipe.magnitude_dtype != "float32", f"magnitude-dtype {recipe.magnitude_dtype}"),
        (recipe.is_quantized and recipe.kbit_upcast, "kbit-upcast"),
    )
    return f"# pip install {packages}\n{run_line(run, recipe)}\n{missing}{flat_yaml(values)}"
