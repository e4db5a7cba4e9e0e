"""A configuration file of ms-swift: the keys and values of ms-swift 4.6.0, which `swift sft FILE` makes flags of.

Sources: cli/main.py, parse_yaml_args; arguments/sft_args.py, tuner_args.py and base_args/. What the format cannot
express is stated in a comment, or refused where another run would come of it.
"""

from __future__ import annotations

import json
from typing import Any

from advisor.answer import DataFile
from advisor.errors import BadValue, InputError
from advisor.export.accelerate import FSDP, fsdp_keys
from advisor.export.deepspeed import FILE as DEEPSPEED
from advisor.export.deepspeed import deepspeed_files, stage_of
from advisor.export.kernels import LIGER, liger_config, refuse
from advisor.export.launch import FIRST, JOB
from advisor.export.run import ATTENTION, LORAPLUS_RATIO, Run, TrainingFile, check_stored
from advisor.export.yaml_values import NAME, refuse_some_layers, training_arguments, unsaid, yaml_file

STORED = ("gptq", "awq", "hqq", "mxfp4", "compressed-tensors", "fp8")
"""Checkpoints of which we have not read how it loads them for training."""
FSDP_FILE = "fsdp.json"
_VARIANTS: dict[str, tuple[str, Any]] = {
    "rslora": ("use_rslora", True),
    "pissa": ("init_weights", "pissa"),
    "olora": ("init_weights", "olora"),
    "loraplus": ("lorap_lr_ratio", LORAPLUS_RATIO),
}
_COLUMNS: dict[str, tuple[str, ...]] = {
    "text": ("response",),
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "prompt_completion": ("query", "response"),
    "alpaca": ("instruction", "input", "output"),
}
"""Its names of the columns of each form. Source: dataset/preprocessor/core.py."""
_TEXTS_NOTE = "# prompts and completions must be texts here, not messages\n"


def write(run: Run) -> TrainingFile:
    """A file for `swift sft`, or `swift pt` for plain text. Raises InputError for what it does not take."""
    check_stored(run, "ms-swift", *STORED)
    recipe, workload = run.recipe, run.workload
    refuse(recipe, "ms-swift", tuple(LIGER))
    refuse_some_layers(run, "ms-swift")
    if (workload.packing or workload.padding == "none") and recipe.attention != "flash":
        raise BadValue("--attention", recipe.attention, "ms-swift packs rows with --attention flash only")
    values: dict[str, Any] = {
        "model": run.source,
        "use_hf": True,
        "tuner_type": "lora" if recipe.has_adapters else "full",
        "torch_dtype": recipe.base_dtype,
        "attn_impl": ATTENTION[recipe.attention],
        **_rows(run.data),
        "max_length": workload.seq_len,
        "truncation_strategy": "right",
        "packing": workload.packing,
        "padding_free": workload.packing or workload.padding == "none",
        **training_arguments(run, run.optimizer_arguments("ms-swift")),
        "bf16": run.mixed_precision == "bf16",
        "fp16": run.mixed_precision == "fp16",
        "gradient_checkpointing": recipe.gradient_checkpointing,
    }
    if values.pop("train_sampling_strategy", None):
        values["group_by_length"] = True
    if recipe.gradient_checkpointing:
        values["gradient_checkpointing_kwargs"] = {"use_reentrant": recipe.reentrant}
    if recipe.loss == "chunked" or recipe.kernels:
        config = liger_config(recipe)
        values |= {"use_liger_kernel": True, **({"liger_kernel_config": config} if config else {})}
    if recipe.has_adapters:
        values |= _adapters(run)
    if run.quantizes:
        values |= _quantization(run)
    values |= _spread(run)
    notes = (_TEXTS_NOTE if run.data.form == "prompt_completion" else "") + _unsaid(run)
    return yaml_file(run, "ms-swift", _command(run), notes, values, (*deepspeed_files(run), *_fsdp_files(run)))


def _command(run: Run) -> str:
    """It calls torchrun, which reads what else it needs from the environment: torch/distributed/argparse_util.py."""
    if run.by_accelerate:
        raise InputError("ms-swift starts its processes itself: --write ms-swift")
    at, command = run.placement, f"swift {'pt' if run.data.form == 'text' else 'sft'} {NAME}"
    if run.gpus == 1:
        return command
    endpoint = f"PET_RDZV_BACKEND=c10d PET_RDZV_ID={JOB} PET_RDZV_ENDPOINT={FIRST}:{run.port}"
    return f"NPROC_PER_NODE={run.gpus // at.nodes} {f'NNODES={at.nodes} {endpoint} ' if at.nodes > 1 else ''}{command}"


def _spread(run: Run) -> dict[str, Any]:
    """The file that says how cards share the job. Raises BadValue for copies between machines."""
    at = run.placement
    if at.sharding == "hsdp":
        raise BadValue("--sharding", "hsdp", "ms-swift has no setting for it; --write python has")
    return {"deepspeed": DEEPSPEED} if stage_of(run) else {} if at.copies_model else {"fsdp": FSDP_FILE}


def _fsdp_files(run: Run) -> tuple[tuple[str, str], ...]:
    """Its own form of FSDP's settings: arguments/sft_args.py, _init_fsdp."""
    if run.placement.effective_sharding not in FSDP:
        return ()
    settings = fsdp_keys(run)
    settings.pop("sharding_strategy", None)  # stands in the words
    words = f"{'full_shard' if run.placement.reshard else 'shard_grad_op'} auto_wrap"
    words += " offload" if settings.pop("offload_params") else ""
    text = json.dumps({"fsdp": words, "fsdp_config": settings}, indent=2)
    return ((FSDP_FILE, text + "\n"),)


def _rows(data: DataFile) -> dict[str, Any]:
    """Where the rows are, and what it calls their columns."""
    names = _COLUMNS[data.form]
    known = names if len(data.columns) != 2 or data.form != "alpaca" else (names[0], names[-1])
    renamed = {own: name for own, name in zip(data.columns, known, strict=True) if own != name} if data.columns else {}
    return {"dataset": [data.path], **({"columns": renamed} if renamed else {})}


def _adapters(run: Run) -> dict[str, Any]:
    recipe = run.recipe
    return {
        **run.variant_keys("ms-swift", _VARIANTS),
        **({"modules_to_save": list(recipe.modules_to_save)} if recipe.modules_to_save else {}),
        **({"lora_dtype": recipe.adapter_dtype} if recipe.adapter_dtype != "float32" else {}),
        "lora_rank": recipe.rank,
        "lora_alpha": recipe.alpha,
        "lora_dropout": recipe.dropout,
        "target_modules": run.target_modules,
        "use_dora": recipe.is_dora,
    }


def _quantization(run: Run) -> dict[str, Any]:
    recipe = run.recipe
    if recipe.quant == "int8":
        return {"quant_method": "bnb", "quant_bits": 8}
    return {
        "quant_method": "bnb",
        "quant_bits": 4,
        "bnb_4bit_quant_type": recipe.quant,
        "bnb_4bit_use_double_quant": recipe.double_quant,
        "bnb_4bit_compute_dtype": recipe.base_dtype,
        **({"bnb_4bit_quant_storage": run.storage_dtype} if run.storage_dtype else {}),
    }


def _unsaid(run: Run) -> str:
    recipe, workload = run.recipe, run.workload
    magnitudes = recipe.is_dora and recipe.magnitude_dtype != recipe.adapter_dtype
    return unsaid(
        (bool(recipe.modules_to_save) and recipe.trained_dtype != "base", f"trained-dtype {recipe.trained_dtype}"),
        (magnitudes, f"magnitude-dtype {recipe.magnitude_dtype}"),
        (recipe.is_quantized and recipe.kbit_upcast, "kbit-upcast"),
        (workload.padding == "max_length" and not workload.packing, "padding max_length"),
        (
            workload.pad_to_multiple_of > 1 and not workload.packing,
            f"pad-to-multiple-of {workload.pad_to_multiple_of}",
        ),
        (
            workload.packing and workload.packing_strategy != "position_ids",
            f"packing-strategy {workload.packing_strategy} (ms-swift hands out position ids)",
        ),
    )
