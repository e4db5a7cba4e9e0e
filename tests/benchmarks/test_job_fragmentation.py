"""Kinds, spreads and coverage of replayed jobs, from made-up cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from advisor.specs import Recipe, Workload
from benchmarks.job_fragmentation import FIGURES, Case, jobs, kind_of, print_coverage, read, spread_of, stated, written


def case(share: float, method: str = "lora", unit: int = 1) -> Case:
    recipe = Recipe.model_validate({"method": method})
    workload = Workload(seq_len=1024, mean_seq_len=512, pad_to_multiple_of=unit)
    return Case("a", recipe, workload, True, share, share / 2, share / 4)


def test_kinds_differ_in_training_and_in_the_number_of_lengths() -> None:
    kinds = {kind_of(one) for one in (case(0.1), case(0.2, "full"), case(0.3, unit=256))}
    assert len(kinds) == 3
    assert kind_of(case(0.1)) == kind_of(case(0.9, "dora"))


def test_a_spread_reaches_from_end_to_end_and_not_below_zero() -> None:
    assert tuple(spread_of([0.1, 0.2, 0.9])) == (0.1, 0.2, 0.9)
    assert spread_of([-0.5, 0.25, 0.5]).low == 0.0
    assert spread_of([0.12345]).high == 0.124


def test_cases_survive_a_file(tmp_path: Path) -> None:
    path, kept = tmp_path / "jobs.jsonl", [case(0.1), case(0.4, "full", 64)]
    path.write_text("".join(written(one) + "\n" for one in kept))
    assert read(path) == kept


def test_jobs_are_the_same_for_the_same_model() -> None:
    found = list(jobs("qwen3-0.6b"))
    assert found == list(jobs("qwen3-0.6b"))
    assert len({workload.pad_to_multiple_of for _, workload in found}) == 4


def test_coverage_counts_what_the_stated_intervals_hold(capsys: pytest.CaptureFixture[str]) -> None:
    likely = {figure: stated(case(0.0), figure).likely for figure in FIGURES}
    print_coverage([case(0.0)._replace(**likely), case(0.0)._replace(**dict.fromkeys(FIGURES, 99.0))])
    assert "2 jobs: reserved 50%" in capsys.readouterr().out
