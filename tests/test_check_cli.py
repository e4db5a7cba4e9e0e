"""`advise check`: exit codes, several files, JSON, the gate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from advisor.cli import cli
from tests.configs.test_formats import AXOLOTL_FULL, AXOLOTL_QLORA


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fits.yml").write_text(AXOLOTL_QLORA)
    Path("large.yml").write_text(AXOLOTL_FULL)
    Path("odd.yml").write_text(f"{AXOLOTL_QLORA}new_kernel: true\n")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["check", *arguments])


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("fits.yml",), 0),
        (("odd.yml",), 5),
        (("fits.yml", "large.yml", "--optimizer", "adamw", "--base-dtype", "float32"), 3),
        (("fits.yml", "odd.yml"), 5),
        (("odd.yml", "--fail-on", "does-not-fit"), 0),
        (("odd.yml", "--fail-on", "unknown"), 5),
        (("gone.yml",), 4),
        (("fits.yml", "--fail-on", "never"), 2),
        (("fits.yml", "--rank", "many"), 2),
    ],
    ids=str,
)
def test_exit_codes(arguments: tuple[str, ...], code: int) -> None:
    result = run(*arguments, "--gpu", "a100-80gb")
    assert result.exit_code == code, result.output


def test_a_file_alone_needs_a_card_and_files_are_needed() -> None:
    assert "add --gpu" in run("fits.yml").stderr
    assert run().exit_code == 2


def test_first_line_is_the_verdict_and_the_change_is_a_diff() -> None:
    lines = run("large.yml", "--gpu", "a100-80gb").stdout.splitlines()
    assert lines[0].startswith("large.yml (Axolotl YAML): fits.")
    assert any(line.startswith("    -") for line in lines)
    assert any(line.startswith("    +") for line in lines)
    assert max(map(len, lines)) <= 80


def test_explain_names_every_key() -> None:
    output = run("fits.yml", "--gpu", "a100-80gb", "--explain").stdout
    assert "lora_r: 32 -> --rank 32" in " ".join(output.split())
    assert "learning_rate" in output


def test_json_holds_every_file() -> None:
    fits, odd = json.loads(run("fits.yml", "odd.yml", "--gpu", "a100-80gb", "--json").stdout)
    assert (fits["verdict"], odd["verdict"]) == ("fits", "unknown")
    assert odd["unread"][0]["key"] == "new_kernel"
    assert fits["advice"]["model_id"] == "NousResearch/Meta-Llama-3-8B"


def test_files_that_can_be_judged_are_before_the_errors_of_the_others() -> None:
    Path("other.yml").write_text("hello: world\n")
    Path("bare.yml").write_text("adapter: qlora\nbase_model:\nsequence_len: 512\nmicro_batch_size: 1\n")
    result = run("other.yml", "fits.yml", "bare.yml", "--gpu", "a100-80gb")
    assert (result.exit_code, result.stdout.count("fits.yml (Axolotl YAML): fits.")) == (2, 1)
    assert [line[:40] for line in result.stderr.splitlines()] == [
        f"advise: error: {name}.yml: whose configuration"[:40]
        if name == "other"
        else "advise: error: bare.yml names no model: "
        for name in ("other", "bare")
    ]
    assert run("other.yml", "--json", "--gpu", "a100-80gb").stdout == ""


def test_files_about_cards_go_with_the_run() -> None:
    Path("ds.json").write_text(json.dumps({"zero_optimization": {"stage": 3}}))
    Path("acc.yaml").write_text("distributed_type: MULTI_GPU\nnum_processes: 4\nnum_machines: 1\n")
    (zero,) = json.loads(run("large.yml", "ds.json", "--gpu", "a100-80gb", "--gpus", "4", "--json").stdout)
    (ddp,) = json.loads(run("fits.yml", "acc.yaml", "--gpu", "a100-80gb", "--json").stdout)
    assert (zero["advice"]["gpu"]["gpus"], zero["advice"]["gpu"]["sharding"]) == (4, "zero3")
    assert (ddp["advice"]["gpu"]["gpus"], ddp["advice"]["gpu"]["sharding"]) == (4, "ddp")
    assert "says how cards share a job" in run("ds.json", "--gpu", "a100-80gb").stderr


def test_from_is_the_same() -> None:
    judged = CliRunner().invoke(cli, ["--from", "odd.yml", "--gpu", "a100-80gb"])
    assert (judged.exit_code, judged.stdout) == (5, run("odd.yml", "--gpu", "a100-80gb").stdout)
    refused = CliRunner().invoke(cli, ["--from", "odd.yml", "--gpu", "24GB", "--write", "auto"])
    assert refused.stderr == "advise: error: --write has no effect with --from; leave it out\n"


@pytest.mark.parametrize(
    ("lines", "flags", "verdict"),
    [
        ("new_kernel: true\nbase_model: meta-llama/Llama-3.1-70B\nload_in_4bit: false\nadapter:\n", (), "unknown"),
        ("processor_type: AutoProcessor\n", (), "unknown"),
        ("processor_type: AutoProcessor\n", ("--images", "0"), "fits"),
        ("resize_token_embeddings_to_32x: true\n", (), "fits"),
        ("resize_token_embeddings_to_32x: true\nbase_model: gpt2\n", (), "unknown"),
    ],
)
def test_what_is_not_understood_is_unknown_unless_a_flag_says_it(
    lines: str, flags: tuple[str, ...], verdict: str
) -> None:
    Path("one.yml").write_text(f"{AXOLOTL_QLORA}{lines}")
    (found,) = json.loads(run("one.yml", "--gpu", "h100", "--json", *flags).stdout)
    assert found["verdict"] == verdict, found["why"]
