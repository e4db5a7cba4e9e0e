"""The loss that balances a mixture's experts: against the traced step, of transformers and of TRL, and where it runs.

All families, methods and kinds of checkpointing (ten minutes): EVERY_COMBINATION=1 make test
PYTEST_FLAGS=tests/decoders/test_balancing.py
"""

from __future__ import annotations

import ast
import importlib
import itertools
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from advisor import advise
from advisor.architectures import architecture_of
from advisor.blocks import BLOCK_BYTES, block_bytes
from advisor.catalog.config_json import model_from_config
from advisor.costs.memory import predict_step_memory
from advisor.costs.moments import predict_evaluation_memory
from advisor.decoders.balancing import asks_for_balance
from advisor.decoders.stack import THIS_STACK
from advisor.errors import UnsupportedArchitecture
from advisor.libraries import MIRRORED
from advisor.specs import ModelSpec, Recipe, Workload
from advisor.stacks import named_stack, stack_for
from calibrate.worker.dryrun import trace_evaluation, trace_step
from tests.decoders.test_against_trace import check
from tests.decoders.tiny import CONFIGS, config, recipe, spec
from tests.every import EVERY_COMBINATION
from tests.fakes import card

MANY = 64
"""Experts, with a small vocabulary: then this loss weighs more than that on tokens."""
SHAPE = 2, 350
NAMES = {"ernie4_5_moe": ("moe_num_experts", "moe_k")}
LOCAL = ("mixtral", "gpt_oss", "granitemoe", "granitemoeshared", "minimax_m2", "phimoe")


def balanced(name: str, layers: int, **values: Any) -> tuple[ModelSpec, dict[str, Any]]:
    """A tiny mixture of many experts whose config asks for the loss, and that config."""
    of_experts, of_choice = NAMES.get(
        name, ("num_local_experts" if name in LOCAL else "num_experts", "num_experts_per_tok")
    )
    chosen = 2 if name in ("phimoe", *NAMES) else 8  # Phi's router draws two
    tokens = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0)
    few = {"vocab_size": MANY, "output_router_logits": True, of_experts: MANY, of_choice: chosen}
    found = {**config(name, layers), **tokens, **few, **values}
    return model_from_config(found, name, name), found


CASES = [
    ("mixtral", 2, "full", {"autocast": False}, "padded"),
    ("qwen3_moe", 2, "lora", {"gradient_checkpointing": False}, "full"),
    ("gpt_oss", 5, "lora", {}, "padded"),
    ("olmoe", 3, "qlora", {"reentrant": True}, "padded"),
    ("granitemoe", 4, "lora", {}, "full"),
    ("phimoe", 2, "full", {"gradient_checkpointing": False, "gradient_accumulation": 2}, "full"),
    ("laguna", 2, "lora", {"autocast": False}, "padded"),
]
FAMILIES = ("mixtral", "qwen3_moe", "gpt_oss", "olmoe", "granitemoe", "granitemoeshared", "phimoe", "ernie4_5_moe")
FAMILIES += ("minimax_m2", "laguna", "qwen3_next")
if EVERY_COMBINATION:
    SWITCHED = ({"gradient_checkpointing": False}, {}, {"reentrant": True})
    CASES = [
        (name, 2 + 3 * (name != "laguna"), method, {**knobs, "autocast": casts}, rows)
        for name, method, knobs, casts, rows in itertools.product(
            FAMILIES, ("full", "lora", "qlora"), SWITCHED, (False, True), ("full", "padded")
        )
    ]


@pytest.mark.parametrize(("name", "layers", "method", "knobs", "rows"), CASES)
def test_the_step_that_a_config_asks_for(name: str, layers: int, method: Any, knobs: dict[str, Any], rows: Any) -> None:
    m, traced = balanced(name, layers)
    assert m.balanced
    check(m, traced, recipe(m, method, **{"gradient_checkpointing": True, **knobs}), SHAPE, rows=rows)


@pytest.mark.parametrize(
    ("name", "method", "checkpointing", "rows", "shape"),
    [
        ("qwen3_moe", "lora", True, "padded", SHAPE),
        ("gpt_oss", "lora", True, "packed", (1, 98)),
        ("mixtral", "qlora", False, "full", SHAPE),
    ],
)
def test_the_step_of_trl(name: str, method: Any, checkpointing: bool, rows: Any, shape: tuple[int, int]) -> None:
    m, traced = balanced(name, 3, output_router_logits=False)  # SFTTrainer asks, whatever the config does
    chosen = recipe(m, method, loss="chunked", gradient_checkpointing=checkpointing)
    assert not m.balanced
    assert THIS_STACK.balances(m, chosen)
    found = trace_step(traced, chosen, *shape, name_modules=False, rows=rows)
    kind = {"padded": rows == "padded", "packed": rows == "packed"}
    predicted = predict_step_memory(m, chosen, *shape, "cpu", **kind).phase_peaks
    for phase in ("forward", "backward"):
        assert predicted[phase] == pytest.approx(found.phase(phase).peak_bytes, rel=3e-4), phase


def test_an_evaluation_makes_it_too() -> None:
    m, traced = balanced("olmoe", 3)
    chosen = recipe(m, "lora", autocast=True)
    found = trace_evaluation(traced, chosen, *SHAPE, "padded").peak_bytes
    predicted = predict_evaluation_memory(m, chosen, *SHAPE, "cpu", padded=True).peak_bytes
    assert predicted == pytest.approx(found, rel=1e-4)


@pytest.mark.parametrize(("layers", "reentrant"), [(3, False), (9, False), (9, True)])
def test_what_is_kept_is_one_softmax_a_layer_in_fp32_under_autocast(layers: int, reentrant: bool) -> None:
    m, _ = balanced("mixtral", layers)
    chosen = recipe(m, "lora", gradient_checkpointing=True, reentrant=reentrant, autocast=True)
    kept, plain = (
        predict_step_memory(one, chosen, *SHAPE).after_forward_bytes
        for one in (m, m.model_copy(update={"balanced": False}))
    )
    softmax = block_bytes(SHAPE[0] * SHAPE[1] * MANY * 4)
    assert kept - plain == (0 if reentrant else layers * softmax + BLOCK_BYTES)  # and how often each is chosen


def statements(module: str) -> list[str]:
    """Those of a module's load_balancing_loss_func; [] if it has none."""
    path = importlib.util.find_spec(f"transformers.models.{module}")
    assert path is not None
    assert path.submodule_search_locations
    text = Path(path.submodule_search_locations[0], f"modeling_{module}.py").read_text(encoding="utf-8")
    found = [one for one in ast.parse(text).body if getattr(one, "name", "") == "load_balancing_loss_func"]
    return [ast.unparse(line) for function in found for line in function.body[1:]]


def test_every_architecture_that_has_it_has_mixtrals() -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    mixtures = {spec(name).architecture for name in CONFIGS if spec(name).num_experts}
    having = {name for name in mixtures if statements(name.removesuffix("_text"))}
    assert having == {name for name in mixtures if architecture_of(name).balances_experts}
    assert {name for name in having if statements(name.removesuffix("_text")) != statements("mixtral")} == set()
    lacking = {name for name in having if not hasattr(CONFIG_MAPPING[name](), "num_experts")}
    assert lacking == {name for name in mixtures if architecture_of(name).names_no_experts} != set()


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("deepseek_v3-experts", {}, "makes no loss of"),
        ("qwen3_moe", {"mlp_only_layers": [0, 1, 2]}, "makes no loss of"),
    ],
)
def test_logits_that_no_loss_is_made_of_are_refused(name: str, values: dict[str, Any], why: str) -> None:
    with pytest.raises(UnsupportedArchitecture, match=why):
        model_from_config({**config(name, 3), "output_router_logits": True, **values}, "x", "x")


def test_a_model_without_experts_may_have_the_key() -> None:
    assert not model_from_config({**config("llama", 1), "output_router_logits": True}, "x", "x").balanced


def test_where_it_runs_and_is_not_mirrored() -> None:
    m, _ = balanced("qwen3_moe", 2)
    plain, chunked = Recipe(method="lora"), Recipe(method="lora", loss="chunked")
    assert THIS_STACK.proof(m, plain).unknown == THIS_STACK.proof(m, chunked).unknown == ()
    for at in (named_stack(("unsloth-2026.10",)), named_stack(("transformers-4.57",))):
        assert asks_for_balance(m, plain, at.libraries)
        assert not at.balances(m, plain)
        assert "balances a mixture's experts" in "; ".join(at.proof(m, plain).unknown)
    assert not asks_for_balance(m, plain, MIRRORED._replace(code="torchtune"))
    fused = plain.model_copy(update={"kernels": ("liger_loss",)})
    assert not stack_for(fused, card(80), Workload()).balances(m, fused)
    dense = m.model_copy(update={"balanced": False})
    assert not asks_for_balance(dense, plain, MIRRORED)
    assert asks_for_balance(dense, chunked, MIRRORED)
    assert not asks_for_balance(dense, chunked, MIRRORED._replace(code="unsloth"))


def test_trl_surely_fits_what_it_can_train() -> None:
    asked: dict[str, Any] = {"method": "lora", "trainer": "trl", "seq_len": 256}
    assert advise("olmoe-1b-7b", "h200", **asked).candidates[0].verdict == "fits"
    row = advise("granite-3.1-1b-a400m", "h200", **asked).candidates[0]
    assert row.verdict != "fits"
    assert "reads num_experts, which granitemoe's config lacks" in "; ".join(row.evidence.unknown)
