"""What releases of the libraries changed: each threshold where it is, by how much, and nothing else.

That the bytes are those of the real steps is shown by `benchmarks.against_stacks`, which needs these versions.
"""

from __future__ import annotations

from typing import Any

import pytest

from advisor.costs.memory import StepMemory, predict_step_memory
from advisor.decoders.stack import Proof
from advisor.decoders.step import step_program
from advisor.errors import BadValue
from advisor.libraries import TRACED, gaps, libraries_of
from advisor.parameters.stored import as_stored
from advisor.recipes import build_recipe
from advisor.specs import ModelSpec
from advisor.stacks import library_stack
from tests.decoders.tiny import spec

BATCH, LENGTH = 2, 512
TOKENS = BATCH * LENGTH


FEW = 8
"""Tokens of a row beside which the weights are large."""


def step(m: ModelSpec, method: Any, *names: str, length: int = LENGTH, **knobs: Any) -> StepMemory:
    recipe = build_recipe(method, {"stack": names, "gradient_checkpointing": False, "autocast": True, **knobs})
    return predict_step_memory(as_stored(m, names), recipe, BATCH, length, "cuda", library_stack(recipe))


def figures(found: StepMemory) -> tuple[Any, ...]:
    return found.peak_bytes, found.phase_peaks, found.after_forward_bytes, found.static_blocks


CHANGES: list[tuple[str, str, Any, dict[str, Any]]] = [
    ("transformers-4.45", "transformers-4.46", "full", {}),  # the model's own fp32 logits
    ("transformers-4.48", "transformers-4.49", "full", {}),  # the loss's copy of them
    ("transformers-4.53", "transformers-4.54", "full", {}),  # repeated keys and values
    ("transformers-4.55", "transformers-4.56", "full", {}),  # contiguous heads
    ("peft-0.9", "peft-0.10", "dora", {"adapter_dtype": "float32"}),  # the weight in the adapter's dtype
    ("peft-0.11", "peft-0.12", "dora", {"adapter_dtype": "float32"}),  # the identity matrix
    ("peft-0.13", "peft-0.14", "dora", {}),  # the base layer's own result
    ("peft-0.18", "peft-0.19", "dora", {}),  # the identity matrix let go
    ("bitsandbytes-0.42", "bitsandbytes-0.43", "qlora", {}),  # the input on the graph
    ("bitsandbytes-0.46", "bitsandbytes-0.47", "qlora", {}),  # the input's dtype
]


@pytest.mark.parametrize(("before", "after", "method", "knobs"), CHANGES)
def test_a_release_changes_the_step(before: str, after: str, method: Any, knobs: dict[str, Any]) -> None:
    m, others = spec("llama"), ("peft-0.21", "bitsandbytes-0.50")
    found = []
    for name in (before, after):
        names = (name, *(other for other in others if other.split("-")[0] != name.split("-")[0]))
        length = LENGTH if method == "full" else FEW
        found.append(figures(step(m, method, *names, length=length, reentrant=False, **knobs)))
    assert found[0] != found[1]


def test_the_same_versions_by_name_are_the_mirrored_step() -> None:
    for method in ("full", "lora", "qdora"):
        assert figures(step(spec("llama"), method, "transformers-5.23")) == figures(step(spec("llama"), method))


def test_peft_before_0_14_keeps_every_weight_that_dora_adapts() -> None:
    m = spec("llama")
    old, new = (step(m, "dora", name, length=FEW).after_forward_bytes for name in ("peft-0.13", "peft-0.14"))
    weights = 3 * (192 * (192 + 64 + 64 + 192) + 3 * 192 * 520)
    without_gradient = 192 * (192 + 64 + 64)  # the first layer's queries, keys and values, of a frozen embedding
    assert old - new == pytest.approx(2 * (weights - without_gradient), rel=0.001)


def test_bitsandbytes_before_0_47_computes_in_fp32_after_k_bit_preparation() -> None:
    m, names = spec("llama"), ("bitsandbytes-0.46", "bitsandbytes-0.47")
    old, new = (figures(step(m, "qlora", name, length=FEW, kbit_upcast=False)) for name in names)
    assert old == new
    old_peak, new_peak = (step(m, "qlora", name, length=FEW).peak_bytes for name in names)
    assert old_peak > new_peak


def test_checkpointing_reaches_a_frozen_embedding_only_since_transformers_5() -> None:
    leaf = {
        (name, reentrant): library_stack(recipe).leaf_under_checkpointing(recipe)
        for name in ("transformers-4.57", "transformers-5.0")
        for reentrant in (False, True)
        for recipe in [build_recipe("lora", {"stack": (name,), "reentrant": reentrant})]
    }
    assert leaf[("transformers-4.57", False)] is False
    assert sum(leaf.values()) == 3
    prepared = build_recipe("qlora", {"stack": ("transformers-4.57",), "reentrant": False})
    assert library_stack(prepared).leaf_under_checkpointing(prepared)


def test_defaults_are_those_of_the_version() -> None:
    assert build_recipe("lora", {"stack": ("transformers-4.57",)}, {"reentrant": False}).reentrant
    assert not build_recipe("lora", {"stack": ("transformers-4.57",), "reentrant": False}).reentrant
    assert not build_recipe("lora", {"stack": ("transformers-5.0",)}).reentrant
    preset = {"adapter_dtype": "float32"}
    assert build_recipe("lora", {"stack": ("peft-0.11",)}, preset).adapter_dtype == "bfloat16"
    assert build_recipe("qlora", {"stack": ("peft-0.11",)}, preset).adapter_dtype == "float32"
    assert build_recipe("lora", {"stack": ("peft-0.12",)}, preset).adapter_dtype == "float32"
    with pytest.raises(BadValue, match=r"needs peft 0\.10 or later, and --stack has 0\.9"):
        build_recipe("qdora", {"stack": ("peft-0.9",)})


def test_every_traced_version_is_a_release_and_gaps_are_said() -> None:
    assert all(versions == tuple(sorted(versions)) for versions in TRACED.values())
    assert gaps(libraries_of(())) == ((), ())
    recipe = build_recipe("lora", {"stack": ("transformers-4.40",)})
    proof = library_stack(recipe).proof(spec("llama"), recipe)
    assert proof.traced == ()
    assert any("transformers 4.40 (traced: 4.45)" in text for text in proof.unknown)
    recipe = build_recipe("lora", {"stack": ("transformers-4.52", "peft-0.15", "bitsandbytes-0.45")})
    proof = library_stack(recipe).proof(spec("llama"), recipe)
    assert proof.traced == Proof().traced
    assert any("transformers 4.52 (traced: 4.50 and 4.57)" in text for text in proof.read)
    assert proof.unknown == ()


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "olmoe", "glm4_moe", "deepseek_v3-experts"])
def test_experts_of_linear_layers_train_as_many_parameters_and_launch_more(name: str) -> None:
    m, old = spec(name), as_stored(spec(name), ("transformers-4.57",))
    launches = []
    for one, names in ((m, ()), (old, ("transformers-4.57",))):
        recipe = build_recipe("full", {"stack": names, "gradient_checkpointing": False})
        program = step_program(one, recipe, BATCH, LENGTH, "cuda", library_stack(recipe))
        launches.append(sum(part.copies * sum(part.launches[:2]) for part in program.kernels(BATCH, LENGTH, 8)))
    assert launches[1] > launches[0] + 10 * m.num_experts


def test_packed_rows_are_kept_apart_by_a_mask_since_transformers_4_53() -> None:
    peaks = []
    for name in ("transformers-4.52", "transformers-4.53"):
        recipe = build_recipe("lora", {"stack": (name,), "gradient_checkpointing": False})
        memory = predict_step_memory(spec("llama"), recipe, BATCH, LENGTH, "cuda", library_stack(recipe), packed=True)
        peaks.append(memory.after_forward_bytes)
    masks = 3 * 2 * BATCH * LENGTH**2  # a bias of 16 bits in each layer
    assert peaks[1] - peaks[0] >= masks


def test_models_whose_code_took_16_bit_logits_did_so_until_4_49() -> None:
    logits = BATCH * LENGTH * spec("gpt_bigcode").vocab_size
    knobs = {"autocast": False, "base_dtype": "bfloat16"}
    old, new = (
        step(spec("gpt_bigcode"), "full", name, **knobs).phase_peaks["forward"]
        for name in ("transformers-4.48", "transformers-4.49")
    )
    assert new - old == pytest.approx(4 * logits, rel=0.05)  # 2 + 4 + 4 bytes each; before, 2 + 2 + 2
