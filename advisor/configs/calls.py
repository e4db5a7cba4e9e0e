"""Python scripts and notebooks: the calls that configure a run, by their literals. Nothing is executed.

A name stands for the literal that was last assigned to it above the call; everything else is computed at run time.
"""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Iterator
from typing import Any

from advisor.configs.tree import Tree
from advisor.errors import BadConfig

GROUPS = {
    "from_pretrained": "model",
    "get_peft_model": "adapters",
    "LoraConfig": "adapters",
    "BitsAndBytesConfig": "storage",
    "SFTConfig": "arguments",
    "TrainingArguments": "arguments",
    "Seq2SeqTrainingArguments": "arguments",
    "UnslothTrainingArguments": "arguments",
    "SFTTrainer": "trainer",
    "UnslothTrainer": "trainer",
    "Trainer": "trainer",
}
"""Calls, and under which name of a tree their arguments stand."""
_MODELS = ("FastLanguageModel", "FastModel", "FastVisionModel", "FastTextModel", "AutoModelForCausalLM", "AutoModel")
_LOADERS = (*_MODELS, "AutoModelForImageTextToText", "AutoModelForVision2Seq", "AutoModelForSequenceClassification")
_BF16 = ("is_bfloat16_supported", "is_bf16_supported")
_HINT = "give a script or a notebook that trains"


class Computed(str):
    """The source of a value that only the run knows."""


def python_tree(text: str, name: str) -> Tree:
    """The calls of a script as a tree; `loader` is the class that loads the model. Raises BadConfig."""
    try:
        module = _parsed(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        where = f"line {error.lineno}" if isinstance(error, SyntaxError) else "nested too deep"
        raise BadConfig(f"{name}: not Python that can be read ({where}); {_HINT}") from None
    return _tree([module])


def notebook_tree(text: str, name: str) -> Tree:
    """The calls in a notebook's cells, and the card that Colab's metadata names. Raises BadConfig."""
    try:
        book = json.loads(text)
        cells = [one for one in book["cells"] if one.get("cell_type") == "code"]
        metadata = book.get("metadata") or {}
        card = (metadata.get("colab") or {}).get("gpuType")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadConfig(f"{name}: not a notebook; {_HINT}") from None
    modules = []
    for cell in cells:
        source = cell.get("source", "")
        lines = "".join(source if isinstance(source, list) else [str(source)]).splitlines()
        plain = "\n".join("" if line.lstrip().startswith(("!", "%")) else line for line in lines)
        try:
            modules.append(_parsed(plain))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    tree = _tree(modules)
    return Tree({**tree.values, **({"card": card} if isinstance(card, str) else {})}, {})


def _parsed(text: str) -> ast.Module:
    """The syntax of a text, without what Python would warn of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)


def _tree(modules: list[ast.Module]) -> Tree:
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    known: dict[str, Any] = {}
    for module in modules:
        try:
            for node in _walked(module.body):
                _read(node, known, values, lines)
        except RecursionError:
            continue
    return Tree(values, lines)


def _walked(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Assignments and calls in the order of the text, those behind `if False` left out."""
    for node in body:
        if isinstance(node, ast.If):
            if not (isinstance(node.test, ast.Constant) and not node.test.value):
                yield from _walked(node.body)
            yield from _walked(node.orelse)
            continue
        inner = [one for name in ("body", "orelse", "finalbody") for one in getattr(node, name, [])]
        if inner:
            yield from _walked([one for one in inner if isinstance(one, ast.stmt)])
            continue
        yield from (one for one in ast.walk(node) if isinstance(one, ast.Call))
        yield node


def _read(node: ast.AST, known: dict[str, Any], values: dict[str, Any], lines: dict[str, int]) -> None:
    if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            if isinstance(target, ast.Name):
                known[target.id] = _value(node.value, known)
    if not isinstance(node, ast.Call):
        return
    function = node.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    owner = getattr(getattr(function, "value", None), "id", "") if isinstance(function, ast.Attribute) else ""
    if name.endswith("Trainer") or (name.endswith("Config") and name not in GROUPS):
        values.setdefault("classes", {}).setdefault(name, node.lineno)
    group = GROUPS.get(name)
    if group is None or (name == "from_pretrained" and owner not in _LOADERS):
        return
    if name == "from_pretrained":
        if "loader" in values:
            return  # the first one is trained; others load what came of it
        values["loader"] = owner
    if name == "get_peft_model" and not owner:
        return  # peft's own takes a LoraConfig
    found = values.setdefault(group, {})
    if node.args and name == "from_pretrained":
        found.setdefault("model_name", _value(node.args[0], known))
        lines.setdefault(f"{group}.model_name", node.lineno)
    for keyword in node.keywords:
        if keyword.arg is None:
            found.setdefault("**", Computed(ast.unparse(keyword.value)))
        elif keyword.arg not in found:
            found[keyword.arg] = _value(keyword.value, known)
            lines[f"{group}.{keyword.arg}"] = keyword.value.lineno


def _value(node: ast.expr, known: dict[str, Any]) -> Any:
    """A literal, a name that stands for one, a dtype of torch; else its source."""
    if isinstance(node, ast.Name) and node.id in known:
        return known[node.id]
    if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "torch":
        return node.attr
    if isinstance(node, ast.Call):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in _BF16:
            return True
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        value = _value(node.operand, known)
        return value if isinstance(value, Computed) else not value
    if isinstance(node, ast.IfExp):
        test = _value(node.test, known)
        return (
            Computed(ast.unparse(node))
            if isinstance(test, Computed)
            else _value(node.body if test else node.orelse, known)
        )
    if isinstance(node, (ast.List, ast.Tuple)):
        found = [_value(one, known) for one in node.elts]
        return Computed(ast.unparse(node)) if any(isinstance(one, Computed) for one in found) else found
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return Computed(ast.unparse(node)[:200])
