"""Configuration files of trainers that read YAML: TRL, Axolotl, LLaMA-Factory.

Keys and values of trl 1.16.0 (`trl sft`), axolotl 0.19.0 and llamafactory 0.9.5, read in their own parsers
(ModelConfig, SFTConfig; AxolotlInputConfig; get_train_args). What the format cannot say is said in a comment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from advisor.export.peft_snippet import ADAPTER_RATE, ATTENTION, FULL_RATE, loadable
from advisor.optimizers import optimizer_row
from advisor.parameters.targets import attention_names, spelt_targets
from advisor.specs import ModelSpec, Recipe, Workload

Value = str | int | float | bool | list[str] | list[dict[str, str]] | dict[str, bool]


def _yaml(values: Mapping[str, Value]) -> str:
    """Flat YAML: a JSON value is a YAML value."""
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items())


def _whole(value: float) -> int | float:
    return int(value) if value == int(value) else value


def _rate(recipe: Recipe) -> float:
    return float(ADAPTER_RATE if recipe.has_adapters else FULL_RATE)


def _half(recipe: Recipe, bf16: bool) -> str:
    return "bf16" if bf16 and recipe.base_dtype != "float16" else "fp16"


def _targets(model: ModelSpec, recipe: Recipe) -> list[str]:
    return list(attention_names(model) if recipe.target_modules == ("attention",) else spelt_targets(model, recipe))


def _comments(*pairs: tuple[bool, str]) -> str:
    """A line for each setting that the file has no key for."""
    return "".join(f"# no key says: {text}\n" for missing, text in pairs if missing)


def _shared(recipe: Recipe, workload: Workload) -> dict[str, Value]:
    """Keys that TRL and LLaMA-Factory take from transformers' TrainingArguments."""
    return {
        "output_dir": "out",
        "num_train_epochs": _whole(workload.epochs),
        "per_device_train_batch_size": recipe.micro_batch,
        "gradient_accumulation_steps": recipe.gradient_accumulation,
        "learning_rate": _rate(recipe),
        "optim": optimizer_row(recipe.optimizer).transformers_name,
    }


def trl_yaml(model_id: str, model: ModelSpec, recipe: Recipe, workload: Workload, *, gpus: int, bf16: bool) -> str:
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
        **_shared(recipe, workload),
        "bf16": recipe.autocast and _half(recipe, bf16) == "bf16",
        "fp16": recipe.autocast and _half(recipe, bf16) == "fp16",
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
            "lora_target_modules": _targets(model, recipe),
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
    missing = _comments(
        (recipe.loss == "full", "loss full (TRL has its own, in chunks)"),
        (recipe.has_adapters and recipe.adapter_dtype != usual, f"adapter-dtype {recipe.adapter_dtype}"),
        (recipe.is_dora and recipe.magnitude_dtype != "float32", f"magnitude-dtype {recipe.magnitude_dtype}"),
        (recipe.is_quantized and recipe.kbit_upcast, "kbit-upcast"),
    )
    return f"# pip install {packages}\n# run: {run}\n{missing}{_yaml(values)}"


def axolotl_yaml(model_id: str, model: ModelSpec, recipe: Recipe, workload: Workload, *, gpus: int, bf16: bool) -> str:
    """A file for `axolotl train` that trains as `recipe` says on rows {"text": ...} of train.jsonl."""
    run = "axolotl train train.yaml" + ("" if gpus == 1 else f" --num-processes {gpus}")
    values: dict[str, Value] = {
        "base_model": loadable(model_id),
        "attn_implementation": ATTENTION[recipe.attention],
        "datasets": [{"path": "train.jsonl", "ds_type": "json", "type": "completion"}],
        "sequence_len": workload.seq_len,
        "sample_packing": workload.packing,
        "micro_batch_size": recipe.micro_batch,
        "gradient_accumulation_steps": recipe.gradient_accumulation,
        "num_epochs": _whole(workload.epochs),
        "optimizer": optimizer_row(recipe.optimizer).transformers_name,
        "learning_rate": _rate(recipe),
        "lr_scheduler": "linear",
        "bf16": recipe.autocast and _half(recipe, bf16) == "bf16",
        "fp16": recipe.autocast and _half(recipe, bf16) == "fp16",
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "output_dir": "out",
        "lora_mlp_kernel": False,
        "lora_qkv_kernel": False,
        "lora_o_kernel": False,
    }
    if recipe.gradient_checkpointing:
        values["gradient_checkpointing_kwargs"] = {"use_reentrant": recipe.reentrant}
    if recipe.has_adapters:
        values |= {
            "adapter": "qlora" if recipe.quant in ("nf4", "fp4") else "lora",
            "lora_r": recipe.rank,
            "lora_alpha": round(recipe.alpha),
            "lora_dropout": recipe.dropout,
        }
        everything = spelt_targets(model, recipe) == ("all-linear",)
        values |= {"lora_target_linear": True} if everything else {"lora_target_modules": _targets(model, recipe)}
        values |= {"peft_use_dora": True} if recipe.is_dora else {}
        values |= {"load_in_8bit": True} if recipe.quant == "int8" else {}
        values |= {"load_in_4bit": True} if recipe.quant in ("nf4", "fp4") else {}
        values |= {"peft_autocast_adapter_dtype": False} if recipe.adapter_dtype != "float32" else {}
    missing = _comments(
        (recipe.loss == "chunked", "loss chunked (axolotl's plugins have several)"),
        (recipe.quant == "fp4" or (recipe.is_quantized and not recipe.double_quant), "another store than nf4, doubly"),
        (recipe.is_quantized and recipe.kbit_upcast, "kbit-upcast"),
        (recipe.base_dtype == "float32", "base-dtype float32"),
    )
    note = "# its own kernels are off, as in the estimate: remove the three *_kernel lines to save memory\n"
    return f"# pip install axolotl\n# run: {run}\n{note}{missing}{_yaml(values)}"


def llamafactory_yaml(
    model_id: str, model: ModelSpec, recipe: Recipe, workload: Workload, *, gpus: int, bf16: bool
) -> str:
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
        **_shared(recipe, workload),
        "bf16": recipe.autocast and _half(recipe, bf16) == "bf16",
        "fp16": recipe.autocast and _half(recipe, bf16) == "fp16",
        "disable_gradient_checkpointing": not recipe.gradient_checkpointing,
        "use_reentrant_gc": recipe.reentrant,
        "enable_liger_kernel": recipe.loss == "chunked",
    }
    if recipe.has_adapters:
        all_of_them = spelt_targets(model, recipe) == ("all-linear",)
        values |= {
            "lora_rank": recipe.rank,
            "lora_alpha": round(recipe.alpha),
            "lora_dropout": recipe.dropout,
            "lora_target": "all" if all_of_them else ",".join(_targets(model, recipe)),
            "use_dora": recipe.is_dora,
        }
    if recipe.is_quantized:
        values |= {"quantization_bit": 8 if recipe.quant == "int8" else 4, "quantization_method": "bnb"}
    if recipe.quant in ("nf4", "fp4"):
        values |= {"quantization_type": recipe.quant, "double_quantization": recipe.double_quant}
    if recipe.adapter_dtype == "bfloat16" and not recipe.is_quantized:
        values["pure_bf16"] = True
        values["bf16"] = False
    missing = _comments(
        (recipe.is_quantized and recipe.kbit_upcast, "kbit-upcast"),
        (recipe.is_quantized and recipe.adapter_dtype != "float32", "16-bit adapters"),
    )
    run = "llamafactory-cli train train.yaml" + ("" if gpus == 1 else f"   # FORCE_TORCHRUN=1, {gpus} cards")
    entry = '# data/dataset_info.json: {"train": {"file_name": "train.jsonl", "columns": {"prompt": "text"}}}\n'
    return f"# pip install llamafactory\n# run: {run}\n{entry}{missing}{_yaml(values)}"
