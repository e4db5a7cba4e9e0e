"""LLaMA-Factory's YAML, as llamafactory 0.9.5 reads it: hparams/*.py, and model/ for what it makes of them."""

from __future__ import annotations

from advisor.configs.found import Found
from advisor.configs.idle import LLAMAFACTORY
from advisor.configs.sheet import Sheet
from advisor.configs.training_arguments import BALANCES, most_steps, read_arguments
from advisor.parameters.rotations import BLOCK

MARKS = (("finetuning_type", "model_name_or_path"),)
_STAGES = ("sft", "pt")
_OTHER = {
    "use_badam": "BAdam trains blocks in turn",
    "use_adam_mini": "Adam-mini keeps other states",
    "use_llama_pro": "LLaMA Pro adds layers",
    "mixture_of_depths": "other layers than the model's",
    "use_kt": "experts on the CPU by KTransformers",
    "use_mca": "Megatron trains it",
    "use_megatron_bridge": "Megatron trains it",
    "use_hyper_parallel": "several kinds of parallelism",
}
_UNSAID = {
    "upcast_layernorm": "norms in fp32",
    "upcast_lmhead_output": "logits in fp32",
    "shift_attn": "attention in shifted groups",
    "resize_vocab": "more rows in the vocabulary than the model's",
    "freeze_trainable_modules": "parts of layers are trained",
    "use_asft_loss": "a second copy of the model beside it",  # train/sft/workflow.py, create_ref_model
    "use_dft_loss": "another loss than the default one",  # train/trainer_utils.py, dft_loss_func
    "use_eaft_loss": "another loss than the default one",
    "moe_aux_loss_coef": BALANCES,  # model/model_utils/moe.py, configure_moe
}
_LOW_RANK = ("galore", "apollo")


def read(sheet: Sheet) -> Found:
    """The file as a question."""
    stage = sheet.get("stage", "sft")
    if stage not in _STAGES:
        sheet.refuses("stage", "another objective than supervised fine-tuning")
    sheet.refuses_those_on(_OTHER)
    for key, why in _UNSAID.items():
        if sheet.get(key) not in (None, False, "all"):
            sheet.loses(key, why)
    sheet.takes("model", "model_name_or_path")
    kind = sheet.get("finetuning_type", "lora")
    _method(sheet, kind)
    _rows(sheet, stage)
    read_arguments(sheet)
    _own_optimizer(sheet)
    _numbers(sheet, kind)
    _code(sheet)
    held_out = sheet.number("val_size", sheet.get("val_size", 0))
    return sheet.found(
        "LLaMA-Factory YAML",
        "llamafactory",
        LLAMAFACTORY,
        held_out=held_out,
        rows=_rows_at_most(sheet),
        most_steps=most_steps(sheet),
        written="llamafactory",
    )


def _rows_at_most(sheet: Sheet) -> int:
    """max_samples is a limit for each data set."""
    limit = int(sheet.number("max_samples", sheet.get("max_samples", 0)))
    return limit * len(sheet.word("dataset", "one").split(","))


def _method(sheet: Sheet, kind: str) -> None:
    bits = sheet.get("quantization_bit")
    if kind in ("full", "freeze"):
        sheet.sets("method", "full", "finetuning_type")
        if kind == "freeze":
            sheet.takes("trained_layers", "freeze_trainable_layers", 2)
            if sheet.get("freeze_extra_modules"):
                sheet.sets("modules_to_save", sheet.get("freeze_extra_modules"), "freeze_extra_modules")
        return
    if kind not in ("lora", "oft"):
        sheet.refuses("finetuning_type", "a method of another kind")
        return
    name = ("q" if bits else "") + ("dora" if sheet.has("use_dora") else "lora")
    sheet.sets("method", name, "finetuning_type", *(["quantization_bit"] if bits else []))
    if bits:
        way = sheet.get("quantization_method", "bnb")
        if way not in ("bnb", "bitsandbytes"):
            sheet.sets("quant", way, "quantization_method")
            sheet.takes("quant_bits", "quantization_bit")
        else:
            word = "int8" if str(bits) == "8" else sheet.get("quantization_type", "nf4")
            sheet.sets("quant", word, "quantization_bit")
        if str(bits) != "8":
            sheet.takes("double_quant", "double_quantization")
    if kind == "oft":
        sheet.sets("variant", "oft", "finetuning_type")
        sheet.sets("target_modules", sheet.get("oft_target", "all"), "oft_target")
        for key, usual in (("oft_rank", 0), ("oft_block_size", BLOCK), ("module_dropout", 0)):
            if sheet.get(key, usual) != usual:
                sheet.loses(key, "rotations of another size, or dropped")
        return
    sheet.takes("rank", "lora_rank", 8)
    sheet.takes("alpha", "lora_alpha")
    sheet.takes("dropout", "lora_dropout")
    named = ["lora_target"] if sheet.peek("lora_target") else []
    sheet.sets("target_modules", sheet.get("lora_target", "all"), *named)
    sheet.takes("modules_to_save", "additional_target")
    for key, variant in (("use_rslora", "rslora"), ("pissa_init", "pissa")):
        if sheet.has(key):
            sheet.sets("variant", variant, key)
    if sheet.get("loraplus_lr_ratio"):
        sheet.sets("variant", "loraplus", "loraplus_lr_ratio")


def _rows(sheet: Sheet, stage: str) -> None:
    """Packing is on by itself in continued pretraining: hparams/parser.py."""
    sheet.takes("seq_len", "cutoff_len", 2048)
    neat = sheet.has("neat_packing")
    packed = bool(sheet.get("packing", neat or stage == "pt"))
    key = "neat_packing" if neat else "packing"
    sheet.sets("packing", packed, *([key] if sheet.peek(key) is not None else []))
    if neat:
        sheet.sets("packing_strategy", "position_ids", "neat_packing")
    if sheet.get("image_max_pixels") is not None:
        sheet.takes("max_pixels", "image_max_pixels")
    tower = [key for key in ("freeze_vision_tower", "freeze_multi_modal_projector") if sheet.get(key) is False]
    if tower:
        sheet.sets("train_tower", True, *tower)
    if sheet.has("freeze_language_model"):
        sheet.loses("freeze_language_model", "only the tower is trained")


def _own_optimizer(sheet: Sheet) -> None:
    """Layer-wise, each parameter has an optimizer that steps as soon as its gradient is there: trainer_utils.py."""
    for name in _LOW_RANK:
        if sheet.has(f"use_{name}"):
            sheet.sets("optimizer", name, f"use_{name}")
            sheet.takes("optimizer_rank", f"{name}_rank", 16)
            if sheet.has(f"{name}_layerwise"):
                sheet.sets("optimizer_in_backward", True, f"{name}_layerwise")
        sheet.get(f"{name}_layerwise")
        sheet.get(f"{name}_rank")
    if sheet.has("use_muon"):
        sheet.sets("optimizer", "muon", "use_muon")


def _numbers(sheet: Sheet, kind: str) -> None:
    """model/adapter.py: pure_bf16 keeps what is trained in 16 bits; else it is cast to fp32."""
    if sheet.has("pure_bf16"):
        sheet.sets("base_dtype", "bfloat16", "pure_bf16")
        sheet.sets("autocast", False, "pure_bf16")
        knob = {"full": "", "freeze": "trained_dtype"}.get(kind, "adapter_dtype")
        if knob:
            sheet.sets(knob, "bfloat16", "pure_bf16")
        for key in ("bf16", "fp16"):
            sheet.get(key)
        return
    bf16, fp16 = sheet.has("bf16"), sheet.has("fp16")
    if fp16 and kind not in ("full",):
        sheet.sets("base_dtype", "float16", "fp16")
    elif not bf16 and not fp16:
        sheet.sets("autocast", False)
    if sheet.get("infer_dtype") not in (None, "auto") and kind not in ("full",):
        sheet.takes("base_dtype", "infer_dtype")


def _code(sheet: Sheet) -> None:
    """Checkpointing, attention and kernels: on unless disable_gradient_checkpointing."""
    off = sheet.has("disable_gradient_checkpointing")
    key = "disable_gradient_checkpointing"
    if sheet.has("use_unsloth_gc") and not off:
        sheet.sets("offload", "activations", "use_unsloth_gc")
    sheet.sets("gradient_checkpointing", not off, *([key] if sheet.peek(key) is not None else []))
    sheet.takes("reentrant", "use_reentrant_gc")
    sheet.sets("expandable_segments", False)  # launcher.py sets it for several cards only
    words = {"disabled": "eager", "auto": "sdpa"}
    word = sheet.word("flash_attn", "auto")
    sheet.sets("attention", words.get(word, word), *(["flash_attn"] if sheet.peek("flash_attn") else []))
    if sheet.has("use_unsloth"):
        sheet.loses("use_unsloth", "Unsloth's kernels in LLaMA-Factory's loop; --trainer unsloth has them")
    liger = sheet.has("enable_liger_kernel")
    sheet.sets("kernels", "liger" if liger else "none", *(["enable_liger_kernel"] if liger else []))
