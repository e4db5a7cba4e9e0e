"""Scripts and notebooks of Unsloth, TRL and transformers, by the calls that configure their runs (`calls`)."""

from __future__ import annotations

import os

from advisor.configs.called import UNSLOTH
from advisor.configs.casts import OWN
from advisor.configs.found import Found
from advisor.configs.idle import SCRIPTS
from advisor.configs.literals import Computed
from advisor.configs.sheet import DATA_ENDINGS, Sheet
from advisor.configs.training_arguments import most_steps, read_arguments, read_liger
from advisor.specs import Trainer

MARKS = (("model", "loader"), ("classes",))
_SFT = ("SFTTrainer", "UnslothTrainer", "Trainer", "Seq2SeqTrainer")
_SEES = ("ForConditionalGeneration", "ForImageTextToText", "ForVision2Seq")
_UNSAID = {
    "load_in_fp8": "a base in FP8 by torchao",
    "qat_scheme": "training with simulated quantization",
    "unsloth_force_compile": "torch.compile changes memory and time",
    "fast_inference": "vLLM keeps memory of its own",
}
"""Of from_pretrained and get_peft_model."""
_LORAPLUS = "(create_loraplus_optimizer(model, torch.optim.AdamW,"
"""peft/optimizers/loraplus.py: AdamW by groups of its own, with the same states."""


def read(sheet: Sheet) -> Found:
    """The calls as a question."""
    loader = str(sheet.get("loader", ""))
    trainer: Trainer = "unsloth" if loader in UNSLOTH else "trl" if _has(sheet, "SFTTrainer") else "transformers"
    _objective(sheet, loader)
    model, arguments = sheet.at("model."), sheet.at("arguments.")
    for key in ("model_name", "pretrained_model_name_or_path"):
        if model.get(key) is not None:
            model.takes("model", key)
            break
    _method(sheet, trainer)
    _rows(sheet, loader, trainer)
    read_arguments(arguments)
    _numbers(sheet, trainer)
    _code(sheet, trainer)
    _loop(sheet, trainer)
    for group in ("model", "adapters", "storage", "arguments", "trainer", "prepared", "collator"):
        if sheet.peek(f"{group}.**") is not None:
            sheet.loses(f"{group}.**", "arguments that only the run knows")
    card = sheet.get("card")
    return sheet.found(
        {"unsloth": "Unsloth script", "trl": "TRL script", "transformers": "transformers script"}[trainer],
        trainer,
        SCRIPTS,
        most_steps=most_steps(arguments),
        card=card if isinstance(card, str) else "",
        assumed=("the script is started without flags: their defaults are taken",) if sheet.get("flags") else (),
    )


def _has(sheet: Sheet, name: str) -> bool:
    return name in (sheet.peek("classes") or {})


def _objective(sheet: Sheet, loader: str) -> None:
    classes = sheet.get("classes") or {}
    others = [name for name in classes if name.endswith("Trainer") and name not in _SFT]
    if others and not any(name in classes for name in _SFT):
        sheet.refuses(f"classes.{others[0]}", "another objective than supervised fine-tuning")
    if loader.endswith("ForSequenceClassification"):
        sheet.refuses("loader", "a classifier: say --task classification and --labels to advise")
    if loader == "FastVisionModel" or loader.endswith(_SEES):
        sheet.loses("loader", "rows may have images: say --images 0, or --images 1 and --image-size", "images")


def _method(sheet: Sheet, trainer: Trainer) -> None:
    model = sheet.at("model.")
    if sheet.peek("adapters") is not None:
        _storage(sheet, trainer)
        _adapters(sheet, trainer)
        return
    full = trainer != "unsloth" or model.has("full_finetuning")
    for key in ("load_in_4bit", "load_in_8bit", "load_in_16bit"):
        model.get(key)
    if full:
        model.sets("method", "full", *(["full_finetuning"] if model.peek("full_finetuning") is not None else []))
    else:
        sheet.loses("loader", "adapters are made somewhere that is not read")
        sheet.sets("method", "qlora")


def _storage(sheet: Sheet, trainer: Trainer) -> None:
    """Unsloth's from_pretrained loads 4 bits unless it is told otherwise (models/loader.py, load_in_4bit = True)."""
    model, storage = sheet.at("model."), sheet.at("storage.")
    has_storage = sheet.peek("storage") is not None
    where = storage if has_storage else model
    model.get("full_finetuning")
    if isinstance(where.peek("load_in_4bit"), Computed):
        where.loses("load_in_4bit", "only the run knows it: say --method", "method")
    eight, sixteen = where.has("load_in_8bit"), model.has("load_in_16bit")
    four = where.get("load_in_4bit", trainer == "unsloth" and not (eight or sixteen or has_storage))
    key = "load_in_8bit" if eight else "load_in_4bit"
    name = ("q" if four or eight else "") + ("dora" if sheet.has("adapters.use_dora") else "lora")
    where.sets("method", name, *([key] if where.peek(key) is not None else []))
    if not four:
        for idle in ("bnb_4bit_quant_type", "bnb_4bit_use_double_quant"):
            storage.get(idle)
    if not (four or eight):
        return
    word = "int8" if eight and not (four and where.peek("load_in_4bit")) else storage.get("bnb_4bit_quant_type", "nf4")
    word = "fp4" if word == "nf4" and has_storage and storage.peek("bnb_4bit_quant_type") is None else word
    sheet.sets("quant", word)
    if has_storage and not eight:
        storage.sets("double_quant", bool(storage.get("bnb_4bit_use_double_quant", False)))


def _adapters(sheet: Sheet, trainer: Trainer) -> None:
    adapters = sheet.at("adapters.")
    adapters.takes("rank", "r", 16 if trainer == "unsloth" else 8)
    adapters.takes_if_known("alpha", "lora_alpha")
    adapters.takes("dropout", "lora_dropout", 0.0)
    names, saved = adapters.get("target_modules"), list(adapters.get("modules_to_save") or [])
    if isinstance(names, list):
        saved += [one for one in names if one in ("embed_tokens", "lm_head") and trainer == "unsloth"]
        names = [one for one in names if one not in saved]
    if names:
        adapters.sets("target_modules", names, "target_modules")
    elif trainer == "unsloth":
        adapters.sets("target_modules", "all-linear")
    if saved:
        key = "modules_to_save" if adapters.peek("modules_to_save") else "target_modules"
        adapters.sets("modules_to_save", list(dict.fromkeys(saved)), key)
    if adapters.has("use_rslora"):
        adapters.sets("variant", "rslora", "use_rslora")
    adapters.layers("layers_to_transform", adapters.get("layers_to_transform"))
    if adapters.has("finetune_vision_layers"):
        adapters.sets("train_tower", True, "finetune_vision_layers")
    for one in ("finetune_attention_modules", "finetune_mlp_modules"):
        if adapters.get(one) is False:
            why = "only some kinds of layers get adapters; say --target-modules"
            adapters.loses(one, why, "target_modules")
    if adapters.get("bias", "none") != "none":
        adapters.loses("bias", "biases of the model are trained")
    if adapters.get("target_parameters"):
        adapters.loses("target_parameters", "adapters on parameters that no module holds")


def _rows(sheet: Sheet, loader: str, trainer: Trainer) -> None:
    places = [(group, key) for group in ("arguments", "trainer", "model") for key in ("max_length", "max_seq_length")]
    stated = [(group, key) for group, key in places if sheet.at(f"{group}.").get(key) is not None]
    if stated:
        group, key = stated[0]
        sheet.at(f"{group}.").takes("seq_len", key)
    elif trainer != "transformers" and "max_length" not in (sheet.peek("arguments") or {}):  # null: nothing is cut
        sheet.sets("seq_len", 2048 if trainer == "unsloth" else 1024)
    elif trainer == "transformers" and len(lengths := sheet.get("lengths", {})) == 1:
        sheet.takes("seq_len", f"lengths.{next(iter(lengths))}")
    packs = [group for group in ("arguments", "trainer") if sheet.at(f"{group}.").get("packing") is not None]
    if packs:
        sheet.at(f"{packs[0]}.").takes("packing", "packing")
    elif sheet.has("packed"):
        sheet.sets("packing", True, "packed")
    else:
        sheet.sets("packing", False)
    free = sheet.at("arguments.").get("padding_free")
    if free is not None and not (free and trainer == "unsloth"):  # which does so by itself
        sheet.at("arguments.").sets("padding", "none" if free else "longest", "padding_free")
    path = sheet.get("flags", {}).get("data")
    if isinstance(path, str) and path.endswith(DATA_ENDINGS) and os.path.isfile(path):
        sheet.sets("data", path, "flags")


def _numbers(sheet: Sheet, trainer: Trainer) -> None:
    model, arguments = sheet.at("model."), sheet.at("arguments.")
    key = next((key for key in ("dtype", "torch_dtype") if model.get(key) not in (None, "auto")), "")
    if key and trainer != "unsloth" and not isinstance(model.peek(key), Computed):
        model.sets("base_dtype", model.peek(key), key)
    bf16, fp16 = arguments.get("bf16"), arguments.has("fp16")
    if trainer == "transformers" and not bf16 and not fp16:
        arguments.sets("autocast", False)
    elif bf16 is False and not fp16 and trainer == "trl":
        arguments.sets("autocast", False, "bf16")


def _code(sheet: Sheet, trainer: Trainer) -> None:
    model, arguments = sheet.at("model."), sheet.at("arguments.")
    if trainer == "unsloth":
        _unsloth_checkpointing(sheet)
    else:
        offloads = arguments.has("activation_offloading")
        if offloads:
            arguments.sets("offload", "activations", "activation_offloading")
        for key in ("activation_checkpointing", "gradient_checkpointing"):
            if arguments.get(key) is not None and not offloads:
                arguments.takes("gradient_checkpointing", key)
        if trainer == "transformers" and "gradient_checkpointing" not in sheet.knobs:
            sheet.sets("gradient_checkpointing", False)
        for key in ("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs"):
            if arguments.get(f"{key}.use_reentrant") is not None:
                arguments.takes("reentrant", f"{key}.use_reentrant")
        word = model.get("attn_implementation")
        model.sets("attention", word or "sdpa", *(["attn_implementation"] if word else []))
        read_liger(arguments)
    sheet.sets("expandable_segments", trainer == "unsloth")
    for group in (model, sheet.at("adapters.")):
        group.loses_those_on(_UNSAID)
    model.get("gpu_memory_utilization")


def _unsloth_checkpointing(sheet: Sheet) -> None:
    """Unsloth's word is an argument of get_peft_model and of from_pretrained, 'unsloth' by default."""
    where = sheet.at("adapters." if sheet.peek("adapters") is not None else "model.")
    sheet.get("model.use_gradient_checkpointing")
    value = where.get("use_gradient_checkpointing", "unsloth")
    keys = ["use_gradient_checkpointing"] if where.peek("use_gradient_checkpointing") is not None else []
    if value == "unsloth":
        where.sets("offload", "activations", *keys)
    else:
        where.sets("offload", "none", *keys)
        where.sets("gradient_checkpointing", bool(value) and value != "False", *keys)
    for key in ("gradient_checkpointing", "gradient_checkpointing_kwargs"):
        sheet.get(f"arguments.{key}")


def _loop(sheet: Sheet, trainer: Trainer) -> None:
    """What the script does itself around the Trainer: how weights are prepared and cast, how rows are padded."""
    method = sheet.knobs["method"]
    if sheet.get("freezes") is not None and method == "full":
        why = "its own code says which parameters are trained: say --trained-layers"
        sheet.loses("freezes", why, "trained_layers")
    if trainer == "transformers" and method.startswith("q"):
        sheet.sets("kbit_upcast", sheet.peek("prepared") is not None)
    if sheet.peek("prepared") is not None and trainer != "unsloth":
        _prepared(sheet.at("prepared."))
    if sheet.peek("casts") is not None:
        sheet.loses("casts", "weights are put in another dtype")
    _dtypes(sheet)
    collator = sheet.at("collator.")
    if trainer == "transformers" and sheet.peek("collator") is not None and not sheet.knobs.get("packing"):
        longest = "none" if collator.get("class") == "DataCollatorWithFlattening" else "longest"
        padded = collator.get("padding") == "max_length"
        collator.sets("padding", "max_length" if padded else longest, *(["padding"] if padded else ["class"]))
        collator.takes("pad_to_multiple_of", "pad_to_multiple_of", 1)
    if sheet.has("arguments.use_cpu"):
        sheet.loses("arguments.use_cpu", "it runs on the CPU")
    _handed_over(sheet)


def _handed_over(sheet: Sheet) -> None:
    """Objects that the Trainer gets: an optimizer in its own's place, metrics of the logits of all rows."""
    made = sheet.peek("trainer.optimizers")
    if isinstance(made, list) and made[:1] == [None]:
        sheet.get("trainer.optimizers")
    elif str(made).startswith(_LORAPLUS) and isinstance(made, Computed):
        sheet.sets("variant", "loraplus", "trainer.optimizers")
        sheet.takes_if_known("variant", "trainer.optimizers")  # read by its source
    elif made is not None:
        sheet.loses("trainer.optimizers", "an optimizer that the script makes: say --optimizer", "optimizer")
    evaluates = sheet.peek("arguments.eval_strategy") or sheet.peek("arguments.evaluation_strategy")
    if sheet.peek("trainer.compute_metrics") is not None and evaluates not in (None, "no", False):
        sheet.loses("trainer.compute_metrics", "logits of all rows of evaluation stay on the card")


def _prepared(prepared: Sheet) -> None:
    """Checkpointing as peft's prepare_model_for_kbit_training switches it on. Source: peft 0.21, utils/other.py."""
    on = prepared.get("use_gradient_checkpointing", True)
    if on is True or on == "True":
        prepared.sets("gradient_checkpointing", True, *(["use_gradient_checkpointing"] if on is True else []))
    for one in ("gradient_checkpointing_kwargs", "gradient_checkpointing_kwargs.use_reentrant"):
        prepared.get(one)
    if on is True and prepared.get("gradient_checkpointing_kwargs.use_reentrant") is not None:
        prepared.takes("reentrant", "gradient_checkpointing_kwargs.use_reentrant")


def _dtypes(sheet: Sheet) -> None:
    """The dtypes that parameters are put in after the adapters were made, of the kinds that this model has."""
    has = {
        "adapter_dtype": True,
        "magnitude_dtype": sheet.knobs["method"].endswith("dora"),
        "trained_dtype": bool(sheet.knobs.get("modules_to_save")),
    }
    for knob, dtype in sheet.get("dtypes", {}).items():
        sheet.get(f"dtypes.{knob}")
        if has[knob] and (dtype != OWN or knob == "trained_dtype"):
            sheet.sets(knob, dtype, f"dtypes.{knob}")
