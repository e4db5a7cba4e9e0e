"""Reads the recipe from a running trainer. Looks only at names and dtypes, so it needs no torch itself.

It cannot see, and therefore assumes absent: padding to lengths other than those of the batches seen, kernels that
replace a model's own (Liger, Unsloth), a custom loss function, FSDP, DeepSpeed and other sharding, `torch.compile`, and
tensors that callbacks or a reference model hold. `notes` lists those that the arguments reveal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from advisor.errors import InputError
from advisor.libraries import libraries_of
from advisor.optimizers import named_in_transformers
from advisor.recipes import build_recipe
from advisor.specs import Method, Recipe
from calibrate.stacks import gap_notes, installed_stack

LINEAR = ("Linear", "Linear4bit", "Linear8bitLt", "Conv1D")
ATTENTION_OF = {"sdpa": "sdpa", "eager": "eager", "flash_attention_2": "flash", "flash_attention_3": "flash"}
VOLATILE = (
    "_name_or_path",
    "transformers_version",
    "use_cache",
    "torch_dtype",
    "dtype",
    "quantization_config",
    "architectures",
)


class Described(NamedTuple):
    """What a trainer trains: its model's name and config, the recipe, and facts that the recipe does not hold."""

    name: str
    config: dict[str, Any]
    recipe: Recipe
    notes: tuple[str, ...]


def describe(model: Any, args: Any) -> Described:
    """The recipe of a transformers Trainer or a trl SFTTrainer, from its model and its arguments.

    Raises BadValue for values that a recipe does not allow.
    """
    model = checked(model, args)
    if not hasattr(model, "peft_config"):
        return _described(model, args, None, {})
    adapter = next(iter(model.peft_config.values()))
    return _described(model.get_base_model(), args, adapter, _adapters(model, adapter))


def planned(model: Any, adapter: Any, args: Any) -> Described:
    """The same for adapters that are still to be made by peft's `adapter`, a LoraConfig.

    Source: peft 0.21.2, tuners/lora: adapters in 16 bits become fp32 (autocast_adapter_dtype), and without names the
    model's default ones are taken (utils/constants.py).
    """
    model = checked(model, args)
    if hasattr(model, "peft_config"):
        raise InputError("the model has adapters already: leave peft_config out")
    if not hasattr(adapter, "lora_alpha"):
        raise InputError(f"peft_config is a {type(adapter).__name__}, but LoraConfig is what is estimated")
    values = {
        "rank": int(adapter.r),
        "alpha": float(adapter.lora_alpha),
        "dropout": float(adapter.lora_dropout),
        **_named_targets(model, adapter),
    }
    if adapter.modules_to_save:
        values["modules_to_save"] = tuple(adapter.modules_to_save)
    if is_sft(args) and _quantization(model):  # trl 1.16.0, trainer/sft_trainer.py, SFTTrainer.__init__
        values |= {"adapter_dtype": "bfloat16", "magnitude_dtype": "float32"}
    return _described(model, args, adapter, values)


def _named_targets(model: Any, adapter: Any) -> dict[str, Any]:
    names = adapter.target_modules
    if names is None:
        from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULTS

        names = DEFAULTS.get(model.config.model_type)
    if names is None:
        raise InputError(f"target_modules is missing: peft has no default for {model.config.model_type}")
    return {"target_modules": (names,) if isinstance(names, str) else tuple(sorted(names))}


def _described(base: Any, args: Any, adapter: Any, adapters: dict[str, Any]) -> Described:
    notes = list(_notes(args))
    loss = "chunked" if is_sft(args) else "full"
    if loss == "chunked" and args.device.type == "cpu":
        notes.append("on a CPU trl's loss keeps tiles that its CUDA kernels do not; the predicted peak is for CUDA")
    quant = _quantization(base)
    asked_for = str(getattr(args.optim, "value", args.optim))
    optimizer = named_in_transformers(asked_for)
    if optimizer is None:
        notes.append(f"optimizer {asked_for} is treated as adamw")
    switched_on = any(getattr(module, "gradient_checkpointing", False) for module in base.modules())
    checkpointing = bool(args.gradient_checkpointing) or switched_on
    stack = installed_stack()
    notes += gap_notes(stack)
    by_default = libraries_of(stack).transformers < (5, 0)
    values: dict[str, Any] = {
        "autocast": bool(args.bf16 or args.fp16),
        "optimizer": optimizer or "adamw",
        "gradient_checkpointing": checkpointing,
        "reentrant": checkpointing and bool(_checkpointing_options(base, args).get("use_reentrant", by_default)),
        "stack": stack,
        "attention": ATTENTION_OF.get(str(getattr(base.config, "_attn_implementation", "sdpa")), "sdpa"),
        "loss": loss,
        "micro_batch": int(args.per_device_train_batch_size),
        "gradient_accumulation": int(args.gradient_accumulation_steps),
        **_base(base, quant),
        **adapters,
    }
    config = {key: value for key, value in base.config.to_dict().items() if key not in VOLATILE}
    config = json.loads(json.dumps(config, default=str))  # as it comes back from a record
    name = str(getattr(base.config, "_name_or_path", "") or config.get("model_type", "model"))
    recipe = build_recipe(_method(adapter, quant), values)
    return Described(name.rstrip("/").rpartition("/")[2] or name, config, recipe, tuple(notes))


def _checkpointing_options(base: Any, args: Any) -> dict[str, Any]:
    """The arguments', or those of a script that has switched checkpointing on itself, as for k-bit training."""
    if args.gradient_checkpointing:
        return args.gradient_checkpointing_kwargs or {}
    found = (getattr(module, "_gradient_checkpointing_func", None) for module in base.modules())
    return next((dict(getattr(one, "keywords", {})) for one in found if one is not None), {})


def checked(model: Any, args: Any) -> Any:
    """The model inside of wrappers. Raises InputError for objects of other libraries."""
    model = unwrapped(model)
    if not hasattr(getattr(model, "config", None), "to_dict") or not hasattr(model, "get_input_embeddings"):
        raise InputError(f"the model is a {type(model).__name__}, and only models of transformers are read, or peft's")
    if not hasattr(args, "per_device_train_batch_size") or not hasattr(args, "optim"):
        raise InputError(f"training_args is a {type(args).__name__}: give a TrainingArguments or an SFTConfig")
    return model


def is_sft(args: Any) -> bool:
    """Whether these are the arguments of trl's SFTTrainer, or of a class derived from them."""
    return any(kind.__name__ == "SFTConfig" for kind in type(args).__mro__)


def unwrapped(model: Any) -> Any:
    """The model inside DistributedDataParallel and similar wrappers."""
    while not hasattr(model, "config") and hasattr(model, "module"):
        model = model.module
    return model


def _notes(args: Any) -> Iterator[str]:
    if getattr(args, "use_liger_kernel", False):
        yield "Liger's kernels keep different tensors from the predicted ones"
    if getattr(args, "torch_compile", False):
        yield "torch.compile is not modeled"
    if getattr(args, "router_aux_loss_coef", None) == 0:
        yield "the loss that balances a mixture's experts is switched off here, and counted"
    for name in ("fsdp", "deepspeed"):
        if getattr(args, name, None):
            yield f"{name} shards what the prediction counts in full"
    if int(getattr(args, "world_size", 1)) > 1:
        yield f"figures are for one of {args.world_size} processes"


def _method(adapter: Any, quant: dict[str, Any]) -> Method:
    if adapter is None:
        return "full"
    dora = bool(getattr(adapter, "use_dora", False))
    if quant:
        return "qdora" if dora else "qlora"
    return "dora" if dora else "lora"


def _quantization(base: Any) -> dict[str, Any]:
    """quant, double_quant and the base's dtype of a quantized model; empty otherwise."""
    for module in base.modules():
        weight: Any = getattr(module, "weight", None)
        if type(module).__name__ == "Linear8bitLt":
            return {"quant": "int8"}
        if type(weight).__name__ == "Params4bit":
            state = weight.quant_state
            return {"quant": weight.quant_type, "double_quant": bool(state.nested), "base_dtype": _dtype(state)}
    return {}


def _base(base: Any, quant: dict[str, Any]) -> dict[str, Any]:
    """How the base is stored."""
    kept = _dtype(base.get_input_embeddings().weight)
    if not quant:
        return {"base_dtype": kept, "kbit_upcast": False}
    dtype = quant.get("base_dtype") or str(getattr(base.config, "dtype", None) or "bfloat16").removeprefix("torch.")
    return {**quant, "base_dtype": dtype, "kbit_upcast": kept == "float32" and dtype != "float32"}


def _adapters(model: Any, adapter: Any) -> dict[str, Any]:
    """Rank, scaling, targets and dtypes of the adapters."""
    found = {
        "rank": int(adapter.r),
        "alpha": float(adapter.lora_alpha),
        "dropout": float(adapter.lora_dropout),
        "target_modules": _targets(model),
    }
    for name, parameter in model.named_parameters():
        if "lora_A" in name:
            found.setdefault("adapter_dtype", _dtype(parameter))
        elif "lora_magnitude_vector" in name:
            found.setdefault("magnitude_dtype", _dtype(parameter))
    if "magnitude_dtype" not in found and "adapter_dtype" in found:
        found["magnitude_dtype"] = found["adapter_dtype"]
    return found


def _targets(model: Any) -> tuple[str, ...]:
    """The layers with adapters; 'all-linear' when every linear layer except the output embedding has one."""
    head = model.get_base_model().get_output_embeddings()
    adapted: dict[str, None] = {}
    left = False
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if getattr(module, "lora_A", None):
            adapted[last] = None
        elif type(module).__name__ in LINEAR and last != "base_layer" and ".lora_" not in name and module is not head:
            left = True
    return tuple(sorted(adapted)) if left or getattr(head, "lora_A", None) else ("all-linear",)


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")
