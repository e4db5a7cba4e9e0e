"""Files of a machine: none without a folder, and with one those in it, however the path is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advisor.errors import AdvisorError, BadConfig, InputError
from advisor.mcp.confined import Confined
from advisor.mcp.definitions import ADVISE, EXPLAIN
from advisor.mcp.resources import read
from advisor.mcp.tools import call
from tests.mcp.test_tools import CONFIG

CARD = 'name = "My card"\nmarketed_gb = 24\nmemory_mib = 24564\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files, links out of it and a secret beside it; the current folder is the secret one."""
    found, secret = tmp_path / "open", tmp_path / "secret"
    for place in (found / "m", found / "linked-file", found / "away", found / "base", found / "near", secret / "gpt2x"):
        place.mkdir(parents=True)
    for place in (found / "m", secret, secret / "gpt2x"):
        (place / "config.json").write_text(json.dumps(CONFIG))
    (found / "link").symlink_to(secret)
    (found / "linked-file" / "config.json").symlink_to(secret / "config.json")
    for name, base in (("away", str(secret)), ("base", "gpt2"), ("near", "./m")):
        (found / name / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    (found / "train.jsonl").write_text('{"text": "one two three"}\n' * 100)
    (secret / "train.jsonl").write_text('{"text": "one two three"}\n')
    (found / "link.jsonl").symlink_to(secret / "train.jsonl")
    (found / "card.toml").write_text(CARD)
    (secret / "card.toml").write_text(CARD)
    monkeypatch.chdir(secret)
    return found


def ask(files: Confined, **arguments: Any) -> dict[str, Any]:
    asked = {"model": "gpt2", "gpu": "24GB", "method": "lora", **arguments}
    found: dict[str, Any] = json.loads(call(ADVISE, asked, files).record.model_dump_json())
    return found


@pytest.mark.parametrize("model", ["m", "./m", "m/config.json", "base/../m", "near", "{folder}/m"])
def test_models_of_the_folder_are_read(folder: Path, model: str) -> None:
    found = ask(Confined(str(folder)), model=model.format(folder=folder))
    assert found["model"] == str(folder / "m" / "config.json")


def test_an_adapter_of_a_named_base_is_answered_for_that(folder: Path) -> None:
    assert ask(Confined(str(folder)), model="base")["model"] == "openai-community/gpt2"
    (folder / "base" / "adapter_config.json").write_text('{"base_model_name_or_path": "gpt2x"}')
    with pytest.raises(InputError, match="unknown model 'gpt2x'"):
        ask(Confined(str(folder)), model="base")


OUTSIDE = (
    {"model": "../secret"},
    {"model": "link"},
    {"model": "linked-file"},
    {"model": "away"},
    {"model": "{folder}/../secret/config.json"},
    {"model": "~/config.json"},
    {"model": "none.json"},
    {"model": "a" * 300 + "/b/c"},
    {"gpu": "../secret/card.toml"},
    {"gpu": "gone.json"},
    {"data": "../secret/train.jsonl"},
    {"data": "link.jsonl"},
    {"data": "/dev/zero"},
    {"data": ["train.jsonl"]},
    {"data": "train.jsonl", "tokenizer": "/etc/passwd"},
)


@pytest.mark.parametrize("arguments", OUTSIDE, ids=str)
@pytest.mark.parametrize("inside", [True, False], ids=["folder", "no folder"])
def test_nothing_else_is(folder: Path, arguments: dict[str, Any], inside: bool) -> None:
    given = {name: text.format(folder=folder) if isinstance(text, str) else text for name, text in arguments.items()}
    with pytest.raises(AdvisorError) as refused:
        ask(Confined(str(folder) if inside else None), **given)
    assert any(words in str(refused.value) for words in ("no file in the folder", "without --folder", "unknown model"))


@pytest.mark.parametrize(
    "arguments",
    [{"model": "m/config.json"}, {"gpu": "card.toml"}, {"gpu": "auto"}, {"gpu": "2xauto"}, {"data": "train.jsonl"}],
)
def test_without_a_folder_no_path_is_read(folder: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="the server was started without --folder"):
        ask(Confined(), **arguments)


@pytest.mark.parametrize("inside", [True, False], ids=["folder", "no folder"])
def test_a_name_is_never_a_folder_of_where_the_server_stands(folder: Path, inside: bool) -> None:
    with pytest.raises(InputError, match="unknown model 'gpt2x'"):
        ask(Confined(str(folder) if inside else None), model="gpt2x")


def test_cards_and_data_of_the_folder_are_read(folder: Path) -> None:
    files = Confined(str(folder))
    assert ask(files, gpu="card.toml")["cards"] == "My card"
    asked = {"model": "gpt2", "gpu": "card.toml", "method": "lora", "about": "data", "knobs": {"data": "train.jsonl"}}
    found = json.loads(call(EXPLAIN, asked, files).record.model_dump_json())
    assert (found["rows"], found["rows_cut"]) == (100, 0)


def test_a_folder_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="no such folder"):
        Confined(str(tmp_path / "gone"))


def test_resources_are_no_way_around(folder: Path) -> None:
    for uri in ("advisor://models/.%2Fconfig.json", "advisor://models/gpt2x", "advisor://gpus/card.toml"):
        with pytest.raises(AdvisorError):
            read(uri)
