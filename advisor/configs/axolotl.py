"""Axolotl's YAML, as axolotl 0.19.0 reads it: utils/schemas/config.py, AxolotlInputConfig, and what loads the model."""

from __future__ import annotations

import re

from advisor.configs.engines import read_engine
from advisor.configs.found import Found
from advisor.configs.idle import AXOLOTL
from advisor.configs.sheet import Sheet

MARKS = (("base_model",),)
"""A file with all keys of one of these is its."""
_LIGER = {
    "liger_rms_norm": ("liger_norm",),
    "liger_layer_norm": ("liger_norm",),
    "liger_rope": ("liger_rope",),
    "liger_glu_activation": ("liger_mlp",),
    "liger_swiglu": ("liger_mlp",),
    "liger_fused_linear_cross_entropy": ("liger_loss",),
}
_LORA_KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel")
_ATTENTION = {
    "flash_attention": "flash",
    "sdp_attention": "sdpa",
    "xformers_attention": "xformers",
    "flex_attention": "flex",
    "eager_attention": "eager",
}
_OTHER = {
    "rl": "another objective than supervised fine-tuning",
    "reward_model": "a reward model is trained, not a next token",
    "process_reward_model": "a reward model is trained, not a next token",
    "relora": "ReLoRA merges its adapters as it goes",
    "lisa_n_layers": "LISA trains other layers from time to time",
    "qat": "training with simulated quantization",
    "max_packed_sequence_len": "axolotl 0.19 refuses it; sample_packing packs",
    "flash_attn_rms_norm": "axolotl 0.19 refuses it",
    "flash_optimum": "BetterTransformer's layers in place of the model's",
    "llmcompressor": "training of a sparse model",
}
_UNSAID = {
    "lora_target_parameters": "adapters on parameters that no module holds",
    "torch_compile": "torch.compile changes memory and time",
    "tensor_parallel_size": "tensor parallelism",
    "context_parallel_size": "context parallelism",
    "sequence_parallel_degree": "sequence parallelism",
    "expert_parallel_size": "expert parallelism",
    "use_kernels": "kernels of the Hub",
    "use_scattermoe": "kernels of its own for experts",
    "use_sonicmoe": "kernels of its own for experts",
    "experts_implementation": "kernels of its own for experts",
    "fused_attn_kernel": "an attention kernel of its own",
    "gemma4_hybrid_attn_impl": "an attention of its own",
    "selective_checkpointing": "some layers are recomputed, others not",
    "lora_embedding_kernel": "a kernel for adapters of the embedding",
    "torch_compile_mode": "torch.compile changes memory and time",
    "flash_attn_fuse_mlp": "a kernel of flash-attn for the MLP",
    "flash_attn_cross_entropy": "a kernel of flash-attn for the loss",
    "freeze_mm_modules": "whether the vision tower is trained; say --train-tower or not",
    "chunked_cross_entropy": "a loss in chunks by a patch of its own",
    "liger_cross_entropy": "a loss kernel that still makes all logits",
    "liger_rms_norm_gated": "Liger's kernel for gated norms",  # integrations/liger/args.py
    "use_eaft": "another loss than the default one",  # core/builders/causal.py
    "dp_shard_size": "FSDP over some of the cards, or all",
}
_OF_LAYERS = re.compile(r"(?:\]\*|layers)\\?\.\(?(\d+(?:\|\d+)*)\)?\\?\.")
_OF_MODULE = re.compile(r"(embed_tokens|lm_head|norm)\\?\.?[*$]?$")


def read(sheet: Sheet) -> Found:
    """The file as a question."""
    sheet.refuses_those_on(_OTHER)
    sheet.loses_those_on(_UNSAID)
    sheet.takes("model", "base_model")
    adapted = _method(sheet)
    if adapted and sheet.get("unfrozen_parameters"):
        sheet.loses("unfrozen_parameters", "it freezes adapters, too, whose names peft begins with base_model.model")
    if adapted:
        _adapters(sheet)
    for key in sheet.tree.values:
        if key.startswith(("lora_", "peft")) and not adapted:
            sheet.get(key)  # of adapters that nobody asked for
    _rows(sheet)
    _batches(sheet)
    _numbers(sheet)
    _checkpointing(sheet)
    _kernels(sheet, adapted)
    read_engine(sheet)
    held_out = sheet.get("val_set_size", 0)
    evaluations = sheet.get("evals_per_epoch", 0)
    sheet.takes("eval_steps", "eval_steps") if isinstance(sheet.peek("eval_steps"), int) else sheet.get("eval_steps")
    return sheet.found(
        "Axolotl YAML",
        "axolotl",
        AXOLOTL,
        held_out=sheet.number("val_set_size", held_out),
        evaluations=sheet.number("evals_per_epoch", evaluations),
        most_steps=int(sheet.number("max_steps", sheet.get("max_steps", 0))),
        vocabulary_multiple=32 if sheet.has("resize_token_embeddings_to_32x") else 1,
        written="axolotl",
    )


def _method(sheet: Sheet) -> bool:
    """Sets method and storage; whether there are adapters."""
    adapter = sheet.get("adapter", "")
    eight, four = sheet.has("load_in_8bit"), sheet.has("load_in_4bit")
    dora = sheet.has("peft_use_dora", "lora_use_dora")
    stored = "gptq" if sheet.has("gptq") else ""
    if adapter not in ("", "lora", "qlora"):
        sheet.refuses("adapter", "adapters of another kind")
    if not adapter:
        sheet.sets("method", "full")
        _unfrozen(sheet)
        return False
    keys = ["adapter", *(key for key, on in (("load_in_8bit", eight), ("load_in_4bit", four)) if on)]
    quantized = eight or four or stored or adapter == "qlora"
    sheet.sets("method", ("q" if quantized else "") + ("dora" if dora else "lora"), *keys)
    if sheet.get("model_quantization_config") == "Mxfp4Config" and sheet.has(
        "model_quantization_config_kwargs.dequantize"
    ):
        sheet.get("model_quantization_config_kwargs")  # the weights are made 16 bits of while they are loaded
    elif sheet.peek("model_quantization_config"):
        sheet.loses("model_quantization_config", "a base quantized in another way")
    if stored:
        sheet.sets("quant", stored, "gptq")
    elif quantized:
        sheet.sets("quant", "int8" if eight and not four else sheet.get("bnb_config_kwargs.bnb_4bit_quant_type", "nf4"))
    if quantized and sheet.has("quantize_moe_experts"):
        sheet.sets("quantize_experts", True, "quantize_moe_experts")
    if not eight and sheet.get("bnb_config_kwargs.bnb_4bit_use_double_quant") is not None:
        sheet.takes("double_quant", "bnb_config_kwargs.bnb_4bit_use_double_quant")
    return True


def _unfrozen(sheet: Sheet) -> None:
    """Patterns of names of parameters, of which those that whole layers and modules have are understood."""
    modules: list[str] = []
    for pattern in sheet.get("unfrozen_parameters") or []:
        layers, module = _OF_LAYERS.search(str(pattern)), _OF_MODULE.search(str(pattern))
        if layers is not None:
            sheet.layers("unfrozen_parameters", layers[1].split("|"))
        elif module is not None:
            modules.append(module[1])
        else:
            why = "a pattern of names; say --trained-layers and --modules-to-save"
            sheet.loses("unfrozen_parameters", why, "trained_layers", "modules_to_save")
    if modules:
        sheet.sets("modules_to_save", modules, "unfrozen_parameters")


def _adapters(sheet: Sheet) -> None:
    sheet.takes("rank", "lora_r")
    sheet.takes("alpha", "lora_alpha")
    sheet.takes("dropout", "lora_dropout")
    names = sheet.get("lora_target_modules")
    if sheet.has("lora_target_linear"):
        sheet.sets("target_modules", "all-linear", "lora_target_linear")  # names beside it are among them
    elif names:
        sheet.sets("target_modules", names, "lora_target_modules")
    sheet.takes("modules_to_save", "lora_modules_to_save")
    if sheet.has("peft_use_rslora"):
        sheet.sets("variant", "rslora", "peft_use_rslora")
    elif sheet.get("loraplus_lr_ratio"):
        sheet.sets("variant", "loraplus", "loraplus_lr_ratio")
    elif (start := sheet.get("peft_init_lora_weights")) in ("pissa", "olora"):
        sheet.sets("variant", start, "peft_init_lora_weights")
    if sheet.get("peft_autocast_adapter_dtype") is False:
        sheet.sets("adapter_dtype", "bfloat16", "peft_autocast_adapter_dtype")
    sheet.layers("peft_layers_to_transform", sheet.get("peft_layers_to_transform"))
    sheet.get("peft.loftq_config")


def _rows(sheet: Sheet) -> None:
    sheet.takes("seq_len", "sequence_len", 512)
    sheet.takes("epochs", "num_epochs", 1)
    sheet.takes("neftune", "neftune_noise_alpha")
    packed = sheet.has("sample_packing")
    sheet.sets("packing", packed, *(["sample_packing"] if sheet.peek("sample_packing") is not None else []))
    sheet.takes("pad_to_multiple_of", "pad_to_multiple_of")
    if packed:
        sheet.get("pad_to_sequence_len")
    elif sheet.has("batch_flattening"):
        sheet.sets("padding", "none", "batch_flattening")
    elif sheet.has("pad_to_sequence_len"):
        sheet.sets("padding", "max_length", "pad_to_sequence_len")
    elif sheet.get("pad_to_sequence_len") is False:
        sheet.sets("pad_to_multiple_of", 1, "pad_to_sequence_len")
    if sheet.has("group_by_length"):
        sheet.sets("group_by_length", True, "group_by_length")
    if sheet.get("processor_type") and "images" not in sheet.knobs:
        sheet.loses("processor_type", "rows with images: say --images and --image-size", "images")
    sheet.data("datasets")
    sheet.get("pretraining_dataset")


def _batches(sheet: Sheet) -> None:
    """Axolotl's own batch_size is of all micro-batches: utils/config/__init__.py, normalize_config."""
    sheet.takes("micro_batch", "micro_batch_size", 1)
    micro, steps = int(sheet.knobs["micro_batch"]), sheet.get("gradient_accumulation_steps")
    if steps is None and sheet.get("batch_size") is not None:
        steps = int(sheet.number("batch_size", sheet.peek("batch_size"))) // micro
        sheet.rows_of_a_step(steps, "batch_size")
    else:
        sheet.get("batch_size")
        sheet.rows_of_a_step(steps, "gradient_accumulation_steps")
    if sheet.get("eval_batch_size") is not None and sheet.peek("val_set_size"):
        sheet.takes("eval_batch", "eval_batch_size")
    sheet.takes("optimizer", "optimizer", "adamw_torch_fused")
    sheet.get("optim_target_modules")
    sheet.get("optim_args")


def _numbers(sheet: Sheet) -> None:
    """Dtypes: utils/config/__init__.py, normalize_config and choose_device; the preset has those of bf16: auto."""
    bf16, fp16 = sheet.get("bf16", "auto"), sheet.get("fp16")
    pure = next((key for key in ("bfloat16", "float16") if sheet.has(key)), "")
    if pure or bf16 == "full":
        sheet.sets("base_dtype", pure or "bfloat16", pure or "bf16")
        sheet.sets("autocast", False, pure or "bf16")
    elif not bf16 and fp16:
        sheet.sets("base_dtype", "float16", "fp16")
    elif not bf16:
        sheet.sets("base_dtype", "float32", "bf16")
        sheet.sets("autocast", False, "bf16")


def _checkpointing(sheet: Sheet) -> None:
    """utils/schemas/validation.py, check_gradient_checkpointing_w_offload: 'offload' is activation_offloading."""
    value, offloaded = sheet.get("gradient_checkpointing", False), sheet.get("activation_offloading", False)
    key = "activation_offloading" if offloaded else "gradient_checkpointing"
    if offloaded or value in ("offload", "unsloth"):
        if offloaded in ("legacy", "disk"):
            sheet.loses(key, "another way of offloading than the default one")
        sheet.sets("offload", "activations", key)
    elif value == "offload_disk":
        sheet.loses(key, "offloading to a disk")
    else:
        sheet.sets("gradient_checkpointing", value, *([key] if sheet.peek(key) is not None else []))
        if value and sheet.get("gradient_checkpointing_kwargs.use_reentrant") is not None:
            sheet.takes("reentrant", "gradient_checkpointing_kwargs.use_reentrant")
    sheet.get("gradient_checkpointing_kwargs")
    key = next((key for key in ("attn_implementation", *_ATTENTION) if sheet.has(key)), "")
    sheet.sets(
        "attention", (_ATTENTION.get(key) or sheet.word(key, "sdpa")) if key else "sdpa", *([key] if key else [])
    )


def _kernels(sheet: Sheet, adapted: bool) -> None:
    """Plugins and LoRA kernels; these are on by themselves: utils/schemas/config.py, check_auto_enable_lora_kernels."""
    names: dict[str, str] = {}
    for key, kernels in _LIGER.items():
        if sheet.has(key):
            names |= dict.fromkeys(kernels, key)
    plugins = [str(name) for name in sheet.get("plugins", [])]
    cut = any("cut_cross_entropy" in name for name in plugins) and sheet.get("cut_cross_entropy", True)
    if cut or sheet.has("cut_cross_entropy"):
        names["cce"] = "plugins" if sheet.peek("cut_cross_entropy") is None else "cut_cross_entropy"
    for name in plugins:
        if not any(word in name for word in ("liger", "cut_cross_entropy", "swanlab", "Swanlab", "SwanLab")):
            sheet.loses("plugins", f"{name.rsplit('.', 1)[-1]} may change the step")
    said = [key for key in _LORA_KERNELS if sheet.get(key) is not None]
    on = [key for key in said if sheet.peek(key)]
    by_itself = not said and not sheet.has("trust_remote_code") and not sheet.has("load_in_8bit")
    if adapted and on:
        names["fused_lora"] = on[0]
        if len(on) < len(_LORA_KERNELS):
            sheet.loses(on[0], "some of its LoRA kernels without the others")
    elif adapted and by_itself:
        names["fused_lora"] = ""
    keys = dict.fromkeys(key for key in names.values() if key)
    sheet.sets("kernels", tuple(names) or "none", *(keys or (said[:1] if said else ())))
