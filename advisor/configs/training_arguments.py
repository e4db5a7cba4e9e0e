"""Keys that transformers' TrainingArguments have, which LLaMA-Factory's and TRL's files share.

Source: transformers 5.23.0, training_args.py; keys of older versions (group_by_length, per_gpu_...) are read, too.
"""

from __future__ import annotations

from advisor.configs.engines import read_engine
from advisor.configs.sheet import Sheet

IDLE = frozenset(
    """
    output_dir overwrite_output_dir do_train do_eval do_predict learning_rate lr_scheduler_type lr_scheduler_kwargs
    warmup_steps warmup_ratio weight_decay adam_beta1 adam_beta2 adam_epsilon max_grad_norm label_smoothing_factor tf32
    average_tokens_across_devices logging_strategy logging_steps logging_first_step logging_dir log_on_each_node
    logging_nan_inf_filter include_num_input_tokens_seen include_tokens_per_second log_level log_level_replica
    disable_tqdm report_to run_name project trackio_space_id trackio_bucket_id trackio_static_space_id eval_delay
    prediction_loss_only eval_on_start eval_use_gather_object save_only_model save_strategy save_steps
    save_on_each_node save_total_limit save_safetensors enable_jit_checkpoint push_to_hub hub_token hub_private_repo
    hub_model_id hub_strategy hub_always_push hub_revision load_best_model_at_end metric_for_best_model
    greater_is_better ignore_data_skip restore_callback_states_from_checkpoint full_determinism seed data_seed
    dataloader_drop_last dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers
    dataloader_prefetch_factor dataloader_multiprocessing_context dataloader_in_order remove_unused_columns
    label_names length_column_name ddp_find_unused_parameters ddp_broadcast_buffers ddp_backend ddp_timeout
    debug skip_memory_metrics resume_from_checkpoint local_rank use_cache evaluation_strategy
    """.split()
)
"""Keys that change neither the memory nor the time of a step."""
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
}


def read_arguments(sheet: Sheet) -> None:
    """Rows of a step, optimizer, precision, evaluation and engine."""
    for key, why in _UNSAID.items():
        if sheet.get(key) not in (None, False, "", [], {}):
            sheet.loses(key, why)
    sheet.takes("micro_batch", "per_device_train_batch_size", 8)
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


def most_steps(sheet: Sheet) -> int:
    """Steps at which the job ends; -1 and 0 stand for none."""
    value = sheet.get("max_steps", 0)
    return 0 if isinstance(value, (int, float)) and value <= 0 else int(sheet.number("max_steps", value))
