"""How much memory PyTorch's caching allocator holds beyond the traced peak, and how much of that it needs.

    python -m benchmarks.fragmentation                     1,020 steps of 51 whole models (two hours)
    python -m benchmarks.fragmentation --models llama-3.2-1b

Needs the [calibrate] extra. Every traced step is replayed through `costs.allocator`: loading and three steps. For
each case it prints shares of the moving bytes (the traced peak less what stays allocated for the whole run): what the
allocator reserves beyond the peak when there is room, the least it needs (it empties its cache before it fails), and
both with expandable_segments:True. `costs.fragmentation` takes its shares from the table at the end. The last figure is
a share of the traced peak: what `max_memory_allocated` counts beyond it, from blocks too small to split.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from typing import NamedTuple

from advisor.catalog import find_model
from advisor.catalog.config_json import model_from_config
from advisor.costs.memory import predict_step_memory
from advisor.parameters.modules import parameter_count
from advisor.specs import METHODS
from benchmarks.against_trace import SHAPES, catalog_config, one_of_each_architecture, recipe_of
from calibrate.measurement import Trace
from calibrate.timeline import STATIC
from calibrate.worker.dryrun import trace_step

SPREAD = (0.05, 0.5, 0.95)
MORE = ("llama-3.2-1b", "llama-3.1-8b", "qwen2.5-0.5b", "qwen3-8b", "pythia-1.4b")
"""Replayed in addition to the smallest model of each architecture."""
MOST_PARAMETERS = 120e9
"""Larger ones take minutes per step."""


def models() -> list[str]:
    """The models replayed when no name is given."""
    smallest = (name for name in one_of_each_architecture() if parameter_count(find_model(name)) < MOST_PARAMETERS)
    return list(dict.fromkeys((*smallest, *MORE)))


class Case(NamedTuple):
    """One traced step."""

    model: str
    trace: Trace
    at_head: bool

    @property
    def kind(self) -> str:
        """The kind of step that `advisor.costs.fragmentation` distinguishes."""
        recipe = self.trace.recipe
        method = "full" if recipe.method == "full" else "adapters"
        return method + ", checkpointing" * recipe.gradient_checkpointing + (", at head" if self.at_head else "")

    @property
    def moving_bytes(self) -> int:
        """The peak, less what stays allocated for the whole run."""
        return self.trace.peak_bytes - sum(getattr(self.trace, f"{name}_bytes") for name in STATIC)

    @property
    def shares(self) -> dict[str, float]:
        """Held beyond the peak, over the moving bytes; unsplit blocks over the peak."""
        trace = self.trace
        held = {
            "reserved": trace.peak_reserved_bytes,
            "needed": trace.needed_reserved_bytes,
            "reserved, expandable": trace.peak_reserved_expandable_bytes,
            "needed, expandable": trace.needed_reserved_expandable_bytes,
        }
        shares = {name: (size - trace.peak_bytes) / self.moving_bytes for name, size in held.items()}
        return shares | {"unsplit": trace.peak_blocks_bytes / trace.peak_bytes - 1}


def cases(names: list[str], methods: list[str], layers: int) -> Iterator[Case]:
    """Trace every case."""
    for name in names:
        config = catalog_config(name, layers)
        spec = model_from_config(config, name, name)
        for method, checkpointing, shape in itertools.product(methods, (False, True), SHAPES):
            recipe = recipe_of(spec, method, checkpointing, True)
            head, others = predict_step_memory(spec, recipe, *shape, "cpu").part_peaks
            yield Case(name, trace_step(config, recipe, *shape, name_modules=False, capacity=True), head > others)


def show(case: Case) -> str:
    """One line."""
    trace = case.trace
    return (
        f"{case.model:22} {trace.recipe.method:6} {'checkpointing' * trace.recipe.gradient_checkpointing:13} "
        f"{trace.batch}x{trace.seq_len:<5} peak {trace.peak_bytes / 2**20:9.1f} MiB, moving "
        f"{case.moving_bytes / 2**20:9.1f}  " + "  ".join(f"{share:+.4f}" for share in case.shares.values())
    )


def spread(values: list[float]) -> str:
    """5 %, median, 95 % and the largest."""
    ordered, last = sorted(values), len(values) - 1
    return " ".join(f"{ordered[round(share * last)]:.3f}" for share in (*SPREAD, 1))


def main() -> int:
    """Print every case and the spread of each figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="", help="names with commas [default: one of each architecture, and more]")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--layers", type=int, default=0, help="cut the models to this many layers: larger shares")
    options = parser.parse_args()
    names = options.models.split(",") if options.models else models()
    found: list[Case] = []
    for case in cases(names, options.methods.split(","), options.layers):
        print(show(case), flush=True)
        found.append(case)
    print("5 %, median, 95 % and the largest share of the cases")
    for kind in sorted({case.kind for case in found}):
        for name in found[0].shares:
            shares = [case.shares[name] for case in found if case.kind == kind]
            print(f"{kind:34} {name:22} {spread(shares)} ({len(shares)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
