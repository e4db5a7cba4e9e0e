"""Lists: each takes a filter and prints JSON; the schema describes real answers, and its copy in docs is current."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from advisor.catalog import all_gpus, model_entries
from advisor.catalog.trainers import all_trainers
from advisor.cli import cli
from advisor.rules import RULES

SCHEMA = Path(__file__).resolve().parent.parent / "docs" / "answer.schema.json"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def printed(*arguments: str) -> Any:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_without_a_filter_everything_is_listed() -> None:
    assert [row["name"] for row in printed("models", "--json")] == [entry.name for entry in model_entries()]
    assert [row["name"] for row in printed("gpus", "--json")] == [card.name for card in all_gpus()]
    assert [row["code"] for row in printed("rules", "--json")] == [rule.code for rule in RULES]
    assert [row["name"] for row in printed("trainers", "--json")] == [preset.name for preset in all_trainers()]


@pytest.mark.parametrize(
    ("arguments", "key", "found"),
    [
        (("models", "qwen3", "coder"), "name", ["qwen3-30b-a3b", "qwen3-coder-480b-a35b", "qwen3-next-80b-a3b"]),
        (("models", "Llama-3.3"), "name", ["llama-3.3-70b"]),
        (("gpus", "rtx4090", "laptop"), "name", ["NVIDIA GeForce RTX 4090 Laptop GPU"]),
        (("gpus", "CDNA4"), "name", ["AMD Instinct MI350X", "AMD Instinct MI355X"]),
        (("gpus", "141gb", "nvl"), "name", ["NVIDIA H200 NVL"]),
        (("rules", "chunked"), "code", ["ADV109"]),
        (("rules", "adv003"), "code", ["ADV003"]),
        (("trainers", "litgpt"), "name", ["litgpt"]),
        (("trainers", "llama"), "name", ["llamafactory"]),
    ],
)
def test_a_filter_keeps_what_contains_its_words(arguments: tuple[str, ...], key: str, found: list[str]) -> None:
    assert [row[key] for row in printed(*arguments, "--json")] == found


def test_tables_are_filtered_too() -> None:
    table = run("gpus", "hopper").stdout
    assert "NVIDIA H20 " in table
    assert "RTX" not in table
    assert run("trainers", "trl").stdout.startswith("trl ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("models", "lamma-8b"), "llama-8b"),
        (("gpus", "zzzz"), "`advise gpus` lists all"),
        (("rules", "ADV999"), "unknown rule 'ADV999'"),
        (("trainers", "axolotle"), "did you mean axolotl?"),
    ],
)
def test_a_filter_that_keeps_nothing_is_an_error(arguments: tuple[str, ...], words: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert words in result.stderr


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (("--model", "llama-3.3"), {"llama-3.3-70b"}),
        (("--gpu", "mi355"), {"mi355x"}),
        (("--gpu", "au"), {"auto"}),
        (("--optimizer", "paged"), {"paged_adamw", "paged_adamw_8bit"}),
        (("--trainer", "li"), {"litgpt"}),
        (("--target-modules", "a"), {"all-linear", "attention"}),
        (("explain", "adv9"), set()),
        (
            ("explain", "ADV10"),
            {"ADV101", "ADV102", "ADV103", "ADV104", "ADV105", "ADV106", "ADV107", "ADV108", "ADV109"},
        ),
        (("trainers", "t"), {"transformers", "trl", "torchtune"}),
        (("sch",), {"schema"}),
    ],
)
def test_a_shell_is_offered_the_values_that_exist(typed: tuple[str, ...], offered: set[str]) -> None:
    completer = ShellComplete(cli, {}, "advise", "_ADVISE_COMPLETE")
    found = {item.value for item in completer.get_completions(list(typed[:-1]), typed[-1])}
    assert offered <= found
    assert bool(found) == bool(offered)


def described(schema: dict[str, Any], value: Any, root: dict[str, Any], where: str) -> Iterator[str]:
    """Where `value` differs from `schema`: keys, types, enumerations; what the schema of an answer consists of."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        if all(list(described(option, value, root, where)) for option in schema["anyOf"]):
            yield f"{where}: none of the options"
        return
    kinds: dict[str, tuple[type, ...]] = {
        "object": (dict,),
        "array": (list,),
        "string": (str,),
        "integer": (int,),
        "number": (int, float),
        "boolean": (bool,),
        "null": (type(None),),
    }
    if not isinstance(value, kinds[schema["type"]]) or (isinstance(value, bool) and schema["type"] != "boolean"):
        yield f"{where}: {value!r} is no {schema['type']}"
    elif value not in schema.get("enum", [value]) or value != schema.get("const", value):
        yield f"{where}: {value!r} is not allowed"
    elif isinstance(value, dict):
        if set(value) != set(schema["properties"]) or set(schema["required"]) != set(value):
            yield f"{where}: other keys"
        for key, inner in schema["properties"].items():
            yield from described(inner, value.get(key), root, f"{where}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from described(schema["items"], inner, root, f"{where}[{index}]")


@pytest.mark.parametrize(
    "question",
    [("llama-8b", "24GB", "--price-per-hour", "2"), ("llama-70b", "24GB"), ("gemma-2-2b", "gb10", "--method", "lora")],
)
def test_answers_are_as_the_schema_says(question: tuple[str, ...]) -> None:
    schema = printed("schema")
    model, gpu, *more = question
    result = run("--model", model, "--gpu", gpu, "--json", *more)
    answer = json.loads(result.stdout)
    assert list(described(schema, answer, schema, "answer")) == []
    answer["gpu"]["gpus"] = "two"
    del answer["notes"]
    assert len(list(described(schema, answer, schema, "answer"))) >= 2


def test_the_copy_of_the_schema_is_current() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == run("schema").stdout, "run: advise schema > docs/answer.schema.json"
