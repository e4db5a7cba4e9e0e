"""A configuration file: whose it is, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

from advisor.configs.engines import Engine, accelerate_engine, deepspeed_engine
from advisor.configs.found import Found
from advisor.configs.python_text import notebook_tree, python_tree
from advisor.configs.sheet import Sheet
from advisor.configs.shell import shell_tree
from advisor.configs.starters import SCRIPTS, Starter, skypilot_starter, slurm_starter
from advisor.configs.tree import LIMIT_BYTES, Tree, json_tree, yaml_tree
from advisor.errors import BadConfig
from advisor.files.guarded import named_path, read_text
from advisor.units import MIB

FORMATS = ("swift", "llamafactory", "axolotl", "torchtune", "litgpt", "unsloth_yaml", "trl", "scripts")
"""Modules of this package, in the order in which they are asked whose a file is."""
_NOT_READ = {
    ("model", "train_dataset"): "a file of LLaMA-Factory v1, whose keys are not read",
    ("step_scheduler", "model"): "a recipe of NeMo Automodel, whose keys are not read",
    ("train_loader", "model"): "a file of LLM Foundry, whose keys are not read",
}
"""Files that are known by the keys that all of them have, and refused by name."""
_KNOWN = (
    "known: YAML of Axolotl, LLaMA-Factory, TRL, torchtune, LitGPT, Unsloth and ms-swift, scripts and notebooks of "
    "Unsloth, TRL and transformers, shell scripts of ms-swift, and Slurm's scripts and SkyPilot's tasks that start them"
)
NOTEBOOK_BYTES = 8 << 20
"""The most of a notebook, which keeps pictures and outputs beside its code (`python_text.LONGEST_TEXT` limits that)."""
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


class Text(NamedTuple):
    """A file as text and as a tree, not yet understood; Slurm's script has no tree but what it starts."""

    path: str
    text: str
    tree: Tree
    starter: Starter | None = None
    alone: bool = False
    """Whether it has no file, and none that it names is read."""


def read_config(of: str | Text, beside: Sequence[str | Text] = ()) -> Config:
    """The training configuration of a file, with what accelerate's or DeepSpeed's files `beside` it say of the cards.

    Of Slurm's script or SkyPilot's task, that of the file which it starts, on its cards.
    Nothing in them is executed. Raises BadConfig for a file that is none or has a bad value, SourceUnavailable for one
    that cannot be read.
    """
    text = of if isinstance(of, Text) else read_text_of(of)
    if text.starter is None:
        return _config(text, beside)
    files = [read_text_of(one) for one in text.starter.files]
    engines = [one for one in files if is_engine(one)]
    runs = [one for one in files if one not in engines]
    if not runs:
        told = f"starts {engines[0].path}, which says how cards share a job, not which"
        raise BadConfig(f"{text.path}: {told}; {_KNOWN}")
    config = _config(runs[0], (*beside, *engines))
    return config._replace(found=text.starter.started(config.found))


def _config(of: Text, beside: Sequence[str | Text]) -> Config:
    sheet = Sheet(of.path, of.tree)
    for one in beside:
        engine = engine_of(one)
        if engine is None:
            raise BadConfig(
                f"{one if isinstance(one, str) else one.path}: neither accelerate's YAML nor DeepSpeed's JSON"
            )
        engine.sets(sheet)
    return Config(of.path, of.text, of.tree, _format_of(of.tree, of.path).read(sheet))


def engine_of(of: str | Text) -> Engine | None:
    """What a file of accelerate or DeepSpeed says of the cards; None for any other file."""
    text = of if isinstance(of, Text) else read_text_of(of)
    values = text.tree.values
    if "distributed_type" in values:
        return accelerate_engine(values, text.path)
    return deepspeed_engine(values) if "zero_optimization" in values else None


def is_engine(of: Text) -> bool:
    """Whether a file says how cards share a job, and not which."""
    return of.path.endswith((".json", ".yaml", ".yml")) and engine_of(of) is not None


def read_text_of(path: str) -> Text:
    """A file that `read_config` and `engine_of` take, read once. Raises BadConfig, SourceUnavailable."""
    file = named_path(path)
    kind = "standard input" if path == "-" else "a folder" if file.is_dir() else file.suffix
    reader = _reader_of(file.suffix, path, kind)
    text = read_text(file, path, "give a training configuration", _limit_bytes(file.suffix))
    starter = slurm_starter(path, text) if path.endswith(SCRIPTS) else None
    tree = reader(text, path) if starter is None else Tree({}, {})
    return Text(path, text, tree, starter or skypilot_starter(path, tree))


def text_alone(name: str, text: str) -> Text:
    """A text without a file, under the name that says its kind; what it starts is not looked for. Raises BadConfig."""
    suffix = named_path(name).suffix
    reader = _reader_of(suffix, name, suffix)
    if len(text) > _limit_bytes(suffix):
        raise BadConfig(f"{name}: larger than {_limit_bytes(suffix) // MIB} MiB; give a training configuration")
    return Text(name, text, reader(text, name), alone=True)


def _reader_of(suffix: str, path: str, kind: str) -> Callable[[str, str], Tree]:
    """What reads files with that ending; an error says of what `kind` this one is instead."""
    reader = _READERS.get(suffix.lower())
    if reader is None:
        raise BadConfig(f"{path}: not a kind of file that is read ({kind or 'no ending'}); {_KNOWN}")
    return reader


def _limit_bytes(suffix: str) -> int:
    return NOTEBOOK_BYTES if suffix.lower() == ".ipynb" else LIMIT_BYTES


def _format_of(tree: Tree, path: str) -> ModuleType:
    for name in FORMATS:
        module = import_module(f"advisor.configs.{name}")
        if any(all(key in tree.values for key in keys) for keys in module.MARKS):
            return module
    for words, told in _NOT_READ.items():
        if all(key in tree.values for key in words):
            raise BadConfig(f"{path}: {told}; give its settings as flags to advise")
    keys = ", ".join(list(tree.values)[:4]) or "none"
    raise BadConfig(f"{path}: whose configuration it is cannot be told from its keys ({keys}, ...); {_KNOWN}")
