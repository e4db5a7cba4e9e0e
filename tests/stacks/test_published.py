"""Mechanisms of other stacks: what each override keeps beyond the mirrored stack, in bytes."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.catalog.models import find_model
from advisor.costs.memory import StepMemory, predict_step_memory
from advisor.decoders.stack import THIS_STACK, Stack
from advisor.specs import ModelSpec, Recipe
from advisor.stacks.early_2024 import Early2024, Notebook2024
from advisor.stacks.litgpt import LitGpt2023
from advisor.stacks.own_loop import OwnLoop
from advisor.stacks.torchtune import Torchtune
from advisor.stacks.transformers_4 import Unmasked4
from advisor.units import GIB

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


class CachesKeys(Stack):
    cached = Notebook2024.cached


class ExpandsKeys(Stack):
    attended = Torchtune.attended


class OwnTables(Stack):
    rope = Early2024.rope


class NormsKeepTwice(Stack):
    norm = Notebook2024.norm


class HoldsQuantizedInput(Stack):
    linear = Early2024.linear


class Older8Bit(Stack):
    linear = LitGpt2023.linear
    adapted_features = 0


class CutsEmbedding(HoldsQuantizedInput):
    leaf_under_checkpointing = Notebook2024.leaf_under_checkpointing


class SlicedHead(Stack):
    head_tokens = 128
    lacking_tokens = 0
    later = False
    loss = LitGpt2023.loss


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
    return step(stack, model, **knobs).after_forward_bytes - step(THIS_STACK, model, **knobs).after_forward_bytes


def test_stacks_are_values() -> None:
    assert LitGpt2023(adapted_features=4) == LitGpt2023(adapted_features=4)
    assert LitGpt2023(adapted_features=4) != LitGpt2023(adapted_features=8)
    assert OwnLoop() != THIS_STACK
    assert len({THIS_STACK, Stack(), OwnLoop(), OwnLoop(freezes_lora_a=True), Torchtune()}) == 4


@pytest.mark.parametrize(
    "stack", [THIS_STACK, Early2024(), Notebook2024(), LitGpt2023(0), OwnLoop(), Torchtune(), Unmasked4()]
)
def test_a_stack_names_its_versions(stack: Stack) -> None:
    assert any(letter.isdigit() for letter in stack.name)


def test_every_batch_is_masked() -> None:
    model = find_model("llama-3.2-1b")
    per_layer = 2 * BATCH * LENGTH**2 + 2 * 2 * TOKENS * (model.q_size - model.kv_size)
    masked, plain = (step(stack, model, target_modules=("q_proj",)) for stack in (Unmasked4(), OwnLoop()))
    assert masked.after_forward_bytes - plain.after_forward_bytes == model.num_hidden_layers * per_layer
    assert model.num_hidden_layers * per_layer == pytest.approx(0.109 * GIB, rel=0.01), "a trace of 4.57.6"


def test_a_padded_update_keeps_its_source_and_index() -> None:
    width = 2 * MODEL.hidden_size
    padded, plain = (step(LitGpt2023(adapted_features=features)).after_forward_bytes for features in (width, 0))
    assert padded - plain == MODEL.num_hidden_layers * (2 * TOKENS * width + 8 * width)


def test_a_sliced_head_keeps_fp32_logits_and_log_softmax() -> None:
    # ours: log-softmax alone, beside labels
    assert kept(SlicedHead()) == pytest.approx(4 * LOGITS, rel=0.01)


def test_a_mixed_sliced_head_keeps_a_cast_weight_for_each_slice() -> None:
    mixed = {"base_dtype": "float32", "adapter_dtype": "float32", "autocast": True}
    slices = LENGTH // 128
    one = 2 * MODEL.vocab_size * MODEL.hidden_size
    # ours keeps one such cast
    assert kept(SlicedHead(), **mixed) == pytest.approx(4 * LOGITS + (slices - 1) * one, rel=0.05)


def test_the_last_slice_of_a_row_keeps_a_whole_cast_weight() -> None:
    mixed = {"base_dtype": "float32", "adapter_dtype": "float32", "autocast": True}
    whole, part = (step(LitGpt2023(0, lacking_tokens=lacking), **mixed).after_forward_bytes for lacking in (0, 32))
    assert part - whole == 2 * MODEL.vocab_size * MODEL.hidden_size * 32 // 128


def test_casts_of_all_slices_precede_the_products_with_a_quantized_head() -> None:
    """Beside fp32 logits are then gradients in 16 bits, that of the states, and the weight in fp16 and in bf16."""
    nf4 = {"method": "qlora", "quant": "nf4", "kbit_upcast": False}
    wide = MODEL.model_copy(update={"hidden_size": 2048, "head_dim": 512})
    one = step(LitGpt2023(0), wide, **nf4)
    moved = 2 * 2 * wide.vocab_size * wide.hidden_size + 2 * TOKENS * wide.hidden_size - 2 * LOGITS
    assert one.peak_bytes - one.after_forward_bytes == pytest.approx(moved, rel=0.01)


@pytest.mark.parametrize("reentrant", [True, False])
def test_older_int8_products_keep_their_input_a_second_time(reentrant: bool) -> None:
    """And out of reach of checkpointing that is not re-entrant."""
    int8 = {"method": "qlora", "quant": "int8", "kbit_upcast": False, "base_dtype": "float16"}
    knobs = {**int8, "gradient_checkpointing": True, "reentrant": reentrant}
    inputs = TOKENS * MODEL.num_hidden_layers * (4 * MODEL.hidden_size + MODEL.intermediate_size)
    assert kept(Older8Bit(), **knobs) == (0 if reentrant else inputs)


def test_a_sliced_head_spares_the_gradients_of_full_logits() -> None:
    assert step(SlicedHead()).peak_bytes < step(OwnLoop()).peak_bytes


def test_repeated_keys_are_kept_for_every_query_head() -> None:
    heads = GROUPED.num_attention_heads - GROUPED.num_key_value_heads
    more = 2 * 2 * TOKENS * heads * GROUPED.head_dim * GROUPED.num_hidden_layers
    assert kept(ExpandsKeys(), GROUPED, target_modules=("q_proj",)) == more
    assert kept(ExpandsKeys()) == 0


def test_tables_are_kept_once_a_layer() -> None:
    one = 2 * 2 * LENGTH * MODEL.head_dim
    # ours keeps one for all layers
    assert kept(OwnTables()) == (MODEL.num_hidden_layers - 1) * one


def test_shifted_logits_are_upcast_and_copied() -> None:
    ours, older = step(OwnLoop()), step(Early2024())
    assert older.peak_bytes > ours.peak_bytes
    # outputs are held in fp32 instead of bf16
    tables = 2 * 2 * LENGTH * MODEL.head_dim * (MODEL.num_hidden_layers - 1)
    assert older.after_forward_bytes - ours.after_forward_bytes - tables == pytest.approx(2 * LOGITS, rel=0.02)


def test_a_frozen_lora_a_has_no_gradient() -> None:
    trained, frozen = step(OwnLoop()), step(OwnLoop(freezes_lora_a=True))
    spared = MODEL.num_hidden_layers * 8 * MODEL.hidden_size * 2
    assert trained.after_backward_bytes - frozen.after_backward_bytes == spared


def test_a_quantized_head_makes_its_weight_in_both_passes() -> None:
    knobs = {"method": "qlora", "quant": "nf4", "kbit_upcast": False}
    plain, quantized = (step(SlicedHead(), **k) for k in ({**knobs, "quant": "none", "method": "lora"}, knobs))
    moving = [sum(one.moving.values()) for one in (plain, quantized)]
    assert moving[1] > moving[0]


def test_cached_keys_are_what_attention_saved_and_outlive_backward() -> None:
    knobs = {"target_modules": ("q_proj", "v_proj")}
    ours, cached = step(THIS_STACK, GROUPED, **knobs), step(CachesKeys(), GROUPED, **knobs)
    assert cached.after_forward_bytes == ours.after_forward_bytes
    keys = 2 * TOKENS * GROUPED.kv_size * GROUPED.num_hidden_layers
    assert cached.after_backward_bytes - ours.after_backward_bytes == 2 * keys
    assert kept(CachesKeys(), GROUPED, gradient_checkpointing=True, **knobs) == 0


@pytest.mark.parametrize(
    ("knobs", "norms"),
    [
        ({"method": "full"}, 2 * 4 + 1),
        ({"target_modules": ("q_proj",)}, 2 * 4),
        ({"target_modules": ("q_proj",), "gradient_checkpointing": True}, 1),
    ],
)
def test_norms_that_see_a_gradient_keep_a_second_fp32_tensor(knobs: dict[str, Any], norms: int) -> None:
    assert kept(NormsKeepTwice(), GROUPED, **knobs) == norms * 4 * TOKENS * GROUPED.hidden_size


def test_a_cut_embedding_spares_the_first_layer_its_quantized_input() -> None:
    knobs = {
        "method": "qlora",
        "quant": "nf4",
        "kbit_upcast": False,
        "target_modules": ("q_proj",),
        "gradient_checkpointing": True,
    }
    held, cut = (step(stack, GROUPED, **knobs) for stack in (HoldsQuantizedInput(), CutsEmbedding()))
    assert held.after_forward_bytes - cut.after_forward_bytes == 2 * TOKENS * GROUPED.hidden_size


def test_a_loss_in_the_logits_own_dtype_keeps_six_bytes_a_logit_less() -> None:
    wide, narrow = (step(OwnLoop(upcasts_logits=upcasts)) for upcasts in (True, False))
    assert wide.peak_at == narrow.peak_at == "backward, loss"
    assert wide.peak_bytes - narrow.peak_bytes == 6 * LOGITS
    assert wide.after_forward_bytes - narrow.after_forward_bytes == 2 * LOGITS  # log probabilities


def test_autocast_runs_that_loss_in_fp32_all_the_same() -> None:
    wide, narrow = (step(OwnLoop(upcasts_logits=upcasts), autocast=True) for upcasts in (True, False))
    assert wide.peak_bytes == narrow.peak_bytes
