"""The forward of an evaluation against the traced one: every architecture, full, padded and packed rows, within 0.01 %.

All methods, with and without autocast (half an hour): EVERY_COMBINATION=1 make test
PYTEST_FLAGS=tests/decoders/test_evaluation.py
"""

from __future__ import annotations

import itertools
from typing import Any, get_args

import pytest

pytest.importorskip("torch")

from advisor.architectures import architecture_of
from advisor.costs.moments import base_of, beginnings, predict_evaluation_memory
from advisor.specs import METHODS, RowKind
from calibrate.worker.dryrun import trace_evaluation
from calibrate.worker.loading import traced_loading
from tests.decoders.test_against_trace import EVERY_COMBINATION, PACKED_SHAPE, SHAPE, TOLERANCE, layers_of
from tests.decoders.tiny import CONFIGS, config, recipe, spec

SMALL = 5 * 1024
"""Bytes of what the tape leaves out: ALiBi's slopes (BLOOM, Falcon), a mask of the kind of attention that no layer of a
model cut to two uses (OLMo 3, Qwen 2's mixture)."""
ROWS: tuple[RowKind, ...] = get_args(RowKind)
SLOW = ("gemma3n", "gemma3n-sliding", "gemma4-shared-sliding")
"""Of many layers; the traces of their training step hold the same code."""
COMBINATIONS = list(itertools.product(METHODS, (False, True), ROWS))
CASES = [
    (name, *combination)
    for index, name in enumerate(CONFIGS)
    if EVERY_COMBINATION or name not in SLOW
    for combination in (COMBINATIONS if EVERY_COMBINATION else [COMBINATIONS[7 * index % len(COMBINATIONS)]])
]


@pytest.mark.parametrize(("name", "method", "autocast", "rows"), CASES)
def test_evaluation_equals_the_trace(name: str, method: Any, autocast: bool, rows: RowKind) -> None:
    layers = layers_of(name)
    m = spec(name, layers)
    if rows == "packed" and (m.task == "embeddings" or not architecture_of(m.architecture).takes_position_ids):
        rows = "full"
    chosen = recipe(m, method, autocast=autocast)
    shape = PACKED_SHAPE if rows == "packed" else SHAPE  # a collator packs into one row
    traced = trace_evaluation(config(name, layers), chosen, *shape, rows).peak_bytes
    kind = {"padded": rows == "padded", "packed": rows == "packed"}
    predicted = predict_evaluation_memory(m, chosen, *shape, "cpu", **kind).peak_bytes
    assert predicted == pytest.approx(traced, rel=TOLERANCE, abs=SMALL)


@pytest.mark.parametrize(("name", "method"), [("llama", "lora"), ("gpt2", "qlora"), ("starcoder2-dropout", "full")])
def test_dropout_and_accumulation_are_training_only(name: str, method: Any) -> None:
    m = spec(name, 2)
    chosen = recipe(m, method, gradient_accumulation=4, **({"dropout": 0.1} if method != "full" else {}))
    traced = trace_evaluation(config(name, 2), chosen, *SHAPE).peak_bytes
    assert predict_evaluation_memory(m, chosen, *SHAPE, "cpu").peak_bytes == pytest.approx(traced, rel=TOLERANCE)


@pytest.mark.parametrize("name", ["llama", "mixtral", "gemma2", "qwen3_moe"])
@pytest.mark.parametrize("knobs", [{}, {"double_quant": False}, {"quant": "int8"}])
def test_loading_and_preparation_equal_the_traced_ones(name: str, knobs: dict[str, Any]) -> None:
    m, chosen = spec(name, 2), recipe(spec(name, 2), "qlora", **knobs)
    traced = traced_loading(config(name, 2), chosen)
    loading, preparation = beginnings(m, base_of(chosen.model_copy(update={"kbit_upcast": True})))
    assert sum(loading.held.values()) == pytest.approx(traced.loaded_bytes, rel=1e-3)
    assert preparation.bytes == pytest.approx(traced.preparing_bytes, rel=1e-3)
    # The CPU's own quantization works in other temporaries, and the last layer's last weights come after the largest.
    assert loading.bytes == pytest.approx(traced.loading_bytes, rel=0.15)
