"""The server as its clients meet it: the protocol's own client over stdio, and what ends or disturbs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from advisor.advice.advise import advise
from advisor.advice.brief import brief
from advisor.cli import cli
from advisor.mcp.definitions import ADVISE, EXPLAIN, FIND, FLAT
from advisor.mcp.explained import ABOUT
from advisor.mcp.resources import FIXED, PROMPT, SCHEME, TEMPLATES
from tests.mcp.test_tools import MOST_TOKENS

ROOT = Path(__file__).resolve().parent.parent.parent
COMMAND = (sys.executable, "-m", "advisor", "mcp")
ASKED = {"model": "gpt2", "gpu": "24GB", "examples": 1000, "method": "lora"}
WITHOUT_LIBRARY = "import sys; sys.modules['mcp'] = None; from advisor.cli import main; main(['mcp'])"


def needs_library() -> None:
    pytest.importorskip("mcp", reason="advise mcp needs the extra [mcp]")


@pytest.mark.process
def test_the_official_client_lists_and_calls() -> None:
    needs_library()
    import anyio
    from mcp import Client, MCPError, StdioServerParameters, stdio_client

    parameters = StdioServerParameters(command=COMMAND[0], args=list(COMMAND[1:]), cwd=ROOT, env=dict(os.environ))

    async def talk(mode: str) -> None:
        async with Client(stdio_client(parameters), mode=mode) as client:
            tools = (await client.list_tools()).tools
            assert [tool.name for tool in tools] == [ADVISE, EXPLAIN, FIND]
            for tool in tools:
                assert tool.annotations is not None
                assert tool.annotations.read_only_hint
                assert tool.annotations.idempotent_hint
                assert tool.annotations.open_world_hint is False
            answers: list[Any] = []

            async def ask(rank: int) -> None:
                answers.append(await client.call_tool(ADVISE, {**ASKED, "rank": rank}))

            async with anyio.create_task_group() as group:
                for rank in (1, 2, 4, 8):
                    group.start_soon(ask, rank)
            expected = {
                json.dumps(json.loads(brief(advise("gpt2", "24GB", 1000, method="lora", rank=rank)).model_dump_json()))
                for rank in (1, 2, 4, 8)
            }
            assert {json.dumps(answer.structured_content) for answer in answers} == expected
            assert all(len(answer.content[0].text) < 200 for answer in answers)
            explained = await client.call_tool(EXPLAIN, {**ASKED, "about": "script"})
            assert explained.structured_content["name"] == "train.py"
            found = await client.call_tool(FIND, {"query": "qwen3-8b"})
            assert found.structured_content["models"]
            refused = await client.call_tool(ADVISE, {**ASKED, "model": "gpt3"})
            assert refused.is_error
            assert refused.content[0].text.startswith("unknown model 'gpt3'; did you mean ")
            assert [str(one.uri) for one in (await client.list_resources()).resources] == [
                SCHEME + path for path in FIXED
            ]
            templates = (await client.list_resource_templates()).resource_templates
            assert [one.uri_template for one in templates] == [SCHEME + path for path in TEMPLATES]
            rule = await client.read_resource("advisor://rules/ADV003")
            assert json.loads(rule.contents[0].text)["code"] == "ADV003"
            with pytest.raises(MCPError, match="unknown rule 'ADV999'"):
                await client.read_resource("advisor://rules/ADV999")
            (prompt,) = (await client.list_prompts()).prompts
            assert prompt.name == PROMPT
            text = (await client.get_prompt(PROMPT, {"gpu": "rtx4090"})).messages[0].content.text
            assert "gpu: rtx4090" in text

    for mode in ("legacy", "auto"):
        anyio.run(talk, mode)


class Spoken:
    """A server process that is spoken to in lines."""

    def __init__(self, *flags: str, version: str = "2025-11-25") -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *flags],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        client = {"name": "test", "version": "1"}
        said = {"protocolVersion": version, "capabilities": {}, "clientInfo": client}
        self.answer = self.ask({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": said})
        self.say({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def say(self, message: str | dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write((message if isinstance(message, str) else json.dumps(message)) + "\n")
        self.process.stdin.flush()

    def ask(self, message: str | dict[str, Any]) -> dict[str, Any]:
        self.say(message)
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def call(self, arguments: str, number: int = 1) -> dict[str, Any]:
        params = f'{{"name": "{ADVISE}", "arguments": {arguments}}}'
        return self.ask(f'{{"jsonrpc": "2.0", "id": {number}, "method": "tools/call", "params": {params}}}')

    def end(self) -> tuple[int, str, str]:
        """Close stdin: the exit code, and what else was written to stdout and stderr."""
        rest, errors = self.process.communicate(timeout=60)
        return self.process.returncode, rest, errors


@pytest.fixture
def speak() -> Iterator[Callable[..., Spoken]]:
    needs_library()
    started: list[Spoken] = []

    def start(*flags: str, **more: Any) -> Spoken:
        started.append(Spoken(*flags, **more))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


@pytest.mark.process
def test_every_line_is_answered_and_the_end_is_clean(speak: Callable[..., Spoken], tmp_path: Path) -> None:
    server = speak()
    broken = ("garbage", "[]", '{"jsonrpc": "2.0", "id": 7}', "[" * 100_000)
    assert [server.ask(line)["error"]["code"] for line in broken] == [-32700] * len(broken)
    deep = server.call('{"config": ' + '{"a": ' * 300 + "1" + "}" * 300 + ', "gpu": "24GB"}', 5)
    assert (deep["id"], deep["error"]["code"]) == (5, -32700)
    for number, (arguments, text) in enumerate(
        (
            ('{"model": "gpt2", "gpu": "24GB", "rank": NaN}', "--rank is nan"),
            ('{"model": "gpt2", "gpu": "24GB", "rank": 1e999}', "--rank is inf"),
            (json.dumps({"model": "x" * 1_000_000, "gpu": "24GB"}), "--model is 'xxx"),
            (json.dumps({"model": "/etc/passwd", "gpu": "24GB"}), "model '/etc/passwd' would be read"),
        )
    ):
        answer = server.call(arguments, number)
        assert answer["id"] == number
        assert answer["result"]["isError"]
        assert answer["result"]["content"][0]["text"].startswith(text)
    assert "result" in server.call(json.dumps(ASKED))
    assert server.end() == (0, "", "")


@pytest.mark.process
@pytest.mark.parametrize(("flags", "version"), [(("--text",), "2025-11-25"), ((), "2024-11-05")], ids=["flag", "old"])
def test_clients_without_structure_get_the_record_as_text(
    speak: Callable[..., Spoken], flags: tuple[str, ...], version: str
) -> None:
    server = speak(*flags, version=version)
    assert server.answer["result"]["protocolVersion"] == version
    answer = server.call(json.dumps(ASKED))["result"]
    assert "structuredContent" not in answer
    assert json.loads(answer["content"][0]["text"])["recommended"] == "lora"


@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for another process")
def test_interrupted_while_it_computes(speak: Callable[..., Spoken]) -> None:
    server = speak()
    for number in range(1, 20):
        params = {"name": ADVISE, "arguments": {"model": "llama-70b", "gpu": "24GB", "examples": number}}
        server.say({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})
    server.process.send_signal(signal.SIGINT)
    code, _, errors = server.end()
    assert (code, errors) == (130, "")


@pytest.mark.process
def test_a_folder_is_read_from_wherever_the_server_was_started(speak: Callable[..., Spoken], tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": "one two three"}\n' * 50)
    server = speak("--folder", str(tmp_path))
    answer = server.call(json.dumps({**ASKED, "examples": None, "knobs": {"data": "train.jsonl"}}))["result"]
    assert answer["structuredContent"]["recommended"] == "lora"


@pytest.mark.process
def test_without_the_library_one_line_says_what_to_install() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_LIBRARY], cwd=ROOT, capture_output=True, text=True, check=False
    )
    line = "advise: error: advise mcp needs a package: pip install 'finetune-advisor[mcp]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


def test_a_folder_that_is_not_there() -> None:
    needs_library()
    result = CliRunner().invoke(cli, ["mcp", "--folder", "gone"])
    assert (result.exit_code, result.stderr) == (2, "advise: error: --folder gone: no such folder\n")


def test_the_help_lists_it() -> None:
    assert "mcp " in CliRunner().invoke(cli, ["--help"]).stdout


@pytest.mark.parametrize("document", ["README.md", "docs/agents.md"])
def test_the_settings_in_the_documents_start_it(document: str) -> None:
    (settings,) = re.findall(r'\{"mcpServers".*\}\}\}', (ROOT / document).read_text())
    (server,) = json.loads(settings)["mcpServers"].values()
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts[server["command"]] == "advisor.cli:main"
    assert server["args"] == [cli.commands["mcp"].name]


def test_the_document_names_what_is_served() -> None:
    text = (ROOT / "docs" / "agents.md").read_text()
    for name in (ADVISE, EXPLAIN, FIND, PROMPT, *ABOUT, *FLAT):
        assert f"`{name}`" in text
    for path in (*FIXED, *TEMPLATES):
        assert f"`{SCHEME}{path}`" in text
    for most in MOST_TOKENS.values():
        assert f"{most:,} tokens" in text
