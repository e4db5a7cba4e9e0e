"""The YAML of `unsloth train --config`, as unsloth at 015bdef reads it: unsloth_cli/config.py and commands/train.py."""

from __future__ import annotations

from advisor.configs.found import Found
from advisor.configs.idle import UNSLOTH
from advisor.configs.sheet import Sheet

MARKS = (("model", "training", "lora"), ("model", "training", "data"))
_SEVEN = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"
_OFF = (False, "none", "false", "no", "off", 0)


def read(sheet: Sheet) -> Found:
    """The file as a question."""
    training, lora = sheet.at("training."), sheet.at("lora.")
    if sheet.peek("model") is not None:
        sheet.takes("model", "model")
    full = str(training.get("training_type", "lora")).lower() == "full"
    four = training.get("load_in_4bit", True)
    named = [key for key in ("training_type", "load_in_4bit") if training.peek(key) is not None]
    dora = lora.has("use_dora") and not full
    kind = "full" if full else ("q" if four else "") + ("dora" if dora else "lora")
    training.sets("method", kind, *(named[:1] if full else named))
    if full:
        sheet.get("lora")
    else:
        _adapters(lora)
    if four and not full:
        training.sets("quant", "nf4", *[key for key in ("load_in_4bit",) if training.peek(key) is not None])
    training.takes("seq_len", "max_seq_length", 2048)
    training.takes("packing", "packing", False)
    training.takes("micro_batch", "batch_size", 2)
    training.rows_of_a_step(training.get("gradient_accumulation_steps", 4), "gradient_accumulation_steps")
    training.takes("epochs", "num_epochs", 3)
    sheet.sets("optimizer", "adamw_8bit")  # studio/backend/core/training/trainer.py, optim
    _checkpointing(training)
    if sheet.peek("data.format_type") == "raw":
        sheet.loses("data.format_type", "continued pretraining, whose rows are cut in another way")
    steps = training.get("max_steps", 0)
    return sheet.found("Unsloth YAML", "unsloth", UNSLOTH, most_steps=int(training.number("max_steps", steps)))


def _adapters(lora: Sheet) -> None:
    lora.takes("rank", "lora_r", 64)
    lora.takes("alpha", "lora_alpha", 16)
    lora.takes("dropout", "lora_dropout", 0.0)
    lora.takes("target_modules", "target_modules", _SEVEN)
    if lora.has("use_rslora"):
        lora.sets("variant", "rslora", "use_rslora")
    for key in ("finetune_language_layers", "finetune_attention_modules", "finetune_mlp_modules"):
        if lora.get(key) is False:
            lora.loses(key, "only some kinds of layers get adapters; say --target-modules", "target_modules")


def _checkpointing(training: Sheet) -> None:
    value = training.get("gradient_checkpointing", "unsloth")
    keys = ["gradient_checkpointing"] if training.peek("gradient_checkpointing") is not None else []
    if value in ("unsloth", ""):
        training.sets("offload", "activations", *keys)
    else:
        training.sets("offload", "none", *keys)
        training.sets("gradient_checkpointing", value not in _OFF, *keys)
    training.sets("expandable_segments", True)
