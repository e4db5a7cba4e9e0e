"""accelerate's own parser and plugins read its file, for each engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advisor.export.accelerate import accelerate_files, lead
from advisor.specs import Placement
from tests.export.spread import file_of, flags_of, run_of, saved
from tests.fakes import MODEL

FSDP2 = Placement(gpus=2, sharding="fsdp2", reshard=False)
HSDP = Placement(gpus=16, nodes=2, sharding="hsdp", network_gbit=100.0)
FAR = Placement(gpus=16, nodes=2, sharding="fsdp2", network_gbit=100.0)


@pytest.fixture
def launched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What accelerate makes of a file's command: its arguments, and the environment of the processes."""
    launch = pytest.importorskip("accelerate.commands.launch")
    from accelerate.utils import launch as environments

    def read(at: Placement, trainer: str = "transformers", **knobs: Any) -> tuple[Any, dict[str, str]]:
        file = file_of(trainer, at, **knobs)
        saved(file, tmp_path)
        monkeypatch.chdir(tmp_path)
        args = launch.launch_command_parser().parse_args(flags_of(file, "accelerate launch"))
        args, defaults, _ = launch._validate_launch_command(args)
        if args.use_deepspeed:
            args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
            _, found = environments.prepare_deepspeed_cmd_env(args)
        else:
            found = environments.prepare_multi_gpu_env(args)
        for name, value in found.items():
            monkeypatch.setenv(name, value)
        return args, found

    return read


def test_fsdp2_is_set_up_as_estimated(launched: Any) -> None:
    args, found = launched(FSDP2.model_copy(update={"offload": "parameters"}))
    assert (args.use_fsdp, args.num_processes, args.mixed_precision) == (True, 2, "bf16")
    assert found["ACCELERATE_USE_FSDP"] == "true"
    from accelerate.utils import FullyShardedDataParallelPlugin
    from torch.distributed.fsdp import CPUOffloadPolicy

    plugin = FullyShardedDataParallelPlugin()
    assert (plugin.fsdp_version, plugin.reshard_after_forward) == (2, False)
    assert isinstance(plugin.cpu_offload, CPUOffloadPolicy)
    assert "FULL_STATE_DICT" in str(plugin.state_dict_type)  # of another kind nothing is saved
    assert plugin.cpu_ram_efficient_loading


def test_fsdp1_is_set_up_as_estimated(launched: Any) -> None:
    _, found = launched(Placement(gpus=2, sharding="fsdp1", reshard=False, prefetch=True))
    assert (found["FSDP_VERSION"], found["FSDP_SHARDING_STRATEGY"]) == ("1", "SHARD_GRAD_OP")
    assert (found["FSDP_BACKWARD_PREFETCH"], found["FSDP_USE_ORIG_PARAMS"]) == ("BACKWARD_PRE", "true")


def test_copies_between_machines(launched: Any) -> None:
    args, found = launched(HSDP)
    assert (args.num_machines, args.nnodes, args.nproc_per_node) == (2, "2", "8")
    assert (args.rdzv_backend, args.rdzv_endpoint) == ("c10d", "$MASTER_ADDR:29500")
    assert found["PARALLELISM_CONFIG_DP_REPLICATE_SIZE"] == "2"
    assert found["PARALLELISM_CONFIG_DP_SHARD_SIZE"] == "8"


@pytest.mark.parametrize(("sharding", "stage", "bucket"), [("zero1", 1, 7_000), ("zero2", 2, 0), ("zero3", 3, 0)])
def test_deepspeed_reads_its_own_file(launched: Any, sharding: Any, stage: int, bucket: int) -> None:
    offload = "parameters" if stage == 3 else "optimizer"
    at = Placement(gpus=16, nodes=2, sharding=sharding, network_gbit=100.0, bucket_elements=bucket, offload=offload)
    args, _ = launched(at)
    assert (args.use_deepspeed, args.nnodes, args.deepspeed_multinode_launcher) == (True, "2", "standard")
    from accelerate.utils import DeepSpeedPlugin

    plugin = DeepSpeedPlugin()
    assert (plugin.zero_stage, plugin.zero3_init_flag) == (stage, stage == 3)
    values = plugin.deepspeed_config["zero_optimization"]
    assert values["reduce_bucket_size"] == (bucket or 500_000_000)
    assert (plugin.offload_optimizer_device, plugin.offload_param_device) == ("cpu", "cpu" if stage == 3 else "none")
    assert plugin.zero3_save_16bit_model is (stage == 3)


def test_deepspeeds_sizes_are_those_that_were_counted() -> None:
    at = Placement(gpus=2, sharding="zero3", configs="axolotl")
    sizes = json.loads(dict(file_of("axolotl", at).beside)["deepspeed.json"])["zero_optimization"]
    assert sizes["reduce_bucket_size"] == MODEL.hidden_size**2
    assert (sizes["stage3_max_live_parameters"], sizes["sub_group_size"]) == (0, 0)


def test_llamafactory_is_started_as_a_module(launched: Any) -> None:
    args, _ = launched(FSDP2, "llamafactory")
    assert (args.module, args.training_script, args.training_script_args) == (
        True,
        "llamafactory.launcher",
        ["train.yaml"],
    )


def test_a_base_in_four_bits_is_loaded_by_each(launched: Any) -> None:
    launched(FSDP2, method="qlora")
    from accelerate.utils import FullyShardedDataParallelPlugin

    assert not FullyShardedDataParallelPlugin().cpu_ram_efficient_loading


@pytest.mark.parametrize(("gpus", "kind"), [(1, "NO"), (4, "MULTI_GPU")])
def test_a_copy_on_each_card_by_accelerate_where_asked(gpus: int, kind: str, tmp_path: Path) -> None:
    read = pytest.importorskip("accelerate.commands.config.config_args").load_config_from_file
    run = run_of("transformers", Placement(gpus=gpus))
    assert accelerate_files(run, "x") == ()
    ((name, text),) = accelerate_files(run._replace(by_accelerate=True), "x")
    (tmp_path / name).write_text(text)
    config = read(str(tmp_path / name))
    assert (config.distributed_type.value, config.num_processes, config.mixed_precision) == (kind, gpus, "bf16")


def test_its_own_file_leads_where_asked() -> None:
    file = file_of("transformers", FSDP2)
    led = lead(file)
    assert (file.name, led.name, led.command) == ("train.py", "accelerate.yaml", file.command)
    assert {name for name, _ in led.beside} == {"train.py"}
