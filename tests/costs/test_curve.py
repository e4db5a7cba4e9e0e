"""The curve of a step: its highest stretch is the step's peak, whatever the model, the method and the engine."""

from __future__ import annotations

from typing import Any

import pytest

from advisor import estimate, find_gpus, find_model
from advisor.costs.curve import Stretch, step_curve
from advisor.recipes import build_recipe
from advisor.specs import METHODS, Method, Placement, Recipe, Sharding, Workload
from advisor.terms import TermName

CARD = find_gpus("h100")[0]
OUTSIDE = {TermName.WORKSPACE, TermName.FRAGMENTATION, TermName.CONTEXT, TermName.COMMUNICATION}
RECIPES: list[tuple[str, Method, dict[str, Any]]] = [
    *(("qwen2.5-0.5b", method, {}) for method in METHODS),
    *(("qwen2.5-0.5b", "lora", {"gradient_accumulation": count}) for count in (1, 4)),
    *(("qwen2.5-0.5b", "lora", {"gradient_checkpointing": False, "gradient_accumulation": n}) for n in (1, 4)),
    ("gemma-2-2b", "qlora", {"micro_batch": 2}),
    ("gpt-oss-20b", "lora", {}),
    ("olmoe-1b-7b", "full", {}),
    ("falcon-h1-0.5b", "lora", {"target_modules": ("attention",)}),
    ("gpt2", "full", {"base_dtype": "float32"}),
    ("llama-3b", "lora", {"stack": ("unsloth-2026.10", "transformers-5.17", "peft-0.21")}),
    ("llama-3b", "full", {"stack": ("torchtune-0.6",), "optimizer_in_backward": True}),
    ("llama-3b", "lora", {"kernels": ("liger_loss", "liger_mlp")}),
    ("qwen2.5-0.5b", "lora", {"eval_batch": 8}),
]
SHARDINGS: tuple[Sharding, ...] = ("ddp", "fsdp1", "fsdp2", "zero2", "zero3")


def compared(model: str, recipe: Recipe, placement: Placement, workload: Workload) -> tuple[tuple[Stretch, ...], int]:
    """The curve, and what the estimate's tensors add up to."""
    m = find_model(model)
    found = estimate(m, recipe, workload, CARD, placement)
    tensors = sum(term.bytes for term in found.memory.terms if term.name not in OUTSIDE)
    return step_curve(m, recipe, workload, CARD, placement), tensors


@pytest.mark.parametrize(("model", "method", "knobs"), RECIPES)
def test_the_highest_stretch_is_the_peak(model: str, method: Method, knobs: dict[str, Any]) -> None:
    recipe = build_recipe(method, knobs)
    curve, tensors = compared(model, recipe, Placement(), Workload(examples=100, seq_len=512))
    assert max(one.peak_bytes for one in curve) == tensors
    assert all(min(*one.first.values(), *one.last.values()) >= 0 for one in curve if one.phase != "load")


@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize("method", ["full", "qlora"])
def test_so_it_is_of_one_of_several_cards(sharding: Sharding, method: Method) -> None:
    casts = {} if method == "full" else {"kbit_upcast": False}
    recipe = build_recipe(method, {"gradient_accumulation": 2, **casts})
    workload = Workload(examples=100, seq_len=512, batch_size=8)
    curve, tensors = compared("qwen2.5-0.5b", recipe, Placement(gpus=4, sharding=sharding), workload)
    assert max(one.peak_bytes for one in curve) == tensors


def test_layers_are_counted_and_moments_in_their_order() -> None:
    recipe = build_recipe("qlora", {"eval_batch": 2})
    curve, _ = compared("qwen2.5-0.5b", recipe, Placement(), Workload(examples=100, seq_len=512))
    m = find_model("qwen2.5-0.5b")
    phases = [one.phase for one in curve]
    assert list(dict.fromkeys(phases)) == ["load", "forward", "backward", "optimizer", "evaluation"]
    for phase in ("forward", "backward"):
        layers = [one.layers for one in curve if one.phase == phase]
        ends = 2 if phase == "forward" else 1  # the head, and the embedding, which is frozen
        assert sum(layers) == m.num_hidden_layers + ends


def test_activations_grow_in_the_forward_and_go_in_the_backward() -> None:
    recipe = build_recipe("lora", {"gradient_checkpointing": False})
    curve, _ = compared("qwen2.5-0.5b", recipe, Placement(), Workload(examples=100, seq_len=512))
    saved = TermName.SAVED_ACTIVATIONS
    layers = [one for one in curve if one.layers > 2]
    assert [one.phase for one in layers] == ["forward", "backward"]
    forward, backward = layers
    assert forward.first[saved] < forward.last[saved]
    assert backward.first[saved] > backward.last[saved]
