"""A configuration file of LLaMA-Factory: the keys and values of llamafactory 0.9.5, read in get_train_args.

What the format cannot express is stated in a comment, or refused where another run would come of it. The rows are
described in dataset_info.json next to it.
"""

from __future__ import annotations

import json
from typing import Any

from advisor.answer import DataFile
from advisor.export.kernels import LIGER, liger_config, refuse
from advisor.export.run import Run, TrainingFile
from advisor.export.yaml_values import NAME, training_arguments, unsaid, whole_alpha, yaml_file

_TEMPLATE_NOTE = (
    "# the chat template is the tokenizer's; where it has none, name one of LLaMA-Factory's: template: NAME\n"
)
_TEXTS_NOTE = "# prompts and completions must be texts here, not messages\n"


def write(run: Run) -> TrainingFile:
    """A file for `llamafactory-cli train`. Raises BadValue for an alpha that it does not take."""
    recipe = run.recipe
    refuse(recipe, "LLaMA-Factory", tuple(LIGER))
    pure = recipe.base_dtype == "bfloat16" if recipe.method == "full" else _plain_bf16_adapters(run)
    values: dict[str, Any] = {
        "model_name_or_path": run.source,
        "stage": "pt" if run.data.form == "text" else "sft",
        "do_train": True,
        "finetuning_type": "lora" if recipe.has_adapters else "full",
        "flash_attn": {"eager": "disabled", "sdpa": "sdpa", "flash": "fa2"}[recipe.attention],
        "dataset": "train",
        "dataset_dir": ".",
        "cutoff_len": run.workload.seq_len,
        "packing": run.workload.packing,
        **({"neat_packing": True} if _keeps_apart(run) else {}),
        **training_arguments(run),
        "bf16": run.mixed_precision == "bf16" and not pure,
        "fp16": run.mixed_precision == "fp16" and not pure,
        **({"pure_bf16": True} if pure else {}),
        **({} if recipe.autocast or pure else {"infer_dtype": recipe.base_dtype}),
        "disable_gradient_checkpointing": not recipe.gradient_checkpointing,
        "use_reentrant_gc": recipe.reentrant,
        "enable_liger_kernel": recipe.loss == "chunked" or bool(recipe.kernels),
    }
    if recipe.has_adapters:
        values |= {
            "lora_rank": recipe.rank,
            "lora_alpha": whole_alpha(run, "LLaMA-Factory"),
            "lora_dropout": recipe.dropout,
            "lora_target": "all" if run.adapts_all_linear else ",".join(run.target_modules),
            "use_dora": recipe.is_dora,
        }
    if recipe.is_quantized:
        values |= {"quantization_bit": 8 if recipe.quant == "int8" else 4, "quantization_method": "bnb"}
    if recipe.quant in ("nf4", "fp4"):
        values |= {"quantization_type": recipe.quant, "double_quantization": recipe.double_quant}
    command = ("" if run.gpus == 1 else "FORCE_TORCHRUN=1 ") + f"llamafactory-cli train {NAME}"
    info = json.dumps({"train": _rows(run.data)}, ensure_ascii=False)
    notes = f"# dataset_info.json, next to this file: {info}\n"
    notes += _TEMPLATE_NOTE if run.data.form in ("messages", "sharegpt") else ""
    notes += _TEXTS_NOTE if run.data.form == "prompt_completion" else ""
    beside = (("dataset_info.json", info + "\n"),)
    return yaml_file(run, "llamafactory", command, notes + _unsaid(run, pure), values, beside)


def _keeps_apart(run: Run) -> bool:
    """Whether examples in a packed row do not attend to each other, which only supervised rows can."""
    return run.workload.packing and run.workload.packing_strategy != "wrapped" and run.data.form != "text"


def _plain_bf16_adapters(run: Run) -> bool:
    """Whether pure_bf16 says what is wanted of the adapters: it also switches autocast off."""
    return run.recipe.adapter_dtype == "bfloat16" and not run.recipe.is_quantized


def _rows(data: DataFile) -> dict[str, Any]:
    """The entry of dataset_info.json, as data/parser.py reads it; what is asked is not learned, by default."""
    columns = data.columns or ("text",)
    entry: dict[str, Any] = {"file_name": data.path}
    if data.form == "text":
        return entry | {"columns": {"prompt": columns[0]}}
    if data.form == "sharegpt":
        return entry | {"formatting": "sharegpt", "columns": {"messages": columns[0]}}
    if data.form == "messages":
        tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
        return entry | {
            "formatting": "sharegpt",
            "columns": {"messages": columns[0]},
            "tags": tags | {"system_tag": "system"},
        }
    names = {"prompt": columns[0], "response": columns[-1]} | ({"query": columns[1]} if len(columns) == 3 else {})
    return entry | {"formatting": "alpaca", "columns": names}


def _unsaid(run: Run, pure: bool) -> str:
    recipe, workload = run.recipe, run.workload
    full = recipe.method == "full"
    weights = "bfloat16" if pure else "float32" if full else _loaded(run)
    return unsaid(
        (workload.padding != "longest" and not workload.packing, f"padding {workload.padding}"),
        (
            workload.pad_to_multiple_of != 8 and not workload.packing,
            f"pad-to-multiple-of {workload.pad_to_multiple_of} (LLaMA-Factory rounds up to 8 tokens)",
        ),
        (recipe.is_quantized and recipe.kbit_upcast, "kbit-upcast"),
        (recipe.is_quantized and recipe.adapter_dtype != "float32", "16-bit adapters"),
        (recipe.adapter_dtype == "float16" and not recipe.is_quantized and not full, "adapter-dtype float16"),
        (recipe.base_dtype != weights, f"base-dtype {recipe.base_dtype}"),
        (bool(liger_config(recipe)), "some of Liger's kernels without the others"),
        (pure and recipe.autocast, "autocast beside bf16 weights that are trained"),
        (
            recipe.is_dora and recipe.magnitude_dtype != recipe.adapter_dtype,
            f"magnitude-dtype {recipe.magnitude_dtype}",
        ),
    )


def _loaded(run: Run) -> str:
    """The dtype of frozen weights: that of mixed precision, else what infer_dtype says."""
    return {"bf16": "bfloat16", "fp16": "float16", "": run.recipe.base_dtype}[run.mixed_precision]
