"""Bytes that a simulated allocator holds beyond the tensors of an evaluation, over the moving bytes.

    python -m benchmarks.evaluation_shares        (about 4 minutes)

Traced evaluations of whole models, three batches each: the shares of `advisor.costs.fragmentation`. No training step
runs between them, whose cached segments an evaluation may use.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from statistics import median

from advisor.costs.allocator import Replay
from advisor.recipes import build_recipe
from advisor.specs import Method
from calibrate.options import config_of
from calibrate.reserved import held, smallest_capacity_between
from calibrate.timeline import Timeline
from calibrate.worker.dryrun import evaluation_timeline

MODELS = ("llama-3.2-1b", "qwen2.5-0.5b", "pythia-1.4b", "smollm2-1.7b", "phi-2", "gemma-3-1b", "olmo-2-1b")
METHODS: tuple[Method, ...] = ("full", "lora", "qlora")
SHAPES = ((8, 512), (4, 2048))
BATCHES = 3
ACCURACY = 0.002


def requests(timeline: Timeline) -> Iterator[tuple[int, int]]:
    """(number, bytes) for each allocation, (number, 0) for each release: what is held for good, then the batches."""
    found, start = timeline.allocations, timeline.marks[0][0]
    for index in timeline.moves[:start]:
        yield index, found[index].bytes
    for batch in range(1, BATCHES + 1):
        live: dict[int, None] = {}
        for move in timeline.moves[start:]:
            key = (move if move >= 0 else -move - 1) + batch * len(found)
            if move >= 0:
                live[key] = None
                yield key, found[move].bytes
            elif key in live:
                del live[key]
                yield key, 0
        yield from ((key, 0) for key in live)


def _replay(timeline: Timeline, expandable: bool, capacity_bytes: int = 0) -> Replay:
    return held(requests(timeline), expandable, capacity_bytes)


def main() -> None:
    """Print 5 %, median and 95 % of the shares, by full fine-tuning and expandable segments."""
    found: dict[tuple[bool, bool], list[tuple[float, float]]] = defaultdict(list)
    for name, method, shape in itertools.product(MODELS, METHODS, SHAPES):
        timeline = evaluation_timeline(config_of(name), build_recipe(method, {}), *shape)
        peak = timeline.phase_peaks()[0]
        moving = peak.peak_bytes - peak.begin_bytes
        for expandable in (False, True):
            replay = partial(_replay, timeline, expandable)
            reserved = replay().peak_reserved_bytes
            least = smallest_capacity_between(replay, peak.peak_bytes, reserved, ACCURACY)
            shares = (reserved - peak.peak_bytes) / moving, (least - peak.peak_bytes) / moving
            found[method == "full", expandable].append(shares)
            kind = "expandable" if expandable else "fixed"
            print(f"{name:14} {method:6} {shape} {kind:10} reserved {shares[0]:.3f} needed {shares[1]:.3f}", flush=True)
    for (full, expandable), pairs in sorted(found.items()):
        for what, values in zip(("reserved", "needed"), zip(*pairs, strict=True), strict=True):
            ordered = sorted(values)
            low, high = ordered[round(0.05 * (len(ordered) - 1))], ordered[round(0.95 * (len(ordered) - 1))]
            print(f"full {full} expandable {expandable} {what}: {low:.3f} {median(ordered):.3f} {high:.3f}")


if __name__ == "__main__":
    main()
