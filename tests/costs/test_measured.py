"""Measured profiles: the card's own file, and no other, decides the times; what does not match is said aloud."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advisor.advice.advise import advise
from advisor.advice.breakdown import time_breakdown
from advisor.catalog import find_gpus
from advisor.costs import measured
from advisor.costs.device import profile_for
from advisor.costs.measured import (
    BadDevice,
    MeasuredDevice,
    changed_versions,
    device_folder,
    device_slug,
    device_text,
    evidence_of,
    measured_device,
    read_device,
)
from advisor.files.checked import FOLDER_VARIABLE, file_text
from advisor.interval import Interval
from advisor.render.time import render_times
from advisor.specs import GpuSpec

CARD = find_gpus("rtx4090")[0]
KNOBS: dict[str, Any] = {
    "examples": 3000,
    "method": "lora",
    "micro_batch": 2,
    "gradient_checkpointing": True,
    "seq_len": 1024,
    "mean_seq_len": 1024,  # of one length: no mask, of whose kernels a profile knows nothing
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    return tmp_path / "devices"


def device(card: GpuSpec = CARD, **versions: str) -> MeasuredDevice:
    profile = profile_for(card).model_copy(
        update={
            "matrix_efficiency": 0.2,
            "device_spread": Interval(0.9, 1.0, 1.1),
            "launch_spread": Interval(0.9, 1.0, 1.1),
            "context_bytes": Interval(3e9, 3e9, 3e9),
        }
    )
    return MeasuredDevice(
        card=card,
        profile=profile,
        versions={"torch": "2.13.0+cu130", **versions},
        fitted_at="2026-02-03",
        bursts=31,
        held_out=(0.04, 0.05),
        attention={"flash": 0.03, "efficient masked": 0.08},
    )


def keep(folder: Path, one: MeasuredDevice, text: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{device_slug(one.card)}.json"
    path.write_text(text or device_text(one))
    return path


def time_of(answer: Any) -> Interval:
    time = answer.candidates[0].time
    assert time is not None
    return time.total_s


def test_there_and_back(folder: Path) -> None:
    assert read_device(keep(folder, device())) == device()
    assert device_folder() == folder


def test_without_a_file_nothing_is_said() -> None:
    assert measured_device(CARD) == (None, "")


def test_the_answer_stands_on_it_and_says_so(folder: Path) -> None:
    before = advise("llama-3.2-1b", "rtx4090", **KNOBS)
    keep(folder, device())
    after = advise("llama-3.2-1b", "rtx4090", **KNOBS)
    assert time_of(after).likely > 1.2 * time_of(before).likely
    assert time_of(after).high / time_of(after).low == pytest.approx(1.1 / 0.9, rel=0.01)
    assert after.candidates[0].memory.needed_bytes.likely > before.candidates[0].memory.needed_bytes.likely + 2e9
    (note,) = [note.text for note in after.notes if note.code == "measured"]
    assert "measured on this card on 2026-02-03 (31 bursts, torch 2.13.0)" in note
    assert "4% on shapes and 5% on methods" in note
    assert "attention kernels, on widths of heads held out: efficient masked 8%, flash 3%" in note
    assert not [note for note in before.notes if note.code == "measured"]


def test_no_other_card_uses_it(folder: Path) -> None:
    others = [advise("llama-3.2-1b", gpu, **KNOBS) for gpu in ("rtx3090", "24GB")]
    keep(folder, device())
    assert [advise("llama-3.2-1b", gpu, **KNOBS) for gpu in ("rtx3090", "24GB")] == others


def test_a_card_that_no_catalog_knows_gets_its_rates(folder: Path) -> None:
    known = CARD.model_copy(update={"name": "Odd Card"})
    keep(folder, device(known))
    asked = GpuSpec(name="Odd Card", generation="", memory_bytes=CARD.memory_bytes, marketed_gb=CARD.marketed_gb)
    answer = advise("llama-3.2-1b", asked, **KNOBS)
    assert time_of(answer).high / time_of(answer).low < 1.3
    assert not [note for note in answer.notes if "is not known" in note.text]


def test_other_versions_fall_back_aloud(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(folder, device(peft="0.1.0"))
    monkeypatch.setattr("importlib.metadata.version", {"torch": "2.13.0", "peft": "0.21.2"}.__getitem__)
    monkeypatch.setattr(measured, "LIBRARIES", ("torch", "peft"))
    answer = advise("llama-3.2-1b", "rtx4090", **KNOBS)
    (note,) = [note.text for note in answer.notes if note.code == "measured"]
    assert "is not used, because it was measured with peft 0.1.0 (now 0.21.2)" in note
    assert "calibrate" in note
    assert time_of(answer).high / time_of(answer).low > 1.4


def test_builds_of_one_version_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _: "2.13.0+cpu")
    assert changed_versions({"torch": "2.13.0+cu130"}) == ""
    assert changed_versions({"torch": "2.12.1+cu130"}) == "torch 2.12.1 (now 2.13.0)"


def test_libraries_that_are_not_here_are_taken_on_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    assert changed_versions({"torch": "1.0"}) == ""


def damaged(change: Any) -> str:
    document = json.loads(device_text(device()))
    change(document)
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "damaged (not JSON)"),
        ("[]", "version None"),
        (damaged(lambda d: d.update(schema_version=9)), "version 9"),
        (damaged(lambda d: d["profile"].update(bursts=99)), "its checksum differs"),
    ],
)
def test_a_damaged_file_falls_back_aloud(folder: Path, text: str, words: str) -> None:
    path = keep(folder, device(), text)
    with pytest.raises(BadDevice, match="calibrate") as caught:
        read_device(path)
    assert words in str(caught.value)
    answer = advise("llama-3.2-1b", "rtx4090", **KNOBS)
    (note,) = [note.text for note in answer.notes if note.code == "measured"]
    assert words in note
    assert note.endswith("the default profile is used.")


def test_another_formula_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = keep(folder, device())
    monkeypatch.setattr(measured, "FORMULA_VERSION", 99)
    with pytest.raises(BadDevice, match="another version of the formula"):
        read_device(path)


def test_a_field_of_the_wrong_kind_is_refused(folder: Path) -> None:
    fields = json.loads(device_text(device()))["profile"]
    fields["profile"]["kernel_s"] = -1.0
    path = keep(folder, device(), file_text(measured.SCHEMA_VERSION, fields))
    with pytest.raises(BadDevice, match="lacks or has a bad"):
        read_device(path)


def test_a_file_from_before_attention_was_timed_is_read(folder: Path) -> None:
    fields = json.loads(device_text(device()))["profile"]
    del fields["attention"], fields["profile"]["cudnn_masked_attention"], fields["profile"]["batched_fp32"]
    found = read_device(keep(folder, device(), file_text(measured.SCHEMA_VERSION, fields)))
    assert found == device()._replace(attention={})
    assert "attention" not in evidence_of(found)


def test_what_explains_the_time_stands_on_it_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    answer = advise("llama-3.2-1b", "rtx4090", **KNOBS)
    render_times(answer, time_breakdown(answer), sys.stdout)
    before = capsys.readouterr().out
    keep(folder, device())
    render_times(answer, time_breakdown(answer), sys.stdout)
    assert capsys.readouterr().out != before
