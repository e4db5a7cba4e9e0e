"""The tape against the traced real step, for every architecture: static terms to the byte, peaks within 0.01 %."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

pytest.importorskip("torch")

from advisor.catalog.families import FAMILIES
from advisor.memory import predict_step_memory
from advisor.specs import METHODS, ModelSpec, Recipe
from calibrate.dryrun import trace_step
from calibrate.measurement import Trace
from tests.tape.tiny import CONFIGS, config, recipe, spec

BATCH, LENGTH = 2, 49
TOLERANCE = 1e-4
COMBINATIONS = list(itertools.product(METHODS, (False, True), (False, True)))


def some_combinations(index: int) -> list[tuple[Any, bool, bool]]:
    """Full fine-tuning as it comes and two of the 20 combinations of method, checkpointing and autocast, in turn."""
    drawn = [COMBINATIONS[(7 * index + step) % 20] for step in (3, 14)]
    return [("full", False, False), *drawn]


CASES = [
    pytest.param(name, *combination, id="-".join([name, combination[0], *("gc",) * combination[1],
                                                  *("autocast",) * combination[2]]))
    for index, name in enumerate(CONFIGS)
    for combination in some_combinations(index)
]


def static_of(trace: Trace) -> dict[str, int]:
    return {
        "base weights": trace.base_weights_bytes, "quantisation constants": trace.quantization_bytes,
        "adapters": trace.adapters_bytes, "optimizer states": trace.optimizer_states_bytes,
        "buffers": trace.buffers_bytes, "batch": trace.inputs_bytes,
    }  # fmt: skip


def check(m: ModelSpec, traced: dict[str, Any], chosen: Recipe, batch: int = BATCH, length: int = LENGTH) -> None:
    trace = trace_step(traced, chosen, batch, length, name_modules=False)
    predicted = predict_step_memory(m, chosen, batch, length, "cpu")
    blocks = dict(predicted.static_blocks)
    blocks["optimizer states"] = blocks.get("optimizer states", 0) + blocks.pop("optimizer step counters", 0)
    assert {name: blocks.get(name, 0) for name in static_of(trace)} == static_of(trace)
    for phase in ("forward", "backward"):
        assert predicted.phase_peaks[phase] == pytest.approx(trace.phase(phase).peak_bytes, rel=TOLERANCE), phase
    assert predicted.peak_bytes == pytest.approx(trace.peak_bytes, rel=TOLERANCE)


def test_every_architecture_is_here() -> None:
    assert {c["model_type"] for c in CONFIGS.values()} == set(FAMILIES)


@pytest.mark.parametrize(("name", "method", "checkpointing", "autocast"), CASES)
def test_peak_equals_the_trace(name: str, method: str, checkpointing: bool, autocast: bool) -> None:
    m = spec(name)
    check(m, config(name), recipe(m, method, gradient_checkpointing=checkpointing, autocast=autocast))


@pytest.mark.parametrize(("name", "method", "knobs"), [
    ("gpt2", "lora", {"target_modules": ("attention",), "dropout": 0.1}),
    ("phi", "dora", {"dropout": 0.1, "autocast": False}),
    ("falcon-40b", "lora", {"adapter_dtype": "bfloat16", "autocast": False}),
    ("olmo2", "qlora", {"quant": "int8", "gradient_checkpointing": False}),
    ("cohere2", "qlora", {"kbit_upcast": False, "double_quant": False}),
    ("glm", "lora", {"reentrant": True}),
    ("gemma3", "full", {"base_dtype": "float32"}),
    ("stablelm", "full", {"gradient_accumulation": 4}),
    ("smollm3", "lora", {"attention": "eager", "autocast": False}),
    ("granite-dropout", "lora", {"attention": "eager", "gradient_checkpointing": False}),
])
def test_other_knobs(name: str, method: str, knobs: dict[str, Any]) -> None:
    m = spec(name)
    check(m, config(name), recipe(m, method, **knobs))


@pytest.mark.parametrize(("name", "layers"), [("gemma3-sliding", 7), ("cohere2", 5), ("smollm3-sliding", 6)])
@pytest.mark.parametrize("method", ["full", "qlora"])
def test_layers_of_several_kinds_are_extended_right(name: str, layers: int, method: str) -> None:
    m = spec(name, layers)
    check(m, config(name, layers), recipe(m, method))
    check(m, config(name, layers), recipe(m, method, gradient_checkpointing=False), batch=1, length=97)
