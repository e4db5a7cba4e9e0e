"""LitGPT's stack: the bytes of its own code on a CPU, and what its loop holds from one step to the next."""

from __future__ import annotations

import pytest

from advisor.advice.advise import advise
from advisor.blocks import block_bytes
from advisor.catalog import find_model
from advisor.costs.memory import predict_step_memory
from advisor.costs.static import static_memory
from advisor.errors import BadValue
from advisor.parameters.modules import layer_linears
from advisor.specs import Recipe
from advisor.stacks import named_stack
from advisor.stacks.litgpt_today import LitGpt
from advisor.terms import TermName
from benchmarks.own_decoders import BATCH, Case, litgpt_cases, model_spec

STACK = named_stack(("litgpt-0.5",))
LENGTH = 320
# litgpt 0.5.13, its own modules in a loop like its own on a CPU: `benchmarks.against_litgpt` printed these peaks of
# forward and backward of the second iteration, 2 x 320 tokens.
PEAKS = [
    (32_687_104, 33_468_928),
    (30_012_416, 30_794_240),
    (30_800_896, 31_582_720),
    (44_145_152, 44_926_976),
    (51_642_880, 52_424_704),
    (68_292_608, 69_074_432),
]
QLORA = Recipe(
    method="qlora",
    quant="nf4",
    rank=8,
    target_modules=("q_proj", "v_proj"),
    adapter_dtype="bfloat16",
    kbit_upcast=False,
    autocast=False,
    gradient_checkpointing=False,
)


class FirstIteration(LitGpt):
    """No step came before."""

    graph_outlives_step = False


@pytest.mark.parametrize(("case", "peaks"), list(zip(litgpt_cases(), PEAKS, strict=True)))
def test_peaks_are_those_of_its_own_code(case: Case, peaks: tuple[int, int]) -> None:
    model = STACK.built(model_spec(case.kv_heads, LENGTH))
    found = predict_step_memory(model, case.recipe, BATCH, LENGTH, "cpu", STACK)
    assert found.phase_peaks["forward"] == pytest.approx(peaks[0], rel=0.02)
    assert found.phase_peaks["backward"] == pytest.approx(peaks[1], rel=0.001)


def test_from_the_second_step_on_inputs_of_4_bit_products_are_there_twice() -> None:
    model = STACK.built(model_spec(8, LENGTH))
    later, first = (
        predict_step_memory(model, QLORA, BATCH, LENGTH, "cuda", stack)
        for stack in (STACK, FirstIteration(libraries=STACK.libraries))
    )
    tokens, shapes = 2 * BATCH * LENGTH, layer_linears(model)
    inputs = [shapes[name].in_features for name in ("q_proj", "o_proj", "gate_proj", "down_proj")]  # each tensor once
    held = model.num_hidden_layers * tokens * sum(inputs) + tokens * model.hidden_size  # the head's
    assert later.phase_peaks["forward"] - first.phase_peaks["forward"] == pytest.approx(held, abs=2048)
    assert later.phase_peaks["backward"] == first.phase_peaks["backward"]


def test_the_head_is_a_tensor_of_its_own_and_quantized_with_the_rest() -> None:
    model = STACK.built(find_model("llama-3.2-1b"))
    assert not model.tie_word_embeddings
    plain = static_memory(model, QLORA, 1, 8).blocks[TermName.BASE_WEIGHTS]
    head = model.vocab_size * model.hidden_size
    ours = static_memory(model, QLORA, 1, 8, stack=STACK).blocks[TermName.BASE_WEIGHTS]
    assert plain - ours == block_bytes(2 * head) - block_bytes(head // 2)


def test_slices_of_a_frozen_fp32_head_depend_on_the_length() -> None:
    mixed, plain = litgpt_cases()[3].recipe, litgpt_cases()[0].recipe
    model = model_spec(8, LENGTH)
    assert STACK.shaped(model, mixed, 1, 100) == LitGpt(28, libraries=STACK.libraries)
    assert STACK.shaped(model, plain, 1, 100) is STACK


def test_what_it_does_not_have_never_fits_for_sure() -> None:
    with pytest.raises(BadValue, match=r"litgpt 0\.5\.13 does not have it"):
        advise("llama-3.2-1b", "h100", 1000, trainer="litgpt", method="dora")
    assert STACK.proof(find_model("gpt2"), QLORA).unknown == ("litgpt 0.5 does not describe gpt2",)
    assert "its experts" in STACK.proof(find_model("mixtral-8x7b"), QLORA).unknown[0]


@pytest.mark.parametrize(
    ("model", "target_modules", "trained"),
    [
        ("falcon-7b", ("q_proj", "v_proj"), 32 * 8 * (2 * 4544 + 4544 + 64)),
        ("phi-2", ("o_proj", "up_proj", "down_proj"), 32 * 8 * (2 * 2560 + 2 * (2560 + 10_240))),
        ("phi-3-mini", ("q_proj", "gate_proj"), 32 * 8 * (2 * 3072 + 3072 + 8192)),
    ],
)
def test_every_model_has_the_layers_that_its_settings_name(
    model: str, target_modules: tuple[str, ...], trained: int
) -> None:
    found = advise(
        model=model, gpu="80GB", trainer="litgpt", method="lora", rank=8, target_modules=target_modules
    ).candidates[0]
    assert found.trainable_parameters == trained


def test_a_model_that_it_does_not_describe_keeps_its_names() -> None:
    m = find_model("bloom-560m")
    assert STACK.named(m) is m
