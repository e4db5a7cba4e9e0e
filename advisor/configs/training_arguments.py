"""Keys that transformers' TrainingArguments have, which LLaMA-Factory's and TRL's files share.

Source: transformers 5.23.0, training_args.py; keys of older versions (group_by_length, per_gpu_...) are read, too.
"""

from __future__ import annotations

from collections.abc import Mapping

from advisor.configs.engines import read_engine
from advisor.configs.sheet import Sheet
from advisor.export.kernels import LIGER
from advisor.specs import KernelSet

_UNSAID = {
    "torch_compile": "torch.compile changes memory and time",
    "auto_find_batch_size": "the micro-batch is found by running out of memory",
    "eval_accumulation_steps": "logits of evaluation stay on the card",
    "include_for_metrics": "logits of evaluation stay on the card",
    "parallelism_config": "several kinds of parallelism",
    "torch_empty_cache_steps": "the cache is emptied as the job runs",
    "ddp_bucket_cap_mb": "buckets of another size",
    "ddp_static_graph": "DDP by a fixed graph",
    "bf16_full_eval": "evaluation in 16 bits",
    "fp16_full_eval": "evaluation in 16 bits",
    "accelerator_config": "settings of accelerate",
    "label_smoothing_factor": "a loss of its own, on a copy of the logits",  # trainer_pt_utils.py, LabelSmoother
}
BALANCES = "a second loss, on the routers' logits"
"""Why a coefficient of the loss that balances experts matters."""


def read_arguments(sheet: Sheet, micro_batch: int = 8) -> None:
    """Rows of a step, optimizer, precision, evaluation and engine; `micro_batch`: the tool's own."""
    sheet.loses_those_on(_UNSAID)
    sheet.takes("micro_batch", "per_device_train_batch_size", micro_batch)
    sheet.rows_of_a_step(sheet.get("gradient_accumulation_steps"), "gradient_accumulation_steps")
    sheet.takes("epochs", "num_train_epochs", 3)
    sheet.takes("optimizer", "optim", "adamw_torch_fused")
    for key in ("optim_args", "optim_target_modules"):
        sheet.get(key)
    sheet.takes("neftune", "neftune_noise_alpha")
    if sheet.has("group_by_length") or sheet.get("train_sampling_strategy") == "group_by_length":
        key = "group_by_length" if sheet.peek("group_by_length") else "train_sampling_strategy"
        sheet.sets("group_by_length", True, key)
    evaluates = sheet.get("eval_strategy", sheet.get("evaluation_strategy", "no")) not in ("no", False)
    if evaluates or sheet.peek("do_eval"):
        sheet.takes("eval_batch", "per_device_eval_batch_size")
    sheet.get("per_device_eval_batch_size")
    steps = sheet.get("eval_steps")
    if evaluates and isinstance(steps, int) and sheet.peek("eval_strategy") == "steps":
        sheet.takes("eval_steps", "eval_steps")
    read_engine(sheet)


def read_liger(sheet: Sheet, has: tuple[KernelSet, ...] = tuple(LIGER)) -> None:
    """Liger's kernels of those that the tool `has`, but for what liger_kernel_config switches off."""
    config = sheet.get("liger_kernel_config", {})
    if not sheet.has("use_liger_kernel"):
        sheet.sets("kernels", "none")
        return
    words = {"geglu", *LIGER.values()}
    known = (
        isinstance(config, Mapping) and set(config) <= words and all(isinstance(one, bool) for one in config.values())
    )
    if not known or config.get("geglu", True) != config.get("swiglu", True):  # the gate of some models, or of others
        sheet.loses("liger_kernel_config", "some of Liger's kernels without the others")
        config = {}
    on = [name for name in has if config.get(LIGER[name], True)]
    keys = (
        "use_liger_kernel",
        *(f"liger_kernel_config.{key}" for key in config if sheet.get(f"liger_kernel_config.{key}") is False),
    )
    sheet.sets("kernels", "liger" if on == list(LIGER) else ",".join(on) or "none", *keys)


def most_steps(sheet: Sheet) -> int:
    """Steps at which the job ends; -1 and 0 stand for none."""
    value = sheet.get("max_steps", 0)
    return 0 if isinstance(value, (int, float)) and value <= 0 else int(sheet.number("max_steps", value))
