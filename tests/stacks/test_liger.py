"""Liger's kernels: what they save, for which models they run, and what is said elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.architectures import ARCHITECTURES
from advisor.costs.memory import predict_step_memory
from advisor.specs import KernelSet
from advisor.stacks.liger import PATCHED
from tests.decoders.tiny import spec
from tests.fakes import card
from tests.stacks.steps import kept, recipe_of, stack_of, step

LIGER: tuple[KernelSet, ...] = ("liger_norm", "liger_rope", "liger_mlp", "liger_loss")
OLD = card(16).model_copy(update={"compute_capability": "7.5"})


def test_every_type_that_is_patched_is_one_that_is_known() -> None:
    assert set(PATCHED) <= set(ARCHITECTURES)


@pytest.mark.parametrize("name", ["llama", "gemma2", "phi3", "qwen3", "olmo2", "granite", "exaone4", "glm4"])
@pytest.mark.parametrize("method", ["full", "qlora"])
def test_each_kernel_keeps_less(name: str, method: Any) -> None:
    m, knobs = spec(name), {"kbit_upcast": False}  # in fp32 a norm keeps as much as Liger's
    plain = kept(m, recipe_of(method, **knobs))
    for kernel in LIGER:
        recipe = recipe_of(method, kernel, **knobs)
        declines = any(text.startswith(kernel) for text in stack_of(recipe).declined(m, recipe))
        found = kept(m, recipe)
        assert found < plain or declines or (kernel == "liger_rope" and found == plain), kernel
    assert kept(m, recipe_of(method, *LIGER, **knobs)) < plain


def test_unknown_types_run_their_own_code() -> None:
    m = spec("gpt2")
    recipe = recipe_of("lora", *LIGER)
    assert step(m, recipe) == step(m, recipe_of("lora"))
    said = stack_of(recipe).declined(m, recipe)
    assert [text.partition(":")[0] for text in said] == sorted(LIGER, key=LIGER.index)
    assert all("liger-kernel 0.8.5 does not know gpt2" in text for text in said)
    llama = spec("llama")
    assert stack_of(recipe).declined(llama, recipe) == ()


def test_the_fused_loss_frees_the_logits_and_is_left_out_of_evaluation() -> None:
    m = spec("llama")
    recipe = recipe_of("lora", "liger_loss")
    assert "loss" in step(m, recipe_of("lora")).peak_at
    assert step(m, recipe).phase_peaks["backward"] < step(m, recipe_of("lora")).phase_peaks["backward"]
    full = recipe_of("full", "liger_loss", gradient_checkpointing=True)
    old = predict_step_memory(m, full, 2, 256, "cuda", stack_of(full, OLD))
    assert old.part_peaks[0] > step(m, full).part_peaks[0], "Turing makes the head's gradient in fp32, apart"


def test_the_activation_of_shared_experts_is_not_mirrored() -> None:
    recipe = recipe_of("lora", "liger_mlp", target_modules=("attention",))
    stack = stack_of(recipe)
    assert stack.proof(spec("deepseek_v3-experts"), recipe).unknown
    assert not stack.proof(spec("qwen3_moe"), recipe).unknown
    everywhere = recipe_of("lora", "liger_mlp", target_modules=("all-linear",))
    assert "they fail" in stack.proof(spec("qwen3_moe"), everywhere).unknown[0]


def test_fused_experts_keep_less_and_make_gradients_of_frozen_weights() -> None:
    m = spec("qwen3_moe")
    attention = {"target_modules": ("attention",)}
    plain, fused = (step(m, recipe_of("lora", *kernels, **attention)) for kernels in ((), ("liger_mlp",)))
    assert fused.after_forward_bytes < plain.after_forward_bytes
    short = [
        predict_step_memory(m, recipe_of("lora", *k, **attention), 1, 1, "cuda", stack_of(recipe_of("lora", *k)))
        for k in ((), ("liger_mlp",))
    ]
    assert short[1].peak_bytes > short[0].peak_bytes, "as large as the layer's experts"
