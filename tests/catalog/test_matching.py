"""Typed names and the models that they mean: right or asked back, never a silent guess."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from advisor.catalog import find_model, hub_id_of, model_entries, remarks_on
from advisor.catalog.entries import Match
from advisor.catalog.matching import matched, original_id
from advisor.catalog.names import shorter, storage_of
from advisor.errors import AdvisorError, AmbiguousName, BadValue
from advisor.parameters.modules import parameter_count

FOLDER = Path(__file__).parent


def rows(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


TYPED = rows("typed_names.tsv")
"""What people type, and the model, 'like: ' and the one that it was made from, 'ask: ' and ids, or 'unknown'."""
IDS = rows("hub_ids.tsv")
"""Hub ids of public registries and tables, with the model whose sizes they have, and who says so."""


def meaning(text: str) -> str:
    try:
        found = find_model(text, offline=True)
        return ("like: " if found.unread else "") + found.name.partition(" (")[0]
    except AmbiguousName as error:
        return f"ask: {' or '.join(error.near)}"
    except BadValue as error:  # stored in a form that nothing here trains on
        return f"refused: {str(error).rpartition('--model ')[2]}"
    except AdvisorError:
        return "unknown"


def match_of(text: str) -> Match:
    found = matched(text)
    assert found is not None
    return found


def test_what_people_type() -> None:
    assert len(TYPED) >= 130
    assert [(row["typed"], meaning(row["typed"])) for row in TYPED if meaning(row["typed"]) != row["model"]] == []


def test_eight_hundred_ids_are_found_and_count_what_their_model_does() -> None:
    entries = {entry.name: entry for entry in model_entries()}
    listed = {label.lower() for entry in model_entries() for label in entry.labels if "/" in label}
    assert len(listed | {row["hub_id"].lower() for row in IDS}) >= 800
    counts = {row["model"]: parameter_count(find_model(row["model"])) for row in IDS}
    for row in IDS:
        assert row["source"]
        found = match_of(row["hub_id"])
        assert (row["hub_id"], found.entry.name, bool(found.storage)) == (
            row["hub_id"],
            row["model"],
            row["stored"] == "yes",
        )
        assert counts[row["model"]] == entries[row["model"]].parameters


@pytest.mark.parametrize(
    ("typed", "never"),
    [
        ("Qwen/Qwen3.5-4B", "qwen3-4b"),
        ("unsloth/Qwen3.5-0.8B", "qwen3-0.6b"),
        ("tiiuae/Falcon-H1-7B-Base", "falcon-7b"),
        ("tiiuae/falcon-mamba-7b", "falcon-7b"),
        ("allenai/Olmo-Hybrid-7B", "olmo-3-7b"),
        ("google/gemma-4-E4B", "gemma-3-4b"),
        ("google/gemma-3n-E4B", "gemma-3-4b"),
        ("meta-llama/Llama-3.2-11B-Vision-Instruct", "llama-3.1-8b"),
        ("nvidia/NVIDIA-Nemotron-Nano-9B-v2", "llama-3.1-8b"),
        ("zai-org/GLM-5", "glm-4.5"),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", "qwen3-30b-a3b"),
        ("THUDM/chatglm-6b", "chatglm3-6b"),
        ("baichuan-inc/Baichuan-7B", "baichuan-2-7b"),
        ("zai-org/glm-4-9b-chat-1m", "glm-4-9b"),
        ("nvidia/Llama-3_3-Nemotron-Super-49B-v1_5", "llama-3.3-70b"),
    ],
)
def test_a_model_of_another_kind_is_not_taken_for_its_namesake(typed: str, never: str) -> None:
    assert meaning(typed) != never


@pytest.mark.parametrize(
    ("typed", "script"),
    [
        ("unsloth/Meta-Llama-3.1-8B-bnb-4bit", "unsloth/Meta-Llama-3.1-8B-bnb-4bit"),
        ("qwen/qwen3-8b-base", "Qwen/Qwen3-8B-Base"),
        ("acme/Llama-3.1-8B-Instruct", "acme/Llama-3.1-8B-Instruct"),
        ("llama-3-8b-instruct", "meta-llama/Meta-Llama-3-8B-Instruct"),
        ("llama3:8b", "meta-llama/Meta-Llama-3-8B"),
        ("llama-2-7b-chat", "meta-llama/Llama-2-7b-chat-hf"),
        ("gemma-2b-it", "google/gemma-2b-it"),
        ("qwen2.5-7b-instruct-awq", "Qwen/Qwen2.5-7B-Instruct"),
        ("internlm2_5-7b-chat", "internlm/internlm2_5-7b-chat"),
        ("mistral:7b-instruct", "mistralai/Mistral-7B-Instruct-v0.3"),
        ("/data/Qwen3-8B", "/data/Qwen3-8B"),
        ("https://huggingface.co/Qwen/Qwen3-8B/tree/main", "Qwen/Qwen3-8B"),
        ("qwen-7b", "qwen-7b"),
        ("acme/Qwen3-8B-poems", "acme/Qwen3-8B-poems"),
        ("qwen3-8b-poems", "qwen3-8b-poems"),
        ("Qwen/Qwen3-Reranker-4B", "Qwen/Qwen3-Reranker-4B"),
    ],
)
def test_a_script_loads_the_checkpoint_that_was_named(typed: str, script: str) -> None:
    assert hub_id_of(typed) == script


@pytest.mark.parametrize(
    ("typed", "original"),
    [
        ("TheBloke/Llama-2-7B-GPTQ", "meta-llama/Llama-2-7b-hf"),
        ("bartowski/Meta-Llama-3.1-8B-Instruct-GGUF", "meta-llama/Meta-Llama-3.1-8B-Instruct"),
        ("Qwen/Qwen3-8B-FP8", "Qwen/Qwen3-8B"),
        ("unsloth/mistral-7b-bnb-4bit", "unsloth/mistral-7b"),
        ("llama3.1:8b-q4_K_M", "meta-llama/Llama-3.1-8B"),
    ],
)
def test_the_original_of_a_stored_copy(typed: str, original: str) -> None:
    assert original_id(match_of(typed)) == original


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("llama-8b", ["names no version: taken as llama-3.1-8b"]),
        ("acme/Qwen3-8B", ["taken as qwen3-8b by its name; its own config.json was not read"]),
        ("/data/Qwen3-8B-AWQ", ["is not here: taken as qwen3-8b"]),
        ("Qwen/Qwen3-8B-Thinking", ["is not listed: taken as qwen3-8b"]),
        ("google/medgemma-4b-it", ["sizes of gemma-3-4b by name and kinship"]),
        ("unsloth/functiongemma-270m-it", ["sizes of gemma-3-270m by name and kinship"]),
        ("acme/Qwen3-8B-poems", ["taken as qwen3-8b: its own config.json was not read; its .* online once"]),
        ("./runs/qwen3-8b-poems", ["taken as qwen3-8b: .* may differ: give a path to it\\.$"]),
        ("Qwen/Qwen3-8B", []),
        ("unsloth/Qwen3-8B", []),
        ("meta-llama/Llama-2-7b-chat-hf", []),
    ],
)
def test_what_was_assumed_is_said(typed: str, said: list[str]) -> None:
    found = remarks_on(typed, find_model(typed, offline=True).name)
    assert len(found) == len(said)
    assert all(re.search(words, text) for words, text in zip(said, found, strict=True))


def test_remarks_are_silent_where_the_answer_is_about_another_model() -> None:
    assert remarks_on("acme/Qwen3-8B", "acme/Qwen3-8B") == ()
    assert remarks_on("qwen-7b", "qwen1-7b") == ()
    assert remarks_on("no-such-model", "llama-3.1-8b") == ()


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("qwen-7b", "'qwen-7b': it fits several; give one: Qwen/Qwen-7B or Qwen/Qwen2.5-7B"),
        ("unsloth/phi-4-bnb-4bit", "separate projections.* take the original: microsoft/phi-4"),
        ("acme/my-llama-3-8b-pro", "by its name a derivative.*take its base: meta-llama/Meta-Llama-3-8B"),
        ("my-llama-7b-tuned", "take its base: huggyllama/llama-7b or meta-llama/Llama-2-7b-hf"),
        ("Qwen/Qwen3-4B-Instruct", "no listed model has exactly this name; give one: Qwen/Qwen3-4B-Instruct-2507"),
    ],
)
def test_what_is_not_enough_is_asked_back_in_one_line(typed: str, words: str) -> None:
    with pytest.raises(AmbiguousName, match=words) as caught:
        find_model(typed, offline=True)
    assert caught.value.exit_code == 2
    assert str(caught.value).isprintable()


def test_a_variant_has_its_own_context_and_the_same_sizes() -> None:
    plain = find_model("Qwen/Qwen2.5-7B")
    for typed, context in (
        ("Qwen/Qwen2.5-7B-Instruct-1M", 1_010_000),
        ("qwen2.5-math-7b", 4096),
        ("unsloth/Qwen2.5-Math-7B-bnb-4bit", 4096),
    ):
        found = find_model(typed).model_copy(update={"checkpoint": None})
        assert found == plain.model_copy(update={"max_position_embeddings": context})
    assert find_model("microsoft/Phi-3-medium-128k-instruct").sliding_window == 131_072


def test_no_name_of_a_stored_copy_is_listed() -> None:
    """Their endings are read by rule, so that what they say is never lost."""
    labels = [label for entry in model_entries() for label in (*entry.labels, *entry.kin)]
    assert len(labels) > 800
    assert [label for label in labels if any(storage_of(taken) for _, taken in shorter(label.lower()))] == []
