"""torchtune's YAML, as the recipes of torchtune 0.6.1 read it: recipes/*_single_device.py and *_distributed.py."""

from __future__ import annotations

import re
from pathlib import Path

from advisor.configs.found import Found
from advisor.configs.idle import TORCHTUNE
from advisor.configs.sheet import Sheet
from advisor.export.torchtune import MLP, OPTIMIZERS, ROLES

MARKS = (("model", "tokenizer", "checkpointer"),)
_ROLES = {own: name for name, own in ROLES.items()}
_OPTIMIZERS = {
    **{component: name for name, component in OPTIMIZERS.items() if name != "adamw"},
    "torch.optim.Adam": "adamw_foreach",
}
_LOSSES = (
    "torchtune.modules.loss.LinearCrossEntropyLoss",
    "torchtune.modules.loss.CEWithChunkedOutputLoss",
    "torch.nn.CrossEntropyLoss",
)
COUNTED_APART = {"tok_embeddings", "output"}
"""Units of FSDP2 beside the layers: those that engines/fsdp2.py counts."""
_SIZES = (
    "vocab_size",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "embed_dim",
    "max_seq_len",
    "attn_dropout",
    "norm_eps",
)


def read(sheet: Sheet) -> Found:
    """The file as a question."""
    model = sheet.at("model.")
    builder = str(model.get("_component_", ""))
    if not builder.startswith("torchtune.models."):
        sheet.refuses("model", "a model that is not torchtune's own")
    _checkpoint(sheet)
    for key, why in (("quantizer", "training with simulated quantization"), ("fsdp", "FSDP by its own code")):
        if sheet.get(key):
            sheet.refuses(key, why)
    if model.peek("decoder_trainable") is not None or model.peek("encoder_trainable") is not None:
        sheet.refuses("model", "a vision model that torchtune puts together itself")
    _method(sheet, builder)
    _rows(sheet)
    sheet.takes("micro_batch", "batch_size", 1)
    sheet.rows_of_a_step(sheet.get("gradient_accumulation_steps"), "gradient_accumulation_steps")
    sheet.takes("epochs", "epochs", 1)
    _optimizer(sheet)
    _numbers(sheet)
    _cards(sheet)
    for key in _SIZES:
        model.get(key)  # of the checkpoint that is loaded
    cap = sheet.get("max_steps_per_epoch", 0)
    return sheet.found(
        "torchtune YAML",
        "torchtune",
        TORCHTUNE,
        spreads="fsdp2",
        written="torchtune",
        most_steps=int(sheet.number("max_steps_per_epoch", cap) * sheet.number("epochs", sheet.peek("epochs") or 1)),
    )


def _numbers(sheet: Sheet) -> None:
    word = sheet.get("dtype", "bf16")
    sheet.sets("base_dtype", word, *(["dtype"] if sheet.peek("dtype") else []))
    if sheet.get("compile"):
        sheet.loses("compile", "torch.compile changes memory and time")
    key = "enable_activation_checkpointing"
    sheet.sets("gradient_checkpointing", sheet.has(key), *([key] if sheet.peek(key) is not None else []))
    if sheet.has("enable_activation_offloading"):
        sheet.sets("offload", "activations", "enable_activation_offloading")
    if str(sheet.get("loss._component_", _LOSSES[0])) not in _LOSSES:
        sheet.loses("loss._component_", "another loss")
    sheet.sets("attention", "sdpa")
    sheet.sets("expandable_segments", False)


def _checkpoint(sheet: Sheet) -> None:
    """The folder of the weights, which is usually called as the model; a Hub id where it is a path of two words."""
    folder = str(sheet.get("checkpointer.checkpoint_dir", "")).rstrip("/").removesuffix("/original")
    if not folder:
        return
    path = Path(folder)
    named = path.is_file() or (path / "config.json").is_file() or re.fullmatch(r"[\w.-]*\w/[\w.-]+", folder)
    sheet.sets("model", folder if named else path.name, "checkpointer.checkpoint_dir")


def _cards(sheet: Sheet) -> None:
    """What its distributed recipes hand to FSDP2; how many cards there are is said where it is started."""
    if sheet.has("fsdp_cpu_offload"):
        sheet.sets("offload", "parameters", "fsdp_cpu_offload")
    if sheet.get("fsdp_reshard_after_forward") is False:
        sheet.sets("reshard", False, "fsdp_reshard_after_forward")
    if not sheet.is_off("tensor_parallel_dim"):
        sheet.loses("tensor_parallel_dim", "tensor parallelism")
    sheet.get("tensor_parallel_plan")  # which does nothing without it
    apart = sheet.get("custom_sharded_layers")
    if apart and (not isinstance(apart, list) or set(map(str, apart)) != COUNTED_APART):
        sheet.loses("custom_sharded_layers", "layers in units of their own")


def _method(sheet: Sheet, builder: str) -> None:
    """The builder's name says whether there are adapters: lora_llama3_8b, qlora_llama3_8b."""
    model = sheet.at("model.")
    kind = re.match(r"(q?)lora_", builder.rsplit(".", 1)[-1])
    if kind is None:
        sheet.sets("method", "full", "model._component_")
        return
    quantized = bool(kind[1]) or model.has("quantize_base")
    dora = model.has("use_dora")
    keys = ["_component_", *(key for key in ("quantize_base", "use_dora") if model.peek(key))]
    model.sets("method", ("q" if quantized else "") + ("dora" if dora else "lora"), *keys)
    names = [_ROLES.get(str(one), str(one)) for one in model.get("lora_attn_modules") or []]
    names += MLP if model.has("apply_lora_to_mlp") else ()
    names += ["lm_head"] if model.has("apply_lora_to_output") else []
    used = [key for key in ("lora_attn_modules", "apply_lora_to_mlp", "apply_lora_to_output") if model.peek(key)]
    model.sets("target_modules", names, *used)
    model.takes("rank", "lora_rank", 8)
    model.takes_if_known("alpha", "lora_alpha")
    model.takes("dropout", "lora_dropout", 0.0)


def _rows(sheet: Sheet) -> None:
    if sheet.get("tokenizer.max_seq_len") is not None:
        sheet.takes("seq_len", "tokenizer.max_seq_len")
    packed = sheet.has("dataset.packed")
    sheet.sets("packing", packed, *(["dataset.packed"] if sheet.peek("dataset.packed") is not None else []))
    if "multimodal" in str(sheet.get("dataset._component_", "")):
        sheet.refuses("dataset._component_", "rows with images")
    if sheet.peek("dataset_val"):
        sheet.loses("dataset_val", "evaluation; say --eval-examples")


def _optimizer(sheet: Sheet) -> None:
    optimizer = sheet.at("optimizer.")
    word = str(optimizer.get("_component_", "torch.optim.AdamW"))
    name = _OPTIMIZERS.get(word)
    if name is None:
        optimizer.loses("_component_", "an optimizer that is not known here")
    elif optimizer.has("fused") and name == "adamw_foreach":
        optimizer.sets("optimizer", "adamw", "_component_", "fused")
    else:
        optimizer.sets("optimizer", name, "_component_")
    optimizer.get("fused")
    if sheet.has("optimizer_in_bwd"):
        sheet.sets("optimizer_in_backward", True, "optimizer_in_bwd")
