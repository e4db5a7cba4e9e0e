"""Builds the model that a recipe trains, with transformers, peft and bitsandbytes, on real or on fake tensors.

A fake model is built on the meta device and given fake CPU storages afterwards: nothing is allocated or downloaded.
The order of the steps is that of a script with transformers' Trainer: load (quantised), prepare for k-bit training,
add adapters, enable checkpointing. What was found in transformers 5.23 and peft 0.21 on the way:

- `activation_checkpointing_enable`, which Trainer calls, makes the embedding's output require a gradient for every
  model that takes `input_ids`: full fine-tuning or adapters, re-entrant or not. So a frozen embedding's output is a
  leaf that receives a gradient of (batch, seq_len, hidden), and the first layer is differentiated to its input.
- With `autocast_adapter_dtype=False` adapters take the base's dtype, on 4-bit layers bitsandbytes' compute dtype,
  on int8 layers fp32. Here all of them, and DoRA's magnitudes apart, are cast to the dtypes asked for (TRL, which
  casts the adapters of a quantised base to bf16, leaves the magnitudes in fp32).
- A quantised layer's bias takes the dtype of the first input it sees, for good.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from advisor.architectures import ARCHITECTURES
from advisor.errors import BadConfig, BadValue, UnsupportedArchitecture
from advisor.specs import Recipe
from calibrate.worker.hf_config import resolve
from calibrate.worker.place import fill, random_like, unfilled

META = torch.device("meta")
PARTS_OF_EXPERTS = {"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"}
"""Names of peft 0.21's utils/transformers_weight_conversion.py, _MOE_TARGET_MODULE_MAPPING."""


def build_model(
    config: Mapping[str, Any], recipe: Recipe, fake: bool, layers: int | None = None, code: str = "", device: str = ""
) -> Any:
    """The model in training mode, its parameters on meta when `fake`, else initialised on the CPU.

    With `device` ('cpu' or 'cuda') each weight is made there, random: see `calibrate.worker.place`.
    `code` is the folder of a model that brings its own Python code, once the user has asked to run that code.
    Raises BadValue for a recipe that cannot run on a CPU, UnsupportedArchitecture for an unknown model_type.
    """
    check_recipe(recipe)
    with unfilled() if device else contextlib.nullcontext():
        model = _load_own_code(config, recipe, fake, code) if code else _load(config, recipe, fake, layers)
    if device:
        model.tie_weights()  # which is part of what was left out
    model.config.use_cache = False  # as Trainer does
    if recipe.is_quantized:
        quantize(model, recipe, fake, device)
    if device:
        fill(model, device)
    if recipe.is_quantized and recipe.kbit_upcast:
        from peft import prepare_model_for_kbit_training

        prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    if recipe.has_adapters:
        model = _add_adapters(model, recipe, fake)
    if recipe.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": recipe.reentrant})
    model.train()
    return model


def check_recipe(recipe: Recipe) -> None:
    """Refuse what contradicts itself and what a CPU cannot run."""
    wants_quantized = recipe.method in ("qlora", "qdora")
    if wants_quantized != recipe.is_quantized:
        allowed = "nf4, fp4 or int8" if wants_quantized else "none"
        raise BadValue(f"quant of method {recipe.method}", recipe.quant, f"allowed is {allowed}")
    if recipe.attention == "flash":
        raise BadValue("attention", "flash", "the dry run has no GPU; use sdpa, which keeps the same tensors")
    if recipe.loss == "chunked":
        raise BadValue("loss", "chunked", "the dry run traces transformers' own loss only; use full")
    if recipe.quant == "int8" and recipe.is_dora:
        raise BadValue("quant of method qdora", "int8", "peft's DoRA loses the int8 scales on a CPU; use nf4")


def _load(config: Mapping[str, Any], recipe: Recipe, fake: bool, layers: int | None) -> Any:
    hf_config, kind = resolve(config, layers)
    return _from_config(hf_config, kind, recipe, fake)


def _from_config(hf_config: Any, kind: Any, recipe: Recipe, fake: bool, **options: Any) -> Any:
    supports = getattr(kind._model_mapping.get(type(hf_config), None), "_supports_sdpa", True)
    if recipe.attention == "sdpa" and not supports:
        raise BadValue(
            "attention", "sdpa", f"transformers has only eager for {hf_config.model_type}: use --attention eager"
        )
    with META if fake else torch.device("cpu"):
        return kind.from_config(
            hf_config, dtype=getattr(torch, recipe.base_dtype), attn_implementation=recipe.attention, **options
        )


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
            "the config's auto_map names no class that can be trained: a model for causal,"
            " masked or sequence-to-sequence language, or for classification, is needed"
        )
    try:
        hf_config = hf.AutoConfig.from_pretrained(code, trust_remote_code=True)
        return _from_config(hf_config, getattr(hf, kind), recipe, fake, trust_remote_code=True)
    except (OSError, ImportError, AttributeError, ValueError) as error:
        raise BadConfig(f"the model's own code cannot be used: {' '.join(str(error).split())[:300]}") from None


def quantize(model: Any, recipe: Recipe, fake: bool, device: str = "") -> None:
    """Turn the linear layers that transformers would quantise into bitsandbytes' own, with `device` on that one.

    Fake ones get meta tensors of the shapes that bitsandbytes' quantisation makes: a plain parameter with the
    quantisation state beside it, which is all that the layer reads.
    """
    from transformers import BitsAndBytesConfig
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear
    from transformers.quantizers.base import get_keys_to_not_convert

    before = dict(model.named_modules())
    int8 = recipe.quant == "int8"
    options = (
        {"load_in_8bit": True}
        if int8
        else {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": recipe.quant,
            "bnb_4bit_use_double_quant": recipe.double_quant,
            "bnb_4bit_compute_dtype": getattr(torch, recipe.base_dtype),
        }
    )
    kept = [*get_keys_to_not_convert(model), *(model._keep_in_fp32_modules or ())]  # as transformers' quantizer
    replace_with_bnb_linear(model, kept, BitsAndBytesConfig(**options))
    for name, layer in model.named_modules():
        old = before.get(name)
        if old is None or old is layer:
            continue
        # transformers' Conv1D keeps its weight as (in, out).
        weight = old.weight.data if isinstance(old, nn.Linear) else old.weight.data.T.contiguous()
        if device:
            weight = random_like(weight, device)
        layer.bias = old.bias
        convert = (_fill_fake_int8 if int8 else _fill_fake_4bit) if fake else (_fill_int8 if int8 else _fill_4bit)
        convert(layer, weight, recipe)
    model.is_loaded_in_8bit, model.is_loaded_in_4bit = int8, not int8
    model.quantization_method = "bitsandbytes"


def _fill_4bit(layer: Any, weight: torch.Tensor, recipe: Recipe) -> None:
    import bitsandbytes as bnb

    layer.weight = bnb.nn.Params4bit(
        weight, requires_grad=False, quant_type=recipe.quant, compress_statistics=recipe.double_quant, module=layer
    ).to(weight.device)


def _fill_int8(layer: Any, weight: torch.Tensor, recipe: Recipe) -> None:
    import bitsandbytes as bnb

    # `to` quantises only what comes from a CPU; a weight made on the card is there already.
    layer.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)._quantize(weight.device)


def _fill_fake_4bit(layer: Any, weight: torch.Tensor, recipe: Recipe) -> None:
    """Shapes as `bitsandbytes.functional.quantize_4bit` makes them: blocks of 64, of 256 for the second stage."""
    from bitsandbytes.functional import QuantState

    elements = weight.numel()
    blocks = -(-elements // 64)
    nested = (
        QuantState(
            absmax=torch.empty(-(-blocks // 256), device=META),
            code=torch.empty(256, device=META),
            blocksize=256,
            dtype=torch.float32,
        )
        if recipe.double_quant
        else None
    )
    layer.quant_state = QuantState(
        absmax=torch.empty(blocks, dtype=torch.uint8 if nested else torch.float32, device=META),
        shape=weight.shape,
        code=torch.empty(16, device=META),
        blocksize=64,
        quant_type=recipe.quant,
        dtype=weight.dtype,
        offset=torch.empty((), device=META) if nested else None,
        state2=nested,
    )
    layer.weight = nn.Parameter(torch.empty((elements + 1) // 2, 1, dtype=torch.uint8, device=META), False)
    # What peft reads off bitsandbytes' own parameter class, which can hold neither a fake nor a copied meta tensor.
    layer.weight.quant_type, layer.weight.compress_statistics = recipe.quant, recipe.double_quant


def _fill_fake_int8(layer: Any, weight: torch.Tensor, recipe: Recipe) -> None:
    """One int8 per weight and one fp32 scale per row, as after the first forward pass."""
    layer.weight = nn.Parameter(torch.empty(weight.shape, dtype=torch.int8, device=META), False)
    layer.state.SCB = torch.empty(weight.shape[0], device=META)


def _add_adapters(model: Any, recipe: Recipe, fake: bool) -> Any:
    from peft import LoraConfig, get_peft_model

    targets = recipe.target_modules
    if targets == ("all-linear",) and (recipe.is_dora or recipe.dropout) and _fuses_experts(model):
        targets = _outside_experts(model)  # peft adapts fused experts neither by DoRA nor with dropout
    options = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        use_dora=recipe.is_dora,
        target_modules=_attention_linears(model)
        if targets == ("attention",)
        else targets[0]
        if targets == ("all-linear",)
        else list(targets),
        task_type=_task_type(model),
    )
    upcast = recipe.adapter_dtype == "float32"
    try:
        with readable_4bit():
            model = get_peft_model(model, options, low_cpu_mem_usage=fake, autocast_adapter_dtype=upcast)
    except ValueError as error:
        raise BadValue("--target-modules", ",".join(targets), f"peft says: {str(error)[:200]}") from None
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            dtype = recipe.magnitude_dtype if "lora_magnitude_vector" in name else recipe.adapter_dtype
            parameter.data = parameter.data.to(getattr(torch, dtype))
    return model


def _fuses_experts(model: Any) -> bool:
    """Whether peft turns 'all-linear' into adapters on this model's fused experts."""
    known = ARCHITECTURES.get(model.config.model_type)  # calibrate traces others, too
    return known is not None and known.fused_experts_in_peft and any(p.ndim == 3 for p in model.parameters())


def _outside_experts(model: Any) -> tuple[str, ...]:
    """The linear layers that peft does not take for parts of fused experts, without the head."""
    head = model.get_output_embeddings()
    names = {
        path.rpartition(".")[2]
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    return tuple(sorted(names - PARTS_OF_EXPERTS))


def _task_type(model: Any) -> str | None:
    """peft's name of what the model is trained for; None for masked language models, which it has no name for."""
    name = type(model).__name__
    if name.endswith("ForSequenceClassification"):
        return "SEQ_CLS"
    if model.config.is_encoder_decoder:
        return "SEQ_2_SEQ_LM"
    return None if name.endswith("ForMaskedLM") else "CAUSAL_LM"


def auto_name(model: Any) -> str:
    """The Auto class by which a training script loads this model."""
    tasks = {"SEQ_CLS": "SequenceClassification", "SEQ_2_SEQ_LM": "Seq2SeqLM", "CAUSAL_LM": "CausalLM"}
    return f"AutoModelFor{tasks.get(_task_type(model) or '', 'MaskedLM')}"


def step_inputs(model: Any, batch: int, seq_len: int) -> dict[str, Any]:
    """What a training script passes to the model for `batch` rows of `seq_len` tokens.

    Labels are the tokens themselves (an encoder-decoder then has as many tokens on either side), or one class a row.
    """
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    input_ids = torch.zeros(batch, seq_len, dtype=torch.long)
    one_a_row = type(base).__name__.endswith("ForSequenceClassification")
    labels = torch.zeros(batch, dtype=torch.long) if one_a_row else input_ids
    return {"input_ids": input_ids, "labels": labels}


def _attention_linears(model: nn.Module) -> list[str]:
    """The linear layers right inside attention modules, as 'self_attn.q_proj': alone, 'c_proj' is GPT-2's MLP too."""
    names = {
        f"{path.rpartition('.')[2]}.{name}"
        for path, module in model.named_modules()
        if "attention" in type(module).__name__.lower()
        for name, child in module.named_children()
        if hasattr(child, "weight") and child.weight.ndim == 2
    }
    return sorted(names)


@contextlib.contextmanager
def readable_4bit() -> Iterator[None]:
    """Lets peft's DoRA dequantise a fake 4-bit layer.

    peft knows a 4-bit weight by bitsandbytes' own parameter class alone, which cannot hold a fake tensor.
    """
    from bitsandbytes.functional import dequantize_4bit
    from peft.tuners.lora import dora

    original = dora.dequantize_module_weight

    def dequantize(module: Any) -> Any:
        state = getattr(module, "quant_state", None)
        if state is None or type(module.weight).__name__ == "Params4bit":
            return original(module)
        return dequantize_4bit(module.weight.data, state)

    dora.dequantize_module_weight = dequantize
    try:
        yield
    finally:
        dora.dequantize_module_weight = original


def quantization_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """The constants of a quantised layer by name; empty for any other module."""
    found: dict[str, Any] = {}
    if (state := getattr(module, "quant_state", None)) is not None:
        found = {"absmax": state.absmax, "code": state.code, "offset": state.offset}
        if state.state2 is not None:
            found |= {"state2.absmax": state.state2.absmax, "state2.code": state.state2.code}
    elif (state := getattr(module, "state", None)) is not None:
        found = {"SCB": state.SCB if state.SCB is not None else getattr(module.weight, "SCB", None)}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def materialize(model: nn.Module) -> None:
    """Give every meta tensor of the model a fake CPU storage; call inside a FakeTensorMode. Ties stay ties."""
    made: dict[int, tuple[Any, Any]] = {}

    def fake(tensor: Any) -> Any:
        if id(tensor) not in made:
            new = torch.empty(tensor.shape, dtype=tensor.dtype)
            if isinstance(tensor, nn.Parameter):
                new = nn.Parameter(new, requires_grad=tensor.requires_grad)
            made[id(tensor)] = (new, tensor)
        return made[id(tensor)][0]

    for module in model.modules():
        for register in (module._parameters, module._buffers, vars(module)):
            for name, tensor in list(register.items()):
                if isinstance(tensor, torch.Tensor) and tensor.device == META:
                    register[name] = fake(tensor)
        _materialize_quantization(module, fake)


def _materialize_quantization(module: Any, fake: Any) -> None:
    if (state := getattr(module, "quant_state", None)) is not None:
        for owner in (state, state.state2):
            for name in ("absmax", "code", "offset"):
                if isinstance(value := getattr(owner, name, None), torch.Tensor):
                    setattr(owner, name, fake(value))
        module.weight.quant_state = state
    elif (state := getattr(module, "state", None)) is not None and type(module).__name__ == "Linear8bitLt":
        state.CB, state.SCB = module.weight.data, fake(state.SCB)
        module.weight.CB = module.weight.SCB = None
