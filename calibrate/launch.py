"""Processes of several cards: how they are started, what a launcher says of one that died, and life under one.

Bursts on several cards run under torchrun, which `accelerate launch` is built on. Where a launcher has started
`calibrate` itself, the first process goes on and starts the ranks of each burst anew; the others end. Needs no torch.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

from advisor.errors import InputError
from calibrate.child import end_of, last_line

OF_LAUNCHERS = (
    "ACCELERATE_",
    "FSDP_",
    "GROUP_",
    "LOCAL_",
    "MASTER_",
    "PARALLELISM_CONFIG_",
    "RANK",
    "ROLE_",
    "TORCHELASTIC_",
    "WORLD_SIZE",
)
"""How variables begin that torchrun and accelerate set: they would reach the processes that are started here."""


def launcher(ranks: int) -> tuple[str, ...]:
    """The command that starts the ranks of a burst on this machine."""
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks))
    return (*torchrun, "-m", "calibrate.worker.rank_worker")


def rank_that_died(lines: Sequence[str]) -> str:
    """Which rank ended first and how, by torchrun's summary; the last line without one.

    Source: PyTorch 2.13, distributed/elastic/multiprocessing/errors/__init__.py, ChildFailedError.format_msg.
    """
    text = "\n".join(lines)
    first = text.partition("Root Cause")[2]
    rank, code = re.search(r"rank\s*:\s*(\d+)", first), re.search(r"exitcode\s*:\s*(-?\d+)", first)
    if rank is None or code is None:
        return last_line(lines)
    before = [line for line in text.partition("Traceback")[2].splitlines() if re.match(r"\w*(Error|Exception)\b", line)]
    return f"rank {rank[1]} {end_of(int(code[1]), before[-1] if before else 'see its output')}"


def started_ranks() -> int:
    """As how many processes a launcher has started this command; 1 without one.

    Ends all but the first, and removes the launcher's variables. Raises InputError for processes on several machines.
    """
    ranks = os.environ.get("WORLD_SIZE", "1")
    if not ranks.isdigit() or "RANK" not in os.environ:
        return 1
    if os.environ["RANK"] != "0":
        sys.exit(0)
    here = os.environ.get("LOCAL_WORLD_SIZE", ranks)
    for name in [name for name in os.environ if name.startswith(OF_LAUNCHERS)]:
        del os.environ[name]
    if here != ranks:
        raise InputError(f"a launcher started {ranks} processes, {here} of them here: bursts run on one machine")
    return int(ranks)
