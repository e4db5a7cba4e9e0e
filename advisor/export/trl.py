"""A configuration file of TRL: the keys and values of trl 1.16.0's `trl sft`, read in ModelConfig and SFTConfig.

What the format cannot express is stated in a comment, or refused where another run would come of it.
"""

from __future__ import annotations

from typing import Any

from advisor.answer import DataFile
from advisor.errors import InputError
from advisor.export.accelerate import accelerate_files, is_started
from advisor.export.kernels import liger_config, refuse
from advisor.export.launch import CONFIG, meeting_flags
from advisor.export.rows import BUILDERS
from advisor.export.run import ATTENTION, Run, TrainingFile, check_stored
from advisor.export.yaml_values import NAME, refuse_some_layers, training_arguments, unsaid, whole_alpha, yaml_file
from advisor.optimizers import optimizer_row
from advisor.specs import KernelSet

_LIGER: tuple[KernelSet, ...] = ("liger_norm", "liger_rope", "liger_mlp")
_COLUMNS = {"messages": ("messages",), "prompt_completion": ("prompt", "completion")}
_CHAT_NOTE = (
    "# assistant_only_loss needs a chat template that TRL knows or that marks answers with {% generation %}: for\n"
    "# another one, set it to false (then questions are learned as well); set eos_token to the end of a turn\n"
    "# where the template ends answers with a token other than the tokenizer's EOS\n"
)


def write(run: Run) -> TrainingFile:
    """A file for `trl sft --config`. Raises InputError for rows, or a setting, that TRL does not take."""
    check_stored(run, "TRL", "gptq", "awq", "mxfp4")
    recipe = run.recipe
    refuse_some_layers(run, "TRL")
    refuse(recipe, "TRL", _LIGER, offloads=True)
    values: dict[str, Any] = {
        "model_name_or_path": run.source,
        "dtype": recipe.base_dtype,
        "attn_implementation": ATTENTION[recipe.attention],
        **_rows(run.data),
        "max_length": run.workload.seq_len,
        **_micro_batches(run),
        **training_arguments(run, run.optimizer_arguments("TRL")),
        "bf16": run.mixed_precision == "bf16",
        "fp16": run.mixed_precision == "fp16",
        "activation_checkpointing": recipe.gradient_checkpointing,
    }
    if recipe.gradient_checkpointing:
        values["activation_checkpointing_kwargs"] = {"use_reentrant": recipe.reentrant}
    config = liger_config(recipe, _LIGER)
    if config is not None:
        values |= {"use_liger_kernel": True, **({"liger_kernel_config": config} if config else {})}
    if recipe.offload != "none":
        values["activation_offloading"] = True
    if recipe.has_adapters:
        values |= _adapters(run)
    values |= _storage(run)
    notes = (_CHAT_NOTE if run.data.form == "messages" else "") + _unsaid(run)
    command = _command(run)
    return yaml_file(run, _packages(run), command, notes, values, accelerate_files(run, command))


def _packages(run: Run) -> str:
    optimizer = optimizer_row(run.recipe.optimizer)
    bitsandbytes = run.quantizes or run.stored_as == "bitsandbytes" or optimizer.needs_bitsandbytes
    own = f" {optimizer.package}" if optimizer.package else ""
    return "'trl[peft]' 'transformers>=5.23,<6'" + (" bitsandbytes" if bitsandbytes else "") + own


def _storage(run: Run) -> dict[str, Any]:
    """How it quantizes the base; nothing for a checkpoint that is quantized already."""
    if not run.quantizes:
        return {}
    if run.recipe.quant == "int8":
        return {"load_in_8bit": True}
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": run.recipe.quant,
        "use_bnb_nested_quant": run.recipe.double_quant,
        **({"bnb_4bit_quant_storage": run.storage_dtype} if run.storage_dtype else {}),
    }


def _command(run: Run) -> str:
    """It hands flags that are not its own to accelerate's launcher. Source: cli/commands/training.py."""
    if is_started(run):
        return f"trl sft --config {NAME} --accelerate_config {CONFIG}{meeting_flags(run)}"
    cards = f" --multi_gpu --num_machines {run.placement.nodes} --num_processes {run.gpus}{meeting_flags(run)}"
    return f"trl sft --config {NAME}" + ("" if run.gpus == 1 else cards)


def _micro_batches(run: Run) -> dict[str, Any]:
    """How rows become micro-batches; `bfd` packing hands out position ids."""
    workload = run.workload
    if workload.packing:
        return {"packing": True, "packing_strategy": "wrapped" if workload.packing_strategy == "wrapped" else "bfd"}
    values: dict[str, Any] = {"packing": False}
    if workload.padding == "none":
        return values | ({"padding_free": True} if run.recipe.micro_batch > 1 else {})
    return values | ({"pad_to_multiple_of": workload.pad_to_multiple_of} if workload.pad_to_multiple_of > 1 else {})


def _rows(data: DataFile) -> dict[str, Any]:
    """Where the rows are, which columns are read, and what of them is learned. Raises InputError."""
    if data.form in ("alpaca", "sharegpt"):
        raise InputError(
            f"--data {data.path!r} has {data.form} rows, which TRL does not read: convert them to messages, or use "
            f"--write python, axolotl or llamafactory"
        )
    columns = _COLUMNS.get(data.form, data.columns)
    if data.columns != columns:
        raise InputError(
            f"--data {data.path!r} has {data.form} rows in {', '.join(data.columns)}, but TRL reads "
            f"{', '.join(columns)}: rename the columns, or use --write python"
        )
    rows: dict[str, Any] = {"path": BUILDERS[data.format], "data_files": data.path}
    if columns:
        rows["columns"] = list(columns)
    learned: dict[str, dict[str, Any]] = {
        "messages": {"assistant_only_loss": True},
        "prompt_completion": {"completion_only_loss": True},
        "text": {"dataset_text_field": columns[0]} if columns and columns != ("text",) else {},
    }
    return {"datasets": [rows], **learned[data.form]}


def _adapters(run: Run) -> dict[str, Any]:
    saved = run.recipe.modules_to_save
    return {
        **run.variant_keys("TRL", {"rslora": ("use_rslora", True)}),
        **({"lora_modules_to_save": list(saved)} if saved else {}),
        "use_peft": True,
        "lora_r": run.recipe.rank,
        "lora_alpha": whole_alpha(run, "TRL"),
        "lora_dropout": run.recipe.dropout,
        "lora_target_modules": run.target_modules,
        "use_dora": run.recipe.is_dora,
    }


def _unsaid(run: Run) -> str:
    recipe, workload = run.recipe, run.workload
    usual = "bfloat16" if recipe.is_quantized else "float32"
    return unsaid(
        (
            bool(recipe.modules_to_save) and recipe.trained_dtype not in ("base", "bfloat16"),
            f"trained-dtype {recipe.trained_dtype}",
        ),
        (recipe.loss == "full", "full-logits loss (TRL always uses its chunked loss)"),
        (recipe.has_adapters and recipe.adapter_dtype != usual, f"adapter-dtype {recipe.adapter_dtype}"),
        (recipe.is_dora and recipe.magnitude_dtype != "float32", f"magnitude-dtype {recipe.magnitude_dtype}"),
        (recipe.is_quantized and recipe.kbit_upcast, "kbit-upcast"),
        (workload.padding == "max_length" and not workload.packing, "padding max_length (TRL pads to the longest row)"),
    )
