"""Keys of configuration files that change neither the memory nor the time of a step, by format.

Beside each format stands where its tool declares them; keys of its older versions are among them. What a key does when
it is on is read where the tool uses it: a loss, a kernel or a dtype of its own is no key for here.
"""

from __future__ import annotations


def _keys(text: str) -> frozenset[str]:
    return frozenset(text.split())


ARGUMENTS = _keys(
    """
    adam_beta1 adam_beta2 adam_epsilon average_tokens_across_devices data_seed dataloader_drop_last
    dataloader_in_order dataloader_multiprocessing_context dataloader_num_workers dataloader_persistent_workers
    dataloader_pin_memory dataloader_prefetch_factor ddp_backend ddp_broadcast_buffers ddp_find_unused_parameters
    ddp_timeout debug disable_tqdm do_eval do_predict do_train enable_jit_checkpoint eval_delay eval_on_start
    eval_use_gather_object evaluation_strategy full_determinism greater_is_better hub_always_push hub_model_id
    hub_private_repo hub_revision hub_strategy hub_token ignore_data_skip include_num_input_tokens_seen
    include_tokens_per_second label_names learning_rate length_column_name
    load_best_model_at_end local_rank log_level log_level_replica log_on_each_node logging_dir logging_first_step
    logging_nan_inf_filter logging_steps logging_strategy lr_scheduler_kwargs lr_scheduler_type max_grad_norm
    metric_for_best_model output_dir overwrite_output_dir prediction_loss_only project push_to_hub
    remove_unused_columns report_to restore_callback_states_from_checkpoint resume_from_checkpoint run_name
    save_on_each_node save_only_model save_safetensors save_steps save_strategy save_total_limit seed
    skip_memory_metrics tf32 trackio_bucket_id trackio_space_id trackio_static_space_id use_cache warmup_ratio
    warmup_steps weight_decay
    """
)
"""Of transformers' TrainingArguments, which four of the formats take. Source: training_args.py, 5.23.0 and 4.x."""
AXOLOTL = _keys(
    """
    adam_beta1 adam_beta2 adam_eps adam_epsilon auto_resume_from_checkpoints base_model_config
    base_model_ignore_patterns bench_dataset bfloat16 chat_template chat_template_jinja cls_model_config
    cosine_constant_lr_ratio
    cosine_min_lr_ratio curriculum_sampling dataloader_num_workers dataloader_pin_memory dataloader_prefetch_factor
    dataset_exact_deduplication dataset_prepared_path dataset_processes ddp_find_unused_parameters ddp_timeout debug
    default_system_message device_map do_causal_lm_eval eaft_alpha eaft_k early_stopping_patience
    embedding_lr embedding_lr_scale eot_tokens eval_causal_lm_metrics eval_max_new_tokens eval_sample_packing
    eval_strategy eval_table_size evaluation_strategy excess_length_strategy experimental_skip_move_to_device
    fsdp_version gc_steps gptq_disable_exllama hf_use_auth_token hub_model_id hub_revision hub_strategy
    include_tokens_per_second is_falcon_derived_model is_llama_derived_model is_mistral_derived_model
    is_qwen_derived_model learning_rate local_rank loftq_config logging_steps
    lora_alpha_pattern lora_fan_in_fan_out lora_model_dir loraplus_lr_embedding loss_watchdog_patience
    loss_watchdog_threshold low_cpu_mem_usage lr_quadratic_warmup lr_scheduler lr_scheduler_kwargs max_grad_norm
    mlflow_experiment_name mlflow_tracking_uri model_revision model_type multipack_real_batches otel_metrics_host
    otel_metrics_port output_dir plugins pretrain_multipack_attn profiler_steps push_dataset_to_hub
    remove_unused_columns resume_from_checkpoint revision_of_model sample_packing_bin_size sample_packing_eff_est
    sample_packing_group_size sample_packing_sequentially save_first_step save_only_model save_safetensors
    save_steps save_strategy save_total_limit saves_per_epoch seed shuffle_before_merging_datasets
    shuffle_merged_datasets skip_prepare_dataset special_tokens streaming streaming_multipack_buffer_size strict
    swanlab_description swanlab_experiment_name swanlab_log_completions swanlab_mode swanlab_project test_datasets
    tf32 tokenizer_config tokenizer_legacy tokenizer_save_jinja_files tokenizer_type tokenizer_use_fast
    tokenizer_use_mistral_common tokens torchdistx_path train_on_inputs trust_remote_code use_otel_metrics
    use_swanlab use_tensorboard use_wandb wandb_entity wandb_log_model wandb_name wandb_project wandb_run_id
    wandb_watch warmup_ratio warmup_steps weight_decay xformers_version
    """
)
"""Source: axolotl, utils/schemas/*.py; of its plugins integrations/*/args.py."""
LLAMAFACTORY = ARGUMENTS | _keys(
    """
    adapter_folder add_special_tokens add_tokens apollo_proj apollo_proj_type apollo_scale apollo_scale_front
    apollo_scale_type apollo_target apollo_update_interval asft_alpha buffer_size cache_dir compute_accuracy
    create_new_adapter data_shared_file_system dataset dataset_dir default_system
    disable_gradient_checkpointing_kwargs disable_shuffling eaft_alpha early_stopping_steps enable_thinking
    eval_dataset eval_on_each_dataset galore_proj_type galore_scale galore_target galore_update_interval
    hf_hub_token ignore_pad_token_for_loss image_min_pixels include_effective_tokens_per_second infer_backend
    interleave_probs loraplus_lr_embedding low_cpu_mem_usage mask_history media_dir mix_strategy
    model_revision module_dropout ms_hub_token offload_folder oft_block_size oft_rank om_hub_token
    overwrite_cache pissa_convert pissa_iter plot_loss preprocessing_batch_size preprocessing_num_workers
    print_param_status quantization_device_map ray_num_workers ray_run_name ray_storage_path rope_scaling
    split_special_tokens streaming swanlab_api_key swanlab_logdir swanlab_mode swanlab_project swanlab_run_name
    swanlab_workspace template tokenized_path tool_format train_from_scratch train_on_prompt trust_remote_code
    use_fast_tokenizer use_kv_cache use_swanlab video_fps video_max_pixels
    video_maxlen
    """
)
"""Source: LLaMA-Factory, hparams/*.py."""
TRL = ARGUMENTS | _keys(
    """
    add_special_tokens append_concat_token assistant_only_loss bnb_4bit_compute_dtype chat_template
    chat_template_format chat_template_path command completion_only_loss environment
    dataset_batch_size dataset_config dataset_kwargs dataset_mixer dataset_mixture dataset_name dataset_num_proc
    dataset_splits dataset_streaming dataset_test_split dataset_text_field dataset_train_split datasets eos_token
    hub_model_revision ignore_bias_buffers lora_task_type max_samples model_revision pad_token
    preprocessing_num_workers shuffle_dataset splits streaming test_split_size truncation_mode
    trust_remote_code
    """
)
"""Source: TRL, trainer/sft_config.py, trainer/model_config.py and scripts/utils.py.

Beside them the alignment handbook, src/alignment/configs.py, and PEFT's examples/sft/train.py.
"""
TORCHTUNE = _keys(
    """
    checkpointer clip_grad_norm collate_fn cudnn_deterministic_mode dataset device log_every_n_steps log_level
    log_peak_memory_stats loss._component_ low_cpu_ram lr_scheduler max_steps_per_epoch max_validation_steps
    metric_logger model.lora_alpha optimizer.betas optimizer.eps optimizer.lr optimizer.weight_decay output_dir
    profiler resume_from_checkpoint run_val_every_n_steps save_adapter_weights_only save_steps seed shuffle
    tokenizer
    """
)
"""Source: torchtune, recipes/*.py and recipes/configs."""
LITGPT = _keys(
    """
    access_token data eval.evaluate_example eval.final_validation eval.initial_validation eval.interval
    eval.max_iters eval.max_new_tokens log logger_name lora_alpha optimizer optimizer.class_path optimizer.init_args
    out_dir resume seed train.log_interval train.lr_warmup_fraction train.lr_warmup_steps train.max_norm
    train.max_tokens train.min_lr train.save_interval train.tie_embeddings
    """
)
"""Source: LitGPT, args.py and finetune/*.py."""
UNSLOTH = _keys(
    """
    data logging lora.finetune_vision_layers lora.use_loftq lora.vision_all_linear training.learning_rate
    training.output_dir training.random_seed training.save_steps training.train_on_completions
    training.warmup_steps training.weight_decay
    """
)
"""Source: Unsloth, unsloth_cli/config.py."""
SWIFT = ARGUMENTS | _keys(
    """
    acc_strategy add_non_thinking_prefix add_version agent_template aligner_lr cache_dir cached_dataset check_model
    columns command create_checkpoint_symlink custom_register_path dataset dataset_num_proc dataset_shuffle
    deepspeed_autotp_size device_map download_mode early_stop_interval enable_thinking environment eval_dataset
    eval_dataset_args eval_limit eval_use_evalscope external_plugins group_by_length_column ignore_args_error
    interleave_prob lazy_tokenize load_from_cache_file loss_scale max_memory
    max_new_tokens metric model_author model_kwargs model_name model_type new_special_tokens norm_bbox packing_cache
    packing_num_proc predict_with_generate response_prefix resume_only_model self_cognition
    split_dataset_ratio streaming strict swanlab_exp_name swanlab_project system task_type template template_backend
    tools_prompt train_dataloader_shuffle truncation_strategy use_flash_ckpt use_hf use_swift_lora val_dataset
    vit_lr
    """
)
"""Source: ms-swift, arguments/*.py and trainers/arguments.py."""
SCRIPTS = frozenset(f"arguments.{key}" for key in ARGUMENTS) | _keys(
    """
    flags lengths collator arguments.use_cpu model.text_only
    adapters.fan_in_fan_out adapters.finetune_language_layers adapters.inference_mode
    adapters.init_lora_weights adapters.layers_pattern adapters.loftq_config adapters.max_seq_length
    adapters.random_state adapters.task_type adapters.temporary_location adapters.use_gradient_checkpointing
    arguments.assistant_only_loss arguments.chat_template_path arguments.completion_only_loss
    arguments.dataset_kwargs arguments.dataset_num_proc arguments.dataset_text_field
    arguments.embedding_learning_rate arguments.eos_token arguments.pad_token arguments.shuffle_dataset
    arguments.skip_prepare_dataset card classes loader model.cache_dir model.device_map model.dtype model.fullgraph
    model.low_cpu_mem_usage model.max_lora_rank model.model_name model.quantization_config model.return_logits
    model.revision model.token model.torch_dtype model.trust_remote_code model.use_cache model.use_exact_model_name
    storage.bnb_4bit_compute_dtype storage.bnb_4bit_quant_storage storage.llm_int8_enable_fp32_cpu_offload
    storage.llm_int8_threshold trainer.args trainer.callbacks trainer.compute_metrics trainer.data_collator
    trainer.dataset_kwargs trainer.dataset_num_proc trainer.dataset_text_field trainer.eval_dataset
    trainer.formatting_func trainer.model trainer.peft_config
    trainer.preprocess_logits_for_metrics trainer.processing_class trainer.quantization_config trainer.tokenizer
    trainer.train_dataset
    """
)
"""Source: peft's LoraConfig, trl's SFTConfig and SFTTrainer, from_pretrained of transformers and Unsloth."""
