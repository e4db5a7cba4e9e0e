"""Builds the model that a recipe trains, with transformers, peft and bitsandbytes, on real or on fake tensors.

A fake model is built on the meta device and given fake CPU storages afterwards: nothing is allocated or downloaded.
The order of the steps is that of a script with transformers' Trainer: load (quantized), prepare for k-bit training,
add adapters, enable checkpointing. Details found in transformers 5.23 and peft 0.21:

- `activation_checkpointing_enable`, which Trainer calls, makes the embedding's output require a gradient for every
  model that takes `input_ids`: full fine-tuning or adapters, re-entrant or not. So a frozen embedding's output is a
  leaf that receives a gradient of (batch, seq_len, hidden), and the first layer is differentiated down to its input.
- With `autocast_adapter_dtype=False` adapters take the base's dtype, on 4-bit layers bitsandbytes' compute dtype,
  on int8 layers fp32. Here all of them are cast to the dtypes asked for, DoRA's magnitudes separately (TRL casts the
  adapters of a quantized base to bf16 and leaves the magnitudes in fp32).
- A quantized layer's bias permanently takes the dtype of the first input it sees.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from advisor.architectures import ARCHITECTURES
from advisor.checkpoints import STORES
from advisor.errors import BadConfig, BadValue, UnsupportedArchitecture
from advisor.parameters.paths import is_pattern
from advisor.specs import EMBEDS, Picture, Recipe, RowKind
from calibrate.worker.embeddings import with_loss
from calibrate.worker.fused_head import with_fused_head
from calibrate.worker.hf_config import resolve
from calibrate.worker.older import dtype_keyword, enable_checkpointing, peft_options, version_of
from calibrate.worker.patches import leave_out_sequence_kernels, readable_4bit
from calibrate.worker.pictures import (
    TOWER_PATHS,
    freeze_tower,
    in_tower,
    picture_inputs,
    tower_parameters,
    wraps_linears,
)
from calibrate.worker.place import fill, unfilled
from calibrate.worker.quantized import META, quantize

PARTS_OF_EXPERTS = {"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"}
"""Names of peft 0.21's utils/transformers_weight_conversion.py, _MOE_TARGET_MODULE_MAPPING."""


def build_model(
    config: Mapping[str, Any],
    recipe: Recipe,
    fake: bool,
    layers: int | None = None,
    code: str = "",
    device: str = "",
    fused_head: bool = False,
) -> Any:
    """The model in training mode, its parameters on meta when `fake`, else initialized on the CPU.

    With `device` ('cpu' or 'cuda') each weight is made there, random: see `calibrate.worker.place`.
    `code` is the folder of a model that brings its own Python code, once the user has asked to run that code.
    `fused_head`: what runs the model can run TRL's chunked loss, too.
    Raises BadValue for a recipe that cannot run on a CPU, UnsupportedArchitecture for an unknown model_type.
    """
    check_recipe(recipe, fused_head)
    if device != "cuda" or recipe.sequence_kernels == "torch":
        leave_out_sequence_kernels()
    with unfilled() if device else contextlib.nullcontext():
        model = _load_own_code(config, recipe, fake, code) if code else _load(config, recipe, fake, layers)
    model.tie_weights()  # as from_pretrained does; from_config of transformers 5.0 does not
    model.config.use_cache = False  # as Trainer does
    model.config.get_text_config().use_cache = False  # as TRL does; Trainer leaves it on in a vision-language model
    if recipe.is_quantized:
        quantize(model, recipe, fake, device)
    if device:
        fill(model, device)
    if recipe.is_quantized and recipe.kbit_upcast:
        from peft import prepare_model_for_kbit_training

        prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    if recipe.loss == "chunked":
        if _task_type(model) != "CAUSAL_LM":
            raise BadValue("--loss", "chunked", f"it is TRL's loss of next tokens, not of {type(model).__name__}")
        model = with_fused_head(model)  # before peft, as TRL does
    if recipe.has_adapters:
        model = _add_adapters(model, recipe, fake)
    elif recipe.trained_layers:
        _freeze(model, recipe)
    elif not recipe.train_tower:
        freeze_tower(model)
    if recipe.gradient_checkpointing:
        enable_checkpointing(model, recipe)
    if recipe.neftune:
        from transformers.integrations.neftune import activate_neftune

        activate_neftune(model, recipe.neftune)  # after checkpointing, as Trainer does
    model.train()
    return model


def check_recipe(recipe: Recipe, fused_head: bool = False) -> None:
    """Reject recipes that are inconsistent or that a CPU cannot run; `fused_head`: a chunked loss can."""
    wants_quantized = recipe.method in ("qlora", "qdora")
    if wants_quantized != recipe.is_quantized:
        allowed = "nf4, fp4 or int8" if wants_quantized else "none"
        raise BadValue(f"quant of method {recipe.method}", recipe.quant, f"must be {allowed}")
    if recipe.is_quantized and not STORES[recipe.quant].by_bitsandbytes:
        raise BadValue("quant", recipe.quant, "must be nf4, fp4 or int8, which bitsandbytes makes while it loads")
    if recipe.attention == "flash":
        raise BadValue("attention", "flash", "must be sdpa or eager without a GPU; sdpa keeps the same tensors")
    if not recipe.upcast_logits:
        raise BadValue("upcast_logits", False, "must be True: the dry run traces transformers' loss, which upcasts")
    if recipe.loss == "chunked" and not fused_head:
        raise BadValue("--loss", "chunked", "must be full here: TRL's loss is run by a dry run on one card alone")
    if recipe.quant == "int8" and recipe.is_dora:
        raise BadValue("quant of method qdora", "int8", "must be nf4 or fp4: DoRA loses the int8 scales on a CPU")


def _load(config: Mapping[str, Any], recipe: Recipe, fake: bool, layers: int | None) -> Any:
    hf_config, kind = resolve(config, layers)
    return _from_config(hf_config, kind, recipe, fake)


def _from_config(hf_config: Any, kind: Any, recipe: Recipe, fake: bool, **options: Any) -> Any:
    supports = getattr(kind._model_mapping.get(type(hf_config), None), "_supports_sdpa", True)
    if recipe.attention == "sdpa" and not supports:
        raise BadValue(
            "attention", "sdpa", f"{hf_config.model_type} in transformers has no sdpa: use --attention eager"
        )
    embeds = kind.__name__ == EMBEDS
    if embeds and "add_pooling_layer" in inspect.signature(kind._model_mapping[type(hf_config)]).parameters:
        options["add_pooling_layer"] = False
    with META if fake else torch.device("cpu"):
        model = kind.from_config(
            hf_config,
            attn_implementation=recipe.attention,
            **{dtype_keyword(): getattr(torch, recipe.base_dtype)},
            **options,
        )
    return with_loss(model) if embeds else model


def _load_own_code(config: Mapping[str, Any], recipe: Recipe, fake: bool, code: str) -> Any:
    """A model built by the Python files in its own folder: runs them."""
    import transformers as hf

    named = config.get("auto_map", {})
    kind = next(
        (
            name
            for name in (
                "AutoModelForCausalLM",
                "AutoModelForMaskedLM",
                "AutoModelForSeq2SeqLM",
                "AutoModelForSequenceClassification",
            )
            if name in named
        ),
        "",
    )
    if not kind:
        raise UnsupportedArchitecture(
            "the config's auto_map names no class that can be trained: it must have one for causal, masked or"
            " sequence-to-sequence language modeling, or for classification"
        )
    try:
        hf_config = hf.AutoConfig.from_pretrained(code, trust_remote_code=True)
        return _from_config(hf_config, getattr(hf, kind), recipe, fake, trust_remote_code=True)
    except (OSError, ImportError, AttributeError, ValueError) as error:
        raise BadConfig(f"the model's own code cannot be used: {' '.join(str(error).split())[:300]}") from None


def _add_adapters(model: Any, recipe: Recipe, fake: bool) -> Any:
    from peft import get_peft_model

    targets = recipe.target_modules
    if targets == ("all-linear",) and (
        recipe.trained_layers or ((recipe.is_dora or recipe.dropout) and _fuses_experts(model))
    ):
        # peft adapts fused experts neither with DoRA nor with dropout, and picks layers only where names are given
        targets = _outside_experts(model)
    named = (
        _attention_linears(model)
        if targets == ("attention",)
        else targets[0]
        if targets == ("all-linear",) or is_pattern(targets)
        else list(targets)
    )
    common: dict[str, Any] = {
        "target_modules": named,
        "task_type": _task_type(model),
        "modules_to_save": list(recipe.modules_to_save) or None,
    }
    if not recipe.train_tower or (isinstance(named, list) and wraps_linears(model)):
        common["exclude_modules"] = TOWER_PATHS
    if recipe.trained_layers:
        common["layers_to_transform"] = _last_layers(model, recipe)
    options = _adapter_config(recipe, common)
    upcast = recipe.adapter_dtype == "float32"
    try:
        with readable_4bit():
            model = get_peft_model(
                model, options, **peft_options(low_cpu_mem_usage=fake, autocast_adapter_dtype=upcast)
            )
    except ValueError as error:
        raise BadValue("--target-modules", ",".join(targets), f"peft reports: {str(error)[:200]}") from None
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            dtype = (
                recipe.trained_dtype
                if ".modules_to_save." in name
                else recipe.magnitude_dtype
                if "lora_magnitude_vector" in name
                else recipe.adapter_dtype
            )
            if dtype != "base":
                parameter.data = parameter.data.to(getattr(torch, dtype))
    return model


def _adapter_config(recipe: Recipe, common: Mapping[str, Any]) -> Any:
    """peft's config of the adapters; `common`: what those of all kinds take."""
    import peft

    match recipe.variant:
        case "oft":
            return peft.OFTConfig(**common)
        case "ia3":
            return peft.IA3Config(**common)
        case "vera":
            return peft.VeraConfig(r=recipe.rank, vera_dropout=recipe.dropout, **common)
    return peft.LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        use_dora=recipe.is_dora,
        **common,
    )


def _last_layers(model: Any, recipe: Recipe) -> list[int]:
    count = model.config.get_text_config().num_hidden_layers
    return list(range(count - recipe.trained_layers, count))


def _freeze(model: Any, recipe: Recipe) -> None:
    """Leave only the last layers trained, and the modules that are named, as LLaMA-Factory's freeze-tuning does."""
    layers = _last_layers(model, recipe)
    for name, parameter in model.named_parameters():
        layer = next((int(part) for part in name.split(".") if part.isdigit()), -1)
        parameter.requires_grad_(layer in layers or name.split(".")[-2] in recipe.modules_to_save)
        if parameter.requires_grad and recipe.trained_dtype != "base":
            parameter.data = parameter.data.to(getattr(torch, recipe.trained_dtype))


def _fuses_experts(model: Any) -> bool:
    """Whether peft turns 'all-linear' into adapters on this model's fused experts."""
    known = ARCHITECTURES.get(model.config.model_type)  # calibrate also traces unknown ones
    if known is None or version_of("peft") < (0, 19):
        return False
    return known.fused_experts_in_peft and any(p.ndim == 3 for p in model.parameters())


def _outside_experts(model: Any) -> tuple[str, ...]:
    """The linear layers, without the head, that peft does not treat as parts of fused experts."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    names = {
        path.rpartition(".")[2]
        for path, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and module is not head
    }
    return tuple(sorted(names - PARTS_OF_EXPERTS if _fuses_experts(model) else names))


def _task_type(model: Any) -> str | None:
    """peft's name for the model's task; None for masked language models, for which it has no name."""
    name = type(model).__name__
    if name.endswith("ForSequenceClassification"):
        return "SEQ_CLS"
    if model.config.is_encoder_decoder:
        return "SEQ_2_SEQ_LM"
    return None if name.endswith(("ForMaskedLM", "Model")) else "CAUSAL_LM"


def auto_name(model: Any) -> str:
    """The Auto class by which a training script loads this model."""
    tasks = {"SEQ_CLS": "SequenceClassification", "SEQ_2_SEQ_LM": "Seq2SeqLM", "CAUSAL_LM": "CausalLM"}
    return f"AutoModelFor{tasks.get(_task_type(model) or '', 'MaskedLM')}"


def autocast(recipe: Recipe, device: str = "cpu") -> Any:
    """What Trainer wraps the forward in with fp16=True or bf16=True."""
    half = torch.float16 if recipe.base_dtype == "float16" else torch.bfloat16
    return torch.autocast(device, dtype=half, enabled=recipe.autocast)


def step_inputs(
    model: Any, batch: int, seq_len: int, rows: RowKind = "full", pictures: tuple[Picture, ...] = ()
) -> dict[str, Any]:
    """What a training script passes to the model for `batch` rows of `seq_len` tokens.

    Labels are the tokens themselves (so an encoder-decoder has the same number on both sides), or one class per row.
    padded: the last row ends one token early, so there is a mask with a zero. Where all rows are full there is none:
    the mask of ones that a collator makes is dropped by transformers. packed: position ids that begin anew in the
    middle of each row. Raises BadValue where the model takes none. `pictures`: the images of each row.
    """
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    with unset_fake_temporarily() if pictures else contextlib.nullcontext():
        input_ids = torch.zeros(batch, seq_len, dtype=torch.long)
    one_a_row = type(base).__name__.endswith("ForSequenceClassification")
    labels = torch.zeros(batch, dtype=torch.long) if one_a_row else input_ids
    if one_a_row and base.config.num_labels == 1:
        labels = torch.zeros(batch)
    inputs = {"input_ids": input_ids, "labels": labels}
    if pictures:
        inputs |= picture_inputs(base, input_ids, pictures)
    if rows == "padded":
        inputs["attention_mask"] = torch.ones(batch, seq_len, dtype=torch.long)
        inputs["attention_mask"][-1, -1] = 0
    elif rows == "packed":
        if "position_ids" not in inspect.signature(base.forward).parameters:
            taken = f"{base.config.model_type} in transformers takes no position ids: use wrapped"
            raise BadValue("--packing-strategy", "position_ids", taken)
        half = -(-seq_len // 2)
        inputs["position_ids"] = torch.cat([torch.arange(half), torch.arange(seq_len - half)]).repeat(batch, 1)
    return inputs


def _attention_linears(model: nn.Module) -> list[str]:
    """The linear layers in the decoder's attention, as 'self_attn.q_proj': alone, 'c_proj' is GPT-2's MLP too.

    Of a model with a tower the names alone, as a training script lists them.
    """
    sees = bool(tower_parameters(model))
    names = {
        name if sees else f"{path.rpartition('.')[2]}.{name}"
        for path, module in model.named_modules()
        if "attention" in type(module).__name__.lower() and not in_tower(path)
        for name, child in module.named_children()
        if hasattr(child, "weight") and child.weight.ndim == 2
    }
    if _fuses_experts(model):
        names = {name for name in names if name.rpartition(".")[2] not in PARTS_OF_EXPERTS}
    return sorted(names)
