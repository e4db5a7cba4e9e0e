"""Values that a Python text states: literals, and what follows from literals by arithmetic. Nothing is executed.

A name stands for what was last assigned to it above; what only the run knows stays `Computed`, as its source.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

LONGEST = 4096
"""Letters of a text that a value may have; a list or a dict may have an eighth as many parts."""
_BF16 = ("is_bfloat16_supported", "is_bf16_supported")
"""Calls that ask whether the card has bf16, which every card of the catalog that trains in it has."""
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARED: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda one, many: one in many,
    ast.NotIn: lambda one, many: one not in many,
}
_CASTS: dict[str, Callable[[Any], Any]] = {"int": int, "float": float, "str": str, "bool": bool, "list": list}


class Computed(str):
    """The source of a value that only the run knows."""


class Fields(NamedTuple):
    """The fields of an object whose values are stated: a class's defaults, the flags of a parser."""

    values: Mapping[str, Any]


def value_of(node: ast.expr, known: Mapping[str, Any]) -> Any:
    """What an expression stands for; `Computed` where literals above it do not say."""
    try:
        value = _folded(node, known)
    except (_NotStated, ValueError, TypeError, ArithmeticError, LookupError, SyntaxError, RecursionError, MemoryError):
        return Computed(ast.unparse(node)[:200])
    return value


class _NotStated(Exception):
    """A part of an expression is computed at run time."""


def _folded(node: ast.expr, known: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    reader = _KINDS.get(type(node))
    if reader is None:
        raise _NotStated
    return reader(node, known)


def _name(node: ast.Name, known: Mapping[str, Any]) -> Any:
    value = known.get(node.id, _NotStated)
    if value is _NotStated or isinstance(value, (Computed, Fields)):
        raise _NotStated
    return value


def _attribute(node: ast.Attribute, known: Mapping[str, Any]) -> Any:
    """A dtype of torch, or a field of what was stated: `torch.bfloat16`, `args.rank` of a parser's defaults."""
    owner = getattr(node.value, "id", "")
    if owner == "torch":
        return node.attr
    made = known.get(owner) if owner else None
    value = made.values.get(node.attr, _NotStated) if isinstance(made, Fields) else _NotStated
    if value is _NotStated or isinstance(value, Computed):
        raise _NotStated
    return value


def _several(node: ast.List | ast.Tuple | ast.Set, known: Mapping[str, Any]) -> list[Any]:
    found = [_folded(one, known) for one in node.elts]
    _bounded(found)
    return found


def _mapping(node: ast.Dict, known: Mapping[str, Any]) -> dict[Any, Any]:
    """A dict, of which values that only the run knows stay as their source."""
    found: dict[Any, Any] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        if key is None:
            found |= _folded(value, known)
        else:
            found[_folded(key, known)] = value_of(value, known)
    _bounded(found)
    return found


def _unary(node: ast.UnaryOp, known: Mapping[str, Any]) -> Any:
    value = _folded(node.operand, known)
    if isinstance(node.op, ast.Not):
        return not value
    return -value if isinstance(node.op, ast.USub) else operator.invert(value)


def _binary(node: ast.BinOp, known: Mapping[str, Any]) -> Any:
    left, right = _folded(node.left, known), _folded(node.right, known)
    act = _ARITHMETIC.get(type(node.op))
    if act is None:
        raise _NotStated
    if isinstance(node.op, ast.Mult):
        sizes = [len(one) for one in (left, right) if isinstance(one, (str, bytes, list, tuple))]
        times = [one for one in (left, right) if isinstance(one, int)]
        if sizes and times and sizes[0] * times[0] > LONGEST:
            raise _NotStated
    elif isinstance(node.op, ast.Mod) and isinstance(left, (str, bytes)):
        raise _NotStated  # a text with a width, as '%999999999d', grows without end
    return _bounded(act(left, right))


def _bounded(value: Any) -> Any:
    """A value, unless it is larger than any setting, its parts counted as often as they stand in it."""
    size, left = 0, [value]
    while left:
        one = left.pop()
        size += len(one) if isinstance(one, (str, bytes)) else 8
        if size > LONGEST or (isinstance(one, int) and abs(one) > 1 << 62):
            raise _NotStated
        if isinstance(one, (list, tuple, dict)):
            left += one.values() if isinstance(one, dict) else one
    return value


def _chosen(node: ast.IfExp, known: Mapping[str, Any]) -> Any:
    return _folded(node.body if _folded(node.test, known) else node.orelse, known)


def _joined(node: ast.JoinedStr, known: Mapping[str, Any]) -> str:
    parts: list[str] = []
    for one in node.values:
        if isinstance(one, ast.FormattedValue):
            if one.format_spec is not None or one.conversion != -1:
                raise _NotStated
            parts.append(str(_folded(one.value, known)))
        else:
            parts.append(str(_folded(one, known)))
    return str(_bounded("".join(parts)))


def _compared(node: ast.Compare, known: Mapping[str, Any]) -> bool:
    left, holds = _folded(node.left, known), True
    for act, one in zip(node.ops, node.comparators, strict=True):
        right = _folded(one, known)
        holds = holds and _COMPARED[type(act)](left, right)
        left = right
    return holds


def _either(node: ast.BoolOp, known: Mapping[str, Any]) -> Any:
    value: Any = None
    for one in node.values:
        value = _folded(one, known)
        if bool(value) is isinstance(node.op, ast.Or):
            return value
    return value


def _item(node: ast.Subscript, known: Mapping[str, Any]) -> Any:
    if isinstance(node.slice, ast.Slice):
        raise _NotStated
    value = _folded(node.value, known)[_folded(node.slice, known)]
    if isinstance(value, Computed):
        raise _NotStated
    return value


def _called(node: ast.Call, known: Mapping[str, Any]) -> Any:
    """`os.path.join`, `Path`, `dict`, plain casts, and whether the card has bf16."""
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    if name in _BF16:
        return True
    if name == "dict" and not node.args:
        keys: list[ast.expr | None] = [ast.Constant(one.arg) if one.arg else None for one in node.keywords]
        return _mapping(ast.Dict(keys, [one.value for one in node.keywords]), known)
    if node.keywords:
        raise _NotStated
    if name == "join" and ast.unparse(node.func).endswith("path.join"):
        return "/".join(str(_folded(one, known)).rstrip("/") for one in node.args)
    plain = isinstance(node.func, ast.Name) and len(node.args) == 1
    if plain and name == "Path":
        return str(_folded(node.args[0], known))
    if plain and name in _CASTS:
        return _bounded(_CASTS[name](_folded(node.args[0], known)))
    raise _NotStated


_KINDS: dict[type[ast.expr], Callable[[Any, Mapping[str, Any]], Any]] = {
    ast.Name: _name,
    ast.Attribute: _attribute,
    ast.List: _several,
    ast.Tuple: _several,
    ast.Set: _several,
    ast.Dict: _mapping,
    ast.UnaryOp: _unary,
    ast.BinOp: _binary,
    ast.IfExp: _chosen,
    ast.JoinedStr: _joined,
    ast.Compare: _compared,
    ast.BoolOp: _either,
    ast.Subscript: _item,
    ast.Call: _called,
}
