"""A profile against fresh traces at shapes, ranks, optimizers and accumulations that it was not solved on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from advisor.catalog.config_json import model_from_config
from advisor.costs.memory import predict_step_memory
from advisor.costs.traced import NotTraced, traced_parameter_count, traced_step_memory
from advisor.errors import BadConfig, UnsupportedArchitecture
from advisor.files.traced import read_profile
from advisor.specs import Recipe, TracedModel
from calibrate.measurement import Environment, ShapeTraces
from calibrate.polynomials import NotAligned
from calibrate.traced_profile import PILOT, lengths_of, profile_of, store, trace_structure
from calibrate.worker.build import build_model
from calibrate.worker.dryrun import trace_step
from calibrate.worker.prepared import Prepared, model_facts
from tests.every import EVERY_COMBINATION

SMALL: dict[str, Any] = {
    "vocab_size": 1009,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": SMALL,
    "bert": {key: value for key, value in SMALL.items() if key != "num_key_value_heads"},
    "t5": {
        "vocab_size": 1009,
        "d_model": 64,
        "d_kv": 16,
        "d_ff": 160,
        "num_layers": 2,
        "num_heads": 4,
        "is_encoder_decoder": True,
    },
    "granitemoehybrid": SMALL
    | {
        "num_local_experts": 0,
        "num_experts_per_tok": 0,
        "shared_intermediate_size": 160,
        "mamba_n_heads": 8,
        "mamba_d_head": 16,
        "mamba_n_groups": 1,
        "mamba_d_state": 16,
        "mamba_chunk_size": 32,
        "layer_types": ["mamba", "attention"],
    },
    "mamba": {"vocab_size": 1009, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8},
}
ENVIRONMENT = Environment(torch="1", transformers="2", peft="3", bitsandbytes="4", python="5", platform="6")
SEQ_LEN = 40


def config_of(name: str) -> dict[str, Any]:
    return {"model_type": name, **CONFIGS[name]}


def traced(name: str, recipe: Recipe, folder: Path) -> tuple[TracedModel, dict[str, Any]]:
    """The model from a profile that went through a file, and the one structure in it."""
    config = config_of(name)
    facts = model_facts(config)
    kept: dict[Recipe, Prepared] = {}

    def tracer(one: Recipe, shapes: Sequence[tuple[int, int]]) -> ShapeTraces:
        if one not in kept:
            kept[one] = Prepared(config, one)
        return kept[one].shapes(shapes)

    structure = trace_structure(tracer, recipe, facts, SEQ_LEN)
    path = folder / "profile.json"
    store(path, profile_of(name, "", facts, ENVIRONMENT, {"one": structure}))
    checksum, profile = read_profile(path, name)
    model = TracedModel(
        name=name,
        architecture=name,
        kind=facts.kind,
        parameters=facts.parameters,
        max_position_embeddings=1024,
        default_attention=facts.default_attention,
        source=name,
        profile=str(path),
        checksum=checksum,
        traced_with="",
    )
    return model, profile["structures"][0]


ELSEWHERE = [
    ("llama", "qdora", True, [(1, 333), (5, 77)]),
    ("t5", "lora", False, [(1, 333), (4, 77)]),
    ("bert", "lora", True, [(1, 333), (4, 201)]),
    ("granitemoehybrid", "lora", True, [(1, SEQ_LEN), (5, SEQ_LEN)]),
    ("mamba", "full", False, [(1, SEQ_LEN), (5, SEQ_LEN)]),
]


def recipe_for(name: str, method: Any, **knobs: Any) -> Recipe:
    knobs.setdefault("attention", "eager" if name == "mamba" else "sdpa")
    return Recipe(method=method, rank=8, quant="nf4" if method in ("qlora", "qdora") else "none", **knobs)


@pytest.mark.parametrize(("name", "method", "on", "shapes"), ELSEWHERE if EVERY_COMBINATION else ELSEWHERE[:2])
def test_equals_a_fresh_trace_elsewhere(
    name: str, method: str, on: bool, shapes: list[tuple[int, int]], tmp_path: Path
) -> None:
    recipe = recipe_for(name, method, gradient_checkpointing=on)
    model, _ = traced(name, recipe, tmp_path)
    changes: tuple[dict[str, Any], ...] = ({}, {"gradient_accumulation": 3}, {"rank": 20, "optimizer": "adamw_foreach"})
    for (batch, length), change in zip((shapes[0], *shapes), changes, strict=True):
        other = recipe.model_copy(update={"micro_batch": batch, **change})
        fresh = trace_step(config_of(name), other, batch, length)
        found = traced_step_memory(model, other, length)
        assert found.peak_bytes == pytest.approx(fresh.peak_bytes, rel=1e-3)
        assert found.after_forward_bytes == fresh.after_forward_bytes
        assert traced_parameter_count(model, other, length) == fresh.trainable_parameters


def test_agrees_with_the_formula_where_there_is_one(tmp_path: Path) -> None:
    recipe = recipe_for("llama", "lora", gradient_checkpointing=False)
    model, _ = traced("llama", recipe, tmp_path)
    spec = model_from_config(config_of("llama"), "llama", "llama")
    for batch, length in ((1, 700), (6, 128)):
        chosen = recipe.model_copy(update={"micro_batch": batch, "rank": 32})
        formula = predict_step_memory(spec, chosen, batch, length, device="cpu")
        assert traced_step_memory(model, chosen, length).peak_bytes == pytest.approx(formula.peak_bytes, rel=5e-3)


def test_loop_over_the_tokens_holds_one_length(tmp_path: Path) -> None:
    recipe = recipe_for("mamba", "full", gradient_checkpointing=False)
    model, structure = traced("mamba", recipe, tmp_path)
    assert {tuple(regime["length"]) for regime in structure["regimes"]} == {(SEQ_LEN, SEQ_LEN)}
    with pytest.raises(NotTraced, match=r"traced: 40\).*--seq-len 41"):
        traced_step_memory(model, recipe, SEQ_LEN + 1)


def test_what_was_not_traced_is_refused(tmp_path: Path) -> None:
    recipe = recipe_for("bert", "full", gradient_checkpointing=False)
    model, _ = traced("bert", recipe, tmp_path)
    for changes, words in (
        ({"autocast": False}, "--no-autocast"),
        ({"base_dtype": "float16"}, "float16"),
        ({"gradient_checkpointing": True}, "--gradient-checkpointing"),
        ({"method": "lora"}, "lora"),
    ):
        with pytest.raises(NotTraced, match=words):
            traced_step_memory(model, recipe.model_copy(update=changes), 64)


def test_events_that_differ_are_not_solved() -> None:
    prepared = Prepared(config_of("bert"), recipe_for("bert", "full", gradient_checkpointing=False))
    facts = model_facts(config_of("bert"))

    def tracer(one: Recipe, shapes: Sequence[tuple[int, int]]) -> ShapeTraces:
        found = prepared.shapes(shapes)
        grown = tuple(
            step.model_copy(update={"sizes": tuple(size + step.batch**3 for size in step.sizes)})
            for step in found.steps
        )
        return found.model_copy(update={"steps": grown})

    with pytest.raises(NotAligned, match="not polynomial"):
        trace_structure(tracer, recipe_for("bert", "full", gradient_checkpointing=False), facts, SEQ_LEN)


def test_lengths_stay_within_the_model() -> None:
    facts = model_facts(config_of("bert"))
    assert facts.max_position_embeddings == 1024
    assert lengths_of(facts, SEQ_LEN)[-1] == 1024
    assert max(lengths_of(facts.model_copy(update={"max_position_embeddings": 64}), 32)) == 64
    assert len(set(lengths_of(facts.model_copy(update={"max_position_embeddings": 64}), 32))) == 4
    assert max(PILOT) < 16


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (config_of("bert"), "BertForMaskedLM"),
        (config_of("bert") | {"is_decoder": True}, "BertLMHeadModel"),
        (config_of("bert") | {"architectures": ["BertForSequenceClassification"]}, "BertForSequenceClassification"),
        (config_of("t5"), "T5ForConditionalGeneration"),
        (config_of("llama"), "LlamaForCausalLM"),
    ],
)
def test_the_class_that_is_trained(config: dict[str, Any], kind: str) -> None:
    recipe = Recipe(method="lora", target_modules=("all-linear",))
    model = build_model(config, recipe, fake=True)
    assert type(model.get_base_model()).__name__ == kind
    assert trace_step(config, recipe, 2, 16).adapters_bytes > 0


def test_own_code_is_refused_unless_asked(tmp_path: Path) -> None:
    config = {
        "model_type": "own_llama",
        "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"},
        **SMALL,
    }
    with pytest.raises(UnsupportedArchitecture, match="--trust-remote-code"):
        trace_step(config, Recipe(method="full"), 1, 16)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadConfig, match="own code cannot be used"):
        trace_step(config, Recipe(method="full"), 1, 16, code=str(tmp_path))
    (tmp_path / "own.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n\n\n"
        "class Config(LlamaConfig):\n    model_type = 'own_llama'\n\n\n"
        "class Model(LlamaForCausalLM):\n    config_class = Config\n"
    )
    own = trace_step(config, Recipe(method="full"), 1, 16, code=str(tmp_path))
    assert own.peak_bytes == trace_step(config_of("llama"), Recipe(method="full"), 1, 16).peak_bytes
