"""What starts a job on several cards."""

from __future__ import annotations

import pytest

from advisor import advise
from advisor.errors import InputError
from advisor.export.training_file import training_file

QUESTION = {"model": "llama-3.2-1b", "gpu": "rtx4090", "examples": 3000, "gpus": 2}


def started(**knobs: object) -> str:
    """The line that starts the script of the only method."""
    answer = advise(**QUESTION, **knobs)
    text = training_file(answer, answer.candidates[0]).text
    return next(line for line in text.splitlines() if line.startswith("# run: "))


def test_a_copy_on_each_card_starts_by_torchrun() -> None:
    assert "torchrun --nproc-per-node 2" in started(method="lora", sharding="ddp")


def test_fsdp2_starts_by_accelerate_with_flags_that_it_takes() -> None:
    launch = pytest.importorskip("accelerate.commands.launch")
    command = started(method="lora", sharding="fsdp2", reshard=False, offload="parameters")
    flags = command.removeprefix("# run: accelerate launch ").split()
    found = launch.launch_command_parser().parse_args(flags)
    assert (found.use_fsdp, found.num_processes, found.fsdp_version) == (True, 2, "2")
    assert (found.fsdp_reshard_after_forward, found.fsdp_offload_params) == ("false", "true")
    assert found.mixed_precision == "bf16"


def test_fsdp1_starts_with_flags_of_its_own() -> None:
    command = started(method="lora", sharding="fsdp1", reshard=False)
    assert "--fsdp_version 1 --fsdp_sharding_strategy SHARD_GRAD_OP --fsdp_backward_prefetch NO_PREFETCH" in command


@pytest.mark.parametrize("knobs", [{"method": "qlora"}, {"method": "lora", "trainer": "axolotl"}])
def test_what_no_file_says_yet_is_refused(knobs: dict[str, object]) -> None:
    with pytest.raises(InputError, match="no file yet for fsdp2"):
        started(sharding="fsdp2", **knobs)
