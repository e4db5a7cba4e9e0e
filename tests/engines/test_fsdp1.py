"""What a rank of FSDP1 holds and exchanges, by the formula alone; the real step is in tests/calibrate."""

from __future__ import annotations

import pytest

from advisor import find_model
from advisor.costs.rank_memory import predict_rank_memory
from advisor.decoders.recorder import EMBEDDING, HEAD
from advisor.decoders.stack import THIS_STACK
from advisor.engines import engine_for
from advisor.engines.limits import refusal
from advisor.specs import Method, Placement, Recipe
from advisor.stacks import named_stack
from advisor.terms import TermName

MODEL = find_model("mistral-7b-v0.1")
SHARDED = Placement(gpus=2, sharding="fsdp1")
WORKSPACES = 2 * 8_519_680
"""cuBLAS's, read off the first of the published rows."""


def recipe(method: Method, **changes: object) -> Recipe:
    given = {"rank": 16, "target_modules": ("attention",), "quant": "nf4" if method[0] == "q" else "none", **changes}
    return Recipe.model_validate({"method": method, "kbit_upcast": False, "optimizer": "adamw_foreach", **given})


@pytest.mark.parametrize(
    ("method", "autocast", "ranks", "after", "peak"),
    [
        ("full", False, 2, 28_984_372_049, 36_226_116_406),
        ("full", True, 2, 57_951_349_480, 72_434_838_195),
        ("full", True, 4, 28_984_372_049, 36_226_116_406),
        ("lora", False, 2, 7_368_231_145, 21_959_845_662),
        ("qlora", True, 2, 2_244_764_657, 15_970_084_271),
    ],
)
def test_published_cards_hold_as_much(method: Method, autocast: bool, ranks: int, after: int, peak: int) -> None:
    """fms-acceleration's a100_80gb.csv, Mistral 7B on A100s: allocated after training, and the most."""
    at = Placement(gpus=ranks, sharding="fsdp1", prefetch=True)
    stack = ("transformers-4.48", "peft-0.13", "bitsandbytes-0.43")
    changes = {"autocast": autocast, "double_quant": True, "attention": "flash", "dropout": 0.1 * (method != "full")}
    run = recipe(method, gradient_checkpointing=True, reentrant=True, stack=stack, **changes)
    found = predict_rank_memory(MODEL, run, at, 4, 4096, stack=named_stack(stack))
    assert found.after_backward_bytes + WORKSPACES == pytest.approx(after, rel=3e-5)
    assert found.peak_bytes + WORKSPACES == pytest.approx(peak, rel=3e-5 if method == "full" else 2e-3)


def test_a_layer_is_gathered_twice_and_the_root_once() -> None:
    engine = engine_for(MODEL, recipe("full", autocast=True), SHARDED, THIS_STACK)
    assert engine is not None
    kinds = {
        place: [[one.kind for one in engine.transfers(place, phase, syncs=True)] for phase in ("forward", "backward")]
        for place in (EMBEDDING, 0, HEAD)
    }
    assert kinds == {EMBEDDING: [["gather"], ["scatter"]], 0: [["gather"], ["gather", "scatter"]], HEAD: [[], []]}
    assert engine.transfers(0, "forward", True)[0].bytes == pytest.approx(2 * 218_112_000, rel=1e-3)
    assert engine.aside_bytes() > 2 * 2 * 218_112_000


def test_weights_that_stay_are_gathered_once_and_need_more() -> None:
    kept = SHARDED.model_copy(update={"reshard": False})
    engine = engine_for(MODEL, recipe("full", autocast=True), kept, THIS_STACK)
    assert engine is not None
    assert [one.kind for one in engine.transfers(0, "backward", True)] == ["scatter"]
    found = [predict_rank_memory(MODEL, recipe("lora"), at, 1, 128).moving[TermName.GATHERED] for at in (SHARDED, kept)]
    assert found[1] - found[0] > 20 * 2 * 218_112_000


def test_accumulation_keeps_whole_gradients() -> None:
    found = [
        predict_rank_memory(MODEL, recipe("full", gradient_accumulation=n), SHARDED, 1, 128).phase_peaks["forward"]
        for n in (1, 2)
    ]
    assert found[1] - found[0] == pytest.approx(2 * 7.24e9, rel=1e-3), "as the second micro-batch begins"


def test_what_fsdp1_cannot_join_is_refused() -> None:
    assert "columns" in refusal(MODEL, recipe("dora"), SHARDED)
    assert "experts" in refusal(find_model("mixtral-8x7b"), recipe("lora", target_modules=("all-linear",)), SHARDED)
    assert "--autocast" in refusal(MODEL, recipe("qlora", autocast=False, adapter_dtype="float32"), SHARDED)
    assert "--no-kbit-upcast" in refusal(MODEL, recipe("qlora", kbit_upcast=True), SHARDED)
    assert refusal(MODEL, recipe("lora", adapter_dtype="float32", base_dtype="bfloat16"), SHARDED) == ""
