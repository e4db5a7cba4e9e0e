"""Asking the Hub: a loopback server stands in for it, in all its moods."""

from __future__ import annotations

import hashlib
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")

from huggingface_hub import constants

from advisor.catalog import find_model, hub, remarks_on
from advisor.catalog.hub import cached_file, fetch_config, is_hub_id
from advisor.errors import BadConfig, SourceUnavailable

ROOT = Path(__file__).resolve().parents[2]
CONFIG = b'{"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}'
BODIES = {
    "/acme/tiny": CONFIG,
    "/acme/moe": b'{"model_type": "mixtral"}',
    "/acme/garbage": b"<html>502</html>",
    "/acme/list": b"[]",
    "/acme/trickle": CONFIG,
    "/acme/Llama-3.1-8B-Instruct": CONFIG,
    "/unsloth/phi-4": CONFIG,
    "/acme/my-llama-3-8b-tuned": CONFIG,
}
REFUSALS = {
    "/acme/gone": (404, "RepoNotFound"),
    "/acme/no-config": (404, "EntryNotFound"),
    "/acme/gated": (403, "GatedRepo"),
    "/acme/private": (401, "RepoNotFound"),
    "/acme/broken": (500, ""),
}
SAID = {
    "acme/gone": "neither in the catalog nor on the Hub",
    "acme/no-config": "has no config.json",
    "acme/gated": "is gated on the Hub",
    "acme/private": "hf auth login",
    "acme/broken": "within 3 s",  # huggingface_hub tries again and again after a 500
}


class LoopbackHub(http.server.BaseHTTPRequestHandler):
    """Answers `/org/name/resolve/main/config.json`."""

    protocol_version = "HTTP/1.1"
    asked: list[str]
    over: threading.Event
    """The test is done."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""

    def do_HEAD(self) -> None:
        """As GET, without the body."""
        self.do_GET()

    def do_GET(self) -> None:
        """The file, a refusal, or silence."""
        repo = self.path.split("/resolve/")[0]
        self.asked.append(f"{self.command} {repo}")
        if repo == "/acme/silent":
            self.over.wait()
        status, code = REFUSALS.get(repo, (200, ""))
        body = BODIES.get(repo, b"{}")
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", "a" * 40)
        if code:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
        self.end_headers()
        if self.command == "GET":
            try:
                self.send_slowly(body) if repo == "/acme/trickle" else self.wfile.write(body)
            except OSError:  # the client has gone
                return

    def send_slowly(self, body: bytes) -> None:
        """A byte every tenth of a second: no single read ever times out, and the last comes when the test is done."""
        for i in range(len(body)):
            self.over.wait(0.1 if i < len(body) - 1 else None)
            self.wfile.write(body[i : i + 1])
            self.wfile.flush()


@pytest.fixture
def asked() -> list[str]:
    """The requests that the server got."""
    return []


@pytest.fixture
def endpoint(asked: list[str]) -> Iterator[str]:
    """A running loopback Hub."""
    over = threading.Event()
    handler = type("Handler", (LoopbackHub,), {"asked": asked, "over": over})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    over.set()
    server.shutdown()


@pytest.fixture
def online(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """huggingface_hub speaks to the loopback Hub, with an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    return endpoint


def test_a_model_is_fetched_once_and_then_read_from_the_cache(online: str, asked: list[str]) -> None:
    assert find_model("acme/tiny").hidden_size == 64
    # huggingface_hub adds a request of its own for its user-agent header (/api/agent-harnesses, once a day)
    assert {line for line in asked if "/api/" not in line} == {"HEAD /acme/tiny", "GET /acme/tiny"}
    asked.clear()
    spec = find_model("acme/tiny", offline=True)
    assert (spec.name, spec.num_hidden_layers, asked) == ("acme/tiny", 2, [])


def test_a_catalog_model_asks_nobody(online: str, asked: list[str]) -> None:
    assert find_model("meta-llama/Llama-3.1-8B").num_hidden_layers == 32
    assert asked == []


def test_a_mirrors_copy_asks_nobody(online: str, asked: list[str]) -> None:
    assert find_model("unsloth/Llama-3.1-8B-Instruct-bnb-4bit").num_hidden_layers == 32
    assert asked == []


@pytest.mark.parametrize("hub_id", ["acme/Llama-3.1-8B-Instruct", "unsloth/phi-4", "acme/my-llama-3-8b-tuned"])
def test_a_derivatives_own_config_wins_over_its_base(online: str, hub_id: str) -> None:
    spec = find_model(hub_id)
    assert (spec.name, spec.num_hidden_layers) == (hub_id, 2)
    assert remarks_on(hub_id, spec.name) == ()


@pytest.mark.slow
@pytest.mark.parametrize("hub_id", SAID)
def test_refusals_say_what_to_do_next(online: str, hub_id: str) -> None:
    with pytest.raises(SourceUnavailable) as caught:
        fetch_config(hub_id)
    text = str(caught.value)
    assert SAID[hub_id] in text
    assert text.startswith(hub_id)
    assert "path to its config.json" in text
    assert len(text) < 320


@pytest.mark.parametrize("hub_id", ["acme/garbage", "acme/list"])
def test_garbage_from_the_hub_is_a_bad_config(online: str, hub_id: str) -> None:
    with pytest.raises(BadConfig, match=rf"^{hub_id} config\.json: "):
        find_model(hub_id)


@pytest.mark.parametrize(
    "text", ["a/b-", "a-/b", "a./b", "a/b.", "a/b.git", "a/b--c", "a/b..c", f"a/{'b' * 95}", "a/é"]
)
def test_what_the_hub_takes_for_no_id_is_none(text: str) -> None:
    assert not is_hub_id(text)
    assert cached_file(text, "config.json") is None


@pytest.mark.slow
@pytest.mark.parametrize("hub_id", ["acme/silent", "acme/trickle"])
def test_a_slow_server_is_left_in_time(online: str, hub_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would send until the test is done."""
    monkeypatch.setattr(hub, "TIMEOUT_S", 1.0)
    with pytest.raises(SourceUnavailable, match="within 1 s"):
        fetch_config(hub_id)


def test_the_limit_is_three_seconds() -> None:
    assert hub.TIMEOUT_S == 3.0


def test_offline_nobody_is_asked(online: str, asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceUnavailable, match="we are offline"):
        fetch_config("acme/tiny", offline=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SourceUnavailable, match="we are offline"):
        fetch_config("acme/tiny")
    assert asked == []


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(SourceUnavailable, match=r"pip install huggingface_hub"):
        fetch_config("acme/tiny")


@pytest.mark.parametrize("text", ["acme/tiny", "Qwen/Qwen2.5-7B", "a/b"])
def test_hub_ids(text: str) -> None:
    assert is_hub_id(text)


@pytest.mark.parametrize(
    "text", ["tiny", "a/b/c", "/a", "a/", "a/b c", "../a", "a/..", "a--b/c", "ä/b", "a/b\n", "a/" + "b" * 200]
)
def test_no_hub_ids(text: str) -> None:
    assert not is_hub_id(text)


@pytest.mark.process
@pytest.mark.parametrize(
    ("hub_id", "said"), [("acme/tiny", "64"), ("acme/silent", "within 3 s"), ("acme/gone", "nor on")]
)
def test_a_process_prints_nothing_else_and_ends(endpoint: str, tmp_path: Path, hub_id: str, said: str) -> None:
    """Progress bars, warnings and waiting threads would show here."""
    code = (
        "import sys; from advisor.catalog import find_model; from advisor.errors import AdvisorError\n"
        "try: print(find_model(sys.argv[1]).hidden_size)\n"
        "except AdvisorError as error: print(error)"
    )
    env = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "NO_PROXY": "*"}
    done = subprocess.run(
        [sys.executable, "-c", code, hub_id], env=env, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert said in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


@pytest.mark.slow
def test_nobody_there(tmp_path: Path, online: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", nobody)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", nobody + "/{repo_id}/resolve/{revision}/{filename}")
    with pytest.raises(SourceUnavailable, match=r"acme/tiny .*(cannot be reached|within 3 s)"):
        fetch_config("acme/tiny")
