"""The lines that start a job are what the launchers read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advisor import advise
from advisor.errors import BadValue, InputError
from advisor.export import Target
from advisor.export.training_file import training_file
from advisor.specs import Placement
from tests.export.spread import file_of, flags_of, run_of, saved

DDP, FSDP2 = Placement(gpus=2), Placement(gpus=2, sharding="fsdp2")
FAR = Placement(gpus=16, nodes=2, network_gbit=100.0)
ZERO3 = Placement(gpus=4, sharding="zero3")


def test_a_copy_on_each_card_starts_by_torchrun() -> None:
    parser = pytest.importorskip("torch.distributed.run").get_args_parser()
    here = parser.parse_args(flags_of(file_of("transformers", DDP), "torchrun"))
    assert (here.nproc_per_node, here.standalone, here.training_script) == ("2", True, "train.py")
    file = file_of("unsloth", FAR, stack=("unsloth-2026.10",))
    there = parser.parse_args(flags_of(file, "torchrun"))
    assert (there.nnodes, there.nproc_per_node, there.rdzv_backend) == ("2", "8", "c10d")
    assert there.rdzv_endpoint == "$MASTER_ADDR:29500"
    assert "# on each of the 2 machines" in file.text


@pytest.mark.parametrize(
    ("trainer", "at", "command"),
    [
        ("axolotl", DDP, "axolotl train train.yaml --num-processes 2"),
        (
            "axolotl",
            FAR,
            "axolotl train train.yaml --launcher torchrun -- --nproc-per-node 8 --nnodes 2 --rdzv-backend c10d "
            "--rdzv-id train --rdzv-endpoint $MASTER_ADDR:29500",
        ),
        ("llamafactory", ZERO3, "FORCE_TORCHRUN=1 NPROC_PER_NODE=4 llamafactory-cli train train.yaml"),
        (
            "llamafactory",
            FAR,
            "FORCE_TORCHRUN=1 NPROC_PER_NODE=8 NNODES=2 RDZV_ID=train MASTER_ADDR=$MASTER_ADDR MASTER_PORT=29500 "
            "llamafactory-cli train train.yaml",
        ),
        ("ms-swift", ZERO3, "NPROC_PER_NODE=4 swift pt train.yaml"),
        (
            "ms-swift",
            FAR,
            "NPROC_PER_NODE=8 NNODES=2 PET_RDZV_BACKEND=c10d PET_RDZV_ID=train PET_RDZV_ENDPOINT=$MASTER_ADDR:29500 "
            "swift pt train.yaml",
        ),
        ("llamafactory", FSDP2, "accelerate launch --config_file accelerate.yaml -m llamafactory.launcher train.yaml"),
    ],
)
def test_trainers_with_a_launcher_of_their_own(trainer: str, at: Placement, command: str) -> None:
    assert file_of(trainer, at).command == command


@pytest.mark.parametrize("at", [DDP, FAR, FSDP2])
def test_trl_hands_the_rest_to_accelerate(at: Placement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = pytest.importorskip("trl.cli.commands.base")
    from accelerate.commands import launch
    from trl.cli import accelerate_launcher
    from trl.cli.commands.training import TrainingCommand

    file = file_of("trl", at)
    saved(file, tmp_path)
    (tmp_path / "train.yaml").write_text(file.text + "use_cpu: true\n")
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    monkeypatch.setattr(accelerate_launcher, "launch_training_script", lambda **given: found.update(given))
    TrainingCommand("sft").run(None, base.CommandContext(["trl", "sft", *flags_of(file, "trl sft")]))
    assert found["training_script_args"] == ["--config", "train.yaml"]
    args = launch.launch_command_parser().parse_args([*found["launch_args"], "sft.py"])
    args, _, _ = launch._validate_launch_command(args)
    assert (args.num_processes, args.num_machines) == (at.gpus, at.nodes)
    assert (args.use_fsdp, args.multi_gpu) == (at is FSDP2, at is not FSDP2)


@pytest.mark.parametrize(("trainer", "key"), [("trl", "bnb_4bit_quant_storage: "), ("transformers", "quant_storage=")])
def test_four_bits_are_stored_as_what_is_computed_in(trainer: str, key: str) -> None:
    assert key not in file_of(trainer, DDP, "qlora").text
    assert key not in file_of(trainer, Placement(gpus=2, sharding="zero2"), "qlora").text
    for at in (FSDP2, ZERO3):
        (line,) = (line for line in file_of(trainer, at, "qlora").text.splitlines() if key in line)
        assert "bfloat16" in line


def test_axolotls_own_keys(tmp_path: Path) -> None:
    file = file_of("axolotl", FSDP2, "qlora")
    assert 'fsdp_config: {"fsdp_version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP", ' in file.text
    assert '"cpu_ram_efficient_loading": false' in file.text  # which it refuses with 4 bits
    assert [name for name, _ in file_of("axolotl", ZERO3).beside] == ["deepspeed.json"]
    schema = pytest.importorskip("axolotl.utils.schemas.config").AxolotlInputConfig
    yaml = pytest.importorskip("yaml")
    for at in (FSDP2, ZERO3, Placement(gpus=16, nodes=2, sharding="hsdp")):
        values = yaml.safe_load(file_of("axolotl", at, "qlora").text)
        parsed = schema(**values)
        assert set(values) <= set(schema.model_fields)
        assert (parsed.fsdp_version == 2) is (parsed.deepspeed is None) is (at is not ZERO3)


@pytest.mark.parametrize(
    ("trainer", "at", "knobs", "said"),
    [
        ("axolotl", FSDP2, {"optimizer": "adamw_8bit"}, "Axolotl refuses it with FSDP2"),
        ("axolotl", ZERO3, {"optimizer": "muon"}, "without DeepSpeed only"),
        ("llamafactory", ZERO3, {"optimizer": "galore"}, "without DeepSpeed only"),
        ("llamafactory", ZERO3, {"variant": "pissa"}, "no --variant pissa with it"),
        ("unsloth", FSDP2, {"stack": ("unsloth-2026.10",)}, "copies the model to each card"),
    ],
)
def test_what_a_trainer_does_not_spread_is_refused(trainer: str, at: Placement, knobs: Any, said: str) -> None:
    with pytest.raises(BadValue, match=said):
        file_of(trainer, at, **knobs)


def test_the_card_is_picked_before_the_model_is_loaded() -> None:
    text = file_of("transformers", DDP, "qlora").text
    assert text.index("arguments = TrainingArguments(") < text.index("AutoModelForCausalLM.from_pretrained(")


def test_a_base_that_no_card_holds_is_loaded_on_the_host() -> None:
    answer = advise("llama-3.1-70b", "24GB", 1000, gpus=4, sharding="fsdp2", method="qlora", seq_len=512)
    assert 'device_map="cpu"' in training_file(answer, answer.candidates[0]).text
    assert 'device_map="cpu"' not in file_of("transformers", FSDP2, "qlora").text
    targets: tuple[Target, ...] = ("trl", "axolotl", "llamafactory")
    for target in targets:
        with pytest.raises(InputError, match=f"^{target} loads the whole 4-bit base on each card first"):
            training_file(answer, answer.candidates[0], target)


def test_one_card_has_no_launcher() -> None:
    assert run_of("transformers", Placement()).gpus == 1
    assert file_of("transformers", Placement()).command == "python train.py"
