"""The page's door: every kind of question, errors in one line at the knob that they are about, no file, no crash."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.knobs import KNOBS
from advisor.page import dropped
from advisor.page.ask import KINDS, ask
from advisor.page.flags import NOT_ASKED, command_of, texts_of, values_of
from advisor.page.sections import PARTS
from advisor.page.sheet import FIRST, GROUPS, form_html

ROOT = Path(__file__).resolve().parents[2]
USUAL = {"model": "tinyllama-1.1b", "gpu": "rtx4090", "examples": "3000"}
RECIPE = """base_model: TinyLlama/TinyLlama-1.1B-Chat-v1.0
adapter: lora
lora_r: 16
lora_alpha: 32
lora_target_linear: true
sequence_len: 512
micro_batch_size: 2
gradient_accumulation_steps: 4
num_epochs: 1
optimizer: adamw_torch
learning_rate: 0.0002
datasets:
  - path: /etc/passwd
    type: alpaca
"""


def asked(kind: str, **more: Any) -> dict[str, Any]:
    found = json.loads(ask(json.dumps({"kind": kind, **more})))
    assert isinstance(found, dict)
    return found


def advised(**flags: str) -> dict[str, Any]:
    return asked("advise", flags=USUAL | flags)


@pytest.fixture(scope="module")
def answer() -> dict[str, Any]:
    return advised()


@pytest.mark.process
def test_the_answer_is_what_the_command_line_prints(answer: dict[str, Any]) -> None:
    command = answer["command"].split()
    assert command[0] == "advise"
    done = subprocess.run([sys.executable, "-m", "advisor", *command[1:], "--json"], cwd=ROOT, capture_output=True)
    assert done.stdout.decode() == answer["json"] + "\n"


def test_what_is_seen_first_and_what_is_below_make_the_whole(answer: dict[str, Any]) -> None:
    first, rest = asked("advise", flags=USUAL, whole=False), asked("below", flags=USUAL)
    assert (*first["parts"], *rest["parts"]) == PARTS
    assert {**first["parts"], **rest["parts"]} == answer["parts"]
    assert rest["hints"] == answer["hints"]
    assert "json" not in first


def test_every_part_has_something_to_say(answer: dict[str, Any]) -> None:
    assert answer["ok"]
    assert tuple(answer["parts"]) == PARTS
    assert all(answer["parts"].values())
    assert answer["verdict"] in answer["parts"]["verdict"]
    assert answer["state"] in ("fits", "tight")
    assert "<svg" in answer["parts"]["methods"]
    assert "data-knobs" in answer["parts"]["pictures"]  # the points of the frontier
    assert "arXiv" in answer["parts"]["why"] or "https://" in answer["parts"]["why"]


def test_no_part_carries_style_or_script(answer: dict[str, Any]) -> None:
    text = "".join(answer["parts"].values())
    assert not re.search(r"<script|<style|\sstyle=|\son\w+=|javascript:", text)


def test_what_would_no_longer_fit_has_no_button() -> None:
    changes = advised(model="llama-8b", gpu="24GB", examples="3000")["parts"]["changes"]
    items = re.findall(r"<li>(.*?)</li>", changes, re.DOTALL)
    assert {("does not fit" in one, "<button" in one) for one in items} == {(True, False), (False, True)}


def test_hints_name_the_trainers_source(answer: dict[str, Any]) -> None:
    hint = answer["hints"]["optimizer"]
    assert hint["who"] == "transformers sets it"
    assert hint["source"]
    assert "examples" not in answer["hints"]  # given


def test_a_hint_has_the_source_for_this_number_of_cards() -> None:
    several = {"trainer": "torchtune", "method": "full", "gpu": "8xh100"}
    hint = advised(**several)["hints"]["optimizer"]
    assert (hint["value"], hint["who"]) == ("adamw", "torchtune sets it")
    assert "8B_full.yaml" in hint["source"]
    alone = advised(**several | {"gpu": "h100"})["hints"]["optimizer"]
    assert alone["value"] == "paged_adamw_8bit"
    assert "8B_full_single_device.yaml" in alone["source"]


def test_where_nothing_fits_changes_are_offered() -> None:
    found = advised(model="llama-70b", gpu="8GB")
    assert found["state"] == "does_not_fit"
    buttons = re.findall(r'data-knobs="([^"]+)"', found["parts"]["changes"])
    knobs = [json.loads(unescape(text)) for text in buttons]
    assert any("gpu" in one for one in knobs)
    for one in knobs[:2]:
        assert advised(**{"model": "llama-70b", "gpu": "8GB", **one})["state"] in ("fits", "tight")


@pytest.mark.parametrize(
    ("flags", "field", "said"),
    [
        ({"model": "lama-3.1-8b"}, "model", "did you mean"),
        ({"model": "/etc/passwd"}, "model", "/etc/passwd"),
        ({"model": "nobody/nothing-7b-x"}, "model", "drop its config.json here"),
        ({"gpu": "rtx409"}, "gpu", "unknown GPU"),
        ({"gpu": "auto"}, "gpu", "reads no machine"),
        ({"gpu": "card.toml"}, "gpu", "reads no machine"),
        ({"gpu": "2x/tmp/card.json"}, "gpu", "reads no machine"),
        ({"examples": "many"}, "examples", "--examples is 'many'"),
        ({"rank": "-3"}, "rank", "--rank is '-3'"),
        ({"mean_seq_len": "2000", "seq_len": "100"}, "mean_seq_len", "must be at most --seq-len"),
        ({"nodes": "2"}, "nodes", "needs --network-gbit"),
        ({"target_modules": "nothing"}, "", "nothing"),
        ({"data": "/etc/passwd"}, "", "unknown knob 'data'"),
        ({"packing": "yes"}, "packing", "must be on or off"),
    ],
)
def test_what_is_wrong_is_said_at_its_knob(flags: dict[str, str], field: str, said: str) -> None:
    found = advised(**flags)
    assert not found["ok"]
    assert said in found["error"]
    assert "\n" not in found["error"]
    assert found["field"] == field


def test_near_matches_come_with_the_error() -> None:
    assert "llama-3.1-8b" in advised(model="lama-3.1-8b")["near"]


@pytest.mark.parametrize(
    ("kind", "query", "first"), [("models", "llama 3.1", "llama-3.1"), ("gpus", "4090", "rtx-4090")]
)
def test_names_are_found_by_words(kind: str, query: str, first: str) -> None:
    offers = asked(kind, query=query)["offers"]
    assert 0 < len(offers) <= 12
    assert offers[0]["name"].startswith(first)
    assert asked(kind, query="zzzzzz")["offers"] == []


def test_a_name_of_another_spelling_is_offered() -> None:
    assert any("mistral" in offer["name"] for offer in asked("models", query="mistrall-7b")["offers"])
    assert asked("gpus", query="24")["offers"][0]["name"] == "24GB"


def test_a_dropped_config_is_the_model() -> None:
    from advisor.catalog.data import data_text

    text = json.dumps(json.loads(data_text("models", "tinyllama-1.1b.json"))["config"])
    found = asked("advise", flags={"gpu": "24GB", "examples": "3000"}, config=text)
    assert found["ok"], found
    assert "--model ./config.json" in found["command"]
    plain = advised(gpu="24GB")
    sizes = [json.loads(one["json"])["candidates"][0]["memory"]["needed_bytes"] for one in (found, plain)]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("text", ["{", "[1]", '{"model_type": "nothing"}', "{}", "\x00"])
def test_a_dropped_config_that_is_none_is_refused_in_one_line(text: str) -> None:
    found = asked("advise", flags={"gpu": "24GB"}, config=text)
    assert not found["ok"]
    assert found["error"]
    assert "\n" not in found["error"]


def test_a_dropped_configuration_is_judged_in_memory() -> None:
    found = asked("check", name="axolotl.yaml", text=RECIPE, flags={"gpu": "24GB"})
    assert found["ok"], found
    assert found["verdict"].startswith("axolotl.yaml (Axolotl YAML): ")
    assert found["knobs"]["rank"] == "16"
    assert found["knobs"]["optimizer"] == "adamw_foreach"  # as its list has it
    assert "/etc/passwd" not in found["knobs"].values()
    assert asked("advise", flags=found["knobs"])["ok"]


@pytest.mark.parametrize("name", ["../x.yaml", "/etc/passwd", "", "a\nb.yaml", "a/b.yaml", "x" * 500 + ".yaml"])
def test_a_name_that_is_a_path_is_refused(name: str) -> None:
    for kind in ("check", "data"):
        assert "must be a plain name" in asked(kind, name=name, text=RECIPE, flags={"gpu": "24GB"})["error"]


def test_the_rows_of_a_dropped_data_file_become_knobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dropped, "FOLDER", str(tmp_path))
    rows = [{"text": "some words " * length} for length in range(1, 200)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n{not json}\n")
    found = asked("data", name="rows.jsonl", flags=USUAL)
    assert found["ok"], found
    assert found["knobs"]["examples"] == "199"
    assert int(found["knobs"]["mean_seq_len"]) < int(found["knobs"]["seq_len"])
    assert "1 rows cannot be read" in found["verdict"]
    assert advised(**found["knobs"])["ok"]
    assert not asked("data", name="other.jsonl", flags=USUAL)["ok"]


def test_the_file_to_run_is_written_for_each_target(answer: dict[str, Any]) -> None:
    found = {target: asked("file", target=target, flags=USUAL) for target in answer["targets"]}
    assert "--stack is 'none'" in found.pop("unsloth")["error"]  # a file for Unsloth is of its own step
    assert "no builder for tinyllama" in found.pop("torchtune")["error"]
    for target, one in found.items():
        assert one["ok"], (target, one)
        assert all(file["text"] for file in one["files"])
        assert one["run"]
    assert "known: auto" in asked("file", target="nothing", flags=USUAL)["error"]
    assert "nothing fits" in asked("file", target="auto", flags=USUAL | {"model": "llama-70b", "gpu": "8GB"})["error"]


def test_a_rule_is_explained() -> None:
    assert asked("explain", code="adv003")["title"].startswith("ADV003: ")
    assert "see: advise rules" in asked("explain", code="ADV999")["error"]


def test_every_knob_has_one_input() -> None:
    names = [*FIRST, *(name for group in GROUPS.values() for name in group)]
    assert len(names) == len(set(names))
    assert {*names, *NOT_ASKED} == {knob.name for knob in KNOBS}
    form = form_html({"model": 'a"b<c>'})
    assert re.findall(r' name="([a-z_]+)"', form) == names
    assert "a&quot;b&lt;c&gt;" in form


def test_flags_go_both_ways() -> None:
    texts = {"gpu": "NVIDIA B200", "seq_len": "512", "packing": "off", "target_modules": "q_proj,v_proj"}
    command = command_of(values_of(texts))
    assert command == "advise --gpu 'NVIDIA B200' --target-modules q_proj,v_proj --seq-len 512 --no-packing"
    assert texts_of([command]) == texts


_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
_KEYS = st.text(max_size=9)
_JSON = st.recursive(_VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3))
_NAMES = st.sampled_from([knob.name for knob in KNOBS])


@given(
    st.fixed_dictionaries(
        {"kind": st.sampled_from(sorted(KINDS)) | _JSON},
        optional={
            "flags": _JSON | st.dictionaries(_NAMES, _VALUES, max_size=4),
            "query": _JSON,
            "name": _JSON,
            "text": _JSON,
            "config": _JSON,
            "target": _JSON,
            "code": _JSON,
        },
    )
)
@settings(max_examples=150, deadline=None)
def test_whatever_is_asked_is_answered_or_refused_in_one_line(question: dict[str, Any]) -> None:
    found = json.loads(ask(json.dumps(question)))
    assert found["ok"] or (found["error"] and "\n" not in found["error"])


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"kind": 3}', '{"kind": "nothing"}'])
def test_what_is_no_question_is_refused(text: str) -> None:
    assert not json.loads(ask(text))["ok"]
