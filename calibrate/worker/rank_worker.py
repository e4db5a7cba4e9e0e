"""One rank of a burst on several cards: torchrun starts as many as there are cards. Imports torch; run as `python -m`.

All ranks share standard input and output with the launcher. The first one sends the first message, reads the job and
gives it to the others, and answers, as `calibrate.worker.burst_worker` does; a rank that is refused or out of memory
answers in its place, and one that fails ends, which its launcher reports. Each has one card. A rank ends when the
launcher does, and when the other end of standard input is closed.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from advisor.costs.micro_batches import MicroBatch
from advisor.errors import AdvisorError
from advisor.specs import Placement, Recipe
from calibrate.worker.burst_worker import Say, end_with_parent, failure, load, next_line
from calibrate.worker.trace_worker import claim_stdout, environment

BETWEEN_RANKS = ("gloo", "nccl", "connection")
"""In what a rank raises because another one has ended."""
LATER_S = 2.0
"""How much later such a rank ends, so that the launcher names the one that ended first."""
POLL_S = 0.5
VISIBLE = "CUDA_VISIBLE_DEVICES"


def main() -> None:
    """Do one job as one of the ranks."""
    rank = int(os.environ["RANK"])
    say = claim_stdout()
    end_with_parent()
    _end_with_launcher()
    _see_one_card(int(os.environ["LOCAL_RANK"]))
    try:
        load(False)
    except ImportError as error:
        if rank == 0:
            say({"missing": error.name or str(error)})
        return
    try:
        _answer(rank, say)
    except AdvisorError as error:
        say({"refused": str(error)})
    except MemoryError:
        say({"out_of_memory": f"rank {rank}: this machine ran out of memory"})
    except Exception as error:
        if text := failure(error).get("out_of_memory"):
            say({"out_of_memory": f"rank {rank}: {text}"})
        if any(name in str(error).lower() for name in BETWEEN_RANKS):
            time.sleep(LATER_S)
        raise


def _end_with_launcher() -> None:
    """End this process once another one is its parent."""
    launcher = os.getppid()

    def wait() -> None:
        while os.getppid() == launcher:
            time.sleep(POLL_S)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _see_one_card(local_rank: int) -> None:
    """Leave only this rank's card visible, before torch looks for cards."""
    cards = os.environ.get(VISIBLE, "").split(",")
    os.environ[VISIBLE] = cards[local_rank] if local_rank < len(cards) and cards[0] else str(local_rank)


def _answer(rank: int, say: Say) -> None:
    import torch
    import torch.distributed as dist

    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    if rank == 0:
        say({"environment": environment().model_dump(), "forks": False})
    job = [json.loads(next_line() or "null")] if rank == 0 else [None]
    dist.broadcast_object_list(job, src=0, device=torch.device("cpu"))
    if job[0] is not None:
        found = _burst(job[0]["burst"], say if rank == 0 else lambda _: None)
        if rank == 0:
            say(found)
    dist.destroy_process_group()


def _burst(job: Mapping[str, Any], say: Say) -> dict[str, Any]:
    """Measure one burst."""
    from calibrate.worker.burst import Limits
    from calibrate.worker.device import open_device
    from calibrate.worker.patches import quiet
    from calibrate.worker.rank_burst import RankTraining, run_rank

    begin_s = time.perf_counter()
    with quiet(), contextlib.redirect_stdout(sys.stderr):
        device, recipe = open_device(job["device"]).device, Recipe.model_validate(job["recipe"])
        device.configure(recipe.expandable_segments)
        batch = MicroBatch(*job["batch"]) if job.get("batch") else MicroBatch(recipe.micro_batch, job["seq_len"])
        placement = Placement.model_validate(job["placement"])
        training = RankTraining(job["config"], recipe, placement, batch, device, job.get("code", ""))
        build_s = time.perf_counter() - begin_s
        limits = Limits(job["steps"], job["limit_s"], begin_s + job.get("left_s", math.inf))
        figures, run = run_rank(training, limits, say)
    return {"measured": figures.model_dump(), "run": run.model_copy(update={"build_s": build_s}).model_dump()}


if __name__ == "__main__":
    main()
