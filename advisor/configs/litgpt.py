"""LitGPT's YAML, as litgpt 0.5.13 reads it: litgpt/finetune/*.py, setup."""

from __future__ import annotations

from advisor.configs.found import Found
from advisor.configs.idle import LITGPT
from advisor.configs.sheet import Sheet

MARKS = ("checkpoint_dir", "train")
_ROLES = {
    "lora_query": ("q_proj",),
    "lora_key": ("k_proj",),
    "lora_value": ("v_proj",),
    "lora_projection": ("o_proj",),
    "lora_mlp": ("gate_proj", "up_proj", "down_proj"),
    "lora_head": ("lm_head",),
}
_ON = ("lora_query", "lora_value")
"""Roles that are adapted unless the file says otherwise: finetune/lora.py, setup."""
_PRECISIONS = {
    "bf16-true": ("bfloat16", False),
    "16-true": ("float16", False),
    "32-true": ("float32", False),
    "bf16-mixed": ("float32", True),
    "16-mixed": ("float32", True),
}
_QUANTIZED = {
    "bnb.nf4": ("nf4", False),
    "bnb.nf4-dq": ("nf4", True),
    "bnb.fp4": ("fp4", False),
    "bnb.fp4-dq": ("fp4", True),
    "bnb.int8": ("int8", False),
}
_OPTIMIZERS = {"AdamW": "adamw_foreach", "Adam": "adamw_foreach", "SGD": "sgd", "torch.optim.AdamW": "adamw_foreach"}


def read(sheet: Sheet) -> Found:
    """The file as a question."""
    folder = str(sheet.get("checkpoint_dir", ""))
    if folder:
        sheet.sets("model", "/".join(folder.rstrip("/").split("/")[-2:]), "checkpoint_dir")
    adapted = any(sheet.peek(key) is not None for key in ("lora_r", *_ROLES))
    if sheet.peek("adapter_start_layer") is not None or sheet.peek("adapter_prompt_length") is not None:
        sheet.refuses("adapter_prompt_length", "adapters of another kind")
    quantized = _QUANTIZED.get(str(sheet.get("quantize", "")))
    if sheet.peek("quantize") and quantized is None:
        sheet.loses("quantize", "a base stored in another way")
    keys = ["quantize"] if quantized else []
    sheet.sets("method", "full" if not adapted else "qlora" if quantized else "lora", *keys)
    if quantized:
        sheet.sets("quant", quantized[0], "quantize")
        sheet.sets("double_quant", quantized[1], "quantize")
    if adapted:
        _adapters(sheet)
    _rows(sheet)
    _numbers(sheet, adapted)
    sheet.sets("attention", "sdpa")
    sheet.sets("expandable_segments", False)
    steps = sheet.get("train.max_steps", 0)
    return sheet.found("LitGPT YAML", "litgpt", LITGPT, most_steps=int(sheet.number("train.max_steps", steps)))


def _adapters(sheet: Sheet) -> None:
    sheet.takes("rank", "lora_r", 8)
    sheet.takes_if_known("alpha", "lora_alpha")
    sheet.takes("dropout", "lora_dropout", 0.05)
    on = [key for key in _ROLES if sheet.get(key, key in _ON)]
    said = [key for key in on if sheet.peek(key) is not None]
    sheet.sets("target_modules", [name for key in on for name in _ROLES[key]], *said)


def _rows(sheet: Sheet) -> None:
    train = sheet.at("train.")
    if train.get("max_seq_length") is not None:
        train.takes("seq_len", "max_seq_length")
    train.takes("micro_batch", "micro_batch_size", 1)
    cards = int(sheet.number("devices", sheet.get("devices", 1))) if sheet.peek("devices") != "auto" else 1
    machines = int(sheet.number("num_nodes", sheet.get("num_nodes", 1)))
    if cards * machines > 1:
        sheet.loses("devices", "several cards by Lightning's FSDP")
    rows = int(train.number("global_batch_size", train.get("global_batch_size", 16)))
    train.sets("batch_size", rows, *(["global_batch_size"] if train.peek("global_batch_size") else []))
    train.takes("epochs", "epochs", 5)
    sheet.sets("packing", False)


def _numbers(sheet: Sheet, adapted: bool) -> None:
    word = sheet.get("precision")
    if word in _PRECISIONS:
        dtype, mixed = _PRECISIONS[word]
        sheet.sets("base_dtype", dtype, "precision")
        sheet.sets("autocast", mixed, "precision")
        if adapted:
            sheet.sets("adapter_dtype", dtype, "precision")
    elif word is not None:
        sheet.loses("precision", "another precision")
    optimizer = sheet.get("optimizer", "AdamW")
    name = sheet.get("optimizer.class_path", "AdamW") if isinstance(optimizer, dict) else optimizer
    if sheet.peek("quantize"):
        return  # the preset's: utils.py, instantiate_bnb_optimizer
    if name in _OPTIMIZERS:
        sheet.sets("optimizer", _OPTIMIZERS[name], "optimizer")
    else:
        sheet.loses("optimizer", "an optimizer that is not known here")
