"""How long `--simulate` takes: the replay of 1,000 steps of Llama-3.1-8B, LoRA and full, and its memory.

    python -m benchmarks.simulation

Needs the [simulate] extra. Rows of 600 tokens on average and 2,048 at most, in micro-batches of 4. The functions are
compiled first, which takes some seconds once on a machine. Exits with 1 when a replay takes more than 10 s of processor
time, when the process takes more than 1 GiB, or when the same seed gives another answer.
"""

from __future__ import annotations

import resource
import sys
import time

from advisor.catalog import find_model
from advisor.costs.simulation import Simulated, simulated
from advisor.specs import METHODS, Recipe, Workload
from advisor.units import GIB

MODEL = "llama-3.1-8b"
WORKLOAD = Workload(seq_len=2048, mean_seq_len=600)
STEPS = 1000
MOST_S, MOST_BYTES = 10.0, GIB


def replay(method: str, steps: int, seed: int = 0) -> Simulated:
    """The replay of one method's job."""
    quant = "nf4" if method.startswith("q") else "none"
    recipe = Recipe.model_validate({"method": method, "micro_batch": 4, "quant": quant})
    return simulated(find_model(MODEL), recipe, WORKLOAD, steps, seed)


def main() -> int:
    """Print a line for each method."""
    replay("lora", 2)
    good = True
    for method in METHODS:
        begun = time.process_time()
        found = replay(method, STEPS)
        took_s = time.process_time() - begun
        good &= took_s <= MOST_S
        assert found.needed is not None
        low, likely, high = (size / GIB for size in found.needed)
        print(
            f"{method:6} {took_s:5.1f} s  reserved {found.reserved.likely / GIB:6.1f} GiB "
            f"({found.reserved.low / GIB:.1f} to {found.reserved.high / GIB:.1f})  "
            f"must fit {likely:.1f} GiB ({low:.1f} to {high:.1f})"
        )
    good &= replay("full", STEPS) == replay("full", STEPS)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    good &= peak_bytes <= MOST_BYTES
    print(f"memory of the process: {peak_bytes / GIB:.2f} GiB")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
