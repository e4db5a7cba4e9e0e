"""`calibrate show`, `report`, `export` and `import`, as they are typed."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from calibrate.store import Store
from tests.calibrate import made_up
from tests.calibrate.door import Door
from tests.calibrate.made_up import figures, gpu, record

NOISY = made_up.run(cpu_share=0.5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Store(tmp_path / "kept").append(
        record("lora", id="1"),
        record("qdora", id="2", run=NOISY),
        record("full", id="3", outcome="crashed"),
        record("lora", id="4", measured=figures(2.0, 0.2)),
        record("dora", id="5", device=gpu()),
        record("qlora", id="6", outcome="started"),
    )
    return tmp_path / "kept"


def test_show_groups_by_device_and_shows_the_newest(calibrate: Door, folder: Path) -> None:
    assert calibrate("show", "--out", folder) == 0
    lines = calibrate.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line.startswith("tiny;")] == [
        "tiny; cpu: Some CPU, 1 thread",
        "tiny; cuda: NVIDIA H200, 140 GiB",
    ]
    (lora,) = (line.split() for line in lines if line.startswith("lora "))
    assert lora == ["lora", "1x64", "c", "1.010", "2.000", "-49.50%", "110", "ms", "200", "ms", "-45.0%"]
    (full,) = (line.split() for line in lines if line.startswith("full "))
    assert full[4] == "crashed"
    assert not any(line.startswith("qlora ") for line in lines)
    assert "only 50% of its cores; not fitted (time)" in " ".join(calibrate.out.split())
    assert calibrate("show", "--all", "--out", folder) == 0
    assert sum(line.startswith("lora ") for line in calibrate.out.splitlines()) == 2


def test_show_keeps_its_width_on_a_narrow_terminal(
    calibrate: Door, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert calibrate("show", "--out", folder) == 0
    assert "…" not in calibrate.out
    assert any(line.startswith("lora ") and "-49.50%" in line for line in calibrate.out.splitlines())


def test_show_as_json(calibrate: Door, folder: Path) -> None:
    assert calibrate("show", "--json", "--out", folder) == 0
    found = [json.loads(line) for line in calibrate.out.splitlines()]
    assert [one["method"] for one in found] == ["lora", "qdora", "full", "dora"]
    assert {"method", "recipe", "source", "predicted", "measured", "environment"} <= found[0].keys()
    assert found[0]["predicted"].keys() == found[0]["measured"].keys()


def test_the_worst_stands_at_the_end(calibrate: Door, tmp_path: Path) -> None:
    Store(tmp_path).append(record("full", outcome="out_of_memory", verdict="fits"), record("lora"))
    assert calibrate("show", "--out", tmp_path) == 0
    assert (
        calibrate.out.splitlines()[-1] == "WORST: tiny full 1x64 c ran out of memory although it was predicted to fit"
    )


def test_nothing_yet_is_one_line(calibrate: Door, tmp_path: Path) -> None:
    assert calibrate("show", "--out", tmp_path) == 0
    assert calibrate.out == "there are no records yet; run `calibrate --method all` to measure some\n"
    assert calibrate("export", tmp_path / "card.jsonl", "--out", tmp_path) == 2
    assert calibrate.err.count("\n") == 1
    assert not (tmp_path / "card.jsonl").exists()
    assert calibrate("report", "--html", tmp_path / "r.html", "--out", tmp_path) == 0
    assert "There are no records yet" in (tmp_path / "r.html").read_text()


def test_report_is_one_file(calibrate: Door, folder: Path, tmp_path: Path) -> None:
    assert calibrate("report", "--html", tmp_path / "r.html", "--out", folder) == 0
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "r.html"]
    assert calibrate("report", "--html", tmp_path / "no" / "r.html", "--out", folder) == 4
    assert calibrate.err.count("\n") == 1
    assert calibrate("report", "--out", folder) == 2


def test_records_travel(calibrate: Door, folder: Path, tmp_path: Path) -> None:
    """Exported, imported elsewhere, imported again, and still those of their own device."""
    card = tmp_path / "card.jsonl"
    assert calibrate("export", card, "--out", folder) == 0
    assert calibrate.out.startswith("4 records of cpu: Some CPU, 1 thread; cuda: NVIDIA H200, 140 GiB in")
    other = tmp_path / "other"
    assert calibrate("import", card, "--out", other) == 0
    assert calibrate.out.startswith("4 records of")
    assert calibrate("import", card, "--out", other) == 0
    assert "0 records of" in calibrate.out
    assert "4 already there" in calibrate.out
    assert len(Store(other).read().results) == 4
    assert calibrate("export", tmp_path / "clean.jsonl", "--clean", "--out", folder) == 0
    kept = [json.loads(line)["method"] for line in (tmp_path / "clean.jsonl").read_text().splitlines()]
    assert kept == ["lora", "dora"]


def test_nothing_is_replaced_unasked(calibrate: Door, folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("work of months")
    for command in (("export", mine), ("report", "--html", mine)):
        assert calibrate(*command, "--out", folder) == 2
        assert "exists already; add --force to replace it" in calibrate.err
        assert mine.read_text() == "work of months"
        assert calibrate(*command, "--force", "--out", folder) == 0
        assert mine.read_text() != "work of months"
        mine.write_text("work of months")


def test_the_store_is_never_written_over(calibrate: Door, folder: Path, tmp_path: Path) -> None:
    before = Store(folder).path.read_bytes()
    (tmp_path / "link").symlink_to(Store(folder).path)
    for name in ("records.jsonl", "records.lock", "devices/a.json", "claims/a", "../kept/records.jsonl", "../link"):
        for command in (("export", folder / name), ("report", "--html", folder / name)):
            assert calibrate(*command, "--force", "--out", folder) == 2
            assert "this program keeps its own data there" in calibrate.err
            assert calibrate.err.count("\n") == 1
    assert Store(folder).path.read_bytes() == before


def test_the_users_own_store_is_kept_from_other_sessions_too(
    calibrate: Door, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_ADVISOR_DATA", str(folder.parent / "data"))
    own = Store()
    own.append(record("lora"))
    assert calibrate("export", own.path, "--force", "--out", folder) == 2
    assert len(own.read().results) == 1


def test_devices_and_pipes_are_written_to(calibrate: Door, folder: Path, tmp_path: Path) -> None:
    assert calibrate("export", "/dev/null", "--out", folder) == 0
    assert (calibrate.out, calibrate.err.count("\n")) == ("", 1)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert calibrate("report", "--html", pipe, "--out", folder) == 4  # nobody reads
    assert stat.S_ISFIFO(os.stat(pipe).st_mode)


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/null", "pipe", "."])
def test_only_regular_files_are_imported(
    calibrate: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    assert calibrate("import", name, "--out", tmp_path / "kept") == 2
    assert "not a regular file" in calibrate.err
    assert calibrate.err.count("\n") == 1


def test_a_store_with_impossible_figures_is_shown_without_them(calibrate: Door, folder: Path, tmp_path: Path) -> None:
    line = json.loads(record("lora", id="9").model_dump_json())
    for value in (-1, 10**400, float("nan"), 1e308):
        line["measured"]["step_s"] = value
        with Store(folder).path.open("a") as file:
            file.write(json.dumps(line) + "\n")
    for command in (("show",), ("show", "--json"), ("report", "--html", tmp_path / "r.html"), ("fit",)):
        assert calibrate(*command, "--out", folder) == (2 if command == ("fit",) else 0)
        assert "skipped 4 damaged lines" in calibrate.err
        assert "Traceback" not in calibrate.err


def test_a_bad_file_adds_nothing(calibrate: Door, folder: Path, tmp_path: Path) -> None:
    card, other = tmp_path / "card.jsonl", tmp_path / "other"
    assert calibrate("export", card, "--out", folder) == 0
    newer = json.dumps({**json.loads(card.read_text().splitlines()[0]), "schema_version": 7})
    card.write_text(card.read_text() + newer + "\n")
    assert calibrate("import", card, "--out", other) == 2
    assert calibrate.err.endswith(f"{card}, line 5: the record has schema 7 but this program reads 2: update it\n")
    assert Store(other).read().records == ()


def test_lines_that_are_passed_over_are_told(calibrate: Door, folder: Path) -> None:
    path = Store(folder).path
    path.write_text("rubbish\n" + '{"schema_version": 9}\n' + path.read_text())
    assert calibrate("show", "--out", folder) == 0
    assert "skipped 1 records of a newer version" in calibrate.err
    assert "skipped 1 damaged line" in calibrate.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("shw",),
        ("--json", "show"),
        ("show", "--nonsense"),
        ("import",),
        ("import", "/no/such/file"),
        ("import", "~no-such-user/no/such/file"),
    ],
)
def test_bad_input_is_one_line(calibrate: Door, arguments: tuple[str, ...]) -> None:
    assert calibrate(*arguments) == (4 if "/no/such/file" in arguments[-1] else 2)
    assert (calibrate.out, calibrate.err.count("\n")) == ("", 1)
    assert calibrate.err.startswith("calibrate: error: ")
