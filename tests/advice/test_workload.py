"""Knobs and the question made of them: ranges, defaults, contradictions."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.advice.workload import placement_of, workload_of
from advisor.answer import DataFile
from advisor.dataset.lengths import Lengths
from advisor.dataset.summary import Measured
from advisor.errors import BadValue, InputError, UnknownName
from advisor.interval import Interval
from advisor.knobs import BY_NAME, KNOBS, Question, range_of, read_question, read_value
from advisor.specs import Placement, Recipe, Rental, Workload
from tests.fakes import MODEL

NUMBERS = [knob for knob in KNOBS if knob.kind in ("int", "float")]


def test_every_field_of_the_specs_is_a_knob() -> None:
    derived = {"gradient_accumulation", "seq_len_factor", "mean_seq_len_factor", "length_quantiles", "configs"}
    fields = {*Workload.model_fields, *Recipe.model_fields, *Placement.model_fields, *Rental.model_fields} - derived
    assert fields <= set(BY_NAME)
    assert len(NUMBERS) >= 19


@pytest.mark.parametrize("knob", NUMBERS, ids=lambda knob: knob.name)
def test_numbers_are_held_to_their_range(knob) -> None:
    allowed, whole = range_of(knob), knob.kind == "int"
    step = 1 if whole else 1e-6
    high_step = step if whole else step * max(1, abs(allowed.high))
    inside = [allowed.low + step, allowed.high - high_step]
    inside += [] if allowed.open_low else [allowed.low]
    inside += [] if allowed.open_high else [allowed.high]
    for value in inside:
        number = int(value) if whole else value
        assert read_value(knob.name, number) == number
        assert read_value(knob.name, str(number)) == number
    outside = [
        allowed.low - step,
        allowed.high + high_step,
        -1,
        "nan",
        "inf",
        "-inf",
        "1e999",
        "",
        "many",
        math.nan,
        math.inf,
        True,
        None,
        [3],
        "9" * 5000,
    ]
    outside += [allowed.low] if allowed.open_low else []
    outside += [allowed.high] if allowed.open_high else []
    outside += [1.5, "1.5"] if whole else []
    for value in outside:
        with pytest.raises(BadValue, match="must be") as caught:
            read_value(knob.name, value)
        assert knob.flag in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 250


def test_choices_list_near_matches() -> None:
    with pytest.raises(UnknownName) as caught:
        read_value("method", "qlorra")
    assert "qlora" in caught.value.near
    with pytest.raises(UnknownName, match="known: transformers"):
        read_value("trainer", "axolotle")
    with pytest.raises(UnknownName) as caught:
        read_question({"micro_batches": 3})
    assert "micro_batch" in caught.value.near


def test_choices_know_aliases_and_capitals() -> None:
    assert read_value("base_dtype", "BF16") == "bfloat16"
    assert read_value("method", "DoRA") == "dora"


@pytest.mark.parametrize("value", ["", "  ", "a\nb", "a\x00b", "\udcff", "x" * 5000, "\x1b[31mred"])
def test_texts_are_one_printable_line(value: str) -> None:
    with pytest.raises(BadValue):
        read_value("model", value)


def test_target_modules_are_split_and_deduplicated() -> None:
    assert read_value("target_modules", "q_proj, v_proj,q_proj") == ("q_proj", "v_proj")
    for bad in ("", "q_proj,,v_proj", ",", 5, ",".join(f"m{i}" for i in range(100))):
        with pytest.raises(BadValue):
            read_value("target_modules", bad)


def test_defaults() -> None:
    workload = workload_of(read_question({}), MODEL)
    assert workload == Workload(examples=10_000, epochs=1, seq_len=1024, mean_seq_len=512, batch_size=16)
    short = MODEL.model_copy(update={"max_position_embeddings": 256})
    assert workload_of(read_question({}), short).seq_len == 256
    assert workload_of(read_question({"mean_seq_len": 3000}), MODEL).seq_len == 3000


def test_a_data_file_fills_what_is_open() -> None:
    data = measured({100: 40, 500: 30, 900: 7})
    workload = workload_of(read_question({}), MODEL, data)
    assert (workload.examples, workload.mean_seq_len, workload.seq_len) == (77, 329, 900)
    assert workload.ends is None
    assert [round(workload.lengths.longest_of(rows)) for rows in (1, 2, 256)] == [329, 461, 900]
    assert workload_of(read_question({"mean_seq_len": 200}), MODEL, data).length_quantiles == ()
    fixed = workload_of(read_question({"examples": 5, "seq_len": 128}), MODEL, data)
    assert (fixed.examples, fixed.mean_seq_len, fixed.seq_len) == (5, 113, 128)


def test_estimated_lengths_stay_uncertain_unless_they_are_stated() -> None:
    data = measured({400: 1, 800: 1}, low=0.5, high=1.5)
    workload = workload_of(read_question({}), MODEL, data)
    assert (workload.mean_seq_len, workload.seq_len) == (600, 800)
    assert workload.ends is not None
    low, high = workload.ends
    assert (low.mean_seq_len, low.seq_len) == (300, 400)
    assert [round(one.lengths.longest_of(2)) for one in (workload, low)] == [700, 350]
    assert (high.mean_seq_len, high.seq_len) == (900, 1200)
    assert low.ends is None
    stated = workload_of(read_question({"seq_len": 700, "mean_seq_len": 300}), MODEL, data)
    assert stated.ends is None


def test_rows_beyond_the_models_positions_are_cut() -> None:
    short = MODEL.model_copy(update={"max_position_embeddings": 500})
    workload = workload_of(read_question({}), short, measured({300: 1, 800: 1}, low=0.5, high=1.5))
    assert (workload.mean_seq_len, workload.seq_len) == (400, 500)
    assert workload.ends is not None
    assert [end.seq_len for end in workload.ends] == [400, 500]


def measured(counts: dict[int, int], low: float = 1.0, high: float = 1.0) -> Measured:
    lengths = Lengths(Counter(counts))
    mean = lengths.tokens / lengths.rows
    return Measured(
        file=DataFile(),
        lengths=lengths,
        mean_tokens=Interval(mean * low, mean, mean * high),
        longest_tokens=Interval(lengths.longest * low, lengths.longest, lengths.longest * high),
        counted_by="tests",
    )


@pytest.mark.parametrize(
    ("fixed", "gpus", "words"),
    [
        ({"mean_seq_len": 2000, "seq_len": 1000}, 1, "--mean-seq-len is 2000, but must be at most --seq-len"),
        ({"batch_size": 6, "micro_batch": 4}, 1, "a multiple of --micro-batch, which is 4"),
        ({"batch_size": 2, "micro_batch": 4}, 1, "a multiple of --micro-batch"),
        ({"batch_size": 6}, 4, "a multiple of --gpus, which is 4"),
        ({"batch_size": 12, "micro_batch": 2}, 4, "a multiple of --gpus times --micro-batch, which is 8"),
        ({"micro_batch": 1_000_000}, 100_000, "at most 1,000,000 rows"),
        ({"packing": True, "group_by_length": True}, 1, "--group-by-length is set, but packed rows have one length"),
        ({"padding": "none"}, 1, "--padding is 'none': --attention sdpa needs padded rows; give --attention flash"),
        ({"padding": "none", "attention": "eager", "micro_batch": 2}, 1, "--attention eager needs padded rows"),
    ],
)
def test_contradictions_are_refused(fixed: dict[str, object], gpus: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        workload_of(read_question(fixed | {"gpus": gpus}), MODEL)


@pytest.mark.parametrize(
    "fixed", [{"attention": "flash"}, {"micro_batch": 1}, {"packing": True}, {"attention": "flash", "micro_batch": 8}]
)
def test_rows_need_no_padding_where_the_kernel_knows_their_bounds(fixed: dict[str, object]) -> None:
    assert workload_of(read_question({"padding": "none", **fixed}), MODEL).padding == "none"


def test_a_trainers_collator_gives_way_to_flags() -> None:
    collator = {"pad_to_multiple_of": 64, "packing_strategy": "varlen"}
    workload = workload_of(read_question({"pad_to_multiple_of": 8}), MODEL, None, collator)
    assert (workload.pad_to_multiple_of, workload.packing_strategy) == (8, "varlen")


@given(micro=st.integers(1, 1000), gpus=st.integers(1, 100))
def test_an_open_batch_is_a_multiple_of_what_the_cards_do(micro: int, gpus: int) -> None:
    batch = workload_of(read_question({"micro_batch": micro, "gpus": gpus}), MODEL).batch_size
    assert batch % (micro * gpus) == 0
    assert 16 <= batch < 16 + micro * gpus


def test_several_cards_are_data_parallel() -> None:
    assert placement_of(read_question({"gpus": 2, "sharding": "ddp"})) == Placement(gpus=2, sharding="ddp")
    assert placement_of(read_question({"gpus": 2})).effective_sharding == "ddp"
    assert placement_of(read_question({})).effective_sharding == "none"


def test_a_question_has_one_field_a_knob() -> None:
    apart = {"model", "gpu"}  # asked beside it: they may be objects
    assert {*Question.model_fields} - {"fixed", "stand_ins"} == set(BY_NAME) - apart


@pytest.mark.parametrize("knob", [knob for knob in KNOBS if knob.kind == "choice"], ids=lambda knob: knob.name)
def test_a_question_takes_every_choice(knob) -> None:
    for choice in knob.choices:
        question = read_question({knob.name: choice})
        assert question.fixed == (() if choice == "all" else (knob.name,))
        assert getattr(question, knob.name) == (None if choice == "all" else choice)


def test_questions_are_changed_by_making_others() -> None:
    asked = read_question({"rank": 8, "method": "lora", "examples": None})
    assert (asked.fixed, asked.methods, asked.recipe_fields) == (("method", "rank"), ("lora",), {"rank": 8})
    wider = asked.fixing({"loss": "chunked", "rank": 4})
    assert (wider.fixed, wider.rank, wider.loss) == (("method", "rank", "loss"), 4, "chunked")
    opened = wider.leaving_open("rank")
    assert (opened.fixed, opened.rank) == (("method", "loss"), None)
    assert asked.rank == 8
