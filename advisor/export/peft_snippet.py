"""A complete training script for the transformers Trainer with PEFT, from a recipe.

Sources: transformers 5.23 (TrainingArguments, BitsAndBytesConfig), peft 0.21 (LoraConfig,
prepare_model_for_kbit_training). Ignores: learning-rate schedules, evaluation and checkpoints of the run, which
change neither memory nor step time by much.
"""

from __future__ import annotations

from advisor.export.command import run_line
from advisor.optimizers import optimizer_row
from advisor.parameters.modules import parameter_count
from advisor.parameters.targets import attention_names, spelled_targets
from advisor.rates import learning_rate
from advisor.specs import ModelSpec, Recipe, Workload

ATTENTION = {"sdpa": "sdpa", "eager": "eager", "flash": "flash_attention_2"}


def peft_snippet(
    model_id: str, model: ModelSpec, recipe: Recipe, workload: Workload, *, gpus: int = 1, bf16: bool = True
) -> str:
    """Python source that trains `model_id` as `recipe` says on rows {"text": ...} of train.jsonl.

    Without `bf16` (a card that lacks it) mixed precision is fp16.
    """
    parts = [
        _imports(recipe, gpus),
        _load(model_id, recipe),
        _adapters(model, recipe),
        _data(workload),
        _train(model, recipe, workload, bf16),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _imports(recipe: Recipe, gpus: int) -> str:
    names = ["AutoModelForCausalLM", "AutoTokenizer", "DataCollatorForLanguageModeling", "Trainer", "TrainingArguments"]
    if recipe.is_quantized:
        names.insert(2, "BitsAndBytesConfig")
    packages = "torch 'transformers>=5,<6' datasets accelerate"
    packages += " peft" if recipe.has_adapters else ""
    packages += " bitsandbytes" if recipe.is_quantized or optimizer_row(recipe.optimizer).needs_bitsandbytes else ""
    packages += " liger-kernel" if recipe.loss == "chunked" else ""
    run = "python train.py" if gpus == 1 else f"torchrun --nproc-per-node {gpus} train.py"
    lines = [f"# pip install {packages}", run_line(run, recipe), "import torch", "from datasets import load_dataset"]
    if recipe.has_adapters:
        prepare = ", prepare_model_for_kbit_training" if _prepares(recipe) else ""
        lines.append(f"from peft import LoraConfig, get_peft_model{prepare}")
    lines += ["from transformers import (", *(f"    {name}," for name in names), ")"]
    return "\n".join(lines)


def _prepares(recipe: Recipe) -> bool:
    return recipe.is_quantized and recipe.kbit_upcast


def loadable(model_id: str) -> str:
    """What from_pretrained takes: the folder of a config.json, or the Hub id."""
    return model_id.removesuffix("config.json").rstrip("/") if model_id.endswith("/config.json") else model_id


def _load(model_id: str, recipe: Recipe) -> str:
    source = loadable(model_id)
    dtype = f"torch.{recipe.base_dtype}"
    lines = [
        f"model_id = {source!r}",
        "tokenizer = AutoTokenizer.from_pretrained(model_id)",
        "tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token",
    ]
    if recipe.is_quantized:
        lines += ["quantization = BitsAndBytesConfig(", *_quantization(recipe, dtype), ")"]
    lines += [
        "model = AutoModelForCausalLM.from_pretrained(",
        "    model_id,",
        f"    dtype={dtype},",
        f'    attn_implementation="{ATTENTION[recipe.attention]}",',
    ]
    if recipe.is_quantized:
        lines.append("    quantization_config=quantization,")
    return "\n".join([*lines, ")", "model.config.use_cache = False"])


def _quantization(recipe: Recipe, dtype: str) -> list[str]:
    if recipe.quant == "int8":
        return ["    load_in_8bit=True,"]
    return [
        "    load_in_4bit=True,",
        f'    bnb_4bit_quant_type="{recipe.quant}",',
        f"    bnb_4bit_use_double_quant={recipe.double_quant},",
        f"    bnb_4bit_compute_dtype={dtype},",
    ]


def _checkpointing(recipe: Recipe) -> list[str]:
    """Keyword lines that switch checkpointing on in the wanted variant, or off."""
    lines = [f"    gradient_checkpointing={recipe.gradient_checkpointing},"]
    if recipe.gradient_checkpointing:
        lines.append(f'    gradient_checkpointing_kwargs={{"use_reentrant": {recipe.reentrant}}},')
    return lines


def _adapters(model: ModelSpec, recipe: Recipe) -> str:
    if not recipe.has_adapters:
        return ""
    lines = []
    if _prepares(recipe):
        lines += [
            "model = prepare_model_for_kbit_training(",
            "    model,",
            *(
                line.replace(" gradient_checkpointing=", " use_gradient_checkpointing=")
                for line in _checkpointing(recipe)
            ),
            ")",
        ]
    elif recipe.gradient_checkpointing and recipe.reentrant:
        lines.append("model.enable_input_require_grads()  # re-entrant checkpointing needs an input with a gradient")
    lines += [
        "lora = LoraConfig(",
        f"    r={recipe.rank},",
        f"    lora_alpha={recipe.alpha:g},",
        f"    lora_dropout={recipe.dropout:g},",
        f"    target_modules={_targets(model, recipe)},",
    ]
    if recipe.is_dora:
        lines.append("    use_dora=True,")
    lines += ['    task_type="CAUSAL_LM",', ")", "model = get_peft_model(model, lora)"]
    magnitudes = recipe.is_dora and recipe.magnitude_dtype != recipe.adapter_dtype
    if recipe.adapter_dtype != "float32" or magnitudes:
        lines += [
            "for name, parameter in model.named_parameters():",
            "    if parameter.requires_grad:",
            f"        dtype = torch.{recipe.adapter_dtype}",
        ]
        if magnitudes:
            lines += [
                '        if "lora_magnitude_vector" in name:',
                f"            dtype = torch.{recipe.magnitude_dtype}",
            ]
        lines.append("        parameter.data = parameter.data.to(dtype)")
    return "\n".join([*lines, "model.print_trainable_parameters()"])


def _targets(model: ModelSpec, recipe: Recipe) -> str:
    if spelled_targets(model, recipe) == ("all-linear",):
        return '"all-linear"'
    names = attention_names(model) if recipe.target_modules == ("attention",) else spelled_targets(model, recipe)
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


def _data(workload: Workload) -> str:
    lines = ['rows = load_dataset("json", data_files="train.jsonl", split="train")  # {"text": ...}', ""]
    if not workload.packing:
        lines += [
            "",
            "def tokenize(batch):",
            f'    return tokenizer(batch["text"], truncation=True, max_length={workload.seq_len})',
        ]
    else:
        lines += [
            "",
            "def tokenize(batch):",
            '    tokens = [t for row in tokenizer(batch["text"])["input_ids"] for t in [*row, tokenizer.eos_token_id]]',
            f"    length = {workload.seq_len}",
            '    return {"input_ids": [tokens[i : i + length] for i in range(0, len(tokens), length)]}',
        ]
    return "\n".join([*lines, "", "", "rows = rows.map(tokenize, batched=True, remove_columns=rows.column_names)"])


def _train(model: ModelSpec, recipe: Recipe, workload: Workload, bf16: bool) -> str:
    half = "bf16" if bf16 and recipe.base_dtype != "float16" else "fp16"
    lines = [
        "arguments = TrainingArguments(",
        '    output_dir="out",',
        f"    num_train_epochs={workload.epochs!r},",
        f"    per_device_train_batch_size={recipe.micro_batch},",
        f"    gradient_accumulation_steps={recipe.gradient_accumulation},",
        f"    learning_rate={learning_rate(recipe.method, parameter_count(model)).value!r},",
        f'    optim="{optimizer_row(recipe.optimizer).transformers_name}",',
        *_checkpointing(recipe),
    ]
    lines += [f"    {half}=True,"] if recipe.autocast else []
    lines += ["    use_liger_kernel=True,"] if recipe.loss == "chunked" else []
    return "\n".join(
        [
            *lines,
            ")",
            "trainer = Trainer(",
            "    model=model,",
            "    args=arguments,",
            "    train_dataset=rows,",
            "    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),",
            ")",
            "trainer.train()",
            'model.save_pretrained("out")',
        ]
    )
