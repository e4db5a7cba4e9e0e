"""The page's files: what is in them, where they are written, who gives them out, and where the runtime comes from."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import advisor.site.files
from advisor.cli import cli
from advisor.errors import BadValue, SourceUnavailable
from advisor.page.trust import Published, distance, trust_html
from advisor.site import runtime as of_runtime
from advisor.site.beside import beside
from advisor.site.engine import engine_text, readers_text
from advisor.site.files import LIST, POLICY, TYPES, WRITER, page_files
from advisor.site.folder import save_page
from advisor.site.runtime import DIGESTS, runtime_files
from advisor.site.server import PageServer

ROOT = Path(__file__).resolve().parents[2]
FAKE = {name: name.encode() for name in DIGESTS}
LISTED = {"written_by": WRITER, "files": ["index.html", "main.js", LIST]}
FILES = {"index.html": b"<!doctype html>", "main.js": b"1", LIST: json.dumps(LISTED).encode()}


@pytest.fixture(scope="module")
def whole() -> dict[str, bytes]:
    return page_files(FAKE)


def test_the_engine_is_the_packages_own_files() -> None:
    engine, readers = json.loads(engine_text()), json.loads(readers_text())
    assert len(engine) > 500
    for name in ("advisor/page/ask.py", "advisor/advice/advise.py", "profiles/models/llama-3.1-8b.json"):
        assert engine[name] == (ROOT / name).read_text(encoding="utf-8")
    assert not [name for name in engine if name.startswith(("advisor/render", "advisor/validation", "advisor/site"))]
    assert "yaml/__init__.py" in readers
    assert {"advisor/configs/axolotl.py", "advisor/export/axolotl.py"} <= readers.keys()
    assert not engine.keys() & readers.keys()


def test_the_files_are_the_same_each_time(whole: dict[str, bytes]) -> None:
    assert page_files(FAKE) == whole
    assert page_files({**FAKE, "pyodide.mjs": b"other"})["sw.js"] != whole["sw.js"]


def test_every_file_is_known_listed_and_kept_offline(whole: dict[str, bytes]) -> None:
    assert {Path(name).suffix for name in whole} <= TYPES.keys()
    assert json.loads(whole[LIST])["files"] == sorted(whole)
    kept = json.loads(re.search(r"const FILES = (\[.*?\]);", whole["sw.js"].decode()).group(1))  # type: ignore[union-attr]
    assert set(kept) == {"./", *whole} - {"index.html", "sw.js", LIST}
    assert b"Mozilla Public License Version 2.0" in whole["licenses.txt"]
    assert b"MIT License" in whole["licenses.txt"]
    assert "{{" not in whole["index.html"].decode()


def test_the_document_holds_an_answer_and_no_code(whole: dict[str, bytes]) -> None:
    text = whole["index.html"].decode()
    assert "Use DoRA" in text
    assert text.count("<svg") >= 3
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! (type=\"module\" )?src=)", text)
    assert "unsafe-inline" not in POLICY
    assert "'unsafe-eval'" not in POLICY


def test_the_published_rows_are_those_of_the_evidence_table() -> None:
    rows = beside()
    assert len(rows) > 100
    assert any(row.what == "step time" for row in rows)
    for row in rows:
        assert row.measured > 0
        assert row.low <= row.likely <= row.high
        assert row.url.startswith("https://")


def test_the_nearest_row_is_marked() -> None:
    from advisor import advise

    advice = advise("llama-3.2-3b", "NVIDIA L40S", 3000, method="dora")
    rows = beside()
    near = min(rows, key=lambda row: distance(row, advice.parameters, "dora", 840, ("NVIDIA L40S",)))
    text = trust_html(advice, rows)
    assert near.model == "Llama-3.2-3B"
    assert near.model in text[text.index('class="marked"') :][:400]
    assert trust_html(advice, ()) == ""
    assert Published("x", "y", "lora", "c", 1, 1, 2.0, 1.0, 3.0, 4.0, "https://x").error == 0.5


def test_a_new_folder_is_written_whole(tmp_path: Path) -> None:
    place = tmp_path / "a" / "page"
    save_page(FILES, str(place))
    assert {path.name: path.read_bytes() for path in place.iterdir()} == FILES
    newer = {**FILES, "index.html": b"newer"}
    del newer["main.js"]
    save_page(newer, str(place))
    assert {path.name: path.read_bytes() for path in place.iterdir()} == newer
    assert [path.name for path in place.parent.iterdir()] == ["page"]


def test_others_files_are_left_alone_and_kept(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "more.txt").write_text("more")
    with pytest.raises(BadValue, match="holds other files"):
        save_page(FILES, str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "mine.txt"]
    save_page(FILES, str(tmp_path), force=True)
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert (tmp_path / "folder" / "more.txt").read_text() == "more"
    assert (tmp_path / "index.html").read_bytes() == FILES["index.html"]
    newer = {name: data for name, data in FILES.items() if name != "main.js"}
    save_page(newer, str(tmp_path), force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["folder", "mine.txt", *newer])


def test_a_list_of_somebody_else_is_no_page(tmp_path: Path) -> None:
    (tmp_path / LIST).write_text(json.dumps({"files": [LIST, "mine.txt"]}))
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BadValue, match="holds other files"):
        save_page(FILES, str(tmp_path))
    save_page(FILES, str(tmp_path), force=True)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_what_is_no_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("x")
    link.symlink_to(tmp_path)
    for place in (file, link):
        with pytest.raises(BadValue, match="is no folder"):
            save_page(FILES, str(place), force=True)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(BadValue, match="current folder"):
        save_page(FILES, ".")
    with pytest.raises(SourceUnavailable, match="cannot be written"):
        save_page(FILES, str(file / "below"))
    assert file.read_text() == "x"


def test_a_failed_write_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "page"
    save_page(FILES, str(place))

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SourceUnavailable, match="No space left"):
        save_page({**FILES, "index.html": b"newer"}, str(place))
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in place.iterdir()} == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


@pytest.fixture(scope="module")
def server() -> Iterator[PageServer]:
    with PageServer({**FILES, "a.wasm": b"\0asm"}) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield running
        running.shutdown()


def got(server: PageServer, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    connection.request(method, path, headers={"Host": "127.0.0.1:1", **headers})
    answer = connection.getresponse()
    found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    connection.close()
    return found


def test_files_are_given_out_under_their_types_and_the_policy(server: PageServer) -> None:
    status, headers, body = got(server, "/")
    assert (status, body) == (200, FILES["index.html"])
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert "wasm-unsafe-eval" in headers["content-security-policy"]
    assert got(server, "/a.wasm?x=1")[1]["content-type"] == "application/wasm"
    assert got(server, "/main.js", "HEAD")[2] == b""
    assert got(server, "/main.js", **{"If-None-Match": got(server, "/main.js")[1]["etag"]})[0] == 304


STRANGE = ("/../pyproject.toml", "/%2e%2e/x", "//etc/passwd", "/nothing", "/static/", "/.git", "/\\..\\x")


@pytest.mark.parametrize("path", STRANGE)
def test_nothing_else_of_the_machine_is_given_out(server: PageServer, path: str) -> None:
    assert got(server, path)[0] == 404
    assert got(server, "/", Host="evil.example")[0] == 404
    assert got(server, "/", "POST")[0] == 501


def test_a_taken_port_is_one_line(server: PageServer) -> None:
    with pytest.raises(SourceUnavailable, match="cannot be listened on"):
        PageServer(FILES, server.server_address[1])


def test_the_runtime_must_be_the_pinned_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceUnavailable, match="no pyodide"):
        runtime_files(str(tmp_path))
    for name, data in FAKE.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceUnavailable, match="not the file of pyodide"):
        runtime_files(str(tmp_path))
    import hashlib

    monkeypatch.setattr(of_runtime, "DIGESTS", {name: hashlib.sha256(data).hexdigest() for name, data in FAKE.items()})
    assert runtime_files(str(tmp_path)) == FAKE
    (tmp_path / "pyodide.mjs").unlink()
    with pytest.raises(SourceUnavailable):
        runtime_files(str(tmp_path))


def test_without_npm_and_cache_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_runtime, "_cache", lambda: tmp_path)
    monkeypatch.setattr(of_runtime.shutil, "which", lambda _: None)
    found = CliRunner().invoke(cli, ["page", "--to", str(tmp_path / "page")])
    assert found.exit_code == 4
    assert "there is no npm to fetch it: install npm, or give --runtime DIR" in found.output
    assert "Traceback" not in found.output


@pytest.mark.process
def test_npm_fetches_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for npm packs an archive with a member that must not be written."""
    import hashlib

    monkeypatch.setattr(of_runtime, "DIGESTS", {name: hashlib.sha256(data).hexdigest() for name, data in FAKE.items()})
    monkeypatch.setattr(of_runtime, "_cache", lambda: tmp_path / "cache")
    npm = tmp_path / "npm"
    lines = [
        f"#!{sys.executable}",
        "import io, tarfile",
        "with tarfile.open('pyodide.tgz', 'w:gz') as tar:",
        f"    for name, data in ({ {**FAKE, '../../../evil': b'x'}!r}).items():",
        "        info = tarfile.TarInfo(f'package/{name}'); info.size = len(data)",
        "        tar.addfile(info, io.BytesIO(data))",
    ]
    npm.write_text("\n".join(lines))
    npm.chmod(0o755)
    monkeypatch.setattr(of_runtime.shutil, "which", lambda _: str(npm))
    assert runtime_files() == FAKE
    npm.unlink()
    assert runtime_files() == FAKE  # from the cache
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [f"pyodide-{of_runtime.VERSION}"]
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.process
def test_a_failing_npm_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_runtime, "_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(of_runtime.shutil, "which", lambda _: "/bin/false")
    with pytest.raises(SourceUnavailable, match="npm could not fetch"):
        runtime_files()
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--serve", "--to", "x"], "--to has no effect with --serve"),
        (["--serve", "--force"], "--force has no effect with --serve"),
        (["--port", "1"], "--port has no effect without --serve"),
        (["--port", "70000", "--serve"], "70000"),
    ],
)
def test_flags_without_effect_are_refused(flags: list[str], said: str) -> None:
    found = CliRunner().invoke(cli, ["page", *flags])
    assert found.exit_code == 2
    assert said in found.output


@pytest.mark.process
def test_the_command_writes_and_serves_until_it_is_interrupted(runtime: dict[str, bytes], tmp_path: Path) -> None:
    folder = tmp_path / "runtime"
    folder.mkdir()
    for name, data in runtime.items():
        (folder / name).write_bytes(data)
    place = tmp_path / "page"
    found = CliRunner().invoke(cli, ["page", "--to", str(place), "--runtime", str(folder)])
    assert found.exit_code == 0, found.output
    written = list(place.iterdir())
    megabytes = sum(path.stat().st_size for path in written) / 1e6
    assert f"Wrote {len(written)} files, {megabytes:.1f} MB, to {place}" in found.output
    assert {name: (place / name).read_bytes() for name in runtime} == runtime
    command = [sys.executable, "-m", "advisor", "page", "--serve", "--port", "0", "--runtime", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        line = running.stdout.readline()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/  \(Ctrl-C ends it\)\n", line)
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 0
        assert running.stderr is not None
        assert running.stderr.read() == ""


def test_the_wheel_stays_small() -> None:
    """No runtime in the package: it is fetched."""
    sizes = [path.stat().st_size for path in Path(advisor.site.files.__file__).parent.rglob("*") if path.is_file()]
    assert sum(sizes) < 250_000
    assert os.path.getsize(ROOT / "advisor" / "site" / "MPL-2.0.txt") > 10_000
