"""The table of knobs: how each is spelled, what its values are read as, what means nothing."""

from __future__ import annotations

import pytest

from advisor.errors import BadValue, UnknownName
from advisor.knobs import BY_NAME, KNOBS, idle_knobs, range_of, read_value
from advisor.specs import METHODS, Placement, Recipe, Rental, Workload

HOMES = {"recipe": Recipe, "workload": Workload, "placement": Placement, "rental": Rental}


def test_every_knob_is_a_field_of_its_home() -> None:
    assert len(BY_NAME) == len(KNOBS) > 30
    for knob in KNOBS:
        if knob.home in HOMES:
            assert knob.name in HOMES[knob.home].model_fields, knob.name


def test_spellings() -> None:
    assert (BY_NAME["seq_len"].flag, BY_NAME["seq_len"].option) == ("--seq-len", "--seq-len")
    assert BY_NAME["packing"].option == "--packing/--no-packing"
    assert BY_NAME["method"].explanation.endswith(": all, full, lora, dora, qlora, qdora")


@pytest.mark.parametrize(
    ("name", "given", "read"),
    [
        ("rank", "16", 16),
        ("rank", 16.0, 16),
        ("epochs", "0.5", 0.5),
        ("epochs", 3, 3.0),
        ("packing", False, False),
        ("base_dtype", "BF16", "bfloat16"),
        ("base_dtype", "float32", "float32"),
        ("method", "QLoRA", "qlora"),
        ("target_modules", "q_proj, v_proj,q_proj", ("q_proj", "v_proj")),
        ("target_modules", ["attention"], ("attention",)),
        ("model", " any text ", " any text "),
    ],
)
def test_what_values_are_read_as(name: str, given: object, read: object) -> None:
    found = read_value(name, given)
    assert (found, type(found)) == (read, type(read))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("rank", "0"),
        ("rank", "16.0"),
        ("rank", 16.5),
        ("rank", True),
        ("rank", float("nan")),
        ("rank", "9" * 400),
        ("dropout", "-0.1"),
        ("epochs", float("inf")),
        ("packing", "yes"),
        ("packing", 1),
        ("target_modules", ""),
        ("target_modules", "q_proj,,v_proj"),
        ("target_modules", [1]),
        ("model", "two\nlines"),
        ("model", " "),
    ],
)
def test_other_values_are_refused_by_the_flag(name: str, given: object) -> None:
    with pytest.raises(BadValue, match=f"^{BY_NAME[name].flag} "):
        read_value(name, given)


@pytest.mark.parametrize(("name", "given", "near"), [("method", "lroa", "lora"), ("rnk", 16, "rank")])
def test_unknown_names_have_near_matches(name: str, given: object, near: str) -> None:
    with pytest.raises(UnknownName) as refused:
        read_value(name, given)
    assert near in refused.value.near


def test_only_numbers_have_ranges() -> None:
    assert range_of(BY_NAME["rank"]).low == 1
    with pytest.raises(ValueError, match="not a number"):
        range_of(BY_NAME["method"])


def test_what_means_nothing_for_a_method() -> None:
    adapters = {"rank", "alpha", "target_modules", "dropout", "adapter_dtype", "magnitude_dtype"}
    quantized = {"quant", "double_quant", "kbit_upcast"}
    assert {method: set(idle_knobs(method)) for method in METHODS} == {
        "full": adapters | quantized,
        "lora": quantized | {"magnitude_dtype"},
        "dora": quantized,
        "qlora": {"magnitude_dtype"},
        "qdora": set(),
    }


def test_what_means_nothing_beside_another_knob() -> None:
    assert set(idle_knobs("qdora", quant="int8")) == {"double_quant"}
    assert set(idle_knobs("qdora", gradient_checkpointing=False)) == {"reentrant"}
