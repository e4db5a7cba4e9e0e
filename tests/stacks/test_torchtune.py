"""torchtune's stack: the bytes of its own code on a CPU, and what it decides by itself."""

from __future__ import annotations

import pytest

from advisor.advice.advise import advise
from advisor.catalog import find_model
from advisor.costs.memory import predict_step_memory
from advisor.decoders.stack import THIS_STACK
from advisor.libraries import Libraries
from advisor.stacks import named_stack
from advisor.stacks.torchtune import Torchtune
from benchmarks.own_decoders import BATCH, Case, model_spec, torchtune_cases

STACK = named_stack(("torchtune-0.6",))
LENGTH, POSITIONS = 192, 256
# torchtune 0.6.1 and torchao 0.9.0, their own modules on a CPU: `benchmarks.against_torchtune` printed these peaks of
# forward and backward, 2 x 192 tokens.
PEAKS = [
    (20_914_176, 26_754_560),
    (19_144_704, 24_591_872),
    (34_526_208, 34_124_288),
    (32_756_736, 32_354_816),
    (9_864_192, 12_167_168),
    (9_219_072, 11_522_048),
    (20_851_200, 20_260_352),
    (20_206_080, 19_615_232),
    (6_960_128, 10_650_624),
    (6_754_304, 10_444_800),
    (17_527_296, 17_071_616),
    (17_321_472, 16_865_792),
]


@pytest.mark.parametrize(("case", "peaks"), list(zip(torchtune_cases(), PEAKS, strict=True)))
def test_peaks_are_those_of_its_own_code(case: Case, peaks: tuple[int, int]) -> None:
    found = predict_step_memory(model_spec(case.kv_heads, POSITIONS), case.recipe, BATCH, LENGTH, "cpu", STACK)
    assert found.phase_peaks["forward"] == pytest.approx(peaks[0], rel=0.01)
    assert found.phase_peaks["backward"] == pytest.approx(peaks[1], rel=0.01)


def test_a_loss_in_chunks_needs_less_than_one_of_all_logits() -> None:
    recipe, model = torchtune_cases()[4].recipe, model_spec(8, POSITIONS).model_copy(update={"vocab_size": 16_384})
    chunked, whole = (
        predict_step_memory(model, recipe, BATCH, LENGTH, "cuda", Torchtune(chunks, libraries=STACK.libraries))
        for chunks in (8, 0)
    )
    assert chunked.peak_bytes < whole.peak_bytes
    assert chunked.static_blocks == whole.static_blocks


def test_the_norm_of_0_4_keeps_16_bits_where_a_weight_trains() -> None:
    recipe, model = torchtune_cases()[2].recipe, model_spec(8, POSITIONS)
    old, new = (
        predict_step_memory(
            model, recipe, BATCH, LENGTH, "cpu", Torchtune(libraries=Libraries(code="torchtune", code_version=version))
        ).after_forward_bytes
        for version in ((0, 4), (0, 6))
    )
    norms, wide = 2 * model.num_hidden_layers + 1, 2 * BATCH * LENGTH * model.hidden_size
    assert new - old == norms * wide


def test_padding_makes_no_mask_and_one_table_stands() -> None:
    model = find_model("llama-3.1-8b")
    recipe = torchtune_cases()[0].recipe
    assert not STACK.masks(True)
    assert THIS_STACK.masks(True)
    assert STACK.standing_bytes(model, recipe, 1, 10) == (4 * 131_072 * 128,)


def test_a_model_without_a_builder_is_not_known() -> None:
    recipe = torchtune_cases()[0].recipe
    assert STACK.proof(find_model("llama-3.1-8b"), recipe).unknown == ()
    assert STACK.proof(find_model("gpt2"), recipe).unknown == ("torchtune 0.6 has no builder for gpt2",)


def test_packed_rows_run_a_kernel_that_is_not_known() -> None:
    (row,) = advise("llama-3.2-1b", "h100", 1000, trainer="torchtune", method="lora", packing=True).candidates
    assert row.verdict == "tight"
    assert any("flex attention" in text for text in row.evidence.unknown)
    (row,) = advise("llama-3.2-1b", "h100", 1000, trainer="torchtune", method="lora").candidates
    assert row.verdict == "fits"
