"""accelerate's configuration file: how many cards, by which engine, beside the file of the trainer that it starts.

Sources: accelerate 1.15, commands/config/config_args.py, ClusterConfig, refuses unknown keys; utils/launch.py hands
those of fsdp_config on; utils/dataclasses.py, FullyShardedDataParallelPlugin, reads them, and DeepSpeedPlugin refuses a
mixed_precision beside a file of DeepSpeed's own.
"""

from __future__ import annotations

from typing import Any

from advisor.export import deepspeed
from advisor.export.launch import CONFIG, where
from advisor.export.run import Run, TrainingFile, command_of
from advisor.export.yaml_values import nested_yaml

FSDP: dict[str, int] = {"fsdp1": 1, "fsdp2": 2, "hsdp": 2}
"""Version of FSDP, by engine. The first is as transformers sets it up: 5.23, training_args.py, _process_fsdp_args."""


def is_started(run: Run) -> bool:
    """Whether accelerate starts the run: where it is asked for, or sets up the engine."""
    return run.by_accelerate or not run.placement.copies_model


def accelerate_files(run: Run, command: str) -> tuple[tuple[str, str], ...]:
    """(name, text) of accelerate's file, and of what it names; nothing for a run that it does not start."""
    if not is_started(run):
        return ()
    head = f"# run: {command_of(run, command)}\n{where(run)}"
    text = head + nested_yaml({**_cards(run), **_sections(run)})
    return (*deepspeed.deepspeed_files(run), (CONFIG, text))


def lead(file: TrainingFile) -> TrainingFile:
    """The same files, with accelerate's in front: what `--write accelerate` is about."""
    texts = dict(file.beside)
    return file._replace(name=CONFIG, text=texts.pop(CONFIG), beside=(*texts.items(), (file.name, file.text)))


def _cards(run: Run) -> dict[str, Any]:
    by_file = {} if deepspeed.stage_of(run) else {"mixed_precision": run.mixed_precision or "no"}
    return {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": _kind(run),
        "num_machines": run.placement.nodes,
        "num_processes": run.gpus,
        "machine_rank": 0,
        **by_file,
    }


def _kind(run: Run) -> str:
    if run.placement.copies_model:
        return "NO" if run.gpus == 1 else "MULTI_GPU"
    return "DEEPSPEED" if deepspeed.stage_of(run) else "FSDP"


def _sections(run: Run) -> dict[str, dict[str, Any]]:
    """What stands below a key of its own."""
    at = run.placement
    if at.copies_model:
        return {}
    if stage := deepspeed.stage_of(run):
        named = {"deepspeed_config_file": deepspeed.FILE, **({"zero3_init_flag": True} if stage == 3 else {})}
        return {
            "deepspeed_config": named | ({"deepspeed_multinode_launcher": "standard"} if at.nodes > 1 else {}),
        }
    copies = {"parallelism_config_dp_replicate_size": at.nodes, "parallelism_config_dp_shard_size": at.node_gpus}
    fsdp = {f"fsdp_{name.removeprefix('fsdp_')}": value for name, value in fsdp_keys(run).items()}
    return {"fsdp_config": fsdp, **({"parallelism_config": copies} if at.sharding == "hsdp" else {})}


def fsdp_keys(run: Run) -> dict[str, Any]:
    """FSDP's settings. Only whole state dicts become a saved model: transformers 5.23, trainer.py, save_model.

    Of a base in 4 bits every rank loads its own: accelerate cannot send it from the first one (utils/fsdp_utils.py).
    """
    at, sends = run.placement, not run.recipe.is_quantized
    version = FSDP[at.effective_sharding]
    settings = {
        "fsdp_version": version,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "offload_params": at.offload == "parameters",
        "cpu_ram_efficient_loading": sends,
        "state_dict_type": "FULL_STATE_DICT",
    }
    if version == 2:
        return settings | {"reshard_after_forward": at.reshard}
    return settings | {
        "sharding_strategy": "FULL_SHARD" if at.reshard else "SHARD_GRAD_OP",
        "backward_prefetch": "BACKWARD_PRE" if at.prefetch else "NO_PREFETCH",
        "use_orig_params": True,
        "sync_module_states": sends,
    }
