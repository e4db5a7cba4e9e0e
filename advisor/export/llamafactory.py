"""A configuration file of LLaMA-Factory: the keys and values of llamafactory 0.9.5, read in get_train_args.

What the format cannot express is stated in a comment.
"""

from __future__ import annotations

from advisor.export.command import run_line
from advisor.export.peft_snippet import loadable
from advisor.export.yaml_values import (
    Value,
    flat_yaml,
    half_dtype,
    targets_of,
    training_arguments,
    unsaid,
)
from advisor.parameters.targets import spelled_targets
from advisor.specs import ModelSpec, Recipe, Workload

FILE_NAME = "train.yaml"


def write(model_id: str, model: ModelSpec, recipe: Recipe, workload: Workload, *, gpus: int, bf16: bool) -> str:
    """A file for `llamafactory-cli train` that trains as `recipe` says; train.jsonl must be in dataset_info.json."""
    values: dict[str, Value] = {
        "model_name_or_path": loadable(model_id),
        "stage": "pt",
        "do_train": True,
        "finetuning_type": "lora" if recipe.has_adapters else "full",
        "flash_attn": {"eager": "disabled", "sdpa": "sdpa", "flash": "fa2"}[recipe.attention],
        "dataset": "train",
        "cutoff_len": workload.seq_len,
        "packing": workload.packing,
        **training_arguments(model, recipe, workload),
        "bf16": recipe.autocast and half_dtype(recipe, bf16) == "bf16",
        "fp16": recipe.autocast and half_dtype(recipe, bf16) == "fp16",
        "disable_gradient_checkpointing": not recipe.gradient_checkpointing,
        "use_reentrant_gc": recipe.reentrant,
        "enable_liger_kernel": recipe.loss == "chunked",
    }
    if recipe.has_adapters:
        all_of_them = spelled_targets(model, recipe) == ("all-linear",)
        values |= {
            "lora_rank": recipe.rank,
            "lora_alpha": round(recipe.alpha),
            "lora_dropout": recipe.dropout,
            "lora_target": "all" if all_of_them else ",".join(targets_of(model, recipe)),
            "use_dora": recipe.is_dora,
        }
    if recipe.is_quantized:
        values |= {"quantization_bit": 8 if recipe.quant == "int8" else 4, "quantization_method": "bnb"}
    if recipe.quant in ("nf4", "fp4"):
        values |= {"quantization_type": recipe.quant, "double_quantization": recipe.double_quant}
    if recipe.adapter_dtype == "bfloat16" and not recipe.is_quantized:
        values["pure_bf16"] = True
        values["bf16"] = False
    missing = unsaid(
        (recipe.is_quantized and recipe.kbit_upcast, "kbit-upcast"),
        (recipe.is_quantized and recipe.adapter_dtype != "float32", "16-bit adapters"),
    )
    run = "llamafactory-cli train train.yaml" + ("" if gpus == 1 else f"   # FORCE_TORCHRUN=1, {gpus} cards")
    entry = '# data/dataset_info.json: {"train": {"file_name": "train.jsonl", "columns": {"prompt": "text"}}}\n'
    return f"# pip install llamafactory\n{run_line(run, recipe)}\n{entry}{missing}{flat_yaml(values)}"
