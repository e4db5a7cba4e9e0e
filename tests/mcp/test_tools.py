"""The tools, called in this process: what they answer, how long that is, and what they refuse in one line."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from advisor.advice.advise import advise
from advisor.advice.brief import brief
from advisor.errors import AdvisorError, InputError, UnknownName
from advisor.knobs import BY_NAME
from advisor.mcp.confined import Confined
from advisor.mcp.definitions import ADVISE, ANNOTATIONS, EXPLAIN, FIND, FLAT, tools
from advisor.mcp.explained import ABOUT, explained
from advisor.mcp.found import MOST_BYTES, MOST_NAMES
from advisor.mcp.tools import MOST_ERROR, Answered, call, line_of
from advisor.rules import RULES
from tests.every import EVERY_COMBINATION
from tests.hostile import mutated

BYTES_OF_A_TOKEN = {"definitions": 3.5, ADVISE: 2.85, EXPLAIN: 2.85, FIND: 1.55}
"""At least, counted by o200k: definitions have 3.9; of 156 answers each at least 2.93; of 294 explanations that are
longer than 1,000 bytes at least 2.88; of 1,090 lists of names at least 1.55."""
MOST_TOKENS = {"definitions": 1_300, ADVISE: 1_200, EXPLAIN: 1_500, FIND: 600}
NO_FILES = Confined()
ASKED: dict[str, Any] = {"model": "llama-8b", "gpu": "24GB", "examples": 3000}
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
TINY: dict[str, Any] = {"config": CONFIG, "gpu": "24GB", "examples": 1000, "method": "lora"}


def size(answer: Answered) -> int:
    """Bytes of what a client may show of an answer."""
    return len(f"{answer.text}{answer.record.model_dump_json()}".encode())


def ask(tool: str = ADVISE, **arguments: Any) -> dict[str, Any]:
    answer = call(tool, arguments, NO_FILES)
    assert size(answer) <= MOST_TOKENS[tool] * BYTES_OF_A_TOKEN[tool]
    found: dict[str, Any] = json.loads(answer.record.model_dump_json())
    return found


@pytest.mark.parametrize("files", [False, True])
def test_definitions_are_short_and_take_every_knob(files: bool) -> None:
    found = tools(files)
    assert [one.name for one in found] == [ADVISE, EXPLAIN, FIND]
    text = json.dumps([[*one, ANNOTATIONS] for one in found])
    assert len(text) <= MOST_TOKENS["definitions"] * BYTES_OF_A_TOKEN["definitions"]
    arguments = found[0].arguments["properties"]
    assert set(arguments) == {*FLAT, "config", "knobs"}
    named = set(arguments["knobs"]["description"].replace(";", ",").replace(": ", ", ").split(", "))
    missing = set(BY_NAME) - set(FLAT) - named
    assert missing == (set() if files else {"data", "data_columns", "tokenizer", "skip_bad_lines"})


def test_the_answer_is_the_short_one_of_the_library() -> None:
    assert ask(**ASKED) == json.loads(brief(advise("llama-8b", "24GB", 3000)).model_dump_json())


@pytest.mark.parametrize(
    ("gpu", "knobs"),
    [("12GB", {}), ("2xh100", {"packing": True}), ("a100-80gb", {"trainer": "axolotl", "eval_examples": 100})],
    ids=str,
)
def test_answers_are_short(gpu: str, knobs: dict[str, Any]) -> None:
    found = ask(model="llama-70b", gpu=gpu, examples=3000, knobs=knobs)
    assert (found["recommended"] is None) == bool(gpu == "12GB")
    assert found["assumed"]


def test_flags_may_stand_on_either_side_and_be_spelled_as_on_the_command_line() -> None:
    plain = ask(**TINY, rank=32, knobs={"micro_batch": 2})
    assert ask(**TINY, **{"--micro-batch": 2}, knobs={"rank": 32}) == plain
    assert "--rank 32" in plain["flags"]
    assert "--micro-batch 2" in plain["flags"]
    assert ask(**TINY, rank=None, knobs={"rank": 32, "micro_batch": 2}) == plain


def test_an_own_model_is_called_as_it_is_named() -> None:
    assert ask(**TINY)["model"] == "config"
    assert ask(**TINY, model="mine")["model"] == "mine"


@pytest.mark.parametrize("about", sorted(set(ABOUT) - {"data"}))
def test_each_part_is_explained(about: str) -> None:
    found = ask(EXPLAIN, **ASKED, about=about)
    answer = advise("llama-8b", "24GB", 3000)
    assert answer.recommendation is not None
    row = answer.candidate(answer.recommendation.method)
    assert found["about"] == about
    if about == "memory":
        assert sum(gib for _, gib in found["terms_gib"]) == pytest.approx(found["needed_gib"][1], abs=0.02)
        assert found["needed_gib"][1] == pytest.approx(row.memory.needed_bytes.likely / 2**30, abs=0.01)
    elif about == "time":
        assert row.time is not None
        assert found["total_s"][1] == pytest.approx(row.time.total_s.likely, abs=0.01)
        assert found["kernels"]
        assert {name for name, _ in found["parts_ms"]} >= {"base products", "attention"}
    elif about == "rule":
        assert found["code"] == answer.recommendation.rule
        assert found["here"][0] == answer.recommendation.reasons[0].text


def test_a_long_script_comes_in_parts_that_make_the_whole() -> None:
    first = ask(EXPLAIN, **ASKED, about="script")
    assert first["parts"] > 1
    rest = [ask(EXPLAIN, **ASKED, about="script", part=part)["text"] for part in range(2, first["parts"] + 1)]
    whole = "".join((first["text"], *rest))
    compile(whole, first["name"], "exec")
    assert whole.endswith("\n")
    with pytest.raises(InputError, match=f"from 1 to {first['parts']}"):
        ask(EXPLAIN, **ASKED, about="script", part=first["parts"] + 1)


@pytest.mark.parametrize("code", [rule.code for rule in RULES])
def test_a_rule_needs_no_question(code: str) -> None:
    found = ask(EXPLAIN, about=code.lower())
    assert found["code"] == code
    assert found["explanation"]


def test_what_is_not_there_is_said() -> None:
    large = {**ASKED, "model": "llama-70b"}
    for about, message in (("script", "nothing fits"), ("rule", "nothing fits"), ("data", "names no data file")):
        with pytest.raises(InputError, match=message):
            ask(EXPLAIN, **large, about=about)
    found = ask(EXPLAIN, **{**TINY, "gpu": "25GB"}, about="time")
    assert (found["kernels"], found["missing"]) == ([], "the speed of 25GB is not known.")
    assert ask(EXPLAIN, **large, about="memory")["verdict"] == "does_not_fit"


def test_without_times_there_is_no_time_to_explain() -> None:
    answer = advise("gpt2", "24GB", 1000, method="lora")
    timeless = answer.model_copy(update={"candidates": (answer.candidates[0].model_copy(update={"time": None}),)})
    with pytest.raises(InputError, match="the speed of 24GB is not known"):
        explained("time", timeless)


@pytest.mark.parametrize("query", ["", "qwen", "5", "NVIDIA", "8b", "24gb"])
def test_names_are_found_and_counted(query: str) -> None:
    found = ask(FIND, query=query)
    assert len(json.dumps(found, separators=(",", ":"))) <= MOST_BYTES
    assert max(len(found["models"]), len(found["gpus"])) <= MOST_NAMES
    assert found["models"] or found["gpus"]
    assert found["more_models"] or len(found["models"]) < MOST_NAMES


def test_found_names_are_understood_and_large_enough() -> None:
    found = ask(FIND, query="qwen3-8b")
    assert found["models"][0] == "qwen3-8b (8.19B)"
    cards = ask(FIND, query="rtx", min_gib=40)["gpus"]
    assert cards
    for text in cards:
        name = text.partition(" (")[0]
        assert ask(**{**TINY, "gpu": name})["card_gib"] >= 40


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        (ADVISE, {}, "no gpu given"),
        (ADVISE, {"gpu": "24GB"}, "no model given"),
        (ADVISE, {**ASKED, "wheels": 4}, "unknown argument 'wheels'"),
        (ADVISE, {**ASKED, "estimator": 4}, "unknown argument 'estimator'"),
        (ADVISE, {**ASKED, "knobs": {"examples": 4}}, "examples is given twice"),
        (ADVISE, {**ASKED, "knobs": [4]}, "knobs is [4], but must be an object"),
        (ADVISE, {**ASKED, "rank": float("nan")}, "--rank is nan"),
        (ADVISE, {**ASKED, "gpu": 10**400}, "gpu is 1000"),
        (ADVISE, {**ASKED, "model": "qwen3-9b"}, "did you mean qwen3-8b"),
        (ADVISE, {**ASKED, "model": "x" * 1_000_000}, "must be one line"),
        (ADVISE, {**ASKED, "gpu": "rtx4091"}, "find_models_and_gpus lists names"),
        (ADVISE, {**ASKED, "model": "org/unheard-of"}, "give its config.json as config"),
        (ADVISE, {**TINY, "config": {"model_type": "zamba2"}}, "architecture 'zamba2'"),
        (ADVISE, {**TINY, "config": "llama"}, "must be the object"),
        (ADVISE, {**TINY, "model": "../llama"}, "must be a name beside config"),
        (EXPLAIN, ASKED, "unknown part of an estimate 'None'"),
        (EXPLAIN, {**ASKED, "about": "script", "part": True}, "part is True"),
        (FIND, {"query": "quen"}, "unknown model or GPU 'quen'"),
        (FIND, {"query": 4}, "must be text"),
        (FIND, {"min_gib": float("inf")}, "must be a number from 0"),
        (FIND, {"name": "qwen"}, "known: query, min_gib"),
        ("advise", {}, "unknown tool 'advise'; did you mean advise_finetuning?"),
    ],
    ids=str,
)
def test_refusals_are_one_line(tool: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(AdvisorError) as refused:
        call(tool, arguments, NO_FILES)
    line = line_of(refused.value)
    assert message in line
    assert line.isprintable()
    assert len(line) <= MOST_ERROR


def test_an_unknown_argument_is_not_taken_for_a_known_one() -> None:
    with pytest.raises(UnknownName) as refused:
        call(ADVISE, {**ASKED, "seq_length": 4}, NO_FILES)
    assert "seq_len" in refused.value.near


BASES: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        ADVISE,
        {"model": "gpt2", "gpu": "rtx4090", "examples": 1000, "seq_len": 256, "method": "lora", "knobs": {"rank": 8}},
    ),
    (ADVISE, TINY),
    (EXPLAIN, {**TINY, "about": "memory", "seq_len": 128}),
    (EXPLAIN, {"about": "script", "model": "gpt2", "gpu": "24GB", "examples": 1000, "method": "lora", "part": 1}),
    (FIND, {"query": "qwen", "min_gib": 10}),
)
NAMES = (*BY_NAME, "config", "knobs", "about", "part", "query", "catalog", "progress", "simulate")


@pytest.mark.parametrize("seed", range(100 if EVERY_COMBINATION else 20))
def test_hostile_calls_are_answered_or_refused(seed: int) -> None:
    """A thousand calls (five thousand: EVERY_COMBINATION=1); an exception that is not ours tells an agent nothing."""
    draw, outcomes = random.Random(seed), {True: 0, False: 0}
    for _ in range(50):
        tool, base = draw.choice(BASES)
        arguments = mutated(base, draw, NAMES)
        try:
            answer = call(tool, arguments, NO_FILES)
            assert json.loads(answer.record.model_dump_json())
            assert size(answer) <= MOST_TOKENS[tool] * BYTES_OF_A_TOKEN[tool]
        except AdvisorError as error:
            line = line_of(error)
            assert line.isprintable()
            assert 0 < len(line) <= MOST_ERROR
            outcomes[False] += 1
        else:
            outcomes[True] += 1
    assert min(outcomes.values()) > 2
