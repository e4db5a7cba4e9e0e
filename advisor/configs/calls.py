"""Python scripts and notebooks: the calls that configure a run, by their literals (`literals`). Nothing is executed.

A name stands for what was last assigned to it above the call. Where a condition that only the run knows assigns it,
or a loop, it stands for nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from advisor.configs.called import GROUPS, LENGTHS, PACKERS, loads
from advisor.configs.casts import casts_itself, casts_of
from advisor.configs.literals import Computed, Fields, value_of
from advisor.configs.names import Names
from advisor.configs.tree import Tree

_CHANGE = ("append", "extend", "insert", "pop", "remove", "update", "setdefault", "clear", "add", "discard")
"""Methods that change what a name stands for."""


class Calls:
    """What was read so far: names, the calls, defaults of flags and of fields."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.known = Names({"__name__": "__main__"})
        self.objects: dict[str, str] = {}
        self.values: dict[str, Any] = {}
        self.lines: dict[str, int] = {}
        self.flags: dict[str, Any] = {}
        self.called: dict[str, bool] = {}
        self.adapted = False
        self.certain = True

    def tree(self, modules: list[ast.Module]) -> Tree:
        """The arguments of the calls by group; `loader` is the class that loads the model."""
        for module in modules:
            try:
                self.called |= dict(_with_arguments(module))
                self._block(module.body)
            except RecursionError:
                continue
        self._lengths(self.known)
        return Tree(self.values, self.lines)

    def _lengths(self, names: Mapping[str, Any]) -> None:
        """Keep the lengths of rows among names."""
        found = {name: names[name] for name in names if name.lower() in LENGTHS and type(names[name]) is int}
        if found:
            self.values["lengths"] = {**found, **self.values.get("lengths", {})}

    def _named_model(self) -> None:
        """A model that the trainer is given by its name, and loads itself."""
        name = self.values.get("trainer", {}).get("model")
        if isinstance(name, str) and not isinstance(name, Computed) and "model" not in self.values:
            more = self.values.get("arguments", {}).pop("model_init_kwargs", None)
            self.values["model"] = {"model_name": name, **(more if isinstance(more, dict) else {})}
            self.lines["model.model_name"] = self.lines.get("trainer.model", 0)
            self.values["loader"] = "AutoModelForCausalLM"

    def _block(self, body: list[ast.stmt]) -> None:
        """Assignments and calls in the order of the text; of a condition that literals decide, its one side."""
        for node in body:
            if isinstance(node, ast.If):
                self._condition(node)
            elif isinstance(node, ast.ClassDef):
                self._fields(node)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                self._function(node)
            elif isinstance(node, (ast.For, ast.AsyncFor, ast.While)):
                if not isinstance(node, ast.While) and self._casts(node):
                    continue
                self._forget(node)
                self._block(node.body)
                self._forget(node)
                self._block(node.orelse)
            elif inner := [one for name in ("body", "orelse", "finalbody") for one in getattr(node, name, [])]:
                self._block([one for one in inner if isinstance(one, ast.stmt)])
            else:
                for one in ast.walk(node):
                    if isinstance(one, ast.Call):
                        self._call(one)
                self._assignment(node)

    def _condition(self, node: ast.If) -> None:
        test = value_of(node.test, self.known)
        if not isinstance(test, Computed):
            self._block(node.body if test else node.orelse)
            return
        certain, self.certain = self.certain, False
        mark = self.known.mark()
        self._block(node.body)
        one = self.known.back_to(mark)
        mark = self.known.mark()
        self._block(node.orelse)
        self.known.merge(one, mark)
        self.certain = certain

    def _forget(self, node: ast.AST) -> None:
        """What a loop assigns is not known in it, nor after it."""
        for one in ast.walk(node):
            if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store):
                self.known[one.id] = Computed(one.id)

    def _casts(self, node: ast.For | ast.AsyncFor) -> bool:
        """Whether a loop puts parameters of adapters that were made above in other dtypes, which are kept."""
        found = casts_of(node, self.known) if self.adapted and self.certain else None
        if found is not None:
            self.values["dtypes"] = {**self.values.get("dtypes", {}), **found}
            self.lines |= {f"dtypes.{knob}": node.lineno for knob in found}
        return found is not None

    def _fields(self, node: ast.ClassDef) -> None:
        """The fields of a class with their defaults; the bodies of its methods as they stand."""
        found: dict[str, Any] = {}
        for one in node.body:
            if not isinstance(one, (ast.Assign, ast.AnnAssign)):
                self._block([one])
                continue
            target = one.target if isinstance(one, ast.AnnAssign) else one.targets[0]
            if isinstance(target, ast.Name) and one.value is not None:
                found[target.id] = value_of(one.value, self.known)
        self.known[node.name] = Fields(found)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """A body with its parameters: their defaults where no call gives one."""
        mark = self.known.mark()
        given = [*node.args.posonlyargs, *node.args.args]
        defaults = dict(zip([one.arg for one in given[::-1]], node.args.defaults[::-1], strict=False))
        defaults |= {
            a.arg: d for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if d is not None
        }
        for one in (*given, *node.args.kwonlyargs):
            stated = one.arg in defaults and not self.called.get(node.name, False)
            self.known[one.arg] = value_of(defaults[one.arg], self.known) if stated else Computed(one.arg)
        self._block(node.body)
        self._lengths(self.known.back_to(mark))

    def _assignment(self, node: ast.stmt) -> None:
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            self.known[node.target.id] = Computed(node.target.id)
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            return
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if isinstance(target, (ast.Tuple, ast.List)):
                self._parts(target.elts, node.value)
            elif isinstance(target, ast.Name):
                self._assign(target.id, node.value)
            elif isinstance(target, ast.Attribute):
                self._attribute(target, node.value)
            elif isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
                self._item(target.value.id, target.slice, node.value)

    def _parts(self, targets: list[ast.expr], value: ast.expr) -> None:
        """Several names at once: each of its own expression, or of a list that is stated."""
        if isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == len(targets):
            parts = [value_of(one, self.known) for one in value.elts]
        else:
            whole = value_of(value, self.known)
            stated = isinstance(whole, list) and len(whole) == len(targets)
            parts = whole if stated else [Computed(getattr(one, "id", "")) for one in targets]
        for one, part in zip(targets, parts, strict=True):
            if isinstance(one, ast.Name):
                self.known[one.id] = part

    def _attribute(self, target: ast.Attribute, value: ast.expr) -> None:
        """A field that is set after its object was made: `args.max_steps = 5`."""
        owner = getattr(target.value, "id", "")
        if casts_itself(target, value):
            self.values.setdefault("casts", Computed(ast.unparse(value)[:200]))
            self.lines.setdefault("casts", value.lineno)
        elif target.attr == "requires_grad":
            self._freezes(value)
        elif owner in self.objects:
            self.values[self.objects[owner]][target.attr] = value_of(value, self.known)
            self.lines[f"{self.objects[owner]}.{target.attr}"] = value.lineno
        elif owner:
            made = self.known.get(owner)
            fields = made.values if isinstance(made, Fields) else {}
            self.known[owner] = Fields({**fields, target.attr: value_of(value, self.known)})

    def _freezes(self, value: ast.expr) -> None:
        """Parameters that the script's own code trains, or does not."""
        self.values.setdefault("freezes", ast.unparse(value)[:200])
        self.lines.setdefault("freezes", value.lineno)

    def _item(self, name: str, key: ast.expr, value: ast.expr) -> None:
        """A value that is put into a dict after it was made."""
        before, word = self.known.get(name), value_of(key, self.known)
        if isinstance(before, dict) and not isinstance(word, (Computed, list, dict)):
            self.known[name] = {**before, word: value_of(value, self.known)}
        else:
            self.known[name] = Computed(name)

    def _assign(self, name: str, value: ast.expr) -> None:
        self.known[name] = value_of(value, self.known)
        if not isinstance(value, ast.Call):
            return
        function = value.func
        word = getattr(function, "attr", getattr(function, "id", ""))
        if word in GROUPS and word.endswith(("Config", "Arguments")):
            self.objects[name] = GROUPS[word]
        if isinstance(function, ast.Attribute) and function.attr == "parse_args":
            self.values["flags"] = dict(self.flags)
            self.known[name] = Fields(dict(self.flags))
        elif isinstance(function, ast.Name) and not value.args:
            made = self.known.get(function.id)
            if isinstance(made, Fields):
                given = {one.arg: value_of(one.value, self.known) for one in value.keywords if one.arg}
                self.known[name] = Fields({**made.values, **given}) if given else made

    def _call(self, node: ast.Call) -> None:
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        owner = getattr(getattr(function, "value", None), "id", "") if isinstance(function, ast.Attribute) else ""
        if name == "add_argument":
            self._flag(node)
        if name == "requires_grad_":
            self._freezes(node)
        if name == "map" and node.args and getattr(node.args[0], "id", "") in PACKERS:
            self.values["packed"] = True
            self.lines.setdefault("packed", node.lineno)
        if name in _CHANGE and owner in self.known:
            self.known[owner] = Computed(owner)
        if name.endswith("Trainer"):
            self.values.setdefault("classes", {}).setdefault(name, node.lineno)
        group = GROUPS.get(name)
        if group is None or (name == "from_pretrained" and not loads(owner)):
            return
        if name == "from_pretrained":
            if "loader" in self.values:
                return  # the first one is trained; others load what came of it
            self.values["loader"] = owner
        if name == "get_peft_model" and not owner:
            self.adapted = True
            return  # peft's own takes a LoraConfig
        if group == "collator":
            self.values.setdefault(group, {"class": name})
        self._arguments(node, group, name == "from_pretrained")
        if group == "trainer":
            self._named_model()

    def _flag(self, node: ast.Call) -> None:
        """A flag of argparse and its default."""
        names = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        long = next((one for one in names if one.startswith("--")), "")
        words = {one.arg: value_of(one.value, self.known) for one in node.keywords if one.arg}
        if long and not words.get("required"):
            switch = {"store_true": False, "store_false": True}.get(str(words.get("action")))
            target = str(words.get("dest") or long.lstrip("-").replace("-", "_"))
            self.flags[target] = words.get("default", switch)

    def _arguments(self, node: ast.Call, group: str, loads: bool) -> None:
        found = self.values.setdefault(group, {})
        if loads and node.args:
            found.setdefault("model_name", value_of(node.args[0], self.known))
            self.lines.setdefault(f"{group}.model_name", node.lineno)
        for keyword in node.keywords:
            if keyword.arg is not None:
                self._argument(found, group, keyword.arg, value_of(keyword.value, self.known), keyword.value.lineno)
                continue
            several = value_of(keyword.value, self.known)
            if isinstance(several, dict):
                for key, value in several.items():
                    self._argument(found, group, str(key), value, keyword.value.lineno)
            else:
                found.setdefault("**", Computed(ast.unparse(keyword.value)))

    def _argument(self, found: dict[str, Any], group: str, key: str, value: Any, line: int) -> None:
        if key not in found:
            found[key] = value
            self.lines[f"{group}.{key}"] = line


def _with_arguments(module: ast.Module) -> Iterator[tuple[str, bool]]:
    """Names of functions that some call gives arguments."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and (node.args or node.keywords):
            yield getattr(node.func, "attr", getattr(node.func, "id", "")), True
