"""The verdict on a configuration file, and its changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from advisor.advice.check import check
from advisor.errors import InputError, UnknownName
from tests.configs.test_formats import AXOLOTL_FULL, AXOLOTL_QLORA, TRL, UNSLOTH


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("qlora.yml").write_text(AXOLOTL_QLORA)
    Path("full.yml").write_text(AXOLOTL_FULL)


def test_nothing_of_the_run_is_chosen() -> None:
    advice = check("qlora.yml", "a100-80gb").advice
    assert advice is not None
    assert not {"micro_batch", "gradient_checkpointing", "attention", "optimizer", "kernels"} & set(advice.chosen)
    recipe = advice.candidates[0].recipe
    assert (recipe.method, recipe.rank, recipe.micro_batch, recipe.gradient_accumulation) == ("qlora", 32, 2, 4)


def test_verdicts() -> None:
    assert check("qlora.yml", "a100-80gb").verdict == "fits"
    assert check("full.yml", "24GB").verdict == "does_not_fit"
    Path("odd.yml").write_text(f"{AXOLOTL_QLORA}new_kernel: true\n")
    odd = check("odd.yml", "a100-80gb")
    assert (odd.verdict, len(odd.why)) == ("unknown", 1)
    assert "new_kernel: true" in odd.why[0]
    Path("dpo.yml").write_text(f"{AXOLOTL_QLORA}rl: dpo\n")
    assert (check("dpo.yml", "a100-80gb").verdict, check("dpo.yml", "a100-80gb").advice) == ("unknown", None)


def test_an_unknown_key_makes_what_would_not_fit_unknown_too() -> None:
    Path("odd.yml").write_text(f"{AXOLOTL_FULL}new_kernel: true\n")
    odd = check("odd.yml", "24GB")
    assert (odd.verdict, len(odd.why), [one.key for one in odd.unread]) == ("unknown", 1, ["new_kernel"])
    assert odd.advice is not None
    assert odd.advice.candidates[0].verdict == "does_not_fit"


def test_a_model_that_is_not_known_makes_it_unknown() -> None:
    Path("odd.yml").write_text(AXOLOTL_QLORA.replace("NousResearch/Meta-Llama-3-8B", "acme/never-heard-of-7b"))
    odd = check("odd.yml", "24GB")
    assert odd.verdict == "unknown"
    assert "acme/never-heard-of-7b" in odd.why[0]


def test_a_change_is_a_diff_of_the_file() -> None:
    edits = [one for one in check("full.yml", "a100-40gb").edits if one.diff]
    shorter = next(one for one in edits if one.flags and one.flags[0].startswith("--seq-len"))
    lines = shorter.diff.splitlines()
    assert "-sequence_len: 8192" in lines
    assert f"+sequence_len: {shorter.flags[0].split()[1]}" in lines
    assert sum(line.startswith(("+", "-")) and not line.startswith(("+++", "---")) for line in lines) == 2
    changed = AXOLOTL_FULL.replace("sequence_len: 8192", f"sequence_len: {shorter.flags[0].split()[1]}")
    Path("full.yml").write_text(changed)
    assert check("full.yml", "a100-40gb").verdict == "fits"


def test_flags_win_over_the_file() -> None:
    advice = check("qlora.yml", "a100-80gb", rank=8, micro_batch=4).advice
    assert advice is not None
    assert (advice.candidates[0].recipe.rank, advice.candidates[0].recipe.micro_batch) == (8, 4)


def test_flags_are_said_and_what_they_replace_has_no_diff() -> None:
    checked = check("full.yml", "a100-40gb", seq_len="4096")
    assert checked.given == ("--seq-len 4096",)
    of_flags = [one for one in checked.edits if one.flags[0].startswith("--seq-len ")]
    assert [one.diff for one in of_flags] == [""] * len(of_flags) != []
    assert any(one.diff for one in check("full.yml", "a100-40gb").edits if one.flags[0].startswith("--seq-len "))


def test_a_model_is_given_in_the_file_s_place() -> None:
    advice = check("qlora.yml", "a100-80gb", model="qwen2.5-0.5b").advice
    assert advice is not None
    assert advice.model.name == "qwen2.5-0.5b"


def test_rows_kept_for_evaluation_are_not_trained_on() -> None:
    Path("held.yml").write_text(f"{AXOLOTL_QLORA.replace('val_set_size: 0', 'val_set_size: 0.1')}evals_per_epoch: 2\n")
    advice = check("held.yml", "a100-80gb", examples=1000).advice
    assert advice is not None
    assert (advice.workload.examples, advice.workload.eval_examples) == (900, 100)


def test_the_last_step_ends_the_time() -> None:
    Path("cpt.py").write_text(UNSLOTH.replace("pick_a_rate()", "1e-4"))
    checked = check("cpt.py", "a100-80gb", examples=100_000)
    assert checked.advice is not None
    assert checked.total_s is not None
    time = checked.advice.candidates[0].time
    assert time is not None
    assert checked.total_s.likely == pytest.approx(time.total_s.likely * 120 / time.steps)


def test_what_is_missing_is_asked_for() -> None:
    with pytest.raises(InputError, match=r"qlora\.yml names no card: add --gpu"):
        check("qlora.yml")
    with pytest.raises(UnknownName, match="unknown GPU"):
        check("qlora.yml", "acme9000")
    Path("trl.yaml").write_text(f"{TRL}fsdp_config:\n  fsdp_version: 2\n")
    with pytest.raises(InputError, match="spreads the job by fsdp2: add --gpus"):
        check("trl.yaml", "a100-80gb")
    spread = check("trl.yaml", "a100-80gb", gpus=4).advice
    assert spread is not None
    assert (spread.workload.batch_size, spread.gpu.sharding) == (32, "fsdp2")
