"""The server: the protocol's messages in, the tools' records out. The only module that needs the package `mcp`."""

from __future__ import annotations

import gc
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
from mcp import types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError
from mcp.shared.message import SessionMessage

from advisor import __version__
from advisor.command import EXIT_INTERRUPTED
from advisor.errors import AdvisorError, UnknownName
from advisor.mcp import resources
from advisor.mcp.confined import Confined
from advisor.mcp.definitions import ANNOTATIONS, Tool, tools
from advisor.mcp.tools import Answered, call, line_of

INSTRUCTIONS = "Memory and time of fine-tuning jobs, computed on this machine before anything is rented or started."
STRUCTURED_SINCE = "2025-06-18"
"""The first version of the protocol that has structured content; to older clients answers go as text."""
_JSON = "application/json"


def server_of(files: Confined, as_text: bool = False) -> Any:
    """The server whose tools may read these files; `as_text`: answers as text, for clients that show nothing else."""
    alone = anyio.CapacityLimiter(1)  # threads would share one interpreter: two answers at once make both late

    async def list_tools(context: Any, params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[_tool(one, as_text) for one in tools(files.folder is not None)])

    async def call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        plain = as_text or context.protocol_version < STRUCTURED_SINCE
        work = partial(_called, params.name, params.arguments or {}, files, plain)
        return await anyio.to_thread.run_sync(work, limiter=alone)

    async def read_resource(context: Any, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        uri = str(params.uri)
        text = await anyio.to_thread.run_sync(partial(_or_refused, resources.read, uri), limiter=alone)
        contents = types.TextResourceContents(uri=uri, mime_type=_JSON, text=text)
        return types.ReadResourceResult(contents=[contents])

    return Server(
        "finetune-advisor",
        version=__version__,
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=_list_resources,
        on_list_resource_templates=_list_templates,
        on_read_resource=read_resource,
        on_list_prompts=_list_prompts,
        on_get_prompt=_get_prompt,
    )


async def _list_resources(context: Any, params: Any) -> types.ListResourcesResult:
    rows = [
        types.Resource(name=path, uri=resources.SCHEME + path, description=text, mime_type=_JSON)
        for path, text in resources.FIXED.items()
    ]
    return types.ListResourcesResult(resources=rows)


async def _list_templates(context: Any, params: Any) -> types.ListResourceTemplatesResult:
    rows = [
        types.ResourceTemplate(
            name=path.partition("/")[0], uri_template=resources.SCHEME + path, description=text, mime_type=_JSON
        )
        for path, text in resources.TEMPLATES.items()
    ]
    return types.ListResourceTemplatesResult(resource_templates=rows)


async def _list_prompts(context: Any, params: Any) -> types.ListPromptsResult:
    arguments = [types.PromptArgument(name=name, description=text) for name, text in resources.PROMPT_ARGUMENTS.items()]
    prompt = types.Prompt(name=resources.PROMPT, description="Plan a fine-tuning job", arguments=arguments)
    return types.ListPromptsResult(prompts=[prompt])


async def _get_prompt(context: Any, params: types.GetPromptRequestParams) -> types.GetPromptResult:
    if params.name != resources.PROMPT:
        raise _refusal(UnknownName("prompt", params.name, [resources.PROMPT]))
    text = _or_refused(resources.prompt_text, dict(params.arguments or {}))
    return types.GetPromptResult(
        messages=[types.PromptMessage(role="user", content=types.TextContent(type="text", text=text))]
    )


def _tool(tool: Tool, as_text: bool) -> types.Tool:
    return types.Tool(
        name=tool.name,
        description=tool.description,
        input_schema=tool.arguments,
        output_schema=None if as_text else tool.answer,
        annotations=types.ToolAnnotations(**ANNOTATIONS),
    )


def _called(name: str, arguments: dict[str, Any], files: Confined, as_text: bool) -> types.CallToolResult:
    """The result of a call. A refusal is a result, too: the agent reads its line and asks again."""
    try:
        answer = call(name, arguments, files)
    except AdvisorError as error:
        return _result(line_of(error), is_error=True)
    except Exception as error:  # a bug here must not end the conversation
        return _result(f"{name} failed ({type(error).__name__}): a bug in finetune-advisor", is_error=True)
    return _result(answer.record.model_dump_json()) if as_text else _structured(answer)


def _structured(answer: Answered) -> types.CallToolResult:
    """The record once, with a sentence beside it: a client that shows both does not pay twice."""
    content = types.TextContent(type="text", text=answer.text)
    return types.CallToolResult(content=[content], structured_content=json.loads(answer.record.model_dump_json()))


def _result(text: str, is_error: bool = False) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=is_error)


def _or_refused(read: Any, given: Any) -> str:
    """What `read` gives. Raises the protocol's own error, with our line."""
    try:
        return str(read(given))
    except AdvisorError as error:
        raise _refusal(error) from None


def _refusal(error: AdvisorError) -> MCPError:
    return MCPError(types.INVALID_PARAMS, line_of(error))


@asynccontextmanager
async def _answering_garbage(read: Any, write: Any) -> AsyncIterator[Any]:
    """The stream of messages; a line that is none is answered, where the library would leave its sender waiting."""
    send, receive = anyio.create_memory_object_stream[Any](0)

    async def relay() -> None:
        async with send:
            async for item in read:
                if isinstance(item, Exception):
                    await write.send(SessionMessage(_parse_error(item)))
                else:
                    await send.send(item)

    async with anyio.create_task_group() as group:
        group.start_soon(relay)
        yield receive
        group.cancel_scope.cancel()


def _parse_error(error: Exception) -> types.JSONRPCError:
    """The answer to a line that could not be read, to its id if that can be told."""
    identity: Any = None
    try:
        said = error.errors()[0]["input"]  # type: ignore[attr-defined]
        identity = (json.loads(said) if isinstance(said, str) else said)["id"]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError):
        pass
    known = identity if isinstance(identity, str | int) and not isinstance(identity, bool) else None
    what = types.ErrorData(code=types.PARSE_ERROR, message="no message of JSON-RPC, or nested too deeply")
    return types.JSONRPCError(jsonrpc="2.0", id=known, error=what)


async def _serve(server: Any) -> None:
    async with stdio_server() as (read, write), _answering_garbage(read, write) as messages:
        await server.run(messages, write, server.create_initialization_options())


def serve(files: Confined, as_text: bool) -> None:
    """Serve over this process's stdin and stdout, until stdin closes."""
    gc.enable()  # the command line switches it off for its one answer
    # A thread waits for stdin, and nothing can wake it: after Ctrl-C there is nothing to wait for.
    before = signal.signal(signal.SIGINT, lambda *_: os._exit(EXIT_INTERRUPTED))
    try:
        anyio.run(_serve, server_of(files, as_text))
    except* (BrokenPipeError, anyio.BrokenResourceError):  # the client is gone
        pass
    finally:
        signal.signal(signal.SIGINT, before)
