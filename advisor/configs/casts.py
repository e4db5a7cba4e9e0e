"""Loops of a script over parameters, by what they do to one of each kind. Nothing is executed."""

from __future__ import annotations

import ast
from collections import ChainMap
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from advisor.configs.literals import Computed, Fields, value_of

KINDS = {
    "": ("base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight", False),
    "adapter_dtype": ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight", True),
    "magnitude_dtype": (
        "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector.default.weight",
        True,
    ),
    "trained_dtype": ("base_model.model.lm_head.modules_to_save.default.weight", True),
}
"""Knobs of the dtypes of a peft model's parameters, each with the name of one, and whether it is trained; '' is the
base's. Source: peft 0.21, tuners/lora/layer.py, tuners/lora/dora.py, utils/other.py, ModulesToSaveWrapper."""
OWN = "base"
"""The dtype that a parameter has."""
_WORDS = {"float": "float32", "half": "float16", "bfloat16": "bfloat16"}


def casts_of(loop: ast.For | ast.AsyncFor, known: MutableMapping[str, Any]) -> dict[str, str] | None:
    """The dtypes that a loop over a peft model's parameters puts each kind in, those that it leaves without.

    None for another loop, for one whose text does not say, and for one that casts the base.
    """
    names = _names(loop)
    if names is None:
        return None
    found: dict[str, str] = {}
    for knob, (name, trained) in KINDS.items():
        fields = Fields({"requires_grad": trained, "dtype": OWN})
        seen = ChainMap({names[1]: fields, **({names[0]: name} if names[0] else {})}, known)
        try:
            dtype = _after(loop.body, names[1], seen)
        except _NotSaid:
            return None
        if dtype is not None:
            found[knob] = dtype
    return None if "" in found or not found else found


def casts_itself(target: ast.Attribute, value: ast.expr) -> bool:
    """Whether an assignment puts a parameter's data in another dtype: `p.data = p.data.half()`."""
    word = getattr(getattr(value, "func", None), "attr", "")
    return target.attr == "data" and word in (*_WORDS, "to", "type", "double")


class _NotSaid(Exception):
    """The loop does something else, or what only the run knows decides it."""


def _names(loop: ast.For | ast.AsyncFor) -> tuple[str, str] | None:
    """What the loop calls a parameter's name and the parameter; None for a loop over something else."""
    method = getattr(getattr(loop.iter, "func", None), "attr", "")
    target = loop.target
    if method == "parameters" and isinstance(target, ast.Name):
        return "", target.id
    if method == "named_parameters" and isinstance(target, ast.Tuple):
        parts = [getattr(one, "id", "") for one in target.elts]
        return (parts[0], parts[1]) if len(parts) == 2 and all(parts) else None
    return None


def _after(body: Sequence[ast.stmt], parameter: str, seen: MutableMapping[str, Any]) -> str | None:
    """The dtype of a parameter after the statements, None for its own."""
    dtype: str | None = None
    for node in body:
        if isinstance(node, ast.If):
            test = value_of(node.test, seen)
            if isinstance(test, Computed):
                raise _NotSaid
            dtype = _after(node.body if test else node.orelse, parameter, seen) or dtype
        elif isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
            if isinstance(target, ast.Name):
                seen[target.id] = value_of(node.value, seen)
            elif isinstance(target, ast.Attribute) and ast.unparse(target) == f"{parameter}.data":
                dtype = _cast(node.value, parameter, seen)
            else:
                raise _NotSaid
        elif not isinstance(node, ast.Pass):
            raise _NotSaid
    return dtype


def _cast(value: ast.expr, parameter: str, seen: Mapping[str, Any]) -> str:
    """The dtype of `p.data.to(dtype)`, `p.to(dtype)`, `p.data.float()`."""
    if not isinstance(value, ast.Call) or not isinstance(value.func, ast.Attribute) or value.keywords:
        raise _NotSaid
    word = value.func.attr
    if ast.unparse(value.func.value) not in (parameter, f"{parameter}.data"):
        raise _NotSaid
    if word in _WORDS and not value.args:
        return _WORDS[word]
    dtype = value_of(value.args[0], seen) if word == "to" and len(value.args) == 1 else Computed()
    if dtype not in (OWN, *_WORDS.values()) or isinstance(dtype, Computed):
        raise _NotSaid
    return str(dtype)
