"""What a script for the transformers Trainer trains: adapters in the recipe's dtypes, or the last layers alone.

Sources: peft 0.21 (LoraConfig, prepare_model_for_kbit_training, create_loraplus_optimizer).
"""

from __future__ import annotations

from advisor.errors import BadValue
from advisor.export.run import LORAPLUS_RATIO, Run, quoted_list
from advisor.export.script import in_place_of_lora, last_layers, lora
from advisor.specs import Recipe


def adapters(run: Run) -> str:
    """Lines that prepare a quantized base, put adapters on the model, and cast them."""
    recipe = run.recipe
    lines = []
    if prepares(recipe):
        switches = checkpointing(recipe, "use_gradient_checkpointing", "gradient_checkpointing_kwargs")
        lines += ["model = prepare_model_for_kbit_training(", "    model,", *switches, ")"]
    elif recipe.gradient_checkpointing and recipe.reentrant:
        lines.append("model.enable_input_require_grads()  # re-entrant checkpointing needs an input with a gradient")
    name, *arguments = adapter_config(run)
    lines += [
        f"adapters = {name}(",
        *arguments,
        '    task_type="CAUSAL_LM",',
        ")",
        "model = get_peft_model(model, adapters)",
        *_adapter_dtypes(recipe),
        "model.print_trainable_parameters()",
    ]
    return "\n".join(lines)


def prepares(recipe: Recipe) -> bool:
    """Whether peft prepares the base for training in few bits, which upcasts what is not quantized."""
    return recipe.is_quantized and recipe.kbit_upcast


def checkpointing(recipe: Recipe, name: str, options: str) -> list[str]:
    """Keyword lines that switch checkpointing on in the wanted variant, or off."""
    lines = [f"    {name}={recipe.gradient_checkpointing},"]
    if recipe.gradient_checkpointing:
        lines.append(f'    {options}={{"use_reentrant": {recipe.reentrant}}},')
    return lines


def adapter_config(run: Run) -> list[str]:
    """The class of peft's config of the adapters, and lines with its arguments."""
    if run.recipe.replaces_lora:
        return in_place_of_lora(run)
    return ["LoraConfig", *lora(run, "transformers", {"loraplus": ("", "")})]  # LoRA+ is a matter of the optimizer


def _adapter_dtypes(recipe: Recipe) -> list[str]:
    """Lines that cast the adapters, where the recipe wants them in other dtypes than peft's fp32."""
    magnitudes = recipe.is_dora and recipe.magnitude_dtype != recipe.adapter_dtype
    copies = bool(recipe.modules_to_save) and recipe.trained_dtype != recipe.adapter_dtype
    upcast = recipe.modules_to_save and recipe.trained_dtype != "base"
    if recipe.adapter_dtype == "float32" and not magnitudes and not upcast:
        return []
    loop = "for name, parameter in model.named_parameters():"
    casts = [f"        dtype = torch.{recipe.adapter_dtype}"]
    if magnitudes:
        casts += ['        if "lora_magnitude_vector" in name:', f"            dtype = torch.{recipe.magnitude_dtype}"]
    if copies:
        kept = "parameter.dtype" if recipe.trained_dtype == "base" else f"torch.{recipe.trained_dtype}"
        casts += ['        if ".modules_to_save." in name:', f"            dtype = {kept}"]
    if not magnitudes and not copies:
        loop = "for parameter in model.parameters():"
    return [loop, "    if parameter.requires_grad:", *casts, "        parameter.data = parameter.data.to(dtype)"]


def loraplus(run: Run) -> list[str]:
    """The Trainer's keyword for an optimizer of LoRA+. Raises BadValue for one that it is not written for."""
    if run.recipe.variant != "loraplus" or not run.recipe.has_adapters:
        return []
    if run.recipe.optimizer != "adamw":
        raise BadValue("--optimizer", run.recipe.optimizer, "must be adamw for --variant loraplus in this script")
    rate = f"lr={run.learning_rate!r}, loraplus_lr_ratio={LORAPLUS_RATIO}"
    return [f"    optimizers=(create_loraplus_optimizer(model, torch.optim.AdamW, {rate}, fused=True), None),"]


def last_layers_alone(run: Run) -> str:
    """Lines that freeze all but the last layers, and the modules that are named."""
    recipe = run.recipe
    if not recipe.trained_layers:
        return ""
    named = f' or name.split(".")[-2] in {quoted_list(recipe.modules_to_save)}' if recipe.modules_to_save else ""
    lines = [
        f"last = {last_layers(recipe)}",
        "for name, parameter in model.named_parameters():  # the first number in a name is that of its layer",
        '    layer = next((int(part) for part in name.split(".") if part.isdigit()), -1)',
        f"    parameter.requires_grad_(layer in last{named})",
    ]
    if recipe.trained_dtype != "base":
        lines += ["    if parameter.requires_grad:"]
        lines += [f"        parameter.data = parameter.data.to(torch.{recipe.trained_dtype})"]
    return "\n".join(lines)
