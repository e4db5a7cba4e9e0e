"""A configuration file of LLaMA-Factory: the keys and values of llamafactory 0.9.5, read in get_train_args.

What the format cannot express is stated in a comment, or refused where another run would come of it. The rows are
described in dataset_info.json next to it.
"""

from __future__ import annotations

import json
from typing import Any

from advisor.answer import DataFile
from advisor.errors import BadValue
from advisor.export.accelerate import FSDP, accelerate_files, is_started
from advisor.export.deepspeed import FILE as DEEPSPEED
from advisor.export.deepspeed import deepspeed_files, stage_of
from advisor.export.kernels import LIGER, liger_config, refuse
from advisor.export.launch import FIRST, JOB, by_accelerate
from advisor.export.run import LORAPLUS_RATIO, Run, TrainingFile, check_stored
from advisor.export.yaml_values import NAME, refuse_some_layers, training_arguments, unsaid, whole_alpha, yaml_file
from advisor.optimizers import optimizer_row
from advisor.parameters.rotations import BLOCK
from advisor.specs import Recipe

_TEMPLATE_NOTE = (
    "# the chat template is the tokenizer's; where it has none, name one of LLaMA-Factory's: template: NAME\n"
)
_VARIANTS: dict[str, tuple[str, Any]] = {
    "rslora": ("use_rslora", True),
    "pissa": ("pissa_init", True),
    "loraplus": ("loraplus_lr_ratio", LORAPLUS_RATIO),
    "oft": ("finetuning_type", "oft"),
}
_TEXTS_NOTE = "# prompts and completions must be texts here, not messages\n"


def write(run: Run) -> TrainingFile:
    """A file for `llamafactory-cli train`. Raises BadValue for an alpha that it does not take."""
    # of an FP8 checkpoint it makes 16 bits on any card: model/model_utils/quantization.py, configure_quantization
    check_stored(run, "LLaMA-Factory", "gptq", "awq", *(["fp8"] if run.recipe.is_quantized else []))
    recipe = run.recipe
    refuse(recipe, "LLaMA-Factory", tuple(LIGER))
    pure = _trains_bf16(recipe) if recipe.method == "full" else _plain_bf16_adapters(run)
    values: dict[str, Any] = {
        "model_name_or_path": run.source,
        "stage": "pt" if run.data.form == "text" else "sft",
        "do_train": True,
        "finetuning_type": _finetuning_type(recipe),
        "flash_attn": {"eager": "disabled", "sdpa": "sdpa", "flash": "fa2"}[recipe.attention],
        "dataset": "train",
        "dataset_dir": ".",
        "cutoff_len": run.workload.seq_len,
        "packing": run.workload.packing,
        **({"neat_packing": True} if _keeps_apart(run) else {}),
        **training_arguments(run, _optimizer(run)),
        "bf16": run.mixed_precision == "bf16" and not pure,
        "fp16": run.mixed_precision == "fp16" and not pure,
        **({"pure_bf16": True} if pure else {}),
        **({} if recipe.autocast or pure else {"infer_dtype": recipe.base_dtype}),
        "disable_gradient_checkpointing": not recipe.gradient_checkpointing,
        "use_reentrant_gc": recipe.reentrant,
        "enable_liger_kernel": recipe.loss == "chunked" or bool(recipe.kernels),
    }
    if recipe.has_adapters:
        refuse_some_layers(run, "LLaMA-Factory")
    elif recipe.trained_layers:
        values["freeze_trainable_layers"] = recipe.trained_layers
    if recipe.modules_to_save:
        key = "additional_target" if recipe.has_adapters else "freeze_extra_modules"
        values[key] = ",".join(recipe.modules_to_save)
    values |= {**_adapters(run), **_storage(run)}
    _check_spread(run, pure)
    if _has_key(run):
        values["deepspeed"] = DEEPSPEED
    return _file(run, values, _unsaid(run, pure))


def _adapters(run: Run) -> dict[str, Any]:
    recipe = run.recipe
    if not recipe.has_adapters:
        return {}
    variant = run.variant_keys("LLaMA-Factory", _VARIANTS)
    if recipe.variant == "oft":
        return {"use_dora": recipe.is_dora, **variant, "oft_block_size": BLOCK, "oft_target": _targets(run)}
    return {
        "lora_rank": recipe.rank,
        "lora_alpha": whole_alpha(run, "LLaMA-Factory"),
        "lora_dropout": recipe.dropout,
        "lora_target": _targets(run),
        "use_dora": recipe.is_dora,
        **variant,
    }


def _storage(run: Run) -> dict[str, Any]:
    """How it quantizes the base; nothing for a checkpoint that is quantized already."""
    quant = run.recipe.quant
    if not run.quantizes:
        return {}
    values = {"quantization_bit": 8 if quant == "int8" else 4, "quantization_method": "bnb"}
    if quant in ("nf4", "fp4"):
        values |= {"quantization_type": quant, "double_quantization": run.recipe.double_quant}
    return values


def _file(run: Run, values: dict[str, Any], unsaid_keys: str) -> TrainingFile:
    """The file with its notes, and those beside it."""
    command = _command(run)
    info = json.dumps({"train": _rows(run.data)}, ensure_ascii=False)
    notes = f"# dataset_info.json, next to this file: {info}\n"
    notes += _TEMPLATE_NOTE if run.data.form in ("messages", "sharegpt") else ""
    notes += _TEXTS_NOTE if run.data.form == "prompt_completion" else ""
    engine = deepspeed_files(run) if _has_key(run) else accelerate_files(run, command)
    beside = (("dataset_info.json", info + "\n"), *engine)
    return yaml_file(run, "llamafactory", command, notes + unsaid_keys, values, beside)


def _command(run: Run) -> str:
    """Its own launcher calls torchrun, and knows DeepSpeed; for FSDP it is a module that accelerate starts.

    Source: launcher.py; with RDZV_ID several machines meet by c10d.
    """
    if is_started(run) and not _has_key(run):
        return by_accelerate(run, f"-m llamafactory.launcher {NAME}")
    if run.gpus == 1:
        return f"llamafactory-cli train {NAME}"
    at = run.placement
    meeting = f"NNODES={at.nodes} RDZV_ID={JOB} MASTER_ADDR={FIRST} MASTER_PORT={run.port} " if at.nodes > 1 else ""
    return f"FORCE_TORCHRUN=1 NPROC_PER_NODE={run.gpus // at.nodes} {meeting}llamafactory-cli train {NAME}"


def _has_key(run: Run) -> bool:
    """Whether its own file names the engine's."""
    return bool(stage_of(run)) and not run.by_accelerate


def _check_spread(run: Run, pure: bool) -> None:
    """Raise BadValue for what it does not train by DeepSpeed. Source: hparams/parser.py, get_train_args."""
    recipe, stage = run.recipe, stage_of(run)
    if stage and optimizer_row(recipe.optimizer).low_rank:
        raise BadValue("--optimizer", recipe.optimizer, "LLaMA-Factory has it without DeepSpeed only")
    if stage == 3 and (pure or (recipe.has_adapters and recipe.variant == "pissa")):
        what = "--variant pissa" if recipe.variant == "pissa" else "weights trained in bf16"
        raise BadValue("--sharding", "zero3", f"LLaMA-Factory has no {what} with it; --write python has")


def _optimizer(run: Run) -> dict[str, Any]:
    """Switches of its own for some, which it takes in place of adamw_torch (train/trainer_utils.py)."""
    name = run.recipe.optimizer
    if name == "muon":
        return {"optim": "adamw_torch", "use_muon": True}
    if not optimizer_row(name).low_rank:
        return run.optimizer_arguments("LLaMA-Factory")
    return {"optim": "adamw_torch", f"use_{name}": True, f"{name}_rank": run.recipe.optimizer_rank}


def _finetuning_type(recipe: Recipe) -> str:
    if recipe.has_adapters:
        return "oft" if recipe.variant == "oft" else "lora"
    return "freeze" if recipe.trained_layers else "full"


def _targets(run: Run) -> str:
    return "all" if run.adapts_all_linear else ",".join(run.target_modules)


def _trains_bf16(recipe: Recipe) -> bool:
    """Whether full fine-tuning, or that of the last layers, trains weights in bf16."""
    kept = not recipe.trained_layers or recipe.trained_dtype == "base"
    return (recipe.base_dtype if kept else recipe.trained_dtype) == "bfloat16"


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
    some = bool(recipe.trained_layers)
    weights = "bfloat16" if pure else "float32" if full and not some else _loaded(run)
    trained = recipe.base_dtype if recipe.trained_dtype == "base" else recipe.trained_dtype
    partly = bool(recipe.modules_to_save) or some
    return unsaid(
        (workload.padding != "longest" and not workload.packing, f"padding {workload.padding}"),
        (
            workload.pad_to_multiple_of != 8 and not workload.packing,
            f"pad-to-multiple-of {workload.pad_to_multiple_of} (LLaMA-Factory rounds up to 8 tokens)",
        ),
        (recipe.is_quantized and recipe.kbit_upcast, "kbit-upcast"),
        (recipe.is_quantized and recipe.adapter_dtype != "float32", "16-bit adapters"),
        (recipe.adapter_dtype == "float16" and not recipe.is_quantized and not full, "adapter-dtype float16"),
        (partly and trained != ("bfloat16" if pure else "float32"), f"trained-dtype {trained}"),
        (recipe.base_dtype != weights, f"base-dtype {recipe.base_dtype}"),
        (bool(liger_config(recipe)), "some of Liger's kernels without the others"),
        (pure and recipe.autocast, "autocast beside bf16 weights that are trained"),
        (
            # model/model_utils/checkpointing.py, prepare_model_for_training
            recipe.reentrant and recipe.gradient_checkpointing and FSDP.get(run.placement.effective_sharding) == 2,
            "re-entrant checkpointing (LLaMA-Factory switches it off with FSDP2)",
        ),
        (
            recipe.is_dora and recipe.magnitude_dtype != recipe.adapter_dtype,
            f"magnitude-dtype {recipe.magnitude_dtype}",
        ),
    )


def _loaded(run: Run) -> str:
    """The dtype of frozen weights: that of mixed precision, else what infer_dtype says."""
    return {"bf16": "bfloat16", "fp16": "float16", "": run.recipe.base_dtype}[run.mixed_precision]
