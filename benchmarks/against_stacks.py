"""The formula's peak against the traced real step under other library versions: stacks x models x 5 methods.

    python -m benchmarks.against_stacks --make              also installs the versions, each into a folder of its own
    python -m benchmarks.against_stacks --stacks transformers-4.57

Needs the [calibrate] extra and the folders that `calibrate stack` makes; no weights, no GPU. Models are cut to few
layers, experts and tokens of the vocabulary, so that every part of a layer shows. Prints the worst case per stack,
model and method; exits with 1 when a peak is off by more than 0.1 % or a static term is not equal to the byte. What
cannot be traced is listed with the reason. bitsandbytes before 0.46 runs with its compiled functions silenced: they
only fill tensors that Python made.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from importlib import resources
from typing import Any, NamedTuple

from advisor.catalog.config_json import model_from_config
from advisor.costs.micro_batches import MicroBatch
from advisor.errors import AdvisorError
from advisor.libraries import libraries_of
from advisor.parameters.replacing import BY_BASE
from advisor.parameters.stored import as_stored
from advisor.recipes import build_recipe
from advisor.specs import METHODS, Recipe
from benchmarks.against_trace import STATIC, refuses_all_linear
from calibrate.compare import predicted_memory, traced_memory
from calibrate.manager import TraceWorker
from calibrate.stacks import beside, folders, is_complete, make, run_pip

BAR = 0.001
STACKS = (
    "",
    "transformers-5.0",
    "transformers-4.57",
    "transformers-4.57,peft-0.18,bitsandbytes-0.46",
    "transformers-4.50",
    "transformers-4.45",
    "transformers-4.45,peft-0.11,bitsandbytes-0.42",
    "transformers-4.45,peft-0.9,bitsandbytes-0.43",
)
SMALL = {"num_hidden_layers": 3, "vocab_size": 8192}
MODELS: dict[str, dict[str, Any]] = {
    "llama-3.2-1b": SMALL,
    "qwen2.5-0.5b": SMALL,
    "mixtral-8x7b": SMALL | {"num_hidden_layers": 2, "num_local_experts": 4, "intermediate_size": 3584},
    "qwen3-30b-a3b": SMALL | {"num_experts": 16},
    "olmoe-1b-7b": SMALL | {"num_experts": 8, "num_hidden_layers": 2},
    "qwen1.5-moe-a2.7b": SMALL | {"num_experts": 8, "num_hidden_layers": 2},
    "glm-4.5-air": SMALL | {"n_routed_experts": 8, "hidden_size": 2048, "intermediate_size": 4096},
}
SHAPES = {False: (2, 512), True: (1, 301)}
"""By whether the model has experts, whose loop is slow to trace; 301 tokens are not shared evenly."""


class Case(NamedTuple):
    """One recipe under one stack, formula against trace."""

    stack: str
    model: str
    method: str
    what: str
    predicted_bytes: int
    traced_bytes: int
    static_equal: bool
    peak_at: str

    @property
    def error(self) -> float:
        """Prediction over trace, minus 1."""
        return self.predicted_bytes / self.traced_bytes - 1


def cut_model(name: str) -> dict[str, Any]:
    """The config.json of a catalog model, with the sizes of MODELS."""
    text = (resources.files("profiles") / "models" / f"{name}.json").read_text(encoding="utf-8")
    config: dict[str, Any] = json.loads(text)["config"]
    return config | MODELS[name]


def recipes(config: dict[str, Any], stack: tuple[str, ...], method: str) -> Iterator[tuple[str, Recipe]]:
    """What is traced: with and without checkpointing, adapters with dropout, and OFT where an older one is mirrored."""
    spec = as_stored(model_from_config(config, "cut", "cut"), stack)
    targets = ("attention",) if refuses_all_linear(spec, method) else ("all-linear",)
    fixed: dict[str, Any] = {"stack": stack, "target_modules": targets, "attention": spec.default_attention}
    for what, knobs in (
        ("", {"gradient_checkpointing": False}),
        ("checkpointing", {"gradient_checkpointing": True}),
        ("dropout", {"gradient_checkpointing": False, "dropout": 0.1}),
    ):
        if what != "dropout" or (method in ("dora", "qdora") and not spec.num_experts):
            yield what, build_recipe(method, fixed | knobs)  # type: ignore[arg-type]
    if method in ("lora", "qlora") and not spec.num_experts and libraries_of(stack).peft == BY_BASE:
        yield "OFT", build_recipe(method, fixed | {"variant": "oft"})  # type: ignore[arg-type]


def cases(name: str, model: str, methods: list[str], worker: TraceWorker) -> Iterator[Case | str]:
    """Trace and predict every recipe of a model under a stack; a line for each that cannot be traced."""
    config, stack = cut_model(model), tuple(name.split(",")) if name else ()
    for method in methods:
        try:
            spec = as_stored(model_from_config(config, model, model), stack)
            shape = SHAPES[bool(spec.num_experts)]
            for what, recipe in recipes(config, stack, method):
                traced = traced_memory(worker.trace(config, recipe, MicroBatch(*shape))[0])
                predicted = predicted_memory(spec, recipe, *shape)
                equal = all(getattr(predicted, term) == getattr(traced, term) for term in STATIC)
                peaks = predicted.peak_allocated_bytes, traced.peak_allocated_bytes
                yield Case(name, model, method, what, *peaks, equal, predicted.peak_at)
        except AdvisorError as error:
            yield f"{name or 'mirrored':45} {model:18} {method:6} not traced: {error}"


def show(case: Case) -> str:
    """One line of the table."""
    return (
        f"{case.stack or 'mirrored':45} {case.model:18} {case.method:6} {case.what:13} "
        f"formula {case.predicted_bytes / 2**20:9.2f} MiB  trace {case.traced_bytes / 2**20:9.2f} MiB  "
        f"{case.error:+.4%}  static terms {'equal' if case.static_equal else 'DIFFER'}  ({case.peak_at})"
    )


def main() -> int:
    """Print the table; returns 1 when an error exceeds the bar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stacks", nargs="*", default=list(STACKS))
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--make", action="store_true", help="install the versions that are missing")
    parser.add_argument("--all", action="store_true", help="print every case, not only the worst per model and method")
    options = parser.parse_args()
    found: list[Case] = []
    for stack in options.stacks:
        names = beside(tuple(stack.split(",")) if stack else ())
        for name in names:
            if options.make and not is_complete(name):
                make(name, run_pip)
        with TraceWorker(folders=folders(names)) as worker:
            for model in options.models.split(","):
                for method in options.methods.split(","):
                    mine: list[Case] = []
                    for case in cases(stack, model, [method], worker):
                        if isinstance(case, str):
                            print(case, flush=True)
                        else:
                            mine.append(case)
                    for case in mine if options.all else sorted(mine, key=lambda one: abs(one.error))[-1:]:
                        print(show(case), flush=True)
                    found += mine
    worst = max(found, key=lambda case: abs(case.error))
    unequal = sum(not case.static_equal for case in found)
    print(
        f"{len(found)} cases: worst {worst.error:+.4%} ({worst.stack} {worst.model} {worst.method}), static terms "
        f"differ in {unequal}; bar {BAR:.1%}"
    )
    return int(abs(worst.error) > BAR or unequal > 0)


if __name__ == "__main__":
    sys.exit(main())
