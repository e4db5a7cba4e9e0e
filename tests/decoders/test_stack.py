"""Mechanisms of other stacks: each flag does what its name says, and nothing where it is off."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.costs.memory import StepMemory, predict_step_memory
from advisor.specs import ModelSpec, Recipe
from advisor.tape.stack import Stack

MODEL = ModelSpec(
    name="small",
    architecture="lit-gpt",
    hidden_size=256,
    intermediate_size=512,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=4,
    head_dim=64,
    vocab_size=4096,
    fused_qkv=True,
    qkv_names=("attn",),
    out_name="proj",
    mlp_names=("fc_1", "fc_2", "mlp.proj"),
)
GROUPED = ModelSpec(
    name="grouped",
    architecture="llama",
    hidden_size=256,
    intermediate_size=512,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=64,
    vocab_size=4096,
)
BATCH, LENGTH = 2, 512
TOKENS = BATCH * LENGTH
LOGITS = TOKENS * MODEL.vocab_size


def step(stack: Stack, model: ModelSpec = MODEL, **knobs: Any) -> StepMemory:
    recipe = Recipe.model_validate(
        {
            "method": "lora",
            "rank": 8,
            "target_modules": ("attn",),
            "adapter_dtype": "bfloat16",
            "autocast": False,
            "gradient_checkpointing": False,
            **knobs,
        }
    )
    return predict_step_memory(model, recipe, BATCH, LENGTH, "cuda", stack)


def kept(stack: Stack, model: ModelSpec = MODEL, **knobs: Any) -> int:
    return step(stack, model, **knobs).after_forward_bytes - step(Stack(), model, **knobs).after_forward_bytes


def test_padded_update_keeps_its_source_and_index() -> None:
    width = 2 * MODEL.hidden_size
    assert kept(Stack(padded_update=width)) == MODEL.num_hidden_layers * (2 * TOKENS * width + 8 * width)


def test_sliced_head_keeps_fp32_logits_and_log_softmax() -> None:
    # ours: log-softmax alone, beside labels
    more = kept(Stack(sliced_head=128))
    assert more == pytest.approx(4 * LOGITS, rel=0.01)


def test_a_mixed_sliced_head_keeps_a_cast_weight_for_each_slice() -> None:
    mixed = {"base_dtype": "float32", "adapter_dtype": "float32", "autocast": True}
    slices = LENGTH // 128
    one = 2 * MODEL.vocab_size * MODEL.hidden_size
    # ours keeps one such cast
    assert kept(Stack(sliced_head=128), **mixed) == pytest.approx(4 * LOGITS + (slices - 1) * one, rel=0.05)


def test_sliced_head_spares_the_gradients_of_full_logits() -> None:
    ours, sliced = step(Stack(keeps_outputs=True)), step(Stack(sliced_head=128))
    assert sliced.peak_bytes < ours.peak_bytes


def test_repeated_keys_are_kept_for_every_query_head() -> None:
    heads = GROUPED.num_attention_heads - GROUPED.num_key_value_heads
    more = 2 * 2 * TOKENS * heads * GROUPED.head_dim * GROUPED.num_hidden_layers
    assert kept(Stack(repeated_keys=True), GROUPED, target_modules=("q_proj",)) == more
    assert kept(Stack(repeated_keys=True)) == 0


def test_tables_are_kept_once_a_layer() -> None:
    one = 2 * 2 * LENGTH * MODEL.head_dim
    # ours keeps one for all layers
    assert kept(Stack(tables_by_layer=True)) == (MODEL.num_hidden_layers - 1) * one


def test_shifted_logits_are_upcast_and_copied() -> None:
    ours, older = step(Stack(keeps_outputs=True)), step(Stack(keeps_outputs=True, shifts_logits=True))
    assert older.peak_bytes > ours.peak_bytes
    # outputs are held in fp32 instead of bf16
    assert older.after_forward_bytes - ours.after_forward_bytes == pytest.approx(2 * LOGITS, rel=0.02)


def test_a_quantized_head_makes_its_weight_in_both_passes() -> None:
    knobs = {"method": "qlora", "quant": "nf4", "kbit_upcast": False}
    plain, quantized = (step(Stack(sliced_head=128, quantized_head=on), **knobs) for on in (False, True))
    assert quantized.after_forward_bytes == plain.after_forward_bytes
    assert quantized.peak_bytes > plain.peak_bytes


def test_cached_keys_are_what_attention_saved_and_outlive_backward() -> None:
    knobs = {"target_modules": ("q_proj", "v_proj")}
    ours, cached = step(Stack(), GROUPED, **knobs), step(Stack(caches_keys=True), GROUPED, **knobs)
    assert cached.after_forward_bytes == ours.after_forward_bytes
    keys = 2 * TOKENS * GROUPED.kv_size * GROUPED.num_hidden_layers
    assert cached.after_backward_bytes - ours.after_backward_bytes == 2 * keys
    assert kept(Stack(caches_keys=True), GROUPED, gradient_checkpointing=True, **knobs) == 0


@pytest.mark.parametrize(
    ("knobs", "norms"),
    [
        ({"method": "full"}, 2 * 4 + 1),
        ({"target_modules": ("q_proj",)}, 2 * 4),
        ({"target_modules": ("q_proj",), "gradient_checkpointing": True}, 1),
    ],
)
def test_norms_that_see_a_gradient_keep_a_second_fp32_tensor(knobs: dict[str, Any], norms: int) -> None:
    assert kept(Stack(norms_keep_twice=True), GROUPED, **knobs) == norms * 4 * TOKENS * GROUPED.hidden_size


def test_a_cut_embedding_spares_the_first_layer_its_quantized_input() -> None:
    knobs = {
        "method": "qlora",
        "quant": "nf4",
        "kbit_upcast": False,
        "target_modules": ("q_proj",),
        "gradient_checkpointing": True,
    }
    held, cut = (step(Stack(keeps_quantized_input=True, cuts_embedding=on), GROUPED, **knobs) for on in (False, True))
    assert held.after_forward_bytes - cut.after_forward_bytes == 2 * TOKENS * GROUPED.hidden_size
