from __future__ import annotations

from typing import Any

import pytest

from advisor.costs.micro_batches import MicroBatch
from advisor.errors import BadValue, UnknownName
from advisor.specs import METHODS
from calibrate.cut import Whole
from calibrate.plan import DEFAULT_MODELS, NothingToRun, Plan, Request, make_plan
from calibrate.runner import Machine
from tests.calibrate.made_up import TINY, gpu, machine, whole
from tests.decoders.tiny import spec

TINY_MODEL = Whole("tiny", TINY, spec("llama"))


def plan(here: Machine, *names: str, **question: Any) -> Plan:
    models = tuple(whole(name) for name in names or DEFAULT_MODELS[here.device.kind])
    return make_plan(Request(models, **question), here)


def tiny_plan(here: Machine | None = None, **question: Any) -> Plan:
    return make_plan(Request((TINY_MODEL,), **question), here or machine())


@pytest.mark.parametrize("here", [machine(), machine(gpu(), 139.0)], ids=["cpu", "cuda"])
def test_default_is_every_method_at_every_place(here: Machine) -> None:
    found = plan(here)
    assert len(found.bursts) == 3 * 5 * 2 * 2
    assert found.skipped == ()
    assert len({(b.model.name, b.recipe, b.seq_len) for b in found.bursts}) == 60


@pytest.mark.parametrize("here", [machine(), machine(gpu(), 139.0)], ids=["cpu", "cuda"])
def test_an_early_end_leaves_every_method_measured(here: Machine) -> None:
    """Each five in a row are the five methods at one place, and the first fifteen are the three models."""
    bursts = plan(here).bursts
    for begin in range(0, 60, 5):
        five = bursts[begin : begin + 5]
        assert [b.recipe.method for b in five] == list(METHODS)
        assert len({(b.model.name, b.seq_len, b.recipe.gradient_checkpointing) for b in five}) == 1
    assert {b.model.name for b in bursts[:15]} == set(DEFAULT_MODELS[here.device.kind])
    assert {b.recipe.gradient_checkpointing for b in bursts[:30]} == {False, True}


def test_the_whole_models_run_on_a_large_card() -> None:
    found = plan(machine(gpu(), 139.0))
    assert all(b.model.text == "" for b in found.bursts)
    assert all(b.prediction.verdict == "fits" for b in found.bursts)
    assert all(b.prediction.figures is not None and b.prediction.figures.step_s for b in found.bursts)


def test_eight_gigabytes_calibrate_for_an_8b_model() -> None:
    """At its full width, all adapter methods cut alike; full fine-tuning cannot, and says so."""
    found = plan(machine(gpu("NVIDIA GeForce RTX 3070", 8), 7.5), "llama-3.1-8b")
    assert {b.recipe.method for b in found.bursts} == {"lora", "dora", "qlora", "qdora"}
    (text,) = {b.model.text for b in found.bursts}
    assert text.endswith(" of 32 layers")
    assert all(b.model.spec is not None and b.model.spec.hidden_size == 4096 for b in found.bursts)
    assert sum(" full " in s.label for s in found.skipped) == 4
    assert all(s.reason.startswith("cannot fit: it needs ") for s in found.skipped)


def test_a_cpu_trains_a_few_layers_and_words() -> None:
    found = plan(machine(), "llama-3.1-8b")
    assert {b.model.text for b in found.bursts} == {"1 of 32 layers, 16,384 of 128,256 words"}
    assert found.notes == ("llama-3.1-8b is cut to 1 of 32 layers, 16,384 of 128,256 words",)


def test_tiny_models_stay_whole() -> None:
    assert {b.model.text for b in tiny_plan().bursts} == {""}
    assert tiny_plan().notes == ()


def test_a_card_too_small_for_anything() -> None:
    with pytest.raises(
        NothingToRun, match=r"too small for the smallest burst, llama-3.2-1b \w+ 1x256.*choose a smaller"
    ):
        plan(machine(gpu("NVIDIA Old", 2), 1.0), "llama-3.2-1b")


def test_without_kernels_only_the_quantized_methods_are_left_out() -> None:
    found = tiny_plan(machine(problem="no kernel image"))
    assert {b.recipe.method for b in found.bursts} == {"full", "lora", "dora"}
    assert {s.reason for s in found.skipped} == {"bitsandbytes cannot quantize on this device: no kernel image"}
    with pytest.raises(NothingToRun, match="no kernel image"):
        tiny_plan(machine(problem="no kernel image"), methods=("qlora",))


@pytest.mark.parametrize(
    ("knobs", "left_out", "says"),
    [
        ({"quant": "int8"}, {"qdora"}, "int8"),
        ({"optimizer": "paged_adamw"}, set(METHODS), "need a GPU"),
        ({"attention": "flash"}, set(METHODS), "flash kernels"),
        ({"loss": "chunked"}, set(METHODS), "use --loss full"),
    ],
)
def test_what_cannot_be_is_left_out_with_the_reason(knobs: dict[str, str], left_out: set[str], says: str) -> None:
    if left_out == set(METHODS):
        with pytest.raises(NothingToRun, match=says):
            tiny_plan(knobs=knobs)
        return
    found = tiny_plan(knobs=knobs)
    assert {b.recipe.method for b in found.bursts} == set(METHODS) - left_out
    assert all(says in s.reason for s in found.skipped)


def test_what_was_fixed_stays() -> None:
    found = tiny_plan(
        rows=((2, 16), (1, 64)),
        methods=("lora",),
        knobs={"rank": "8", "gradient_checkpointing": False, "batch_size": "4"},
    )
    shapes = {(b.recipe.micro_batch, b.seq_len, b.recipe.gradient_accumulation) for b in found.bursts}
    assert shapes == {(2, 16, 2), (1, 64, 4)}
    assert {(b.recipe.rank, b.recipe.gradient_checkpointing) for b in found.bursts} == {(8, False)}


def test_a_burst_that_checkpointing_cannot_change_is_not_measured_twice() -> None:
    found = tiny_plan(methods=("lora",), knobs={"gradient_checkpointing": True})
    assert len({(b.recipe, b.seq_len) for b in found.bursts}) == len(found.bursts) == 2


def test_knobs_of_a_trainer() -> None:
    found = tiny_plan(trainer="trl", methods=("qlora",))
    assert all((b.recipe.adapter_dtype, b.recipe.loss) == ("bfloat16", "full") for b in found.bursts)
    assert {b.recipe.dropout for b in found.bursts} == {0.05}
    assert found.notes == ("trl computes its loss in chunks; bursts compute transformers' own loss, on all logits",)
    assert tiny_plan(trainer="trl", methods=("qlora",), knobs={"dropout": "0"}).bursts[0].recipe.dropout == 0


def test_a_card_without_bf16_trains_in_fp16() -> None:
    found = tiny_plan(machine(gpu("NVIDIA T4", 15), 14.0, bf16=False))
    assert {b.recipe.base_dtype for b in found.bursts} == {"float16"}


def test_a_model_without_a_formula_runs_whole_and_unpredicted() -> None:
    found = make_plan(Request((Whole("strange", {"model_type": "mamba"}, None),)), machine())
    assert {b.prediction.verdict for b in found.bursts} == {"unknown"}
    assert len(found.bursts) == 20


def test_attention_is_what_transformers_would_pick() -> None:
    found = make_plan(Request((TINY_MODEL._replace(attention="eager"),)), machine())
    assert {b.recipe.attention for b in found.bursts} == {"eager"}
    assert {b.recipe.attention for b in plan(machine(), "gemma-2-2b").bursts} == {"eager"}
    assert {b.recipe.attention for b in tiny_plan().bursts} == {"sdpa"}


def test_knobs_that_cannot_be_are_errors() -> None:
    with pytest.raises(BadValue):
        tiny_plan(knobs={"rank": "0"})
    with pytest.raises(UnknownName):
        tiny_plan(trainer="tlr")
    with pytest.raises(UnknownName):
        tiny_plan(knobs={"target_modules": "no_such_layer"})


def test_guesses_of_time_grow_with_the_work() -> None:
    cost = {
        (b.recipe.method, b.seq_len, b.recipe.gradient_checkpointing): b.cost_s
        for b in plan(machine()).bursts
        if b.model.name == "pythia-70m"
    }
    assert all(cost[m, 64, way] < cost[m, 256, way] for m in METHODS for way in (False, True))


ROWS: dict[str, Any] = {"micro_batch": "3", "mean_seq_len": "30", "eval_batch": "4", "gradient_checkpointing": True}


def test_rows_that_vary_are_drawn_before_and_predicted_as_drawn() -> None:
    (burst,) = tiny_plan(methods=("lora",), rows=((3, 64),), knobs=ROWS, steps=7).bursts
    longest = max(max(drawn.lengths) for step in burst.draws for drawn in step)
    assert len(burst.draws) == 8
    assert (burst.batch, burst.evaluated) == (MicroBatch(3, longest, True), MicroBatch(4, longest, True))
    assert burst.label == f"tiny lora 3x{longest} varying c"
    figures = burst.prediction.figures
    assert figures is not None
    assert figures.evaluation_bytes
    assert figures.step_s is None


@pytest.mark.parametrize("here", [machine(), machine(gpu(), 139.0)], ids=["cpu", "cuda"])
@pytest.mark.parametrize(
    ("knobs", "label"),
    [
        ({"padding": "max-length"}, "tiny lora 3x64 padded c"),
        ({"packing": True, "packing_strategy": "position-ids"}, "tiny lora 1x192 packed c"),
        ({"packing": True}, "tiny lora 3x64 c"),
    ],
)
def test_padded_and_packed_rows_have_one_shape(here: Machine, knobs: dict[str, Any], label: str) -> None:
    (burst,) = tiny_plan(here, methods=("lora",), rows=((3, 64),), knobs=ROWS | knobs).bursts
    assert (burst.label, burst.draws) == (label, ())
    figures = burst.prediction.figures
    assert figures is not None
    assert figures.evaluation_bytes
