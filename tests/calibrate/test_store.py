"""The store against everything that can happen to a file: power cuts, full disks, two writers, newer programs."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest

from advisor.errors import BadConfig, SourceUnavailable
from calibrate import store as module
from calibrate.store import NewerRecord, Shared, Store, default_folder, parse_file, write_file
from tests.calibrate.made_up import record

ONE, TWO, THREE = (record(id=name) for name in ("one", "two", "three"))


def ids(store: Store) -> list[str]:
    return [one.burst.id for one in store.read().records if one.burst is not None]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep" / "folder")
    assert store.read() == ((), 0, 0)
    store.append(ONE)
    store.append(TWO, THREE)
    assert store.read() == ((ONE, TWO, THREE), 0, 0)


def test_a_note_of_a_start_is_no_result(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(record(outcome="started"), ONE)
    assert store.read().results == (ONE,)


@pytest.mark.parametrize("cut", [1, 2, 40, 700])
def test_a_last_line_that_was_cut_short_is_cut_off(tmp_path: Path, cut: int) -> None:
    """Power loss: every length of the last line, the whole of it without its end among them."""
    store = Store(tmp_path)
    store.append(ONE, TWO)
    data = store.path.read_bytes()
    store.path.write_bytes(data[:-cut])
    left = ["one", "two"] if cut == 1 else ["one"]
    assert ids(store) == left
    assert store.read().damaged == 0
    store.append(THREE)
    assert ids(store) == [*left, "three"]
    assert all(json.loads(line) for line in store.path.read_text().splitlines())


def test_a_file_that_is_one_half_line_begins_anew(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(ONE)
    store.path.write_bytes(store.path.read_bytes()[:100])
    store.append(TWO)
    assert ids(store) == ["two"]


def test_damage_in_the_middle_is_counted_and_costs_no_other_line(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(ONE, TWO, THREE)
    lines = store.path.read_bytes().splitlines()
    lines[1] = lines[1].replace(b'"method":"lora"', b'"method":"lara"')
    lines.insert(1, b"\x00\xff garbage")
    store.path.write_bytes(b"\n".join(lines) + b"\n")
    assert ids(store) == ["one", "three"]
    assert store.read().remark == "skipped 2 damaged lines"


def test_newer_records_are_counted_and_not_guessed_at(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(ONE)
    newer = json.dumps({"schema_version": 99, "color": "blue"})
    store.path.write_text(store.path.read_text() + newer + "\n")
    assert ids(store) == ["one"]
    assert "1 records of a newer version" in store.read().remark
    store.append(TWO)
    assert newer in store.path.read_text()


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes a part of the line and then nothing more."""
    store = Store(tmp_path)
    store.append(ONE)
    before = store.path.read_bytes()
    write = os.write
    calls: list[int] = []

    def full(file: int, data: bytes) -> int:
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data[:50])

    monkeypatch.setattr(module.os, "write", full)
    with pytest.raises(SourceUnavailable, match=r"No space left on device.*--out") as full_disk:
        store.append(TWO)
    assert full_disk.value.exit_code == 4
    monkeypatch.undo()
    assert len(calls) == 2
    assert store.path.read_bytes() == before
    store.append(THREE)
    assert ids(store) == ["one", "three"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file")
    for act in (store.prepare, lambda: store.append(ONE)):
        with pytest.raises(SourceUnavailable, match="cannot be written"):
            act()
    assert store.read().records == ()


def test_a_read_only_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told by the system, for whoever runs the tests may be allowed everything."""

    def refuse(*_: Any, **__: Any) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(module.os, "open", refuse)
    with pytest.raises(SourceUnavailable, match="Permission denied"):
        Store(tmp_path).prepare()


def append_many(folder: str, name: str, count: int) -> None:
    for number in range(count):
        Store(Path(folder)).append(record(id=f"{name}{number}"))


@pytest.mark.process
def test_two_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=append_many, args=(str(tmp_path), name, 25)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert sorted(ids(Store(tmp_path))) == sorted(f"{name}{number}" for name in "ab" for number in range(25))
    assert store_is_clean(tmp_path)


def store_is_clean(folder: Path) -> bool:
    contents = Store(folder).read()
    return (contents.newer, contents.damaged) == (0, 0)


def test_a_burst_is_claimed_by_one_at_a_time(tmp_path: Path) -> None:
    one, other = Store(tmp_path), Store(tmp_path)
    with one.claimed("a") as first:
        with other.claimed("a") as second, other.claimed("b") as third:
            assert (first, second, third) == (True, False, True)
        with other.claimed("a") as still:
            assert not still
    with other.claimed("a") as again:
        assert again
    assert list((tmp_path / "claims").iterdir()) == []


def claim_and_wait(folder: str, ready: Any) -> None:
    with Store(Path(folder)).claimed("a") as ours:
        ready.put(ours)
        time.sleep(60)


@pytest.mark.process
def test_a_claim_ends_with_its_process(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Queue()
    other = context.Process(target=claim_and_wait, args=(str(tmp_path), ready))
    other.start()
    assert ready.get(timeout=60)
    with Store(tmp_path).claimed("a") as ours:
        assert not ours
    other.kill()
    other.join(60)
    with Store(tmp_path).claimed("a") as ours:
        assert ours


def test_what_others_add_is_read_from_where_the_last_look_ended(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.read_from(0) == (((), 0, 0), 0)
    store.append(ONE)
    contents, end = store.read_from(0)
    assert contents.records == (ONE,)
    assert end == store.path.stat().st_size
    with store.path.open("ab") as file:
        file.write(b'{"half')
    assert store.read_from(end) == (((), 0, 0), end)
    store.append(TWO)
    assert store.read_from(end)[0].records == (TWO,)
    with store.path.open("ab") as file:
        file.write(b"x" * 3 * 2**20 + b"\n")
    contents, end = store.read_from(0)
    assert (contents.damaged, end) == (1, store.path.stat().st_size)


def test_what_is_no_regular_file_is_no_store(tmp_path: Path) -> None:
    store = Store(tmp_path)
    os.mkfifo(store.path)
    with pytest.raises(BadConfig, match="a pipe, not a regular file"):
        store.read()
    with pytest.raises(SourceUnavailable, match="not a regular file"):
        store.append(ONE)


@pytest.mark.slow
def test_a_lock_that_is_never_given_back_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_LIMIT_S", 0.1)
    monkeypatch.setattr(module, "_lock", lambda _: False)
    with pytest.raises(SourceUnavailable, match="another run"):
        Store(tmp_path).append(ONE)


def test_the_users_own_folder_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_ADVISOR_DATA", str(tmp_path))
    assert default_folder() == tmp_path / "bursts"
    monkeypatch.delenv("FINETUNE_ADVISOR_DATA")
    assert default_folder().parts[-2:] == ("finetune-advisor", "bursts")


def test_a_file_of_records_comes_back_whole(tmp_path: Path) -> None:
    write_file(tmp_path / "card.jsonl", Shared((ONE, TWO), ()))
    assert parse_file(tmp_path / "card.jsonl") == ((ONE, TWO), ())
    assert [path.name for path in tmp_path.iterdir()] == ["card.jsonl"]


@pytest.mark.parametrize(
    ("line", "kind", "says"),
    [
        ("{}", BadConfig, r"line 2: model: Field required"),
        ("no json", BadConfig, r"line 2: not a JSON object"),
        ('{"schema_version": 3}', NewerRecord, r"line 2: the record has schema 3 but this program reads 2"),
        (ONE.model_dump_json() + "\n\x1b[2J", BadConfig, r"line 3: not a JSON object"),
        ('{"schema_version": ' + "9" * 400 + "}", NewerRecord, r"has schema 99999999999999999999 but"),
        (record(outcome="started").model_dump_json(), BadConfig, r"line 2: not the result of a burst"),
    ],
)
def test_a_file_with_one_bad_line_is_refused(tmp_path: Path, line: str, kind: type[Exception], says: str) -> None:
    path = tmp_path / "card.jsonl"
    path.write_text(f"{ONE.model_dump_json()}\n{line}\n")
    with pytest.raises(kind, match=says):
        parse_file(path)


IMPOSSIBLE = (
    ("measured.step_s", "-1"),
    ("measured.step_s", "0"),
    ("measured.step_s", "NaN"),
    ("measured.step_s", "Infinity"),
    ("measured.step_s", "1e308"),
    ("measured.step_s", "1e999"),
    ("measured.step_s", '"fast"'),
    ("measured.peak_allocated_bytes", "1" + "0" * 400),
    ("measured.peak_allocated_bytes", "0"),
    ("measured.peak_allocated_bytes", str(2**50 + 1)),
    ("predicted.peak_allocated_bytes", "-5"),
    ("predicted.step_s", "1e308"),
    ("burst.run.step_s", "[0.1, -0.1]"),
    ("burst.run.cpu_share", "-1"),
    ("burst.started_at", '"2026-02-30T00:00:00+00:00"'),
    ("burst.started_at", '"yesterday"'),
    ("environment.device.memory_bytes", "-1"),
    ("environment.device.cores", "0"),
    ("environment.device.compute_capability", '"new"'),
    ("recipe.rank", "-1"),
    ("recipe.alpha", "NaN"),
    ("method", '"lara"'),
    ("batch", "0"),
    ("seq_len", "-3"),
    ("schema_version", "0"),
    ("burst.config", "[" * 500 + "]" * 500),
    ("model", '"\\ud800"'),
)


def with_value(place: str, value: str) -> str:
    """A good record's line with other JSON text at a place."""
    document = json.loads(ONE.model_dump_json())
    *outer, name = place.split(".")
    holder = document
    for key in outer:
        holder = holder[key]
    holder[name] = "PLACE"
    return json.dumps(document).replace('"PLACE"', value)


@pytest.mark.parametrize(("place", "value"), IMPOSSIBLE)
def test_impossible_figures_are_refused_and_skipped(tmp_path: Path, place: str, value: str) -> None:
    """On import with file, line, field and value; in the store, where an older version let them in, with a count."""
    path, line = tmp_path / "card.jsonl", with_value(place, value)
    path.write_text(f"{TWO.model_dump_json()}\n{line}\n")
    with pytest.raises(BadConfig) as caught:
        parse_file(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, line 2: ")
    assert place.split(".")[0] in message or "not a JSON object" in message
    assert message.isprintable()
    assert len(message) < 500
    store = Store(tmp_path / "store")
    store.append(ONE)
    with store.path.open("a") as file:
        file.write(line + "\n")
    store.append(TWO)
    assert store.read() == ((ONE, TWO), 0, 1)
    assert line in store.path.read_text()


def test_what_a_terminal_would_obey_is_not_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(ONE)
    store.path.write_text(
        with_value("model", '"a\\u001b[2Jb"') + "\n" + with_value("model", '"' + "x" * 9000 + '"') + "\n"
    )
    assert [(one.model[:6], len(one.model)) for one in store.read().records] == [("a?[2Jb", 6), ("xxxxxx", 500)]


def test_a_burst_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "card.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + 2 * (ONE.model_dump_json() + "\n").encode())
    assert parse_file(path).records == (ONE,)


def test_an_endless_line_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "card.jsonl"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(BadConfig, match="line 1: not a JSON object"):
        parse_file(path)


def test_a_file_without_an_end_in_sight_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_IMPORT_BYTES", 2**20)
    (tmp_path / "card.jsonl").write_bytes(b"\n" * (2**20 + 1))
    with pytest.raises(BadConfig, match="larger than 1 MiB"):
        parse_file(tmp_path / "card.jsonl")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "card.jsonl").write_text("\n")
    with pytest.raises(BadConfig, match="contains no records"):
        parse_file(tmp_path / "card.jsonl")
    with pytest.raises(SourceUnavailable, match="cannot be read"):
        parse_file(tmp_path / "none.jsonl")


def test_a_record_of_version_1_is_read_as_one_of_full_rows() -> None:
    new = record()
    old = {name: value for name, value in json.loads(new.model_dump_json()).items() if name not in ("rows", "loading")}
    assert new.schema_version == 2
    for name in ("workload", "drawn"):
        del old["burst"][name]
    for name in ("step_peak_bytes", "step_reserved_bytes"):
        del old["burst"]["run"][name]
    found = module.parse(json.dumps(old | {"schema_version": 1}).encode())
    assert found == new.model_copy(update={"schema_version": 1})
    assert (found.rows, found.kind) == ("full", "full")
