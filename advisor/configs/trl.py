"""TRL's YAML for `trl sft --config`, as trl 1.16.0 reads it: ModelConfig, SFTConfig, ScriptArguments.

Files of the alignment handbook and of PEFT's examples/sft have the same keys, some by older names.
"""

from __future__ import annotations

from advisor.configs.engines import shares_whole
from advisor.configs.found import Found
from advisor.configs.idle import TRL
from advisor.configs.sheet import Sheet
from advisor.configs.training_arguments import most_steps, read_arguments, read_liger

MARKS = (("model_name_or_path",),)
_OTHER = {
    "beta": "preference optimization",
    "max_prompt_length": "preference optimization or reinforcement learning",
    "num_generations": "reinforcement learning",
    "reward_funcs": "reinforcement learning",
    "reward_model_path": "reinforcement learning",
}
_UNSAID = {
    "lora_target_parameters": "adapters on parameters that no module holds",
    "model_init_kwargs": "arguments of from_pretrained",
    "eval_packing": "evaluation rows packed otherwise than training rows",
    "loss_type": "another loss than the default one",
    "use_dense_attention": "another attention",
    "use_unsloth": "Unsloth's kernels in this loop; --trainer unsloth has them",
}
_COMMANDS = ("trl sft", "sft.py", "run_sft.py", "train.py")
"""What reads these flags: TRL's command and script, the alignment handbook's and PEFT's examples/sft."""
_DTYPES = ("dtype", "torch_dtype")


def read(sheet: Sheet) -> Found:
    """The file as a question."""
    command = sheet.get("command", _COMMANDS[0])
    if command not in _COMMANDS:
        sheet.refuses("command", "a script with flags of its own")
    for key, why in _OTHER.items():
        if sheet.peek(key) is not None:
            sheet.refuses(key, why)
    for key, why in _UNSAID.items():
        if sheet.get(key) not in (None, False, "", "nll", "chunked_nll", [], {}):
            sheet.loses(key, why)
    if sheet.get("router_aux_loss_coef") == 0:
        sheet.loses("router_aux_loss_coef", "no loss that balances a mixture's experts, which is counted")
    sheet.takes("model", "model_name_or_path")
    _method(sheet)
    _rows(sheet)
    read_arguments(sheet)
    shares_whole(sheet)
    _numbers(sheet)
    _code(sheet)
    return sheet.found("TRL YAML", "trl", TRL, most_steps=most_steps(sheet), written="trl", **_held_out(sheet))


def _held_out(sheet: Sheet) -> dict[str, float]:
    """Rows of a mixture of data sets that are kept for evaluation: DatasetMixtureConfig, test_split_size."""
    for key in ("dataset_mixture.test_split_size", "test_split_size"):
        size = sheet.get(key)
        if size is not None and sheet.peek("eval_strategy") == "epoch":
            return {"held_out": sheet.number(key, size), "evaluations": 1.0}
    return {}


def _method(sheet: Sheet) -> None:
    words = ("load_in_4bit", "load_in_8bit", "use_4bit_quantization", "use_8bit_quantization")
    bits = next((key for key in words if sheet.has(key)), "")
    if not sheet.has("use_peft", "use_peft_lora"):
        sheet.sets("method", "full")
        if bits:
            sheet.refuses(bits, "a quantized base without adapters, which cannot be trained")
        return
    name = ("q" if bits else "") + ("dora" if sheet.has("use_dora") else "lora")
    key = "use_peft" if sheet.peek("use_peft") else "use_peft_lora"
    sheet.sets("method", name, key, *([bits] if bits else []))
    if bits:
        sheet.sets("quant", sheet.get("bnb_4bit_quant_type", "nf4") if "4bit" in bits else "int8", bits)
        for key in ("use_bnb_nested_quant", "use_nested_quant"):
            if sheet.get(key) is not None:
                sheet.takes("double_quant", key)
    sheet.takes("rank", "lora_r", 16)
    sheet.takes("alpha", "lora_alpha", 32)
    sheet.takes("dropout", "lora_dropout")
    if sheet.get("lora_target_modules"):
        sheet.takes("target_modules", "lora_target_modules")
    sheet.takes("modules_to_save", "lora_modules_to_save")
    if sheet.has("use_rslora"):
        sheet.sets("variant", "rslora", "use_rslora")


def _rows(sheet: Sheet) -> None:
    key = next((key for key in ("max_length", "max_seq_length") if sheet.peek(key) is not None), "")
    sheet.get("max_length")
    sheet.get("max_seq_length")
    sheet.sets("seq_len", sheet.peek(key) if key else 1024, *([key] if key else []))
    packed = sheet.has("packing")
    sheet.sets("packing", packed, *(["packing"] if sheet.peek("packing") is not None else []))
    strategy = sheet.get("packing_strategy", "bfd")
    if packed and strategy in ("bfd", "wrapped", "bfd_split"):
        sheet.sets("packing_strategy", "wrapped" if strategy == "wrapped" else "position_ids", "packing_strategy")
    elif packed:
        sheet.loses("packing_strategy", "another way of packing")
    if sheet.has("padding_free") and not packed:
        sheet.sets("padding", "none", "padding_free")
    sheet.takes("pad_to_multiple_of", "pad_to_multiple_of")


def _numbers(sheet: Sheet) -> None:
    """trainer/base_config.py: bf16 unless fp16; weights are loaded in fp32 unless `dtype` says otherwise."""
    key = next((key for key in _DTYPES if sheet.peek(key) is not None), "")
    for one in _DTYPES:
        sheet.get(one)
    if key and sheet.peek(key) != "auto":
        sheet.sets("base_dtype", sheet.peek(key), key)
    elif key:
        sheet.sets("base_dtype", "bfloat16", key)
    fp16, bf16 = sheet.has("fp16"), sheet.get("bf16")
    if bf16 is False and not fp16:
        sheet.sets("autocast", False, "bf16")
    elif fp16 and sheet.knobs.get("base_dtype") == "bfloat16":
        sheet.loses("fp16", "mixed precision of fp16 over weights in bf16")


def _code(sheet: Sheet) -> None:
    """activation_checkpointing is gradient_checkpointing's newer name (transformers 5)."""
    key = next(
        (key for key in ("activation_checkpointing", "gradient_checkpointing") if sheet.get(key) is not None), ""
    )
    if sheet.has("activation_offloading"):
        sheet.sets("offload", "activations", "activation_offloading")
    elif key:
        sheet.sets("gradient_checkpointing", sheet.peek(key), key)
    for one in ("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"):
        if sheet.get(f"{one}.use_reentrant") is not None:
            sheet.takes("reentrant", f"{one}.use_reentrant")
    sheet.sets("expandable_segments", False)
    sheet.takes("reentrant", "use_reentrant")
    word, flash = sheet.get("attn_implementation"), sheet.has("use_flash_attn")
    named = ["attn_implementation"] if word else ["use_flash_attn"] if flash else []
    sheet.sets("attention", word or ("flash" if flash else "sdpa"), *named)
    read_liger(sheet, ("liger_norm", "liger_rope", "liger_mlp"))  # its loss is its own
