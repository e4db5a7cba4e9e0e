"""A complete training script for the transformers Trainer with PEFT, from a recipe.

Sources: transformers 5.23 (TrainingArguments, BitsAndBytesConfig), peft 0.21 (LoraConfig,
prepare_model_for_kbit_training). Ignores: learning-rate schedules and checkpoints of the run, which change neither
memory nor step time by much; the learning rates are usual starting points.
"""

from __future__ import annotations

from advisor.export.accelerate import accelerate_files
from advisor.export.kernels import LIGER, liger_config, refuse
from advisor.export.launch import where
from advisor.export.rows import rows_section
from advisor.export.run import (
    ATTENTION,
    Run,
    TrainingFile,
    check_stored,
    command_of,
    quoted,
)
from advisor.export.script import (
    EOS_CHECK,
    NAME,
    bitsandbytes,
    evaluation,
    joined,
    optimization,
    options,
    saving,
    start_command,
)
from advisor.export.smoke import IMPORTS, MOST_TOKENS, ROWS, STEPS, tiny_model
from advisor.export.trained import adapter_config, adapters, checkpointing, last_layers_alone, loraplus, prepares
from advisor.optimizers import optimizer_row


def write(run: Run) -> TrainingFile:
    """A Python script that trains as the run says. Raises BadValue for what transformers' Trainer does not have."""
    refuse(run.recipe, "transformers", tuple(LIGER))
    check_stored(run)
    command, packages = command_of(run, start_command(run)), _packages(run)
    text = joined(
        _head(run, packages, command) + "\n" + _imports(run),
        options(run, f"{STEPS} steps of a tiny random model on the CPU"),
        f"model_id = {quoted(run.source)}\nSEQ_LEN = {_seq_len(run)}  # tokens of the longest row\n",
        tiny_model(run.model) + "\n",
        _tokenizer(),
        rows_section(run.data, run.workload, ROWS) + "\n",
        _arguments(run),
        _load(run),
        adapters(run) if run.recipe.has_adapters else last_layers_alone(run),
        _train(run),
    )
    beside = accelerate_files(run, start_command(run))
    return TrainingFile(NAME, text, command, beside, packages=packages)


def _seq_len(run: Run) -> str:
    wanted = run.workload.seq_len
    return str(wanted) if wanted <= MOST_TOKENS else f"{MOST_TOKENS} if options.smoke else {wanted}"


def _auto_class(run: Run) -> str:
    """What loads the model: a vision-language model is loaded as a whole, the tiny one of text alone."""
    if run.model.vision is None:
        return "AutoModelForCausalLM"
    return "(AutoModelForCausalLM if options.smoke else AutoModelForImageTextToText)"


def _packages(run: Run) -> str:
    recipe = run.recipe
    packages = "torch 'transformers>=5.23,<6' datasets accelerate"
    packages += " peft" if recipe.has_adapters else ""
    by_bitsandbytes = run.quantizes or run.stored_as == "bitsandbytes"
    packages += " bitsandbytes" if by_bitsandbytes or optimizer_row(recipe.optimizer).needs_bitsandbytes else ""
    packages += f" {own}" if (own := optimizer_row(recipe.optimizer).package) else ""
    packages += f" {PACKAGES[run.stored_as]}" if run.stored_as in PACKAGES else ""
    packages += run.sequence_packages + run.engine_packages
    return packages + (" liger-kernel" if recipe.loss == "chunked" or recipe.kernels else "")


def _head(run: Run, packages: str, command: str) -> str:
    return "\n".join(
        [
            f"# pip install {packages}",
            f"# run: {command}",
            *where(run).splitlines(),
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
        *(["AutoModelForImageTextToText"] if run.model.vision is not None else []),
        "AutoTokenizer",
        *_quantization(run)[:1],
        _collator(run).partition("(")[0],
        "PreTrainedTokenizerFast",
        "Trainer",
        "TrainingArguments",
    ]
    lines = ["import argparse", "import glob", "import os", "import tempfile"]
    lines += ["from itertools import chain"] if run.workload.packing else []
    lines += ["", "import torch", "from datasets import load_dataset"]
    if recipe.has_adapters:
        prepare = ", prepare_model_for_kbit_training" if prepares(recipe) else ""
        lines.append(f"from peft import {adapter_config(run)[0]}, get_peft_model{prepare}")
        if recipe.variant == "loraplus":
            lines.append("from peft.optimizers import create_loraplus_optimizer")
    return "\n".join([*lines, IMPORTS, "from transformers import (", *(f"    {name}," for name in names), ")"])


def _tokenizer() -> str:
    return "\n".join(
        [
            "if options.smoke:",
            "    tiny = tempfile.TemporaryDirectory()",
            "    save_tiny_model(tiny.name)",
            "    model_id = tiny.name",
            "tokenizer = AutoTokenizer.from_pretrained(model_id)",
            EOS_CHECK,
            "tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # padding is told apart by its labels",
        ]
    )


def _load(run: Run) -> str:
    recipe = run.recipe
    dtype = f"torch.{recipe.base_dtype}"
    attention = quoted(ATTENTION[recipe.attention])
    if recipe.attention == "flash":  # which needs a GPU
        attention = f"{quoted('sdpa')} if options.smoke else {attention}"
    name, *arguments = _quantization(run) or [""]
    lines = [f"quantization = {name}(", *arguments, ")"] if name else []
    lines += [
        f"model = {_auto_class(run)}.from_pretrained(",
        "    model_id,",
        f"    dtype={dtype},",
        f"    attn_implementation={attention},",
    ]
    if name:  # a tiny random model is in 16 bits
        lines.append(
            f"    quantization_config={'quantization' if run.quantizes else _UNLESS_SMOKE.format('quantization')},"
        )
    if run.stored_as in PLACED:
        place = _UNLESS_SMOKE.format('{"": int(os.environ.get("LOCAL_RANK", 0))}')
        lines.append(f"    device_map={place},  # its kernels are picked for where it is loaded")
    if run.loads_on_host:
        lines.append('    device_map="cpu",  # one card does not hold all of it: each gets its part from here')
    return "\n".join([*lines, ")", "model.config.use_cache = False"])


PACKAGES = {
    "gptq": "gptqmodel optimum",
    "awq": "gptqmodel",
    "compressed-tensors": "compressed-tensors",
    "fp8": "kernels",
}
"""What transformers needs to load a checkpoint, by its quant_method."""
PLACED = ("gptq", "awq")
_UNLESS_SMOKE = "None if options.smoke else {}"


def _quantization(run: Run) -> list[str]:
    """The class of the quantization_config, and lines with its arguments; [] for a base that is loaded without one.

    A checkpoint that is quantized already has its own, which does not always train: gptqmodel picks kernels that refuse
    to, and MXFP4 is not trained on. Source: transformers 5.23, quantizers/auto.py, merge_quantization_configs; optimum
    2.3, gptq/quantizer.py, select_quant_linear.
    """
    recipe, stored = run.recipe, run.model.checkpoint
    if stored is not None:
        trains = {
            "gptq": ["GPTQConfig", f"    bits={stored.bits},", '    backend="auto_trainable",'],
            "awq": ["AwqConfig", f"    bits={stored.bits},", '    backend="auto_trainable",'],
            "mxfp4": ["Mxfp4Config", "    dequantize=True,"],
            "compressed-tensors": ["CompressedTensorsConfig", "    dequantize=True,"],
            "fp8": ["FineGrainedFP8Config", "    dequantize=True,"] if stored.dequantized else [],
        }
        return trains.get(stored.method, [])
    return bitsandbytes(run.model, recipe, run.storage_dtype) if recipe.is_quantized else []


def _arguments(run: Run) -> str:
    """Made before the model is loaded: they say which card is this process's own, and how weights are spread."""
    recipe = run.recipe
    precision, config = run.mixed_precision, liger_config(recipe, chunks=True)
    lines = [
        f"arguments = TrainingArguments({'  # before the model: it picks the card' if run.gpus > 1 else ''}",
        "    output_dir=output_dir,",
        f"    num_train_epochs={run.workload.epochs!r},",
        f"    max_steps={STEPS} if options.smoke else -1,",
        f"    per_device_train_batch_size={_small(recipe.micro_batch, 2)},",
        f"    per_device_eval_batch_size={_small(run.eval_batch, 2)},  # fits as well",
        f"    gradient_accumulation_steps={_small(recipe.gradient_accumulation, 1)},",
        *optimization(run, "transformers' Trainer"),
        *checkpointing(recipe, "activation_checkpointing", "activation_checkpointing_kwargs"),
        *(["    bf16=True,"] if precision == "bf16" else []),
        *(["    fp16=not options.smoke,"] if precision == "fp16" else []),
        *(["    use_liger_kernel=not options.smoke,"] if config is not None else []),
        *([f"    liger_kernel_config={config},"] if config else []),
        *evaluation(run),
        "    use_cpu=options.smoke,",
        ")",
    ]
    return "\n".join(lines)


def _train(run: Run) -> str:
    lines = [
        "trainer = Trainer(",
        "    model=model,",
        "    args=arguments,",
        *loraplus(run),
        "    train_dataset=rows,",
        "    eval_dataset=eval_rows,",
        "    processing_class=tokenizer,",
        f"    data_collator={_collator(run)},  # labels of padding are -100, those of EOS are not",
        ")",
        *saving(run.recipe),
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
