"""Where the time goes: the parts add up to the estimate, and differ between methods where the methods differ."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from advisor.catalog import find_gpus, find_model
from advisor.cli import cli
from advisor.costs.explanation import OPTIMIZER, PARTS, WAITING, compared, explain_time, part_of
from advisor.specs import METHODS, Method, Recipe, Workload

CARD = find_gpus("a100-80gb")[0]
WORK = Workload(seq_len=1024, mean_seq_len=1024)


def steps(model: str = "llama-3.2-1b") -> dict[Method, Any]:
    return {
        method: explain_time(
            find_model(model), Recipe(method=method, quant="nf4" if method[0] == "q" else "none"), WORK, CARD
        )
        for method in METHODS
    }


@pytest.fixture(scope="module")
def found() -> dict[Method, Any]:
    return steps()


def test_the_parts_add_up(found: dict[Method, Any]) -> None:
    for method, step in found.items():
        assert set(step.parts) == {*PARTS, OPTIMIZER, WAITING}
        inside = sum(seconds for name, seconds in step.parts.items() if name not in (OPTIMIZER, WAITING))
        assert inside == pytest.approx(step.kernels_s), method
        assert inside + step.parts[WAITING] >= step.micro_step_s * (1 - 1e-9)


def test_the_dearest_come_first(found: dict[Method, Any]) -> None:
    seconds = [kernel.seconds for kernel in found["lora"].kernels]
    assert seconds == sorted(seconds, reverse=True)
    assert found["lora"].kernels[0].kind == "matmul"


def test_methods_differ_where_they_should(found: dict[Method, Any]) -> None:
    base, lora, dora, dequantization = PARTS[:4]
    assert found["full"].parts[lora] == found["full"].parts[dora] == 0
    assert found["lora"].parts[lora] > 0 == found["lora"].parts[dora]
    assert found["dora"].parts[dora] > found["lora"].parts[lora]
    assert found["qlora"].parts[dequantization] > 0 == found["lora"].parts[dequantization]
    assert found["full"].parts[base] > 1.2 * found["lora"].parts[base]  # gradients of weights
    assert found["full"].parts[OPTIMIZER] > 5 * found["lora"].parts[OPTIMIZER]
    assert found["dora"].parts[base] == pytest.approx(found["lora"].parts[base])


def test_a_narrow_model_waits_for_its_launches() -> None:
    step = explain_time(find_model("smollm2-135m"), Recipe(method="lora"), Workload(seq_len=32, mean_seq_len=32), CARD)
    assert step.parts[WAITING] > 0.3 * step.micro_step_s


@pytest.mark.parametrize(
    ("kind", "place", "part"),
    [
        ("matmul", "q_proj", "base products"),
        ("matmul", "q_proj, LoRA", "LoRA adapters"),
        ("elementwise", "up_proj, DoRA", PARTS[2]),
        ("dequantize", "up_proj", "dequantization"),
        ("attention backward", "o_proj", "attention"),
        ("elementwise", "attention", "attention"),
        ("reduce", "loss", "head and loss"),
        ("reduce", "norm", "norms, activations, sums"),
    ],
)
def test_where_a_kernel_is_counted(kind: str, place: str, part: str) -> None:
    assert part_of(kind, place) == part


def test_parts_that_take_no_time_are_left_out(found: dict[Method, Any]) -> None:
    names = [name for name, _ in compared({"lora": found["lora"]})]
    assert "dequantization" not in names
    assert "base products" in names


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["--model", "llama-3.2-1b", "--examples", "3000", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_shows_ten_kernels_and_every_method() -> None:
    shown = run("--gpu", "rtx4090", "--explain-time")
    assert "most expensive kernels" in shown
    assert all(method in shown for method in METHODS)
    assert "DoRA: adapters, weights, norms" in shown
    assert "more kinds of kernels" in shown


def test_without_a_known_speed_it_says_so() -> None:
    assert "No kernels to show" in run("--gpu", "37GB", "--explain-time")


def test_json_says_that_the_flag_changes_nothing() -> None:
    result = CliRunner().invoke(cli, ["--model", "llama-3.2-1b", "--gpu", "t4", "--json", "--explain-time"])
    assert "--explain-time has no effect with --json" in result.stderr
