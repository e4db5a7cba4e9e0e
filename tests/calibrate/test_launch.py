"""Launchers: what they say of a rank that died, and `calibrate` under one."""

from __future__ import annotations

import os

import pytest

from advisor.errors import InputError
from calibrate.launch import launcher, rank_that_died, started_ranks

REPORT = """E1128 torch/distributed/elastic/multiprocessing/api.py:1000] failed (exitcode: -9) local_rank: 1
Traceback (most recent call last):
  File "torch/distributed/run.py", line 1000, in <module>
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
calibrate.worker.rank_worker FAILED
------------------------------------------------------------
Failures:
[1]:
  rank      : 0 (local_rank: 0)
  exitcode  : 1 (pid: 71)
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-28_08:47:27
  rank      : 1 (local_rank: 1)
  exitcode  : {code} (pid: 72)
  error_file: <N/A>
============================================================"""


def test_the_rank_that_ended_first_is_named() -> None:
    assert rank_that_died(REPORT.format(code=-9).splitlines()).startswith("rank 1 was killed (signal 9), most likely")
    raised = ["Traceback (most recent call last):", "  File", "RuntimeError: no kernel", *REPORT.splitlines()]
    assert (
        rank_that_died("\n".join(raised).format(code=1).splitlines())
        == "rank 1 ended with code 1: RuntimeError: no kernel"
    )
    assert rank_that_died(["no torchrun"]) == "no torchrun"


def test_under_a_launcher_the_first_process_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert started_ranks() == 1
    for name, value in {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "0", "ACCELERATE_USE_FSDP": "1"}.items():
        monkeypatch.setenv(name, value)
    assert started_ranks() == 2
    assert not {"WORLD_SIZE", "LOCAL_WORLD_SIZE", "RANK", "ACCELERATE_USE_FSDP"} & set(os.environ)
    assert started_ranks() == 1


def test_the_others_end_and_several_machines_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit, match="0"):
        started_ranks()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(InputError, match="4 processes, 2 of them here"):
        started_ranks()


def test_as_many_ranks_as_cards() -> None:
    assert launcher(3)[-4:] == ("--nproc-per-node", "3", "-m", "calibrate.worker.rank_worker")
