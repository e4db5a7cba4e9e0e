"""How much more than the allocated peak PyTorch's caching allocator reserves, and how much of that it needs.

    python -m benchmarks.fragmentation                     whole models (about 15 min)
    python -m benchmarks.fragmentation --models llama-3.2-1b

Needs the [calibrate] extra. Every traced step is replayed through `advisor.allocator`: loading and three steps. For
each case four figures, as shares of the moving bytes (the traced peak less what stands for the whole run): what the
allocator reserves beyond the peak where there is room, the least that it gets by with (it empties its cache before it
fails), and both with expandable_segments:True. `advisor.fragmentation` takes its shares from the table at the end.
"""

from __future__ import annotations

import argparse
import itertools
import sys

from advisor.catalog.config_json import model_from_config
from advisor.specs import METHODS
from benchmarks.against_trace import SHAPES, catalog_config, recipe_of
from calibrate.dryrun import trace_step
from calibrate.timeline import STATIC

MODELS = (
    "llama-3.2-1b", "qwen2.5-0.5b", "smollm-135m", "gemma-2-2b", "pythia-1.4b", "qwen3-8b",
)  # fmt: skip
FIGURES = ("reserved", "needed", "reserved, expandable", "needed, expandable")


def _spread(values: list[float]) -> str:
    ordered, last = sorted(values), len(values) - 1
    return " ".join(f"{ordered[round(share * last)]:.2f}" for share in (0.05, 0.5, 0.95))


def main() -> int:
    """Print every case and the spread of each figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--methods", default=",".join(METHODS))
    options = parser.parse_args()
    found: list[tuple[tuple[bool, bool], tuple[float, ...]]] = []
    for name in options.models.split(","):
        config = catalog_config(name, 0)
        spec = model_from_config(config, name, name)
        for method, checkpointing, shape in itertools.product(options.methods.split(","), (False, True), SHAPES):
            recipe = recipe_of(spec, method, checkpointing, True)
            trace = trace_step(config, recipe, *shape, name_modules=False, capacity=True)
            moving = trace.peak_bytes - sum(getattr(trace, f"{name}_bytes") for name in STATIC)
            shares = tuple((size - trace.peak_bytes) / moving for size in (
                trace.peak_reserved_bytes, trace.needed_reserved_bytes,
                trace.peak_reserved_expandable_bytes, trace.needed_reserved_expandable_bytes,
            ))  # fmt: skip
            found.append(((method == "full", checkpointing), shares))
            print(f"{name:16} {method:6} {'checkpointing' if checkpointing else '':13} {shape[0]}x{shape[1]:<5} "
                  f"allocated {trace.peak_bytes / 2**20:9.1f} MiB, moving {moving / 2**20:9.1f}  "
                  + "  ".join(f"{value:+.3f}" for value in shares), flush=True)  # fmt: skip
    print("5 %, median and 95 % of the cases")
    for kind in sorted({kind for kind, _ in found}):
        name = ("full" if kind[0] else "adapters") + (", checkpointing" if kind[1] else "")
        print(f"{name:24} " + "  ".join(
            f"{what} {_spread([shares[place] for one, shares in found if one == kind])}"
            for place, what in enumerate(FIGURES)
        ))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
