"""The scripts run with --smoke: five methods, five forms of rows, three real steps each, all in one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advisor.answer import DataFile, DataForm
from advisor.export.run import Run
from advisor.export.smoke import SIZES
from advisor.export.transformers import write
from advisor.specs import METHODS, QUANTIZED_METHODS, Attention, Method, Recipe, Workload
from tests.every import EVERY_COMBINATION
from tests.export.runs import ran
from tests.fakes import MODEL

pytestmark = pytest.mark.process

PEAK_TOLERANCE = 0.01
QUESTION, ANSWER = "What comes after " + "one? " * 12, "two, three and so on. " * 3
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": QUESTION},
    {"role": "assistant", "content": ANSWER},
    {"role": "user", "content": "And then?"},
    {"role": "assistant", "content": "Four."},
]
FORMS: dict[DataForm, tuple[dict[str, Any], str]] = {
    "text": ({"text": QUESTION + ANSWER}, QUESTION + ANSWER + "</s>"),
    "messages": ({"messages": MESSAGES}, f"{ANSWER}</s>\n\nFour.</s>"),
    "prompt_completion": ({"prompt": QUESTION, "completion": ANSWER}, f"{ANSWER}</s>"),
    "alpaca": ({"instruction": QUESTION, "input": "1, 2", "output": ANSWER}, f"{ANSWER}</s>"),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}]},
        f"{ANSWER}</s>",
    ),
}
"""By form, a row, and what of it is to be learned."""

END_OF_TURN = (
    "{% for message in messages %}{{ '<' + message['role'] + '>' + message['content'] + '<end>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
FORGETS_THOUGHTS = (
    "{% for message in messages %}{{ '<' + message['role'] + '>' }}"
    "{% if loop.last and message['role'] == 'assistant' %}{{ '<think></think>' }}{% endif %}"
    "{{ message['content'] + '<end>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
"""Chat templates: one ends turns with another token than EOS, one renders earlier answers without their thoughts."""

CASES = [
    (method, form) for method in METHODS for form in FORMS if EVERY_COMBINATION or method == "lora" or form == "text"
]
"""A method does not look at the form of rows: each of both is in one of these. All: EVERY_COMBINATION=1."""


def job(
    folder: Path,
    name: str,
    method: Method,
    data: DataFile,
    rows: list[Any],
    *arguments: str,
    attention: Attention = "sdpa",
    **workload: Any,
) -> Any:
    """A script and its rows, written, and how to run it."""
    path = folder / f"{name}.{data.format}"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    data = data.model_copy(update={"path": str(path)})
    quantized = method in QUANTIZED_METHODS
    recipe = Recipe(method=method, quant="nf4" if quantized else "none", kbit_upcast=quantized, rank=8, micro_batch=4)
    recipe = recipe.model_copy(update={"attention": attention})
    script = folder / f"{name}.py"
    script.write_text(write(Run("maker/small", MODEL, recipe, Workload(**workload), data)).text)
    return {
        "script": str(script),
        "arguments": arguments,
        "folder": str(folder / name),
        "config": {"model_type": MODEL.architecture, **SIZES},
        "recipe": recipe.model_dump() | {"attention": "sdpa"},  # which a smoke run takes
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, dict[str, Any]]:
    """What each run left and printed."""
    pytest.importorskip("torch")
    pytest.importorskip("bitsandbytes")
    folder = tmp_path_factory.mktemp("smoke")
    jobs = {}
    for method, form in CASES:
        row, _ = FORMS[form]
        data = DataFile(form=form, columns=tuple(row))
        jobs[method, form] = job(folder, f"{method}-{form}", method, data, [row] * 8, seq_len=400)
    jobs["lora", "messages"] |= {"row": {"messages": MESSAGES}, "templates": [END_OF_TURN, FORGETS_THOUGHTS]}
    spoken = {"prompt": MESSAGES[:-1], "completion": [*MESSAGES[-1:], {"role": "user", "content": "Thanks."}]}
    jobs["lora", "prompt_completion"] |= {"row": spoken, "templates": [END_OF_TURN]}
    data = DataFile(form="prompt_completion", columns=("prompt", "completion"))
    rows = [{"prompt": "a " * length, "completion": "b"} for length in (10, 20, 30, 40)]
    rows += [{"prompt": "a", "completion": "b " * 60}] * 3 + [
        {"prompt": "a" * 90, "completion": "b"},
        {"prompt": "", "completion": ""},
    ]
    jobs["cut"] = job(folder, "cut", "lora", data, rows, "--eval-file", str(folder / "cut.jsonl"), seq_len=82)
    jobs["packed"] = job(
        folder,
        "packed",
        "full",
        DataFile(),
        [{"text": "abc" * 30}] * 40,
        "--eval-fraction",
        "0.25",
        seq_len=128,
        packing=True,
    )
    uneven = [{"text": "ab " * length} for length in (3, 9, 15, 20, 28, 30, 31, 40)]
    ways = {"grouped": {"group_by_length": True, "pad_to_multiple_of": 16}, "full": {"padding": "max_length"}}
    for name, way in ways.items():
        jobs[name] = job(folder, name, "lora", DataFile(), uneven, seq_len=90, **way)
    jobs["free"] = job(folder, "free", "lora", DataFile(), uneven, seq_len=90, attention="flash", padding="none")
    plain = DataFile(format="text", columns=())
    jobs["plain"] = job(folder, "plain", "full", plain, ["one line", "", "another one"])
    table = DataFile(format="csv", form="prompt_completion", columns=("ask", "say"))
    jobs["table"] = job(folder, "table", "full", table, ["id,ask,say", "1,one ,two", '2,"a, ",b'])
    return ran("tests.export.smoke_runs", jobs, folder)


@pytest.mark.parametrize(("method", "form"), CASES)
def test_every_script_trains(runs: dict[Any, dict[str, Any]], method: Method, form: DataForm) -> None:
    """Three steps; rows end with EOS, which is learned, and of a conversation only answers are."""
    done = runs[method, form]
    assert done["steps"] == 3
    assert done["losses_finite"] == [True] * 3
    assert done["rows"] == 8
    assert done["end_with_eos"]
    assert done["learned"].replace(" ", "") == FORMS[form][1].replace(" ", "")
    assert done["deprecated"] == []
    assert {"tokenizer.json", "model.safetensors" if method == "full" else "adapter_model.safetensors"} <= set(
        done["saved"]
    )


@pytest.mark.parametrize(("method", "form"), CASES)
def test_its_peak_is_that_of_the_dry_run(runs: dict[Any, dict[str, Any]], method: Method, form: DataForm) -> None:
    assert runs[method, form]["peak_bytes"] == pytest.approx(runs[method, form]["dry_peak_bytes"], rel=PEAK_TOLERANCE)


def test_answers_are_found_in_any_chat_template(runs: dict[Any, dict[str, Any]]) -> None:
    """With the token that ends a turn. An answer that is rendered otherwise when others follow is only counted."""
    assert runs["lora", "messages"]["by_template"] == [
        {"learned": f"{ANSWER}<end>\nFour.<end></s>", "not_found": 0},
        {"learned": "<think></think>Four.<end></s>", "not_found": 1},
    ]


def test_of_a_completion_in_messages_only_its_own_answers_are_learned(runs: dict[Any, dict[str, Any]]) -> None:
    found = runs["lora", "prompt_completion"]["by_template"]
    assert found == [{"learned": "Four.<end></s>", "not_found": 0}]


def test_padding_is_not_learned_but_eos_is_where_they_are_one_token(runs: dict[Any, dict[str, Any]]) -> None:
    done = runs["lora", "text"]
    padding = len(done["padded_labels"]) - len(done["short_labels"])
    assert padding > 0
    assert sorted(done["padded_labels"]) == sorted([-100] * padding + done["short_labels"])
    assert -100 not in done["short_labels"]


def test_what_was_cut_and_left_out_is_counted(runs: dict[Any, dict[str, Any]]) -> None:
    done = runs["cut"]
    for name in ("training", "evaluation"):
        assert f"{name}: 7 rows, 3 cut to 82 tokens; 2 left out: nothing to learn\n" in done["printed"]
    assert sorted(done["lengths"]) == [22, 42, 62, 82, 82, 82, 82]
    assert (done["rows"], done["eval_rows"], done["end_with_eos"]) == (7, 7, False)


def test_packed_rows_are_full(runs: dict[Any, dict[str, Any]]) -> None:
    done = runs["packed"]
    tokens = 30 * 91
    assert done["lengths"] == [128] * (tokens // 128) + [tokens % 128]
    assert done["eval_rows"] == -(-10 * 91 // 128)
    assert "training: 30 rows, packed to 128 tokens; 0 left out: nothing to learn\n" in done["printed"]


def test_lines_and_tables_are_read(runs: dict[Any, dict[str, Any]]) -> None:
    assert (runs["plain"]["rows"], runs["plain"]["learned"]) == (2, "one line</s>")
    assert "training: 2 rows, 0 cut to 512 tokens; 1 left out: nothing to learn\n" in runs["plain"]["printed"]
    assert (runs["table"]["text"], runs["table"]["learned"]) == ("one two</s>", "two</s>")


def test_rows_become_micro_batches_as_asked(runs: dict[Any, dict[str, Any]]) -> None:
    for name in ("grouped", "full", "free"):
        assert (runs[name]["steps"], runs[name]["losses_finite"], runs[name]["deprecated"]) == (3, [True] * 3, [])
    rows, tokens = runs["grouped"]["shape"]
    assert rows > 1
    assert tokens % 16 == 0
    assert runs["full"]["shape"][1] == 90
    assert runs["free"]["shape"][0] == 1
