"""What a rank of FSDP2 holds and exchanges, by the formula alone; traces are in tests/calibrate."""

from __future__ import annotations

import pytest

from advisor import find_model
from advisor.costs.rank_memory import predict_rank_memory
from advisor.decoders.recorder import EMBEDDING, HEAD
from advisor.decoders.stack import THIS_STACK
from advisor.engines import engine_for
from advisor.engines.limits import refusal
from advisor.errors import BadValue
from advisor.specs import METHODS, Method, Placement, Recipe
from advisor.terms import TermName

MODEL = find_model("llama-3.1-8b")
SHARDED = Placement(gpus=8, sharding="fsdp2")


def recipe(method: Method, **changes: object) -> Recipe:
    quant = "nf4" if method in ("qlora", "qdora") else "none"
    given = {"rank": 16, "target_modules": ("all-linear",), "quant": quant, "autocast": True, **changes}
    return Recipe.model_validate({"method": method, **given})


@pytest.mark.parametrize("method", METHODS)
def test_more_cards_never_hold_more(method: Method) -> None:
    found = [
        predict_rank_memory(MODEL, recipe(method), Placement(gpus=n, sharding="fsdp2"), 1, 512).peak_bytes
        for n in (2, 3, 8, 64, 1024)
    ]
    assert found == sorted(found, reverse=True)


def test_weights_and_states_are_spread_and_what_is_gathered_is_not() -> None:
    few = predict_rank_memory(MODEL, recipe("full"), Placement(gpus=8, sharding="fsdp2"), 1, 512)
    many = predict_rank_memory(MODEL, recipe("full"), Placement(gpus=64, sharding="fsdp2"), 1, 512)
    for term in (TermName.BASE_WEIGHTS, TermName.OPTIMIZER_STATES):
        assert few.static[term] == pytest.approx(8 * many.static[term], rel=1e-3)
    weights = few.static[TermName.BASE_WEIGHTS]
    assert weights == pytest.approx(4 * 8.03e9 / 8, rel=1e-3), "trained weights become fp32"
    assert many.moving[TermName.GATHERED] > 2 * 218_112_000


def test_litgpt_gathers_what_it_stores() -> None:
    weights = recipe("lora", base_dtype="float32", adapter_dtype="float32")
    half, own = (
        engine_for(MODEL, one, SHARDED, THIS_STACK)
        for one in (weights, weights.model_copy(update={"stack": ("litgpt-0.5",)}))
    )
    assert half.computed().base_dtype == "bfloat16"
    assert own.computed() == own.recipe
    (gathered, *_), (whole, *_) = (one.transfers(EMBEDDING, "forward", False) for one in (half, own))
    assert whole.bytes == 2 * gathered.bytes


def test_accumulation_keeps_whole_gradients() -> None:
    once = predict_rank_memory(MODEL, recipe("full"), SHARDED, 1, 512)
    twice = predict_rank_memory(MODEL, recipe("full", gradient_accumulation=2), SHARDED, 1, 512)
    assert twice.peak_bytes - once.peak_bytes > 0.7 * 2 * 8.03e9


def test_constants_of_four_bits_are_whole_on_every_card() -> None:
    found = [
        predict_rank_memory(MODEL, recipe("qlora"), Placement(gpus=n, sharding="fsdp2"), 1, 512).static for n in (2, 16)
    ]
    assert found[0][TermName.QUANTIZATION_CONSTANTS] == found[1][TermName.QUANTIZATION_CONSTANTS]


def test_a_layer_is_gathered_twice_and_reduced_once_and_the_last_unit_gathered_once() -> None:
    engine = engine_for(MODEL, recipe("full"), SHARDED, THIS_STACK)
    assert engine is not None
    kinds = {
        place: [[one.kind for one in engine.transfers(place, phase, syncs=True)] for phase in ("forward", "backward")]
        for place in (EMBEDDING, 0, HEAD)
    }
    assert kinds[0] == [["gather"], ["gather", "scatter"]]
    assert kinds[HEAD] == [["gather"], ["scatter"]]
    assert kinds[EMBEDDING] == [["gather"], ["gather", "scatter"]]
    layer = engine.transfers(0, "forward", True)[0].bytes
    assert layer == pytest.approx(2 * 218_112_000, rel=1e-3), "bf16 weights of one layer"
    assert [one.kind for one in engine.transfers(0, "backward", syncs=False)] == ["gather"]


def test_weights_that_stay_are_gathered_once() -> None:
    engine = engine_for(MODEL, recipe("full"), SHARDED.model_copy(update={"reshard": False}), THIS_STACK)
    assert engine is not None
    assert [one.kind for one in engine.transfers(0, "backward", True)] == ["scatter"]


def test_between_machines_hsdp_reduces_what_is_left() -> None:
    placement = Placement(gpus=16, nodes=2, sharding="hsdp", network_gbit=400)
    engine = engine_for(MODEL, recipe("full"), placement, THIS_STACK)
    assert engine is not None
    assert engine.ranks == 8
    across = [one for one in engine.transfers(0, "backward", True) if one.among == "copies"]
    assert [one.kind for one in across] == ["reduce"]


def test_offloaded_parameters_are_on_the_host() -> None:
    at = SHARDED.model_copy(update={"offload": "parameters"})
    found = predict_rank_memory(MODEL, recipe("full"), at, 1, 512)
    assert TermName.BASE_WEIGHTS not in found.static
    assert TermName.OPTIMIZER_STATES not in found.static
    assert 16 * 8.03e9 / 8 <= found.host_bytes < 1.1 * 16 * 8.03e9 / 8, "pinned tensors are rounded up"


def test_parts_come_from_the_host_with_each_gather_and_gradients_go_there_once() -> None:
    at = SHARDED.model_copy(update={"offload": "parameters"})
    engine, there = engine_for(MODEL, recipe("full"), at, THIS_STACK), 4 * 218_112_000 // 8
    assert engine is not None
    assert engine.host_copies(0, "forward", True) == (pytest.approx(there, rel=1e-3), 0)
    assert engine.host_copies(0, "backward", True) == (pytest.approx(there, rel=1e-3), pytest.approx(there, rel=1e-3))
    assert engine.host_copies(0, "backward", False)[1] == 0
    assert engine.host_copies(HEAD, "backward", True)[0] == 0, "it stays from the forward on"


def test_what_cannot_be_spread_is_refused_in_one_line() -> None:
    assert "int8" in refusal(MODEL, recipe("qlora", quant="int8"), SHARDED)
    assert refusal(MODEL, recipe("qlora", quant="int8"), Placement(gpus=8)) == ""
    with pytest.raises(BadValue, match="--sharding"):
        predict_rank_memory(MODEL, recipe("full", optimizer_in_backward=True), SHARDED, 1, 512)


def test_gathers_have_a_pool_of_their_own() -> None:
    """Of two units one after the other: the embedding's buffer, and a layer's, with this rank's part of one."""
    found = predict_rank_memory(MODEL, recipe("full"), SHARDED, 1, 512)
    embedding, layer = 2 * 128_256 * 4096, 2 * 218_112_000
    assert found.aside_bytes == pytest.approx(embedding + layer + embedding / 8, rel=1e-2)
