"""A card in a file of the user's own, as `--gpu card.toml`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.catalog.gpus import find_gpus
from advisor.errors import BadConfig, SourceUnavailable
from advisor.specs import GpuSpec
from advisor.units import MIB
from tests.catalog.cards import one

ENTRY = {
    "name": "My Card 9000",
    "marketed_gb": 24,
    "memory_mib": 24000,
    "bandwidth_gb_per_s": 900,
    "fp16_tflops": 100,
    "fp32_tflops": 50.5,
}
ANYTHING = st.one_of(st.integers(), st.floats(), st.text())


def write(folder: Path, name: str, text: str) -> str:
    """A file in `folder`; its path as a person would type it."""
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def toml_of(entry: dict[str, object]) -> str:
    """`entry` as TOML; JSON's spelling of strings, numbers and lists is TOML's too."""
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in entry.items())


def test_file_in_either_format_gives_the_card(tmp_path: Path) -> None:
    entry = ENTRY | {
        "bf16_tflops": 99.0,
        "compute_capability": "8.9",
        "generation": "Ada",
        "aliases": ["mine"],
    }
    from_toml = one(write(tmp_path, "card.toml", toml_of(entry) + '\nsources = { memory = "my notes" }'))
    from_json = one(write(tmp_path, "card.JSON", json.dumps(entry | {"sources": {"memory": "my notes"}})))
    assert from_toml == from_json
    assert from_toml == GpuSpec(
        name="My Card 9000",
        generation="Ada",
        compute_capability="8.9",
        memory_bytes=24_000 * MIB,
        marketed_gb=24,
        memory_bytes_per_s=900e9,
        bf16_flop_per_s=99e12,
        fp16_flop_per_s=100e12,
        fp32_flop_per_s=50.5e12,
        sources=("memory: my notes",),
    )


def test_file_needs_only_the_required_fields(tmp_path: Path) -> None:
    card = one(write(tmp_path, "card.toml", toml_of(ENTRY)))
    assert (card.bf16_flop_per_s, card.compute_capability, card.generation) == (0, "", "")


def test_file_may_leave_out_every_rate_and_give_the_power(tmp_path: Path) -> None:
    rates = {name for name in ENTRY if name.endswith(("_gb_per_s", "_tflops"))}
    card = one(write(tmp_path, "card.toml", toml_of({k: v for k, v in ENTRY.items() if k not in rates})))
    assert not card.speed_known
    assert one(write(tmp_path, "card.toml", toml_of(ENTRY | {"power_w": 250}))).power_w == 250.0


@pytest.mark.parametrize("field", sorted(ENTRY))
def test_file_with_a_missing_field_is_refused(tmp_path: Path, field: str) -> None:
    path = write(tmp_path, "card.toml", toml_of({k: v for k, v in ENTRY.items() if k != field}))
    with pytest.raises(BadConfig, match=rf"card\.toml.*{field} is missing"):
        find_gpus(path)


@pytest.mark.parametrize("field", [*sorted(set(ENTRY) - {"name"}), "bf16_tflops", "tf32_tflops"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), 10**12, True, "24", None, [24], 10**400])
def test_file_with_a_bad_number_is_refused(tmp_path: Path, field: str, value: object) -> None:
    path = write(tmp_path, "card.json", json.dumps(ENTRY | {field: value}))
    with pytest.raises(BadConfig, match=rf"card\.json.*{field} is "):
        find_gpus(path)


def test_file_with_a_misspelled_field_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "card.toml", toml_of(ENTRY | {"bandwith_gb_per_s": 900}))
    with pytest.raises(BadConfig, match=r"'bandwith_gb_per_s'; did you mean bandwidth_gb_per_s"):
        find_gpus(path)


def test_file_whose_two_sizes_disagree_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"memory_mib is 24000, which is 0\.49 of marketed_gb \(48\)"):
        find_gpus(write(tmp_path, "card.toml", toml_of(ENTRY | {"marketed_gb": 48})))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "name = ", "not valid TOML"),
        ("a.json", "{", "not valid JSON"),
        ("a.json", "", "not valid JSON"),
        ("a.json", "[1]", "no table of fields"),
        ("a.json", "[" * 100_000, "not valid JSON"),
        ("a.toml", "a = " + "[" * 100_000, "not valid TOML"),
        ("a.toml", "", "name is missing"),
        ("a.toml", "#" * (1024**2 + 1), "larger than 1 MiB"),
    ],
)
def test_file_that_is_not_a_card_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(BadConfig, match=message) as caught:
        find_gpus(write(tmp_path, name, text))
    assert len(str(caught.value)) < 600


def test_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadConfig, match="not UTF-8"):
        find_gpus(str(tmp_path / "a.json"))


def test_what_is_no_regular_file_is_refused_without_opening_it(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    os.mkfifo(tmp_path / "pipe.toml")
    for name in ("folder.toml", "pipe.toml"):
        with pytest.raises(BadConfig, match="not a regular file"):
            find_gpus(str(tmp_path / name))


@pytest.mark.parametrize("path", ["no/such/card.toml", "bad\0name.json", "x" * 5000 + ".toml", "\ud800.json"])
def test_file_that_cannot_be_reached(path: str) -> None:
    with pytest.raises(SourceUnavailable, match=r"does not exist|cannot be read") as caught:
        find_gpus(path)
    assert str(caught.value).isprintable()


@given(st.dictionaries(st.sampled_from([*ENTRY, "bf16_tflops", "odd"]), ANYTHING))
def test_any_file_gives_a_card_or_names_the_file(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, object]
) -> None:
    path = write(tmp_path_factory.getbasetemp(), "any.json", json.dumps(ENTRY | changes))
    try:
        found = find_gpus(path)[0]
    except BadConfig as error:
        told = str(error)
    else:
        told = ""
        assert found.speed_known
        assert found.name == (ENTRY | changes)["name"]
    assert not told or "any.json" in told
