"""YAML and JSON as plain values with their lines: nothing is executed, and nothing grows beyond the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from advisor.errors import BadConfig

if TYPE_CHECKING:
    from yaml import MappingNode, Node

LIMIT_BYTES = 1 << 20
"""Of a configuration file; the longest that people publish has 20 kB."""
_MOST_VALUES = 20_000
"""Of a file, those that its aliases repeat included."""
_DEEPEST = 32
_HINT = "give a training configuration"


class Tree(NamedTuple):
    """The values of a file by their paths, 'datasets.0.path', and the line of each from 1."""

    values: dict[str, Any]
    lines: dict[str, int]


def yaml_tree(text: str, name: str) -> Tree:
    """The mapping that a YAML text holds. Raises BadConfig for one that holds none, is too deep or too large."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    _check_depth(text, name)
    try:
        node = yaml.compose(text, Loader=loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise BadConfig(
            f"{name}: not YAML ({where}{getattr(error, 'problem', None) or 'unreadable'}); {_HINT}"
        ) from None
    except (RecursionError, ValueError):
        raise BadConfig(f"{name}: not YAML that can be read (nested too deep); {_HINT}") from None
    if not isinstance(node, yaml.MappingNode):
        raise BadConfig(f"{name}: holds no keys with values; {_HINT}")
    return _Reader(name).tree(node)


def json_tree(text: str, name: str) -> Tree:
    """The mapping that a JSON text holds, its lines unknown (0). Raises BadConfig."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "nested too deep"
        raise BadConfig(f"{name}: not JSON ({where}); {_HINT}") from None
    if not isinstance(values, dict):
        raise BadConfig(f"{name}: holds no keys with values; {_HINT}")
    return Tree(values, {})


def _check_depth(text: str, name: str) -> None:
    """Refuse brackets and indents that a recursive reader would drown in, before one sees them."""
    depth = most = 0
    for letter in text:
        if letter in "[{":
            depth += 1
            most = max(most, depth)
        elif letter in "]}":
            depth = max(depth - 1, 0)
    if most > 20 * _DEEPEST:
        raise BadConfig(f"{name}: nested too deep ({most} brackets); {_HINT}")


class _Reader:
    """Makes values of nodes, and counts them."""

    def __init__(self, name: str) -> None:
        from yaml.constructor import SafeConstructor

        self.name, self.left = name, _MOST_VALUES
        self.scalar = SafeConstructor().construct_object
        self.lines: dict[str, int] = {}

    def tree(self, node: MappingNode) -> Tree:
        return Tree(self.mapping(node, "", 0), self.lines)

    def value(self, node: Node, path: str, depth: int) -> Any:
        import yaml

        if not node.tag.startswith("tag:yaml.org,2002:") or ":python/" in node.tag:
            raise BadConfig(
                f"{self.name}, line {node.start_mark.line + 1}: {node.tag.rsplit(':', 1)[-1]} is no plain value; write "
                "text, a number, true, false or null"
            )
        self.left -= 1
        if self.left < 0 or depth > _DEEPEST:
            what = "more values than a configuration has" if self.left < 0 else "nested too deep"
            raise BadConfig(f"{self.name}, line {node.start_mark.line + 1}: {what}; {_HINT}")
        self.lines[path] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, f"{path}.", depth + 1)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(one, f"{path}.{i}", depth + 1) for i, one in enumerate(node.value)]
        try:
            value = self.scalar(node)
        except (yaml.YAMLError, ValueError, OverflowError):
            raise BadConfig(
                f"{self.name}, line {node.start_mark.line + 1}: {node.tag.rsplit(':', 1)[-1]} {str(node.value)[:40]!r} "
                "is no plain value; write text, a number, true, false or null"
            ) from None
        return value if isinstance(value, (bool, int, float, str)) or value is None else str(node.value)

    def mapping(self, node: MappingNode, prefix: str, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, one in self.pairs(node):
            if key == "<<":
                merged = self.value(one, prefix + key, depth)
                for more in merged if isinstance(merged, list) else [merged]:
                    found = {**(more if isinstance(more, dict) else {}), **found}
            else:
                found[key] = self.value(one, prefix + key, depth)
        return found

    def pairs(self, node: MappingNode) -> Iterator[tuple[str, Node]]:
        import yaml

        for key, one in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise BadConfig(f"{self.name}, line {key.start_mark.line + 1}: a key that is no word; {_HINT}")
            yield str(key.value), one
