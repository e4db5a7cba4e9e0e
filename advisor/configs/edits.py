"""Changes of a run as changes of its own file, in its own words.

The file's writer (`export`) says the run as it is and as it would be; keys that differ between the two are what has to
change. Only these lines are touched.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from advisor.configs.tree import yaml_tree
from advisor.errors import AdvisorError

if TYPE_CHECKING:
    from advisor.answer import Advice, Plan
    from advisor.configs.reading import Config
    from advisor.specs import Workload

_OURS = ("datasets", "dataset", "dataset_dir", "output_dir", "learning_rate", "lr_scheduler", "base_model")
"""Keys that a writer fills with words of its own."""
_LINE = re.compile(r"(?P<indent> *)(?P<key>[^\s:#'\"]+)(?P<colon> *: *)(?P<value>[^#]*?)(?P<note>\s+#.*)?")


def edited(config: Config, answer: Advice, was: Plan, plan: Plan, workload: Workload | None) -> str:
    """The file's text for `plan` in place of `was`, as a unified diff; '' where its format or a change has no words."""
    if not config.found.written:
        return ""
    try:
        before = _said(config, answer, was, answer.workload)
        after = _said(config, answer, plan, workload or answer.workload)
    except AdvisorError:
        return ""
    changed = {key: after.get(key) for key in (*before, *after) if before.get(key) != after.get(key)}
    if not changed or any(key in _OURS or _is_component(before.get(key)) for key in changed):
        return ""
    text = changed_text(config.text, changed)
    lines = difflib.unified_diff(
        config.text.splitlines(), text.splitlines(), config.path, config.path, n=1, lineterm=""
    )
    return "\n".join(lines)


def _is_component(value: Any) -> bool:
    """Whether a value is a section that names what it builds, whose other keys are the file's own."""
    return isinstance(value, Mapping) and "_component_" in value


def changed_text(text: str, changed: Mapping[str, Any]) -> str:
    """A YAML text with other values of some top-level keys; None takes a key out, a new one stands at the end."""
    open_keys = dict(changed)
    lines = list(_changed_lines(text.splitlines(), open_keys))
    lines += [f"{key}: {_scalar(value)}" for key, value in open_keys.items() if value is not None]
    return "\n".join(lines) + "\n"


def _changed_lines(lines: list[str], open_keys: dict[str, Any]) -> Iterator[str]:
    """The lines; keys that are found leave `open_keys`, and what belonged to them leaves the text."""
    inside = False
    for line in lines:
        match = _LINE.fullmatch(line)
        if inside and (line[:1] in (" ", "\t", "-") or not line.strip()):
            continue
        inside = False
        if match is None or match["indent"] or match["key"] not in open_keys:
            yield line
            continue
        value, inside = open_keys.pop(match["key"]), True
        if value is not None:
            yield f"{match['key']}: {_scalar(value)}{match['note'] or ''}"


def _scalar(value: Any) -> str:
    """A value as YAML has it, texts without quotes where they are plain words."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w./-]*", value) and value not in ("true", "false", "null"):
        return value
    return json.dumps(value, ensure_ascii=False)


def _said(config: Config, answer: Advice, plan: Plan, workload: Workload) -> dict[str, Any]:
    """The keys that the format's writer gives a plan. Raises InputError for one that it cannot say."""
    from advisor.export.training_file import export_of, run_of

    export = export_of(config.found.written)
    if export is None:
        return {}
    written = export.write(run_of(answer, plan, workload))
    return yaml_tree(written.text, written.name).values
