"""What a job holds beside its step: evaluation, loading, k-bit preparation."""

from __future__ import annotations

import pytest

from advisor.catalog import find_gpus, find_model
from advisor.costs.estimation import estimate
from advisor.costs.memory import predict_step_memory
from advisor.costs.moments import Beginning, base_of, beginnings, predict_evaluation_memory
from advisor.errors import BadValue
from advisor.recipes import build_recipe
from advisor.specs import ModelSpec, Recipe, TracedModel, Workload
from advisor.terms import TermName
from tests.decoders.tiny import spec

LLAMA = find_model("llama-3.1-8b")
CARD = find_gpus("rtx4090")[0]
HEAD_ELEMENTS = 128_256 * 4096


def recipe(method: str = "qlora", **knobs: object) -> Recipe:
    return build_recipe(method, knobs)  # type: ignore[arg-type]


def begun(m: ModelSpec = LLAMA, double_quant: bool = True, kbit_upcast: bool = True) -> dict[str, Beginning]:
    base = base_of(recipe(double_quant=double_quant, kbit_upcast=kbit_upcast))
    return {one.name: one for one in beginnings(m, base)}


def test_evaluation_peaks_at_ten_bytes_a_logit() -> None:
    found = predict_evaluation_memory(LLAMA, recipe("lora"), 8, 1024)
    assert found.peak_at == "evaluation, loss"
    logits = 8 * 1024 * 128_256
    assert sum(found.moving.values()) == pytest.approx(10 * logits, rel=0.02)
    assert found.moving[TermName.GRADIENTS] == 0


def test_evaluation_holds_the_optimizers_states_and_what_the_step_holds_for_good() -> None:
    step = predict_step_memory(LLAMA, recipe("lora"), 1, 1024)
    evaluation = predict_evaluation_memory(LLAMA, recipe("lora"), 1, 1024)
    assert evaluation.static_blocks == step.static_blocks


@pytest.mark.parametrize("knobs", [{"gradient_checkpointing": False}, {"dropout": 0.1}, {"gradient_accumulation": 4}])
def test_evaluation_does_not_depend_on_what_only_training_does(knobs: dict[str, object]) -> None:
    plain = predict_evaluation_memory(LLAMA, recipe("lora", autocast=False), 2, 512)
    assert predict_evaluation_memory(LLAMA, recipe("lora", autocast=False, **knobs), 2, 512) == plain


def test_evaluation_grows_with_its_batch() -> None:
    sizes = [predict_evaluation_memory(LLAMA, recipe(), rows, 512).peak_bytes for rows in (1, 2, 4, 8)]
    assert sizes == sorted(sizes)
    assert sizes[3] - sizes[2] == pytest.approx(2 * (sizes[2] - sizes[1]), rel=0.01)


def test_preparation_casts_the_head_last_beside_its_sixteen_bits() -> None:
    found = begun()["preparation"]
    assert found.beside_bytes == 2 * HEAD_ELEMENTS
    assert found.held == {
        term: size
        for term, size in predict_step_memory(LLAMA, recipe(), 1, 1).static_blocks.items()
        if term in (TermName.BASE_WEIGHTS, TermName.QUANTIZATION_CONSTANTS, TermName.BUFFERS)
    }


def test_a_tied_embedding_is_cast_first() -> None:
    m = find_model("llama-3.2-1b")
    found = begun(m)["preparation"]
    vectors = (2 * 16 + 1) * m.hidden_size  # cast after it: 2 bytes of each were not there yet
    assert found.beside_bytes == 2 * m.vocab_size * m.hidden_size - 2 * vectors


def test_loading_holds_one_weight_in_sixteen_bits() -> None:
    largest = 4096 * 14_336
    assert begun(double_quant=False)["loading"].beside_bytes == 2 * largest
    assert begun()["loading"].beside_bytes == 2 * largest + 2 * 4 * largest // 64


def test_loading_merges_experts_beside_their_parts() -> None:
    m = find_model("qwen3-30b-a3b")
    assert begun(m)["loading"].beside_bytes == 2 * m.num_experts * 2 * m.expert_size * m.hidden_size


def test_without_preparation_there_is_none() -> None:
    assert list(begun(kbit_upcast=False)) == ["loading"]


def test_the_largest_moment_is_the_verdicts() -> None:
    work = Workload(seq_len=16, mean_seq_len=16)
    found = estimate(LLAMA, recipe(autocast=False), work, CARD).memory
    assert [one.name for one in found.moments] == ["step", "loading", "preparation"]
    assert found.highest == "preparation"
    assert found.peak_at == "k-bit preparation, while a tensor is cast to fp32"
    assert found.needed_bytes.likely == max(one.needed_bytes.likely for one in found.moments)
    assert sum(term.bytes for term in found.terms) == round(found.needed_bytes.likely)


def test_a_step_is_the_only_moment_without_quantization_and_evaluation() -> None:
    found = estimate(LLAMA, recipe("lora"), Workload(), find_gpus("h100")[0]).memory
    assert (found.moments, found.highest) == ((), "step")


def test_evaluation_is_part_of_the_jobs_time() -> None:
    work = Workload(examples=1000, epochs=2.0, eval_examples=100)
    with_it, without = (
        estimate(LLAMA, recipe(eval_batch=8), one, CARD).time
        for one in (work, work.model_copy(update={"eval_examples": 0}))
    )
    assert with_it is not None
    assert without is not None
    assert without.evaluation_s is None
    assert with_it.evaluation_s is not None
    assert with_it.total_s == without.total_s.plus(with_it.evaluation_s)
    often = estimate(LLAMA, recipe(eval_batch=8), work.model_copy(update={"eval_steps": 100}), CARD).time
    assert often is not None
    assert often.evaluation_s is not None
    assert often.evaluation_s.likely == pytest.approx(with_it.evaluation_s.likely / 2 * (often.steps // 100))


def test_a_forward_takes_less_than_half_of_a_micro_step() -> None:
    work = Workload(examples=8, eval_examples=8, seq_len=512, mean_seq_len=512)
    found = estimate(LLAMA, recipe("lora", micro_batch=8, eval_batch=8), work, CARD).time
    assert found is not None
    assert found.evaluation_s is not None
    assert 0.15 < found.evaluation_s.likely / found.micro_step_s.likely < 0.4


def test_a_tiny_models_evaluation_is_linear_in_its_layers() -> None:
    sizes = [predict_evaluation_memory(spec("gemma2", n), recipe("lora"), 2, 49, "cpu") for n in (4, 5, 6)]
    moving = [sum(one.moving.values()) for one in sizes]
    assert moving[2] - moving[1] == moving[1] - moving[0]


def test_a_traced_model_has_no_evaluation() -> None:
    model = TracedModel(
        name="tiny",
        architecture="some",
        kind="AutoModelForCausalLM",
        parameters=1000,
        max_position_embeddings=512,
        source="tiny",
        profile="tiny.json",
        checksum="",
        traced_with="",
    )
    with pytest.raises(BadValue, match="--eval-batch is 4, but must be 0 for a model that was traced"):
        estimate(model, recipe("full", eval_batch=4), Workload(), CARD)
