"""A configuration file of Axolotl: the keys and values of axolotl 0.19.0, read in AxolotlInputConfig.

What the format cannot express is stated in a comment, or refused where another run would come of it.
"""

from __future__ import annotations

from typing import Any

from advisor.answer import DataFile
from advisor.errors import BadValue
from advisor.export.accelerate import accelerate_files, fsdp_keys
from advisor.export.deepspeed import FILE as DEEPSPEED
from advisor.export.deepspeed import deepspeed_files, stage_of
from advisor.export.kernels import refuse
from advisor.export.launch import CONFIG, meeting_flags, torchrun_flags
from advisor.export.rows import BUILDERS
from advisor.export.run import ATTENTION, DTYPES, LORAPLUS_RATIO, Run, TrainingFile, check_stored
from advisor.export.yaml_values import NAME, unsaid, whole, whole_alpha, yaml_file
from advisor.optimizers import optimizer_row
from advisor.specs import KernelSet, Recipe
from advisor.stacks.fused_lora import ACTIVATIONS, refusal

_VARIANTS: dict[str, tuple[str, Any]] = {
    "rslora": ("peft_use_rslora", True),
    "pissa": ("peft_init_lora_weights", "pissa"),
    "olora": ("peft_init_lora_weights", "olora"),
    "loraplus": ("loraplus_lr_ratio", LORAPLUS_RATIO),
}
_KERNELS: dict[KernelSet, str] = {
    "liger_norm": "liger_rms_norm",
    "liger_rope": "liger_rope",
    "liger_mlp": "liger_glu_activation",
    "liger_loss": "liger_fused_linear_cross_entropy",
    "cce": "cut_cross_entropy",
}
"""Flags of its plugins, by kernel."""
_NO_FIELD = ("sharding_strategy", "backward_prefetch")
"""Settings of FSDP1 that its schema has no field for, and drops."""
_TEXTS_NOTE = "# prompts and completions must be texts here, not messages\n"


def write(run: Run) -> TrainingFile:
    """A file for `axolotl train`. Raises BadValue for an alpha, or a setting, that it does not take."""
    check_stored(run, "Axolotl", "gptq", "awq")
    recipe, half = run.recipe, _half(run)
    refuse(recipe, "Axolotl", (*_KERNELS, "fused_lora"), offloads=True)
    fused = "fused_lora" in recipe.kernels and not refusal(run.model, recipe)
    values: dict[str, Any] = {
        "base_model": run.source,
        "attn_implementation": ATTENTION[recipe.attention],
        "datasets": [_rows(run.data)],
        "sequence_len": run.workload.seq_len,
        **_micro_batches(run),
        "micro_batch_size": recipe.micro_batch,
        **({"eval_batch_size": recipe.eval_batch} if recipe.eval_batch else {}),
        "gradient_accumulation_steps": recipe.gradient_accumulation,
        "num_epochs": whole(run.workload.epochs),
        **_optimizer(run),
        "learning_rate": run.learning_rate,
        "lr_scheduler": "linear",
        "bf16": half == "bf16",
        "fp16": half == "fp16",
        **_checkpointing(recipe),
        **({"neftune_noise_alpha": recipe.neftune} if recipe.neftune else {}),
        "output_dir": "out",
        "lora_mlp_kernel": fused and run.model.activation in ACTIVATIONS,
        "lora_qkv_kernel": fused,
        "lora_o_kernel": fused,
        **_plugins(recipe),
    }
    if recipe.has_adapters:
        values |= _adapters(run)
    elif recipe.trained_layers:
        values["unfrozen_parameters"] = _unfrozen(run)
    if run.stored_as == "mxfp4":
        values |= {"model_quantization_config": "Mxfp4Config", "model_quantization_config_kwargs": {"dequantize": True}}
    values |= _spread(run)
    notes = (_TEXTS_NOTE if run.data.form == "prompt_completion" else "") + _unsaid(run)
    beside = accelerate_files(run, _command(run)) if run.by_accelerate else deepspeed_files(run)
    return yaml_file(run, "axolotl", _command(run), notes, values, beside)


def _checkpointing(recipe: Recipe) -> dict[str, Any]:
    if recipe.offload != "none":
        return {"gradient_checkpointing": True, "activation_offloading": True}
    if not recipe.gradient_checkpointing:
        return {"gradient_checkpointing": False}
    return {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": recipe.reentrant}}


def _command(run: Run) -> str:
    """What stands after -- goes to the launcher. Source: cli/utils/train.py, launch_training."""
    if run.by_accelerate:
        return f"axolotl train {NAME} -- --config_file {CONFIG}{meeting_flags(run)}"
    if run.placement.nodes > 1:
        return f"axolotl train {NAME} --launcher torchrun -- {torchrun_flags(run)}"
    return f"axolotl train {NAME}" + ("" if run.gpus == 1 else f" --num-processes {run.gpus}")


def _spread(run: Run) -> dict[str, Any]:
    """The engine: utils/schemas/fsdp.py, and utils/trainer.py, prepare_optim_env. Raises BadValue.

    utils/schemas/validation.py refuses two optimizers of bitsandbytes with FSDP2, and muon with DeepSpeed.
    """
    at, optimizer = run.placement, run.recipe.optimizer
    if at.copies_model:
        return {}
    if stage_of(run):
        if optimizer == "muon":
            raise BadValue("--optimizer", optimizer, "Axolotl has it without DeepSpeed only")
        return {"deepspeed": DEEPSPEED}
    fsdp = {name: value for name, value in fsdp_keys(run).items() if name not in _NO_FIELD}
    if fsdp["fsdp_version"] == 2 and _optimizer(run)["optimizer"] in ("adamw_8bit", "adamw_bnb_8bit"):
        raise BadValue("--optimizer", optimizer, "Axolotl refuses it with FSDP2; adamw is spread by it")
    if fsdp["fsdp_version"] == 1 and not at.reshard:
        raise BadValue("--reshard", False, "Axolotl can say it of FSDP2 only")
    sizes = {"dp_replicate_size": at.nodes, "dp_shard_size": at.node_gpus} if at.sharding == "hsdp" else {}
    return {"fsdp_version": fsdp["fsdp_version"], "fsdp_config": fsdp, **sizes}


def _plugins(recipe: Recipe) -> dict[str, Any]:
    """The plugins whose flags are set, and the flags. Source: integrations/liger, integrations/cut_cross_entropy."""
    flags = [flag for name, flag in _KERNELS.items() if name in recipe.kernels]
    names = ["axolotl.integrations.liger.LigerPlugin"] if any(flag.startswith("liger") for flag in flags) else []
    names += ["axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin"] if "cce" in recipe.kernels else []
    return {"plugins": names, **dict.fromkeys(flags, True)} if names else {}


def _optimizer(run: Run) -> dict[str, Any]:
    """Its own name, or that of transformers with its arguments."""
    if own := optimizer_row(run.recipe.optimizer).axolotl_name:
        return {"optimizer": own}
    values = run.optimizer_arguments("Axolotl")
    return {"optimizer": values.pop("optim"), **values}


def _micro_batches(run: Run) -> dict[str, Any]:
    """How rows become micro-batches (core/builders/causal.py); left alone, it rounds up to 64 tokens."""
    workload = run.workload
    if workload.packing:
        return {"sample_packing": True}
    values: dict[str, Any] = {
        "sample_packing": False,
        **({"group_by_length": True} if workload.group_by_length else {}),
    }
    if workload.padding == "none" and run.recipe.micro_batch > 1:
        return values | {"batch_flattening": True}
    if workload.padding == "max_length":
        return values | {"pad_to_sequence_len": True, "pad_to_multiple_of": workload.pad_to_multiple_of}
    if workload.pad_to_multiple_of == 1:
        return values | {"pad_to_sequence_len": False}
    return values | ({} if workload.pad_to_multiple_of == 64 else {"pad_to_multiple_of": workload.pad_to_multiple_of})


def _half(run: Run) -> str:
    """'bf16' or 'fp16', which set both the dtype of the weights and autocast; '' for neither."""
    if run.recipe.autocast:
        return run.mixed_precision
    return {"bfloat16": "bf16", "float16": "fp16", "float32": ""}[run.recipe.base_dtype]


def _rows(data: DataFile) -> dict[str, Any]:
    """An entry of `datasets`, as utils/schemas/datasets.py reads it; what is asked is not learned, by default."""
    entry: dict[str, Any] = {"path": data.path, "ds_type": BUILDERS[data.format]}
    columns = data.columns or ("text",)
    if data.form == "text":
        return entry | {"type": "completion"} | ({} if columns == ("text",) else {"field": columns[0]})
    if data.form == "messages":
        return entry | {"type": "chat_template", "field_messages": columns[0]}
    if data.form == "sharegpt":
        names = {"role": "from", "content": "value"}
        return entry | {
            "type": "chat_template",
            "field_messages": columns[0],
            "message_property_mappings": names,
        }
    if data.form == "alpaca" and columns in (("instruction", "output"), ("instruction", "input", "output")):
        return entry | {"type": "alpaca"}
    # prompt_strategies/user_defined.py: the output follows the format, with nothing in between
    gap = "" if data.form == "prompt_completion" else "\n\n"
    fields = {"field_instruction": columns[0], "field_output": columns[-1]}
    fields |= {"field_input": columns[1]} if len(columns) == 3 else {}
    formats = {"format": "{instruction}" + (gap + "{input}" if len(columns) == 3 else "") + gap}
    return entry | {"type": fields | formats | {"no_input_format": "{instruction}" + gap}}


def _adapters(run: Run) -> dict[str, Any]:
    recipe = run.recipe
    four_bits = recipe.quant in ("nf4", "fp4")
    values: dict[str, Any] = {
        "adapter": "qlora" if four_bits else "lora",
        "lora_r": recipe.rank,
        "lora_alpha": whole_alpha(run, "Axolotl"),
        "lora_dropout": recipe.dropout,
    }
    values |= {"lora_target_linear": True} if run.adapts_all_linear else {"lora_target_modules": run.target_modules}
    values |= {"lora_modules_to_save": list(recipe.modules_to_save)} if recipe.modules_to_save else {}
    values |= {"peft_layers_to_transform": list(run.trained_layers)} if recipe.trained_layers else {}
    values |= run.variant_keys("Axolotl", _VARIANTS)
    values |= {"peft_use_dora": True} if recipe.is_dora else {}
    values |= {"load_in_8bit": True} if recipe.quant == "int8" else {}
    values |= {"load_in_4bit": True} if four_bits else {}
    values |= {"quantize_moe_experts": True} if recipe.quantize_experts else {}
    return values | ({"peft_autocast_adapter_dtype": False} if recipe.adapter_dtype != "float32" else {})


def _unfrozen(run: Run) -> list[str]:
    """Patterns of the parameters that are trained: a period stands for itself (utils/freeze.py, LayerNamePattern)."""
    layers = "|".join(map(str, run.trained_layers))
    return [rf"^[^0-9]*.({layers}).", *(rf"^([a-z_]+.)*{name}." for name in run.recipe.modules_to_save)]


def _unsaid(run: Run) -> str:
    recipe = run.recipe
    partly = bool(recipe.modules_to_save or recipe.trained_layers)
    return unsaid(
        (partly and recipe.trained_dtype != "base", f"trained-dtype {recipe.trained_dtype}"),
        (recipe.loss == "chunked", "chunked loss (several of axolotl's plugins offer one)"),
        (
            run.quantizes and (recipe.quant == "fp4" or (recipe.quant == "nf4" and not recipe.double_quant)),
            "a 4-bit format other than double-quantized nf4",
        ),
        (recipe.is_quantized and recipe.kbit_upcast, "kbit-upcast"),
        (run.storage_dtype not in ("", "bfloat16"), f"4-bit weights stored as {run.storage_dtype} (Axolotl: bfloat16)"),
        (not recipe.expandable_segments, "no-expandable-segments (set PYTORCH_ALLOC_CONF before it starts)"),
        (recipe.base_dtype != DTYPES[_half(run)], f"base-dtype {recipe.base_dtype}"),
        (
            run.workload.packing and run.workload.packing_strategy != "varlen",
            f"packing-strategy {run.workload.packing_strategy} (Axolotl keeps examples apart in its attention)",
        ),
        (not recipe.autocast and _half(run) != "", "no-autocast of 16-bit weights"),
        (
            recipe.is_dora and recipe.magnitude_dtype != recipe.adapter_dtype,
            f"magnitude-dtype {recipe.magnitude_dtype}",
        ),
    )
