"""A configuration file of Axolotl: the keys and values of axolotl 0.19.0, read in AxolotlInputConfig.

What the format cannot express is stated in a comment.
"""

from __future__ import annotations

from advisor.export.command import run_line
from advisor.export.peft_snippet import ATTENTION, loadable
from advisor.export.yaml_values import (
    Value,
    flat_yaml,
    half_dtype,
    rate_of,
    targets_of,
    unsaid,
    whole,
)
from advisor.optimizers import optimizer_row
from advisor.parameters.targets import spelled_targets
from advisor.specs import ModelSpec, Recipe, Workload

FILE_NAME = "train.yaml"


def write(model_id: str, model: ModelSpec, recipe: Recipe, workload: Workload, *, gpus: int, bf16: bool) -> str:
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
        "num_epochs": whole(workload.epochs),
        "optimizer": optimizer_row(recipe.optimizer).transformers_name,
        "learning_rate": rate_of(model, recipe),
        "lr_scheduler": "linear",
        "bf16": recipe.autocast and half_dtype(recipe, bf16) == "bf16",
        "fp16": recipe.autocast and half_dtype(recipe, bf16) == "fp16",
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
        everything = spelled_targets(model, recipe) == ("all-linear",)
        values |= {"lora_target_linear": True} if everything else {"lora_target_modules": targets_of(model, recipe)}
        values |= {"peft_use_dora": True} if recipe.is_dora else {}
        values |= {"load_in_8bit": True} if recipe.quant == "int8" else {}
        values |= {"load_in_4bit": True} if recipe.quant in ("nf4", "fp4") else {}
        values |= {"peft_autocast_adapter_dtype": False} if recipe.adapter_dtype != "float32" else {}
    missing = unsaid(
        (recipe.loss == "chunked", "chunked loss (several of axolotl's plugins offer one)"),
        (
            recipe.quant == "fp4" or (recipe.is_quantized and not recipe.double_quant),
            "a 4-bit format other than double-quantized nf4",
        ),
        (recipe.is_quantized and recipe.kbit_upcast, "kbit-upcast"),
        (recipe.base_dtype == "float32", "base-dtype float32"),
    )
    note = "# its own kernels are off, as in the estimate: remove the three *_kernel lines to save memory\n"
    return f"# pip install axolotl\n{run_line(run, recipe)}\n{note}{missing}{flat_yaml(values)}"
