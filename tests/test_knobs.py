"""The table of knobs: how each is spelled, what its values are read as, what means nothing."""

from __future__ import annotations

import pytest

from advisor.errors import BadValue, UnknownName
from advisor.knobs import BY_NAME, KNOBS, idle_knobs, range_of, read_question, read_value, stand_in_text
from advisor.optimizers import OPTIMIZERS
from advisor.specs import METHODS, ModelSpec, Placement, Recipe, Rental, Workload

HOMES = {"model": ModelSpec, "recipe": Recipe, "workload": Workload, "placement": Placement, "rental": Rental}


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
        ("target_modules", "all", ("all-linear",)),
        ("target_modules", "q_proj v_proj", ("q_proj", "v_proj")),
        ("seq_len", "8k", 8192),
        ("mean_seq_len", "1.5K", 1536),
        ("examples", "50k", 50_000),
        ("examples", "1.2m", 1_200_000),
        ("examples", "1,000,000", 1_000_000),
        ("price_per_hour", "1,234.5", 1234.5),
        ("attention", "flash_attention_2", "flash"),
        ("attention", "Flash-Attention-2", "flash"),
        ("quant", "4bit", "nf4"),
        ("quant", "int4", "nf4"),
        ("quant", "8bit", "int8"),
        ("quant", "fp4", "fp4"),
        ("optimizer", "paged-adamw-8bit", "paged_adamw_8bit"),
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
        ("rank", "8k"),
        ("seq_len", "1.0001k"),
        ("seq_len", "k"),
        ("examples", "1,00"),
        ("examples", "50kk"),
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


def test_an_optimizer_has_the_name_that_trainers_use() -> None:
    named = {row.transformers_name: name for name, row in OPTIMIZERS.items() if row.transformers_name}
    assert set(named) >= {"adamw_torch", "adamw_torch_fused", "adamw_bnb_8bit", "paged_adamw_32bit", "paged_adamw_8bit"}
    assert {text: read_value("optimizer", text) for text in named} == named
    assert all(read_value("optimizer", name) == name for name in OPTIMIZERS)


def test_no_alias_hides_a_choice() -> None:
    aliased = [knob for knob in KNOBS if knob.aliases]
    assert len(aliased) >= 6
    for knob in aliased:
        assert all(knob.aliases[choice] == choice for choice in knob.choices if choice in knob.aliases), knob.name
        named = {name for names in knob.aliases.values() for name in names.split()}
        assert named <= {*knob.choices, "all-linear"}


@pytest.mark.parametrize(("name", "given", "near"), [("method", "lroa", "lora"), ("rnk", 16, "rank")])
def test_unknown_names_have_near_matches(name: str, given: object, near: str) -> None:
    with pytest.raises(UnknownName) as refused:
        read_value(name, given)
    assert near in refused.value.near


def test_a_regular_expression_is_one_name() -> None:
    assert read_value("target_modules", r".*\.(q|v)_proj.{0,3}") == (r".*\.(q|v)_proj.{0,3}",)
    assert read_value("target_modules", "q_proj, v_proj") == ("q_proj", "v_proj")


def test_only_numbers_have_ranges() -> None:
    assert range_of(BY_NAME["rank"]).low == 1
    with pytest.raises(ValueError, match="not a number"):
        range_of(BY_NAME["method"])


def test_what_means_nothing_for_a_method() -> None:
    adapters = {"rank", "alpha", "target_modules", "variant", "dropout", "adapter_dtype", "magnitude_dtype"}
    widths = {"quant_bits", "quant_group"}
    quantized = {"quant", "double_quant", "kbit_upcast", "quantize_experts", *widths}
    assert {method: set(idle_knobs(method)) for method in METHODS} == {
        "full": adapters | quantized | {"modules_to_save", "trained_dtype"},
        "lora": quantized | {"magnitude_dtype", "optimizer_in_backward"},
        "dora": quantized | {"optimizer_in_backward"},
        "qlora": {"magnitude_dtype", "optimizer_in_backward", *widths},
        "qdora": {"optimizer_in_backward", *widths},
    }


def test_what_means_nothing_beside_another_knob() -> None:
    usual, widths = set(idle_knobs("qdora")), {"quant_bits", "quant_group"}
    assert set(idle_knobs("qdora", quant="int8")) - usual == {"double_quant"}
    assert set(idle_knobs("qdora", quant="gptq")) ^ usual == {"double_quant", "kbit_upcast", *widths}
    assert set(idle_knobs("qdora", quant="fp8")) ^ usual == {"double_quant", "quant_group"}
    assert set(idle_knobs("full", gradient_checkpointing=False)) - set(idle_knobs("full")) == {"reentrant"}
    assert {"modules_to_save", "trained_dtype"}.isdisjoint(idle_knobs("full", trained_layers=2))


@pytest.mark.parametrize(
    ("name", "word", "taken"),
    [
        ("attention", "flash_attention_3", "flash"),
        ("attention", "xformers", "sdpa"),
        ("trainer", "alignment-handbook", "trl"),
    ],
)
def test_a_word_near_a_choice_is_taken_for_it_and_said(name: str, word: str, taken: str) -> None:
    question = read_question({name: word})
    assert getattr(question, name) == taken
    assert question.stand_ins == (stand_in_text(name, word),)
    assert f"--{name} {word} is taken as {taken}: " in question.stand_ins[0]


def test_choices_and_aliases_stand_for_nothing_else() -> None:
    assert read_question({"attention": "fa2", "trainer": "swift"}).stand_ins == ()
    assert stand_in_text("attention", "sdpa") == stand_in_text("rank", 3) == ""
