"""The formula's peak and work against the traced real step: models x methods x checkpointing x shapes x autocast.

    python benchmarks/against_trace.py                     the whole table (400 traces of full models; about 40 min)
    python benchmarks/against_trace.py --layers 3          the same models cut to three layers (about 10 min)
    python benchmarks/against_trace.py --models qwen3-8b --methods lora,dora
    python benchmarks/against_trace.py --every-architecture --layers 4
                                                           the smallest model of each architecture in the catalog
    python benchmarks/against_trace.py --rows padded       a mask with zeros; packed: position ids that begin anew
    python benchmarks/against_trace.py --evaluation        the forward of an evaluation beside each step

Needs the [calibrate] extra; no weights, no GPU, no network. Prints a row for each case (--all) or the worst per model
and method, with the position of the peak and the errors of kernels, FLOP and memory traffic. Exits with 1 when a peak
is off by more than 0.01 %, when a static term (base weights, quantization constants, adapters, optimizer states) is not
equal to the byte, when FLOP differ by more than 0.1 %, or launches or memory traffic by more than 3 %.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any, NamedTuple, get_args

from advisor.architectures import architecture_of
from advisor.catalog import find_model, model_entries
from advisor.catalog.config_json import model_from_config
from advisor.costs.micro_batches import MicroBatch
from advisor.parameters.targets import fails_on_all_linear, fuses_experts
from advisor.specs import DORA_METHODS, METHODS, ModelSpec, Recipe, RowKind
from calibrate.compare import evaluation_bytes, predicted_memory, predicted_work, traced_memory, traced_work
from calibrate.cut import cut_config
from calibrate.measurement import Work
from calibrate.worker.dryrun import trace_evaluation, trace_step

BAR = 0.0001
WORK_BARS = {"kernels": 0.03, "flop": 0.001, "bytes": 0.03}
MODELS = (
    "llama-3.2-1b",
    "llama-3.1-8b",
    "llama-2-7b",
    "qwen2.5-0.5b",
    "qwen2.5-7b",
    "qwen3-8b",
    "mistral-7b-v0.1",
    "gemma-2-2b",
    "phi-3-mini",
    "pythia-1.4b",
)
SHAPES = ((1, 512), (2, 2048))
AUTOCASTS = {"both": (False, True), "on": (True,)}
STATIC = ("base_weights_bytes", "quantization_bytes", "adapters_bytes", "optimizer_states_bytes")


class Case(NamedTuple):
    """One recipe at one shape, formula against trace."""

    model: str
    method: str
    checkpointing: bool
    autocast: bool
    batch: int
    length: int
    predicted_bytes: int
    traced_bytes: int
    peak_at: str
    static_equal: bool
    work_errors: dict[str, float]
    evaluation_error: float | None

    @property
    def error(self) -> float:
        """Prediction over trace, minus 1."""
        return self.predicted_bytes / self.traced_bytes - 1


def catalog_config(name: str, layers: int) -> dict[str, Any]:
    """The config.json of a catalog model, cut to its first `layers` layers (0: whole)."""
    text = (resources.files("profiles") / "models" / f"{name}.json").read_text(encoding="utf-8")
    config: dict[str, Any] = json.loads(text)["config"]
    if not layers:
        return config
    spec = model_from_config(config, name, name)
    return cut_config(config, spec, layers, spec.vocab_size)


def one_of_each_architecture() -> list[str]:
    """The smallest catalog model of every architecture."""
    found: dict[str, str] = {}
    for entry in sorted(model_entries(), key=lambda entry: entry.parameters):
        found.setdefault(find_model(entry.name).architecture, entry.name)
    return list(found.values())


def refuses_all_linear(spec: ModelSpec, method: str) -> bool:
    """Whether peft fails with all-linear: on routers that return more than one tensor, on fused experts with DoRA."""
    return fails_on_all_linear(spec) or (fuses_experts(spec) and method in DORA_METHODS)


def recipe_of(spec: ModelSpec, method: str, checkpointing: bool, autocast: bool) -> Recipe:
    """The recipe of one case: every other knob at its default."""
    return Recipe.model_validate(
        {
            "method": method,
            "quant": "nf4" if method in ("qlora", "qdora") else "none",
            "autocast": autocast,
            "gradient_checkpointing": checkpointing,
            "attention": spec.default_attention,
            "target_modules": ("attention",) if refuses_all_linear(spec, method) else ("all-linear",),
        }
    )


def cases(
    models: list[str],
    methods: list[str],
    layers: int,
    autocasts: tuple[bool, ...],
    shapes: Sequence[tuple[int, int]] = SHAPES,
    rows: RowKind = "full",
    evaluates: bool = False,
) -> Iterator[Case]:
    """Trace and predict every case."""
    if rows == "packed":
        shapes = [(1, batch * length) for batch, length in shapes]
    for name in models:
        config = catalog_config(name, layers)
        spec = model_from_config(config, name, name)
        if rows == "packed" and not architecture_of(spec.architecture).takes_position_ids:
            print(f"{name}: its code takes no position ids, so it cannot be packed by them", flush=True)
            continue
        for method, checkpointing, shape, autocast in itertools.product(methods, (False, True), shapes, autocasts):
            recipe = recipe_of(spec, method, checkpointing, autocast)
            trace = trace_step(config, recipe, *shape, name_modules=False, rows=rows)
            traced = traced_memory(trace)
            predicted = predicted_memory(spec, recipe, *shape, rows)
            evaluated = evaluates and not checkpointing  # which an evaluation does not know
            yield Case(
                name,
                method,
                checkpointing,
                autocast,
                *shape,
                predicted.peak_allocated_bytes,
                traced.peak_allocated_bytes,
                predicted.peak_at,
                all(getattr(predicted, term) == getattr(traced, term) for term in STATIC),
                work_errors(predicted_work(spec, recipe, *shape, rows), traced_work(trace)),
                evaluation_error(spec, config, recipe, shape, rows) if evaluated else None,
            )


def evaluation_error(
    spec: ModelSpec, config: dict[str, Any], recipe: Recipe, shape: tuple[int, int], rows: RowKind
) -> float:
    """Prediction over trace, minus 1, of an evaluation of the same rows."""
    traced = trace_evaluation(config, recipe, *shape, rows)
    batch = MicroBatch(*shape, padded=rows == "padded", packed=rows == "packed")
    return evaluation_bytes(spec, recipe, batch) / traced.peak_bytes - 1


def work_errors(predicted: Work, traced: Work) -> dict[str, float]:
    """Prediction over trace, minus 1, of kernels, FLOP and bytes."""
    return {name: getattr(predicted, name) / getattr(traced, name) - 1 for name in WORK_BARS}


def show(case: Case) -> str:
    """One line of the table."""
    return (
        f"{case.model:16} {case.method:6} {'checkpointing' if case.checkpointing else '':13} "
        f"{'autocast' if case.autocast else 'plain':8} {case.batch}x{case.length:<5} "
        f"formula {case.predicted_bytes / 2**20:11.2f} MiB  trace {case.traced_bytes / 2**20:11.2f} MiB  "
        f"{case.error:+.4%}  static terms {'equal' if case.static_equal else 'DIFFER'}  ({case.peak_at})  "
        + " ".join(f"{name} {error:+.2%}" for name, error in case.work_errors.items())
    )


def main() -> int:
    """Print the table; returns 1 when an error exceeds its limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--layers", type=int, default=0, help="cut the models to this many layers; 0: whole")
    parser.add_argument("--all", action="store_true", help="print every case, not only the worst per model and method")
    parser.add_argument("--autocast", choices=("both", "on"), default="both")
    parser.add_argument("--one-shape", action="store_true", help="only the larger one")
    parser.add_argument("--rows", choices=get_args(RowKind), default="full")
    parser.add_argument("--evaluation", action="store_true", help="also the forward of an evaluation")
    parser.add_argument("--every-architecture", action="store_true", help="the smallest model of each architecture")
    options = parser.parse_args()
    models = one_of_each_architecture() if options.every_architecture else options.models.split(",")
    start_s = time.perf_counter()
    found: list[Case] = []
    autocasts = AUTOCASTS[options.autocast]
    shapes = SHAPES[1:] if options.one_shape else SHAPES
    every = cases(
        models, options.methods.split(","), options.layers, autocasts, shapes, options.rows, options.evaluation
    )
    for _, group in itertools.groupby(every, key=lambda c: (c.model, c.method)):
        of_method = list(group)
        found += of_method
        for case in of_method if options.all else [max(of_method, key=lambda c: abs(c.error))]:
            print(show(case), flush=True)
    worst = max(found, key=lambda case: abs(case.error))
    unequal = sum(not case.static_equal for case in found)
    print(
        f"{len(found)} cases in {time.perf_counter() - start_s:.0f} s: worst {worst.error:+.4%} "
        f"({worst.model} {worst.method}), static terms differ in {unequal}; bar {BAR:.2%}"
    )
    missed = abs(worst.error) > BAR or unequal > 0
    for name, bar in WORK_BARS.items():
        errors = [case.work_errors[name] for case in found]
        print(f"{name}: {min(errors):+.2%} to {max(errors):+.2%}; bar {bar:.1%}")
        missed |= max(map(abs, errors)) > bar
    if evaluated := [case for case in found if case.evaluation_error is not None]:
        worst = max(evaluated, key=lambda case: abs(case.evaluation_error or 0.0))
        print(
            f"{len(evaluated)} evaluations: worst {worst.evaluation_error:+.4%} ({worst.model} {worst.method} "
            f"{worst.batch}x{worst.length}); bar {BAR:.2%}"
        )
        missed |= abs(worst.evaluation_error or 0.0) > BAR
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
