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
from advisor.configs.starters import SCRIPTS, starter_of
from advisor.configs.tree import LIMIT_BYTES, Tree, json_tree, yaml_tree
from advisor.errors import BadConfig
from advisor.files.guarded import named_path, read_text

FORMATS = ("swift", "llamafactory", "axolotl", "torchtune", "litgpt", "trl", "scripts")
"""Modules of this package, in the order in which they are asked whose a file is."""
_KNOWN = (
    "known: YAML of Axolotl, LLaMA-Factory, TRL, torchtune and LitGPT, scripts and notebooks of Unsloth, TRL and "
    "transformers, shell scripts of ms-swift, and Slurm's scripts and SkyPilot's tasks that start them"
)
_READERS: dict[str, Callable[[str, str], Tree]] = {
    ".yaml": yaml_tree,
    ".yml": yaml_tree,
    ".json": json_tree,
    ".py": python_tree,
    ".ipynb": notebook_tree,
    ".sh": shell_tree,
    **dict.fromkeys(SCRIPTS, shell_tree),
}


class Config(NamedTuple):
    """A file that was read."""

    path: str
    text: str
    tree: Tree
    found: Found


def read_config(path: str, beside: Sequence[str] = ()) -> Config:
    """The training configuration at `path`, with what accelerate's or DeepSpeed's files `beside` it say of the cards.

    Of Slurm's script or SkyPilot's task, that of the file which it starts, on its cards.
    Nothing in them is executed. Raises BadConfig for a file that is none or has a bad value, SourceUnavailable for one
    that cannot be read.
    """
    starter = starter_of(path, _text(path))
    if starter is None:
        return _config(path, beside)
    engines = [one for one in starter.files if _is_engine(one)]
    runs = [one for one in starter.files if one not in engines]
    if not runs:
        raise BadConfig(f"{path}: starts {starter.files[0]}, which says how cards share a job, not which; {_KNOWN}")
    config = _config(runs[0], (*beside, *engines))
    return config._replace(found=starter.started(config.found))


def _config(path: str, beside: Sequence[str]) -> Config:
    text, tree = _read(path)
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


def _is_engine(path: str) -> bool:
    return path.endswith((".json", ".yaml", ".yml")) and engine_of(path) is not None


def _read(path: str) -> tuple[str, Tree]:
    text = _text(path)
    return text, _READERS[named_path(path).suffix.lower()](text, path)


def _text(path: str) -> str:
    file = named_path(path)
    if file.suffix.lower() not in _READERS:
        raise BadConfig(f"{path}: not a kind of file that is read ({file.suffix or 'no ending'}); {_KNOWN}")
    return read_text(file, path, "give a training configuration", LIMIT_BYTES)


def _format_of(tree: Tree, path: str) -> ModuleType:
    for name in FORMATS:
        module = import_module(f"advisor.configs.{name}")
        if any(all(key in tree.values for key in keys) for keys in module.MARKS):
            return module
    keys = ", ".join(list(tree.values)[:4]) or "none"
    raise BadConfig(f"{path}: whose configuration it is cannot be told from its keys ({keys}, ...); {_KNOWN}")
