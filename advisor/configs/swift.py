"""ms-swift's command line and YAML, as ms-swift 4.6.0 reads them: arguments/*.py of `swift sft` and `swift pt`."""

from __future__ import annotations

from advisor.catalog.storage import read_ending
from advisor.checkpoints import STORES
from advisor.configs.engines import shares_whole
from advisor.configs.found import Found
from advisor.configs.idle import SWIFT
from advisor.configs.sheet import Sheet
from advisor.configs.training_arguments import BALANCES, most_steps, read_arguments, read_liger

MARKS = (("command", "model"), ("tuner_type", "model"), ("train_type", "model"))
_TRAINS = ("swift sft", "swift pt")
_ATTENTION = {"flash_attn": "flash", "flash_attention_2": "flash", "flash_attention_3": "flash_attention_3"}
_EXPERTS = "grouped_mm"
"""What transformers takes by itself: modeling_utils.py, get_correct_experts_implementation."""
_UNSAID = {
    "sequence_parallel_size": "sequence parallelism",
    "use_galore": "GaLore by its own code",
    "lisa_activated_layers": "LISA trains other layers from time to time",
    "llamapro_num_new_blocks": "LLaMA Pro adds layers",
    "use_logits_to_keep": "which logits are made",
    "vit_gradient_checkpointing": "checkpointing of the vision tower alone",
    "target_parameters": "adapters on parameters that no module holds",
    "freeze_parameters": "parts of the model are frozen",
    "freeze_parameters_ratio": "parts of the model are frozen",
    "trainable_parameters": "parts of the model are trained",
    "use_chunked_loss": "a loss in chunks",
    "loss_type": "another loss than the default one",
    "tp_size": "tensor parallelism",
    "router_aux_loss_coef": BALANCES,  # trainers/seq2seq_trainer.py
}


def read(sheet: Sheet) -> Found:
    """The command as a question."""
    command = sheet.word("command", _TRAINS[0])
    if command not in _TRAINS:
        sheet.refuses("command", "another objective than supervised fine-tuning")
    environment = sheet.get("environment") or {}
    for key, why in _UNSAID.items():
        if not sheet.is_off(key) and sheet.peek(key) != "cross_entropy":
            sheet.loses(key, why)
    if sheet.get("experts_impl", _EXPERTS) != _EXPERTS:
        sheet.loses("experts_impl", "other code for experts than transformers' own choice")
    if sheet.get("task_type", "causal_lm") not in ("causal_lm",):
        sheet.refuses("task_type", "another task than next tokens")
    sheet.takes("model", "model")
    _method(sheet)
    _rows(sheet, command)
    read_arguments(sheet, micro_batch=1)
    _own_optimizer(sheet)
    shares_whole(sheet)
    if sheet.get("launcher") == "deepspeed":
        sheet.loses("launcher", "it starts a process for each card of its hosts: say --gpus", "gpus")
    if sheet.peek("target_regex"):
        sheet.loses("target_regex", "targets by a pattern; say --target-modules", "target_modules")
    _cards(sheet, environment)
    _code(sheet)
    share = sheet.number("split_dataset_ratio", sheet.get("split_dataset_ratio", 0))
    if share and sheet.get("eval_strategy", sheet.get("save_strategy", "steps")) == "steps":
        sheet.takes("eval_steps", "eval_steps" if sheet.peek("eval_steps") is not None else "save_steps")
    return sheet.found(
        "ms-swift command" if "command" in sheet.tree.values else "ms-swift YAML",
        "ms-swift",
        SWIFT,
        rows=_rows_at_most(sheet),
        held_out=share,
        most_steps=most_steps(sheet),
        written="" if "command" in sheet.tree.values else "ms-swift",
    )


def _own_optimizer(sheet: Sheet) -> None:
    """optimizers/muon.py runs Moonlight's Muon, from which the one that is mirrored here was made."""
    word = sheet.get("optimizer")
    if word == "muon":
        sheet.sets("optimizer", "muon", "optimizer")
    elif word is not None:
        sheet.loses("optimizer", "an optimizer of its own")


def _rows_at_most(sheet: Sheet) -> int:
    """The numbers behind '#' in the names of data sets, where each has one."""
    named = sheet.get("dataset") or []
    counts = [str(one).rpartition("#")[2] for one in (named if isinstance(named, list) else [named])]
    return sum(map(int, counts)) if counts and all(one.isdigit() for one in counts) else 0


def _method(sheet: Sheet) -> None:
    key = "tuner_type" if sheet.peek("tuner_type") is not None else "train_type"
    kind = sheet.get(key, "lora")
    for one in ("tuner_type", "train_type", "tuner_backend"):
        sheet.get(one)
    named = [key] if sheet.peek(key) is not None else []
    if kind == "full":
        sheet.sets("method", "full", *named)
        for one in ("freeze_vit", "freeze_aligner"):
            if sheet.get(one) is False:
                sheet.sets("train_tower", True, one)
        if sheet.has("freeze_llm"):
            sheet.loses("freeze_llm", "only the tower is trained")
        return
    if kind != "lora":
        sheet.refuses(key, "a method of another kind")
        return
    _storage(sheet, named)
    _adapters(sheet)


def _storage(sheet: Sheet, named: list[str]) -> None:
    """The method of adapters, whose kind the keys in `named` say, and how their base is stored."""
    bits, way = sheet.get("quant_bits"), sheet.get("quant_method", "bnb")
    dora = sheet.has("use_dora")
    sheet.sets(
        "method", ("q" if bits else "") + ("dora" if dora else "lora"), *named, *(["quant_bits"] if bits else [])
    )
    if bits:
        word = {"bnb": "int8" if bits == 8 else sheet.get("bnb_4bit_quant_type", "nf4")}.get(str(way), way)
        sheet.sets("quant", word, "quant_bits")
        if str(way) == "bnb" and bits != 8 and sheet.get("bnb_4bit_use_double_quant") is not None:
            sheet.takes("double_quant", "bnb_4bit_use_double_quant")
    sheet.get("bnb_4bit_compute_dtype")


def _adapters(sheet: Sheet) -> None:
    if sheet.get("lora_dtype") is not None:
        sheet.takes("adapter_dtype", "lora_dtype")
    start = sheet.word("init_weights")
    if start in ("pissa", "olora"):
        sheet.sets("variant", start, "init_weights")
    if sheet.get("lorap_lr_ratio"):
        sheet.sets("variant", "loraplus", "lorap_lr_ratio")
    sheet.takes("rank", "lora_rank", 8)
    sheet.takes("alpha", "lora_alpha", 32)
    sheet.takes("dropout", "lora_dropout")
    names = sheet.get("target_modules", "all-linear")
    sheet.sets("target_modules", names, *(["target_modules"] if sheet.peek("target_modules") is not None else []))
    sheet.takes("modules_to_save", "modules_to_save")
    if sheet.has("use_rslora"):
        sheet.sets("variant", "rslora", "use_rslora")
    for one in ("freeze_vit", "freeze_aligner"):
        if sheet.get(one) is False:
            sheet.sets("train_tower", True, one)
    if sheet.has("freeze_llm"):
        sheet.loses("freeze_llm", "only the tower is trained")


def _rows(sheet: Sheet, command: str) -> None:
    """Without max_length rows are cut at the model's own limit alone: arguments/base_args/template_args.py."""
    if sheet.get("max_length") is not None:
        sheet.takes("seq_len", "max_length")
    packed = sheet.get("packing")
    sheet.sets("packing", bool(packed), *(["packing"] if packed is not None else []))
    if sheet.has("padding_free") and not packed:
        sheet.sets("padding", "none", "padding_free")
    images = [key for key in ("max_pixels",) if sheet.get(key) is not None]
    if images:
        sheet.takes("max_pixels", "max_pixels")


def _cards(sheet: Sheet, environment: dict[str, str]) -> None:
    number = environment.get("NPROC_PER_NODE", "")
    if number.isdigit() and int(number) > 1:
        sheet.sets(
            "gpus",
            int(number) * (int(environment.get("NNODES", "1")) if environment.get("NNODES", "1").isdigit() else 1),
        )


def _code(sheet: Sheet) -> None:
    stored = read_ending(sheet.word("model"))
    forced = STORES[stored.checkpoint.quant].only_dtype if stored and stored.checkpoint else ""
    if sheet.get("torch_dtype") is not None:
        sheet.sets("base_dtype", forced or sheet.peek("torch_dtype"), "torch_dtype")
    bf16, fp16 = sheet.get("bf16"), sheet.get("fp16")
    if bf16 is False and fp16 is False:
        sheet.sets("autocast", False, "bf16", "fp16")
    if sheet.get("gradient_checkpointing") is not None:
        sheet.takes("gradient_checkpointing", "gradient_checkpointing")
    if sheet.get("gradient_checkpointing_kwargs.use_reentrant") is not None:
        sheet.takes("reentrant", "gradient_checkpointing_kwargs.use_reentrant")
    sheet.get("gradient_checkpointing_kwargs")
    key = next((key for key in ("attn_impl", "attn_implementation") if sheet.peek(key) is not None), "")
    word = sheet.word(key, "sdpa") if key else "sdpa"
    sheet.sets("attention", _ATTENTION.get(word, word), *([key] if key else []))
    read_liger(sheet)
    sheet.sets("expandable_segments", False)
