"""A configuration file of torchtune: the keys of the recipes of torchtune 0.6.1, and the builders that it names.

Sources: recipes/{lora,full}_finetune_{single_device,distributed}.py. What they have no key for is stated in a comment,
or refused where another run would come of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from advisor.answer import DataFile
from advisor.engines.limits import WHOLE_ALONE
from advisor.errors import BadValue, InputError
from advisor.export.kernels import refuse
from advisor.export.launch import torchrun_flags
from advisor.export.rows import BUILDERS as ROWS
from advisor.export.run import Run, TrainingFile, check_stored
from advisor.export.torchtune_models import FAMILIES, Builder, builder_of
from advisor.export.yaml_values import NAME, refuse_some_layers, unsaid, yaml_file
from advisor.libraries import OLD_ALLOCATOR
from advisor.optimizers import Optimizer, optimizer_row

PACKAGES = "torch==2.6.0 torchvision==0.21.0 torchao==0.9.0 torchtune==0.6.1"
"""This PyTorch's allocator reads OLD_ALLOCATOR alone."""
OPTIMIZERS: Mapping[Optimizer, str] = {
    "adamw": "torch.optim.AdamW",
    "adamw_foreach": "torch.optim.AdamW",
    "sgd": "torch.optim.SGD",
    "adamw_8bit": "bitsandbytes.optim.AdamW8bit",
    "paged_adamw": "bitsandbytes.optim.PagedAdamW",
    "paged_adamw_8bit": "bitsandbytes.optim.PagedAdamW8bit",
}
"""adamw is fused, which its file has to say."""
ROLES = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "o_proj": "output_proj"}
"""What it calls the layers of attention, by their names in transformers."""
MLP = ("gate_proj", "up_proj", "down_proj")
"""Layers that its builders adapt together."""
_DTYPES = {"bfloat16": "bf16", "float32": "fp32"}
_USUAL = ("instruction", "input", "output")
_TEXTS_NOTE = "# prompts and completions must be texts here, not messages\n"


def write(run: Run) -> TrainingFile:
    """A file for `tune run`. Raises InputError for a model, rows or a setting that torchtune does not take."""
    builder = builder_of(run.model, run.model_id)
    check_stored(run, "torchtune", *([run.stored_as] if run.stored_as else []))
    _check(run, builder)
    recipe, full = run.recipe, run.recipe.method == "full"
    values: dict[str, Any] = {
        "output_dir": "out",
        "model": {"_component_": builder.component("" if full else "lora_"), **({} if full else _adapters(run))},
        "tokenizer": _tokenizer(run, builder),
        "checkpointer": _checkpointer(run, builder),
        "resume_from_checkpoint": False,
        **({} if full else {"save_adapter_weights_only": False}),
        "dataset": {**_rows(run.data), "packed": run.workload.packing},
        "seed": None,
        "shuffle": True,
        "batch_size": recipe.micro_batch,
        "gradient_accumulation_steps": recipe.gradient_accumulation,
        "epochs": _epochs(run),
        "max_steps_per_epoch": None,
        "optimizer": _optimizer(run),
        **({"optimizer_in_bwd": recipe.optimizer_in_backward} if full else {}),
        "lr_scheduler": {
            "_component_": "torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup",
            "num_warmup_steps": 0,
        },
        "clip_grad_norm": None if recipe.optimizer_in_backward else 1.0,
        "loss": {"_component_": "torchtune.modules.loss.CEWithChunkedOutputLoss"},
        "device": "cuda",
        "dtype": _DTYPES[recipe.base_dtype],
        "compile": False,
        "enable_activation_checkpointing": recipe.gradient_checkpointing or recipe.offload != "none",
        "enable_activation_offloading": recipe.offload != "none",
        **_spread(run),
        "metric_logger": {"_component_": "torchtune.training.metric_logging.DiskLogger", "log_dir": "out/logs"},
        "log_every_n_steps": 1,
        "log_peak_memory_stats": True,
    }
    install = PACKAGES + (" bitsandbytes" if optimizer_row(recipe.optimizer).needs_bitsandbytes else "")
    notes = _notes(run, builder)
    return yaml_file(run, install, _command(run), notes, values, nested=True, allocator=OLD_ALLOCATOR)


def _check(run: Run, builder: Builder) -> None:
    """Raises InputError for a run that would be another one."""
    recipe = run.recipe
    refuse(recipe, "torchtune", (), offloads=True, in_backward=True)
    refuse_some_layers(run, "torchtune")
    if run.by_accelerate:
        raise InputError("torchtune starts its processes itself: --write torchtune")
    if recipe.modules_to_save:
        saved = ",".join(recipe.modules_to_save)
        raise BadValue(
            "--modules-to-save", saved, "torchtune trains nothing whole beside adapters; --write python does"
        )
    if recipe.variant != "plain":
        raise BadValue("--variant", recipe.variant, "torchtune has plain LoRA and DoRA only; --write python has it")
    if recipe.neftune:
        raise BadValue("--neftune", recipe.neftune, "torchtune has no setting for it; --write python has")
    if recipe.quant not in ("none", "nf4"):
        raise BadValue("--quant", recipe.quant, "torchtune quantizes to nf4 only; --write python has it")
    if recipe.base_dtype not in _DTYPES:
        raise BadValue(
            "--base-dtype", recipe.base_dtype, "torchtune trains in bfloat16 or float32; --write python has it"
        )
    if recipe.base_dtype == "bfloat16" and not run.bf16:
        raise InputError("torchtune's bf16 needs a card that has it (Ampere or newer): use --write python")
    if run.workload.padding == "none" and not run.workload.packing:
        raise BadValue("--padding", "none", "torchtune pads to the longest row; --write axolotl or trl has it")
    if run.workload.seq_len > builder.positions:
        at_most = f"torchtune builds {run.model.name} for at most {builder.positions:,} positions"
        raise BadValue("--seq-len", run.workload.seq_len, at_most)
    if recipe.is_dora and not builder.has_dora:
        raise InputError(f"torchtune 0.6.1 has no DoRA in its builder for {run.model.name}: use --method qlora or lora")


def _spread(run: Run) -> dict[str, Any]:
    """FSDP2, which its distributed recipes set up by themselves. Raises BadValue for another engine."""
    at, optimizer = run.placement, run.recipe.optimizer
    if run.gpus == 1:
        return {}
    if at.effective_sharding != "fsdp2":
        why = "torchtune shares several cards by FSDP2 alone: --sharding fsdp2"
        raise BadValue("--sharding", at.effective_sharding, why)
    if optimizer_row(optimizer).needs_bitsandbytes:
        raise BadValue("--optimizer", optimizer, WHOLE_ALONE)
    return {"fsdp_cpu_offload": at.offload == "parameters", "fsdp_reshard_after_forward": at.reshard}


def _command(run: Run) -> str:
    kind = "full" if run.recipe.method == "full" else "lora"
    if run.gpus == 1:
        return f"tune run {kind}_finetune_single_device --config {NAME}"
    return f"tune run {torchrun_flags(run)} {kind}_finetune_distributed --config {NAME}"


def _adapters(run: Run) -> dict[str, Any]:
    """Which layers get adapters, of a base that is in 4 bits or not. Raises InputError for layers that it cannot."""
    recipe = run.recipe
    if run.model.fused_qkv or run.model.mlp == "gated_fused":
        raise InputError(
            f"torchtune splits the fused layers of {run.model.name}, so that its adapters are not those of this "
            "estimate: use --write python, or --method full"
        )
    names = [*ROLES, *MLP] if run.adapts_all_linear else run.target_modules
    heads = builder_of(run.model, run.model_id).adapts_output
    known = {*ROLES, *MLP, *(["lm_head"] if heads else [])}
    adapts_mlp = set(MLP) <= set(names)
    if set(names) - known or (set(names) & set(MLP) and not adapts_mlp):
        head = ", and lm_head" if heads else ""
        choice = f"torchtune adapts {', '.join(ROLES)} each, {', '.join(MLP)} together{head}; --write python has any"
        raise BadValue("--target-modules", ",".join(names), choice)
    return {
        "lora_attn_modules": [own for name, own in ROLES.items() if name in names],
        "apply_lora_to_mlp": adapts_mlp,
        **({"apply_lora_to_output": "lm_head" in names} if heads else {}),
        "lora_rank": recipe.rank,
        "lora_alpha": recipe.alpha,
        "lora_dropout": recipe.dropout,
        **({"use_dora": True} if recipe.is_dora else {}),
        **({"quantize_base": True} if recipe.is_quantized else {}),
    }


def _tokenizer(run: Run, builder: Builder) -> dict[str, Any]:
    family = FAMILIES[builder.family]
    files = {word: f"{run.source}/{file}" for word, file in family.words.items()}
    return {"_component_": f"torchtune.models.{family.tokenizer}", **files, "max_seq_len": run.workload.seq_len}


def _checkpointer(run: Run, builder: Builder) -> dict[str, Any]:
    return {
        "_component_": "torchtune.training.FullModelHFCheckpointer",
        "checkpoint_dir": run.source,
        "checkpoint_files": _files(run, builder),
        "recipe_checkpoint": None,
        "output_dir": "out",
        "model_type": FAMILIES[builder.family].model_type,
    }


def _files(run: Run, builder: Builder) -> list[str] | dict[str, str]:
    """The files of the weights: those of a folder that is here, or as torchtune's own configuration has them."""
    for ending in (".safetensors", ".bin"):
        found = sorted(one for one in _listed(run.source) if re.match(rf"(pytorch_)?model.*\{ending}$", one))
        if found:
            return found
    if not builder.files:
        raise InputError(
            f"torchtune names the files of the weights, which are not known of {run.model_id}: give its folder as "
            "--model"
        )
    if builder.files == 1:
        return ["model.safetensors"]
    return {"filename_format": FAMILIES[builder.family].file_format, "max_filename": f"{builder.files:05}"}


def _listed(folder: str) -> list[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []


def _rows(data: DataFile) -> dict[str, Any]:
    """The dataset's builder for each form, as torchtune/datasets has them; what is asked is not learned."""
    columns = data.columns or ("text",)
    source = {"source": ROWS[data.format], "data_files": data.path, "split": "train"}
    if data.form == "text":
        return {"_component_": "torchtune.datasets.text_completion_dataset", **source, "column": columns[0]}
    if data.form in ("messages", "sharegpt"):
        style = "openai" if data.form == "messages" else "sharegpt"
        talk = {"conversation_column": columns[0], "conversation_style": style}
        return {"_component_": "torchtune.datasets.chat_dataset", **source, **talk, "train_on_input": False}
    if data.form == "alpaca":
        known = _USUAL if len(columns) == 3 else (_USUAL[0], _USUAL[-1])
        kind = "torchtune.datasets.alpaca_dataset"
    else:
        known, kind = (_USUAL[1], _USUAL[-1]), "torchtune.datasets.instruct_dataset"
    renamed = dict(zip(known, columns, strict=True))
    return {"_component_": kind, **source, "column_map": renamed, "train_on_input": False}


def _epochs(run: Run) -> int:
    if run.workload.epochs != int(run.workload.epochs):
        raise BadValue("--epochs", run.workload.epochs, "must be a whole number in a file for torchtune")
    return int(run.workload.epochs)


def _optimizer(run: Run) -> dict[str, Any]:
    name = run.recipe.optimizer
    if name not in OPTIMIZERS:
        known = ", ".join(OPTIMIZERS)
        raise BadValue("--optimizer", name, f"a file for torchtune can name {known}; --write axolotl has more")
    return {
        "_component_": OPTIMIZERS[name],
        **({"fused": True} if name == "adamw" else {}),
        "lr": run.learning_rate,
        "weight_decay": 0.0,
    }


def _notes(run: Run, builder: Builder) -> str:
    """Comment lines: how to get the weights, what has to be checked, and what the file cannot say."""
    notes = ""
    if not os.path.isdir(run.source):
        passed_over = (
            "*.safetensors" if FAMILIES[builder.family].file_format.endswith(".bin") else "original/consolidated*"
        )
        notes += f"# first: tune download {run.source} --output-dir {run.source} --ignore-patterns '{passed_over}'\n"
    if not any(one.endswith((".safetensors", ".bin")) for one in _listed(run.source)):
        notes += f"# checkpoint_files: as torchtune has them for {builder.name}; compare with the files that you have\n"
    base = FAMILIES[builder.family].rope_base
    notes += f"# {builder.name} has a RoPE base of {base:,}: rope_theta of the model's config.json must be the same\n"
    notes += _TEXTS_NOTE if run.data.form == "prompt_completion" else ""
    return notes + _unsaid(run)


def _unsaid(run: Run) -> str:
    recipe, workload = run.recipe, run.workload
    own = any(name.startswith("torchtune") for name in recipe.stack)
    return unsaid(
        (recipe.autocast, f"autocast ({recipe.base_dtype} weights are computed with as they are)"),
        (
            recipe.has_adapters and recipe.adapter_dtype != recipe.base_dtype,
            f"adapter-dtype {recipe.adapter_dtype} (torchtune: {recipe.base_dtype})",
        ),
        (
            recipe.is_dora and recipe.magnitude_dtype != recipe.base_dtype,
            f"magnitude-dtype {recipe.magnitude_dtype} (torchtune: {recipe.base_dtype})",
        ),
        (recipe.is_quantized and recipe.kbit_upcast, "kbit-upcast"),
        (recipe.is_quantized and not recipe.double_quant, "no-double-quant (torchtune always quantizes its scales)"),
        (recipe.loss == "chunked", "chunked loss (torchtune keeps every chunk of the logits)"),
        (recipe.attention == "eager", "attention eager (torchtune calls PyTorch's own)"),
        (recipe.gradient_checkpointing and recipe.reentrant, "reentrant checkpointing"),
        (recipe.eval_batch > 0, "eval-examples: its recipes do not evaluate"),
        (workload.group_by_length, "group-by-length"),
        (workload.padding == "max_length" and not workload.packing, "padding max_length (it pads to the longest row)"),
        (
            workload.pad_to_multiple_of > 1 and not workload.packing,
            f"pad-to-multiple-of {workload.pad_to_multiple_of}",
        ),
        (
            workload.packing and not own and workload.packing_strategy != "varlen",
            f"packing-strategy {workload.packing_strategy} (torchtune's mask keeps examples apart)",
        ),
    )
