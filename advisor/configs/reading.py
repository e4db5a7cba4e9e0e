"""A configuration file: whose it is, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

from advisor.configs.calls import notebook_tree, python_tree
from advisor.configs.engines import Engine, accelerate_engine, deepspeed_engine
from advisor.configs.found import Found
from advisor.configs.sheet import Sheet
from advisor.configs.shell import shell_tree
from advisor.configs.tree import LIMIT_BYTES, Tree, json_tree, yaml_tree
from advisor.errors import BadConfig
from advisor.files.guarded import named_path, read_text
from advisor.units import MIB

FORMATS = ("swift", "llamafactory", "axolotl", "torchtune", "litgpt", "trl", "scripts")
"""Modules of this package, in the order in which they are asked whose a file is."""
_KNOWN = (
    "known: YAML of Axolotl, LLaMA-Factory, TRL, torchtune and LitGPT, scripts and notebooks of Unsloth, TRL and "
    "transformers, shell scripts of ms-swift"
)
_READERS: dict[str, Callable[[str, str], Tree]] = {
    ".yaml": yaml_tree,
    ".yml": yaml_tree,
    ".json": json_tree,
    ".py": python_tree,
    ".ipynb": notebook_tree,
    ".sh": shell_tree,
}


class Config(NamedTuple):
    """A file that was read."""

    path: str
    text: str
    tree: Tree
    found: Found


def read_config(path: str, beside: Sequence[str] = (), text: str | None = None) -> Config:
    """The training configuration at `path`, with what accelerate's or DeepSpeed's files `beside` it say of the cards.

    Nothing in them is executed. With `text` no file is read: `path` is what that text is called.
    Raises BadConfig for a file that is none or has a bad value, SourceUnavailable for one that cannot be read.
    """
    text, tree = _read(path, text)
    sheet = Sheet(path, tree)
    for one in beside:
        engine = engine_of(one)
        if engine is None:
            raise BadConfig(f"{one}: neither accelerate's YAML nor DeepSpeed's JSON")
        engine.sets(sheet)
    return Config(path, text, tree, _format_of(tree, path).read(sheet))


def engine_of(path: str) -> Engine | None:
    """What a file of accelerate or DeepSpeed says of the cards; None for any other file."""
    tree = _read(path)[1]
    if "distributed_type" in tree.values:
        return accelerate_engine(tree.values, path)
    return deepspeed_engine(tree.values) if "zero_optimization" in tree.values else None


def _read(path: str, text: str | None = None) -> tuple[str, Tree]:
    file = named_path(path)
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise BadConfig(f"{path}: not a kind of file that is read ({file.suffix or 'no ending'}); {_KNOWN}")
    hint = "give a training configuration"
    if text is None:
        text = read_text(file, path, hint, LIMIT_BYTES)
    elif len(text) > LIMIT_BYTES:
        raise BadConfig(f"{path}: larger than {LIMIT_BYTES // MIB} MiB; {hint}")
    return text, reader(text, path)


def _format_of(tree: Tree, path: str) -> ModuleType:
    for name in FORMATS:
        module = import_module(f"advisor.configs.{name}")
        if any(all(key in tree.values for key in keys) for keys in module.MARKS):
            return module
    keys = ", ".join(list(tree.values)[:4]) or "none"
    raise BadConfig(f"{path}: whose configuration it is cannot be told from its keys ({keys}, ...); {_KNOWN}")
