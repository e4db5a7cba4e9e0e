"""A complete training script for Unsloth's FastLanguageModel and TRL's SFTTrainer, which it patches.

Sources: unsloth 2026.10.9, models/loader.py (FastLanguageModel.from_pretrained), models/llama.py (get_peft_model),
trainer.py (which rows it packs or pads), models/rl.py (SFTConfig); unsloth_zoo 2026.10.9, dataset_utils.py
(sft_prepare_dataset). Ignores: learning-rate schedules and checkpoints of the run. Unsloth needs a GPU: --smoke
is the first steps of the real model.
"""

from __future__ import annotations

from advisor.errors import BadValue
from advisor.export.accelerate import accelerate_files
from advisor.export.kernels import refuse
from advisor.export.launch import where
from advisor.export.rows import rows_section
from advisor.export.run import Run, TrainingFile, check_stored, command_of, quoted
from advisor.export.script import (
    EOS_CHECK,
    NAME,
    bitsandbytes,
    evaluation,
    joined,
    lora,
    optimization,
    options,
    saving,
    start_command,
)
from advisor.export.smoke import ROWS, STEPS
from advisor.export.yaml_values import refuse_some_layers, unsaid
from advisor.libraries import libraries_of, read_stack_name, version_text
from advisor.optimizers import optimizer_row
from advisor.specs import Recipe, Workload

WRITTEN_FOR = (2026, 10)
"""The oldest version whose SFTTrainer is known to read rows as this script hands them over."""
PADDED = ("gemma2", "gpt_oss")
"""Architectures whose rows it pads, whatever is asked for. Source: trainer.py, PADDING_FREE_BLOCKLIST."""
NOT_LOADED = ("gptq", "awq", "hqq", "mxfp4", "compressed-tensors", "fp8")
"""Methods of checkpoints for which this script does not know how to load them for training."""

_MASKED = '''\
def masked(row):
    """What is learned, as a mask: of rows with labels Unsloth would make padded batches."""
    return {"assistant_masks": [int(label != -100) for label in row["labels"]]}


rows = rows.map(masked, remove_columns="labels")
if eval_rows is not None:
    eval_rows = eval_rows.map(masked, remove_columns="labels")'''


def write(run: Run) -> TrainingFile:
    """A Python script that trains as the run says. Raises BadValue for what Unsloth does not have, or does not do."""
    _refuse(run)
    command, packages = command_of(run, start_command(run)), _packages(run)
    workload = run.workload
    prepared = workload.model_copy(update={"packing": _wraps(workload)})  # TRL packs what is not wrapped
    text = joined(
        _head(run, packages, command) + "\n" + _imports(run),
        options(run, f"the first {STEPS} steps, on {ROWS} rows"),
        f"model_id = {quoted(run.source)}\nSEQ_LEN = {workload.seq_len}  # tokens of the longest row",
        _load(run),
        _adapters(run),
        rows_section(run.data, prepared, ROWS) + "\n",
        _MASKED,
        _train(run),
    )
    beside = accelerate_files(run, start_command(run))
    return TrainingFile(NAME, text, command, beside, packages=packages)


def _refuse(run: Run) -> None:
    """Raise BadValue for what makes another run than the estimate's."""
    recipe, workload = run.recipe, run.workload
    if not run.placement.copies_model:
        raise BadValue("--sharding", run.placement.effective_sharding, "Unsloth copies the model to each card: ddp")
    refuse(recipe, "Unsloth", (), offloads=True)
    check_stored(run, "Unsloth", *NOT_LOADED)
    if not recipe.has_adapters:
        refuse_some_layers(run, "Unsloth")
    for name in recipe.modules_to_save:
        if not name.endswith(("lm_head", "embed_tokens", "norm")):
            allowed = "Unsloth trains only embed_tokens, lm_head and norms beside adapters"
            raise BadValue("--modules-to-save", name, allowed)
    libraries = libraries_of(recipe.stack)
    if libraries.code != "unsloth" or libraries.code_version < WRITTEN_FOR:
        allowed = f"must be unsloth-{version_text(WRITTEN_FOR)} or later in a file for Unsloth (--trainer unsloth)"
        raise BadValue("--stack", ",".join(recipe.stack) or "none", allowed)
    if workload.packing and run.model.architecture in PADDED:
        raise BadValue("--packing", True, f"Unsloth does not pack rows of {run.model.architecture}: leave it out")
    if recipe.loss == "full" and (workload.packing or workload.padding == "none"):
        allowed = "Unsloth then pads rows: --padding longest without --packing, or --loss chunked, to write a file"
        raise BadValue("--loss", recipe.loss, allowed)


def _wraps(workload: Workload) -> bool:
    """Whether the script itself makes rows of one length: TRL and Unsloth tell examples apart where they pack."""
    return workload.packing and workload.packing_strategy == "wrapped"


def _packages(run: Run) -> str:
    recipe = run.recipe
    named = (read_stack_name(name) for name in recipe.stack)
    packages = " ".join(f"'{library}=={version_text(version)}.*'" for library, version in named)
    packages += f" {own}" if (own := optimizer_row(recipe.optimizer).package) else ""
    return packages + (" flash-attn" if recipe.attention == "flash" else "")


def _head(run: Run, packages: str, command: str) -> str:
    recipe, workload = run.recipe, run.workload
    padded = workload.padding == "none" and run.model.architecture in PADDED
    by_positions = workload.packing and workload.packing_strategy == "position_ids"
    return (
        f"# pip install {packages}\n# run: {command}\n{where(run)}"
        f"# try it first: python {NAME} --smoke   (the first {STEPS} steps, on {ROWS} rows)\n"
        + unsaid(
            (recipe.has_adapters and recipe.adapter_dtype != "float32", f"adapter-dtype {recipe.adapter_dtype}"),
            (recipe.is_dora and recipe.magnitude_dtype != "float32", f"magnitude-dtype {recipe.magnitude_dtype}"),
            (bool(recipe.modules_to_save) and recipe.trained_dtype != "base", f"trained-dtype {recipe.trained_dtype}"),
            (recipe.is_quantized and recipe.kbit_upcast, "kbit-upcast"),
            (not recipe.autocast, "no-autocast (Unsloth computes in 16 bits)"),
            (recipe.gradient_checkpointing and not recipe.reentrant, "no-reentrant"),
            (recipe.attention == "eager", "attention eager (Unsloth takes flash-attn, xformers or PyTorch's)"),
            (by_positions, "packing-strategy position_ids (Unsloth tells rows apart by their lengths)"),
            (padded, f"padding none (Unsloth pads rows of {run.model.architecture})"),
            (recipe.quant == "int8", "8 bits in Unsloth's own models (it compiles those of transformers instead)"),
        )
    ).rstrip("\n")


def _imports(run: Run) -> str:
    recipe = run.recipe
    lines = ["import argparse", "import glob", "import os"]
    lines += ["from itertools import chain"] if _wraps(run.workload) else []
    lines.append("")
    if recipe.loss == "full":
        lines += ['os.environ["UNSLOTH_RETURN_LOGITS"] = "1"  # the loss from all logits at once', ""]
    lines += ["from unsloth import FastLanguageModel  # first: it patches the libraries below", "", "import torch"]
    lines.append("from datasets import load_dataset")
    lines += ["from transformers import BitsAndBytesConfig"] if _configures(run) else []
    return "\n".join([*lines, "from trl import SFTConfig, SFTTrainer"])


def _configures(run: Run) -> bool:
    """Whether 4 bits are other than double-quantized nf4, the ones that load_in_4bit stands for."""
    recipe = run.recipe
    return run.quantizes and recipe.quant != "int8" and not (recipe.quant == "nf4" and recipe.double_quant)


def _checkpointing(recipe: Recipe) -> str:
    """The keyword line; "unsloth" keeps inputs of layers in the host's memory."""
    offloads = recipe.gradient_checkpointing and recipe.offload == "activations"
    return f"    use_gradient_checkpointing={quoted('unsloth') if offloads else recipe.gradient_checkpointing},"


def _load(run: Run) -> str:
    recipe = run.recipe
    name, *values = bitsandbytes(run.model, recipe) if _configures(run) else [""]
    return "\n".join(
        [
            *([f"quantization = {name}(", *values, ")"] if name else []),
            "model, tokenizer = FastLanguageModel.from_pretrained(",
            "    model_name=model_id,",
            "    max_seq_length=SEQ_LEN,",
            f"    dtype=torch.{recipe.base_dtype},",
            f"    load_in_4bit={recipe.is_quantized and recipe.quant != 'int8'},",
            f"    load_in_8bit={recipe.quant == 'int8'},",
            f"    full_finetuning={not recipe.has_adapters},",
            *(["    quantization_config=quantization,"] if name else []),
            "    use_exact_model_name=True,  # not Unsloth's copy, where some layers are not quantized",
            "    text_only=True,  # a multimodal model's other towers stay unloaded",
            _checkpointing(recipe),
            ")",
            'tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # of a processor',
            EOS_CHECK,
        ]
    )


def _adapters(run: Run) -> str:
    if not run.recipe.has_adapters:
        return ""
    return "\n".join(
        [
            "model = FastLanguageModel.get_peft_model(",
            "    model,",
            *lora(run, "Unsloth", {}),
            '    bias="none",',
            _checkpointing(run.recipe),
            ")",
            "model.print_trainable_parameters()",
        ]
    )


def _train(run: Run) -> str:
    recipe, precision = run.recipe, run.mixed_precision
    return "\n".join(
        [
            "arguments = SFTConfig(  # checkpointing is the model's",
            "    output_dir=output_dir,",
            f"    num_train_epochs={run.workload.epochs!r},",
            f"    max_steps={STEPS} if options.smoke else -1,",
            f"    per_device_train_batch_size={recipe.micro_batch},",
            f"    per_device_eval_batch_size={run.eval_batch},  # fits as well",
            f"    gradient_accumulation_steps={recipe.gradient_accumulation},",
            *optimization(run, "Unsloth"),
            *([f"    {precision}=True,"] if precision else []),
            "    max_length=SEQ_LEN,",
            *_micro_batches(run.workload),
            *evaluation(run),
            ")",
            "trainer = SFTTrainer(",
            "    model=model,",
            "    args=arguments,",
            "    train_dataset=rows,",
            "    eval_dataset=eval_rows,",
            "    processing_class=tokenizer,",
            ")",
            *saving(recipe),
        ]
    )


def _micro_batches(workload: Workload) -> list[str]:
    """How rows become micro-batches; an unset padding_free leaves it to Unsloth, which may pad."""
    if workload.packing and not _wraps(workload):
        return ["    packing=True,", '    packing_strategy="bfd",']
    if workload.packing or workload.padding == "none":
        return ["    padding_free=True,"]
    if workload.padding == "max_length":
        return ["    padding_free=False,", "    pad_to_multiple_of=SEQ_LEN,"]
    unit = workload.pad_to_multiple_of
    return ["    padding_free=False,", *([f"    pad_to_multiple_of={unit},"] if unit > 1 else [])]
