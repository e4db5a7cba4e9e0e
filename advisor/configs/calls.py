"""Python scripts and notebooks: the calls that configure a run, by their literals. Nothing is executed.

A name stands for the literal that was last assigned to it above the call, an option of the command line for what it is
where nobody gives it, and a branch that is not taken then is left out; everything else is computed at run time.
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
    "prepare_model_for_kbit_training": "prepared",
    "BitsAndBytesConfig": "storage",
    "SFTConfig": "arguments",
    "TrainingArguments": "arguments",
    "Seq2SeqTrainingArguments": "arguments",
    "UnslothTrainingArguments": "arguments",
    "SFTTrainer": "trainer",
    "UnslothTrainer": "trainer",
    "Trainer": "trainer",
    "DataCollatorForSeq2Seq": "collator",
    "DataCollatorForLanguageModeling": "collator",
    "DataCollatorWithPadding": "collator",
    "DataCollatorWithFlattening": "collator",
}
"""Calls, and under which name of a tree their arguments stand."""
_MODELS = ("FastLanguageModel", "FastModel", "FastVisionModel", "FastTextModel", "AutoModelForCausalLM", "AutoModel")
_LOADERS = (*_MODELS, "AutoModelForImageTextToText", "AutoModelForVision2Seq", "AutoModelForSequenceClassification")
_PACKERS = ("pack", "group_texts")
"""What scripts call the function that fills rows, which `map` calls. Source: transformers, run_clm.py."""
_LENGTHS = ("seq_len", "max_seq_len", "max_seq_length", "max_length", "cutoff_len")
"""What they call the length of the longest row."""
_BF16 = ("is_bfloat16_supported", "is_bf16_supported")
_HINT = "give a script or a notebook that trains"


class Computed(str):
    """The source of a value that only the run knows."""


class _Options(dict[str, Any]):
    """What a command line's options are where nobody gives them."""


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
    options = _Options()
    for module in modules:
        try:
            for node in _walked(module.body, known):
                _note(node, known, options)
                _read(node, known, values, lines)
        except RecursionError:
            continue
    found = {name: known[name] for name in known if name.lower() in _LENGTHS and type(known[name]) is int}
    values |= {"lengths": found} if found else {}
    return Tree({**values, **({"options": dict(options)} if options else {})}, lines)


def _walked(body: list[ast.stmt], known: dict[str, Any]) -> Iterator[ast.AST]:
    """Assignments and calls in the order of the text, without a branch that what is `known` there leaves out."""
    for node in body:
        if isinstance(node, ast.If):
            test = _value(node.test, known)
            if isinstance(test, Computed) or test:
                yield from _walked(node.body, known)
            if isinstance(test, Computed) or not test:
                yield from _walked(node.orelse, known)
            continue
        inner = [one for name in ("body", "orelse", "finalbody") for one in getattr(node, name, [])]
        if inner:
            yield from _walked([one for one in inner if isinstance(one, ast.stmt)], known)
            continue
        yield from (one for one in ast.walk(node) if isinstance(one, ast.Call))
        yield node


def _note(node: ast.AST, known: dict[str, Any], options: _Options) -> None:
    """Note what a name is assigned, and what an option is by itself."""
    if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts, strict=False))
            for one, value in pairs:
                if isinstance(one, ast.Name):
                    parsed = isinstance(value, ast.Call) and _called(value) == "parse_args"
                    known[one.id] = options if parsed else _value(value, known)
    elif isinstance(node, ast.Call) and _called(node) == "add_argument":
        flags = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        given = {one.arg: _value(one.value, known) for one in node.keywords if one.arg}
        by_action = {"store_true": False, "store_false": True}.get(str(given.get("action")))
        for flag in flags:
            if flag.startswith("--"):
                options[str(given.get("dest", flag[2:].replace("-", "_")))] = given.get("default", by_action)


def _called(node: ast.Call) -> str:
    """The name of the function, without its owner."""
    return str(node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", ""))


def _read(node: ast.AST, known: dict[str, Any], values: dict[str, Any], lines: dict[str, int]) -> None:
    if isinstance(node, ast.Assign) and any(getattr(one, "attr", "") == "data" for one in node.targets):
        values.setdefault("casts", Computed(ast.unparse(node)[:200]))
        lines.setdefault("casts", node.lineno)
    if not isinstance(node, ast.Call):
        return
    function, name = node.func, _called(node)
    if name == "map" and node.args and getattr(node.args[0], "id", "") in _PACKERS:
        values["packed"] = True
        lines.setdefault("packed", node.lineno)
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
    found = values.setdefault(group, {"class": name} if group == "collator" else {})
    if node.args and name == "from_pretrained":
        found.setdefault("model_name", _value(node.args[0], known))
        lines.setdefault(f"{group}.model_name", node.lineno)
    for keyword in node.keywords:
        if keyword.arg is None:
            found.setdefault("**", Computed(ast.unparse(keyword.value)))
        elif keyword.arg not in found:
            found[keyword.arg] = _value(keyword.value, known)
            lines[f"{group}.{keyword.arg}"] = keyword.value.lineno


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _value(node: ast.expr, known: dict[str, Any]) -> Any:
    """A literal, a name that stands for one, a dtype of torch; else its source."""
    if isinstance(node, ast.Name) and node.id in known:
        return known[node.id]
    if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "torch":
        return node.attr
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        options = known.get(node.value.id)
        if isinstance(options, _Options) and node.attr in options:
            return options[node.attr]
    if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Is | ast.IsNot) and _is_none(node.comparators[0]):
        left = _value(node.left, known)
        if not isinstance(left, Computed):
            return (left is None) == isinstance(node.ops[0], ast.Is)
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
