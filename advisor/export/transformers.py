"""A complete training script for the transformers Trainer with PEFT, from a recipe.

Sources: transformers 5.23 (TrainingArguments, BitsAndBytesConfig), peft 0.21 (LoraConfig,
prepare_model_for_kbit_training). Ignores: learning-rate schedules and checkpoints of the run, which change neither
memory nor step time by much; the learning rates are usual starting points.
"""

from __future__ import annotations

from advisor.export.kernels import LIGER, liger_config, refuse
from advisor.export.rows import rows_section
from advisor.export.run import ATTENTION, Run, TrainingFile, command_of, quoted
from advisor.export.smoke import IMPORTS, MOST_TOKENS, ROWS, STEPS, tiny_model
from advisor.optimizers import optimizer_row
from advisor.specs import Recipe

NAME = "train.py"


def write(run: Run) -> TrainingFile:
    """A Python script that trains as the run says. Raises BadValue for what transformers' Trainer does not have."""
    refuse(run.recipe, "transformers", tuple(LIGER))
    start = f"python {NAME}" if run.gpus == 1 else f"torchrun --nproc-per-node {run.gpus} {NAME}"
    command = command_of(run, start)
    text = "\n\n".join(
        part
        for part in (
            _head(run, command) + "\n" + _imports(run),
            _options(run),
            f"model_id = {quoted(run.source)}\nSEQ_LEN = {_seq_len(run)}  # tokens of the longest row\n",
            tiny_model(run.model) + "\n",
            _load(run),
            _adapters(run),
            rows_section(run.data, run.workload, ROWS) + "\n",
            _train(run),
        )
        if part.strip()
    )
    return TrainingFile(NAME, text + "\n", command)


def _seq_len(run: Run) -> str:
    wanted = run.workload.seq_len
    return str(wanted) if wanted <= MOST_TOKENS else f"{MOST_TOKENS} if options.smoke else {wanted}"


def _head(run: Run, command: str) -> str:
    recipe = run.recipe
    packages = "torch 'transformers>=5.23,<6' datasets accelerate"
    packages += " peft" if recipe.has_adapters else ""
    packages += " bitsandbytes" if recipe.is_quantized or optimizer_row(recipe.optimizer).needs_bitsandbytes else ""
    packages += " liger-kernel" if recipe.loss == "chunked" or recipe.kernels else ""
    return "\n".join(
        [
            f"# pip install {packages}",
            f"# run: {command}",
            *(["# packed rows are wrapped: examples attend to those before them"] if _wraps_instead(run) else []),
            f"# try it first: python {NAME} --smoke   ({STEPS} steps of a tiny random model on the CPU)",
        ]
    )


def _wraps_instead(run: Run) -> bool:
    """Whether rows are packed otherwise than was asked for."""
    return run.workload.packing and run.workload.packing_strategy != "wrapped"


def _imports(run: Run) -> str:
    recipe = run.recipe
    names = [
        "AutoConfig",
        "AutoModelForCausalLM",
        "AutoTokenizer",
        *(["BitsAndBytesConfig"] if recipe.is_quantized else []),
        _collator(run).partition("(")[0],
        "PreTrainedTokenizerFast",
        "Trainer",
        "TrainingArguments",
    ]
    lines = ["import argparse", "import tempfile"]
    lines += ["from itertools import chain"] if run.workload.packing else []
    lines += ["", "import torch", "from datasets import load_dataset"]
    if recipe.has_adapters:
        prepare = ", prepare_model_for_kbit_training" if _prepares(recipe) else ""
        lines.append(f"from peft import LoraConfig, get_peft_model{prepare}")
    return "\n".join([*lines, IMPORTS, "from transformers import (", *(f"    {name}," for name in names), ")"])


def _options(run: Run) -> str:
    return f'''parser = argparse.ArgumentParser()
parser.add_argument("--data", default={quoted(run.data.path)}, help="rows to train on")
evaluation = parser.add_mutually_exclusive_group()
evaluation.add_argument("--eval-file", help="rows to evaluate on after each epoch, in the same form")
evaluation.add_argument("--eval-fraction", type=float, help="evaluate on this part of the rows, such as 0.05")
parser.add_argument("--output-dir", help="default: out, or out-smoke")
parser.add_argument("--smoke", action="store_true", help="{STEPS} steps of a tiny random model on the CPU")
options = parser.parse_args()
if options.eval_fraction is not None and not 0 < options.eval_fraction < 1:
    parser.error("--eval-fraction must be between 0 and 1")
output_dir = options.output_dir or ("out-smoke" if options.smoke else "out")'''


def _prepares(recipe: Recipe) -> bool:
    return recipe.is_quantized and recipe.kbit_upcast


def _load(run: Run) -> str:
    recipe = run.recipe
    dtype = f"torch.{recipe.base_dtype}"
    attention = quoted(ATTENTION[recipe.attention])
    if recipe.attention == "flash":  # which needs a GPU
        attention = f"{quoted('sdpa')} if options.smoke else {attention}"
    lines = [
        "if options.smoke:",
        "    tiny = tempfile.TemporaryDirectory()",
        "    save_tiny_model(tiny.name)",
        "    model_id = tiny.name",
        "tokenizer = AutoTokenizer.from_pretrained(model_id)",
        "if tokenizer.eos_token is None:",
        '    raise SystemExit("the tokenizer has no EOS token: set one, or the model does not learn to stop")',
        "tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # padding is told apart by its labels",
    ]
    if recipe.is_quantized:
        lines += ["quantization = BitsAndBytesConfig(", *_quantization(recipe, dtype), ")"]
    lines += [
        "model = AutoModelForCausalLM.from_pretrained(",
        "    model_id,",
        f"    dtype={dtype},",
        f"    attn_implementation={attention},",
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


def _checkpointing(recipe: Recipe, name: str, options: str) -> list[str]:
    """Keyword lines that switch checkpointing on in the wanted variant, or off."""
    lines = [f"    {name}={recipe.gradient_checkpointing},"]
    if recipe.gradient_checkpointing:
        lines.append(f'    {options}={{"use_reentrant": {recipe.reentrant}}},')
    return lines


def _adapters(run: Run) -> str:
    recipe = run.recipe
    if not recipe.has_adapters:
        return ""
    lines = []
    if _prepares(recipe):
        switches = _checkpointing(recipe, "use_gradient_checkpointing", "gradient_checkpointing_kwargs")
        lines += ["model = prepare_model_for_kbit_training(", "    model,", *switches, ")"]
    elif recipe.gradient_checkpointing and recipe.reentrant:
        lines.append("model.enable_input_require_grads()  # re-entrant checkpointing needs an input with a gradient")
    targets = '"all-linear"' if run.adapts_all_linear else str(run.target_modules).replace("'", '"')
    lines += [
        "lora = LoraConfig(",
        f"    r={recipe.rank},",
        f"    lora_alpha={recipe.alpha!r},",
        f"    lora_dropout={recipe.dropout!r},",
        f"    target_modules={targets},",
        *(["    use_dora=True,"] if recipe.is_dora else []),
        '    task_type="CAUSAL_LM",',
        ")",
        "model = get_peft_model(model, lora)",
        *_adapter_dtypes(recipe),
        "model.print_trainable_parameters()",
    ]
    return "\n".join(lines)


def _adapter_dtypes(recipe: Recipe) -> list[str]:
    """Lines that cast the adapters, where the recipe wants them in other dtypes than peft's fp32."""
    magnitudes = recipe.is_dora and recipe.magnitude_dtype != recipe.adapter_dtype
    if recipe.adapter_dtype == "float32" and not magnitudes:
        return []
    if not magnitudes:
        loop, casts = "for parameter in model.parameters():", [f"        dtype = torch.{recipe.adapter_dtype}"]
    else:
        loop = "for name, parameter in model.named_parameters():"
        casts = [
            f"        dtype = torch.{recipe.adapter_dtype}",
            '        if "lora_magnitude_vector" in name:',
            f"            dtype = torch.{recipe.magnitude_dtype}",
        ]
    return [loop, "    if parameter.requires_grad:", *casts, "        parameter.data = parameter.data.to(dtype)"]


def _train(run: Run) -> str:
    recipe = run.recipe
    precision, config = run.mixed_precision, liger_config(recipe)
    lines = [
        "arguments = TrainingArguments(",
        "    output_dir=output_dir,",
        f"    num_train_epochs={run.workload.epochs!r},",
        f"    max_steps={STEPS} if options.smoke else -1,",
        f"    per_device_train_batch_size={_small(recipe.micro_batch, 2)},",
        f"    per_device_eval_batch_size={_small(run.eval_batch, 2)},  # fits as well",
        f"    gradient_accumulation_steps={_small(recipe.gradient_accumulation, 1)},",
        f"    learning_rate={run.learning_rate!r},",
        f'    optim="{optimizer_row(recipe.optimizer).transformers_name}",',
        *_checkpointing(recipe, "activation_checkpointing", "activation_checkpointing_kwargs"),
        *(["    bf16=True,"] if precision == "bf16" else []),
        *(["    fp16=not options.smoke,"] if precision == "fp16" else []),
        *(["    use_liger_kernel=not options.smoke,"] if recipe.loss == "chunked" or config is not None else []),
        *([f"    liger_kernel_config={config},"] if config else []),
        *(['    train_sampling_strategy="group_by_length",'] if run.workload.group_by_length else []),
        f'    eval_strategy="no" if eval_rows is None else {quoted("steps" if run.workload.eval_steps else "epoch")},',
        *([f"    eval_steps={run.workload.eval_steps},"] if run.workload.eval_steps else []),
        "    prediction_loss_only=True,",
        "    use_cpu=options.smoke,",
        ")",
        "trainer = Trainer(",
        "    model=model,",
        "    args=arguments,",
        "    train_dataset=rows,",
        "    eval_dataset=eval_rows,",
        "    processing_class=tokenizer,",
        f"    data_collator={_collator(run)},  # labels of padding are -100, those of EOS are not",
        ")",
        "trainer.train()",
        f"trainer.save_model()  # {'the adapter' if recipe.has_adapters else 'the model'} and the tokenizer",
        'print(f"saved to {output_dir}")',
    ]
    return "\n".join(lines)


def _collator(run: Run) -> str:
    """The expression that makes what pads rows, or lays them one after the other."""
    workload = run.workload
    if workload.packing:
        return "DataCollatorForSeq2Seq(tokenizer)"
    if workload.padding == "none" and run.recipe.micro_batch > 1:
        return "DataCollatorWithFlattening(return_flash_attn_kwargs=not options.smoke)"
    arguments = ["tokenizer"]
    arguments += ['padding="max_length", max_length=SEQ_LEN'] if workload.padding == "max_length" else []
    unit = workload.pad_to_multiple_of
    arguments += [f"pad_to_multiple_of={unit}"] if unit > 1 and workload.padding != "none" else []
    return f"DataCollatorForSeq2Seq({', '.join(arguments)})"


def _small(wanted: int, most: int) -> str:
    """An expression for a number that a smoke run limits."""
    return str(wanted) if wanted <= most else f"{most} if options.smoke else {wanted}"
