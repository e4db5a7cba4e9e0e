"""A chat template, rendered as transformers renders it, where jinja2 is installed.

Source: transformers 5.23, utils/chat_template_utils.py: a sandbox, blocks trimmed, loop controls, `raise_exception`,
`strftime_now`, `tojson` without escapes, and the `generation` tag, which marks text and adds none.
Templates come with models and are not ours: jinja2 older than 3.1.6 has known ways out of its sandbox and is not used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from advisor.dataset.forms import Example
from advisor.dataset.rows import BadRow, shown

_OLDEST_JINJA = (3, 1, 6)

Render = Callable[[Example], str]


def load_template(folder: Path) -> Render | None:
    """What makes one text of a chat; None without a template in `folder` or without a jinja2 to render it."""
    config = _config(folder / "tokenizer_config.json")
    source = _source(folder, config)
    if source is None:
        return None
    try:
        import jinja2
    except ImportError:
        return None
    if tuple(int(part) for part in jinja2.__version__.split(".")[:3] if part.isdigit()) < _OLDEST_JINJA:
        return None
    try:
        template = _environment().from_string(source)
    except jinja2.TemplateError:
        return None
    tokens = {name: _content(config.get(name)) for name in ("bos_token", "eos_token", "unk_token", "pad_token")}

    def render(example: Example) -> str:
        messages = [{"role": turn.role, "content": turn.content} for turn in example.turns]
        tools = example.tools
        try:
            tools = json.loads(tools) if isinstance(tools, str) else tools
            return str(template.render(messages=messages, tools=tools or None, add_generation_prompt=False, **tokens))
        except Exception as error:  # a template can raise anything, and so it would in training
            raise BadRow(f"the chat template refuses it: {shown(error) or type(error).__name__}") from None

    return render


def _config(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _source(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The template's text: its own file, or the tokenizer's configuration (one text, or several with names)."""
    try:
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    except (OSError, ValueError):
        pass
    found = config.get("chat_template")
    if isinstance(found, list):
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _content(token: object) -> str:
    """A special token, which is written as a text or as an object with its content."""
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else ""


def _environment() -> Any:
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, **{"ensure_ascii": False, **options})
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    return environment
