"""What an agent may have read: names always, files only of the folder that the server was started with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from advisor.catalog.by_name import ByName
from advisor.catalog.entries import by_label
from advisor.catalog.gpus import find_gpus, reads_machine
from advisor.catalog.models import adapter_base, names_path
from advisor.errors import BadConfig, InputError, UnknownName, shown
from advisor.specs import GpuSpec, ModelSpec

_FILES = ("data", "tokenizer")
"""Knobs that are paths, or can be."""
_INSTEAD = {
    "model": "give a name, a Hub id, or the model's config.json as config",
    "gpu": "name a card or a size such as 24GB",
}


class Names(ByName):
    """Those that an agent may give. With `cards`, cards may be files: for texts that were looked at before."""

    def __init__(self, cards: bool = False) -> None:
        super().__init__(
            "is neither in the catalog nor in this machine's Hub cache: give its config.json as config", _INSTEAD["gpu"]
        )
        self._cards = cards

    def find_model(self, text: str) -> ModelSpec:
        """The model of this name or Hub id. Raises InputError or SourceUnavailable."""
        try:
            return super().find_model(text)
        except UnknownName as error:
            hint = "find_models_and_gpus lists names; or give the model's config.json as config"
            raise UnknownName("model", text, (), hint, error.near) from None

    def find_gpus(self, text: str) -> tuple[GpuSpec, ...]:
        """The cards that a name or a size stands for. Raises InputError for what would ask this machine."""
        if reads_machine(text) and not self._cards:
            raise _refused("gpu", text)
        try:
            return find_gpus(text)
        except UnknownName as error:
            hint = "find_models_and_gpus lists names, or give a size such as 24GB"
            raise UnknownName("GPU", text, (), hint, error.near) from None


class Confined:
    """The folder whose files may be read; None for no file at all."""

    def __init__(self, folder: str | None = None) -> None:
        """Raises BadConfig where `folder` is none."""
        self.folder = None if folder is None else os.path.realpath(os.path.expanduser(folder))
        if self.folder is not None and not os.path.isdir(self.folder):
            raise BadConfig(f"--folder {shown(str(folder))}: no such folder")

    def allowed(self, knobs: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """The knobs with the real path of every file in the folder, and whether the model is one of these.

        Raises InputError for a path that leads out of the folder or to nothing, and for any without a folder.
        """
        found = dict(knobs)
        for name in _FILES:
            if found.get(name) is not None:
                found[name] = self._inside(name, found[name])
        gpu = found.get("gpu")
        if isinstance(gpu, str) and reads_machine(gpu):
            auto = gpu.strip().lower().endswith("auto") and self.folder is not None
            found["gpu"] = gpu if auto else self._inside("gpu", gpu)
        model = found.get("model")
        if not isinstance(model, str) or not (names_path(model) or self._has(model)):
            return found, False
        found["model"] = self._model(model)
        return found, os.path.isabs(found["model"])

    def _has(self, text: str) -> bool:
        """Whether a text that no list has is something in the folder."""
        if self.folder is None or text.strip().lower() in by_label():
            return False
        return os.path.exists(os.path.join(self.folder, text.strip()))

    def _model(self, text: str, base_of: str = "") -> str:
        """The config.json that a path means; of an adapter's folder, that of its base, or the base's name."""
        path = self._inside("model", text)
        if os.path.isdir(path) and not base_of:
            self._inside("model", os.path.join(path, "adapter_config.json"), must_exist=False)
            base = adapter_base(path)
            if base and names_path(base):
                return self._model(base, path)
            if base:
                return base
        return self._inside("model", os.path.join(path, "config.json")) if os.path.isdir(path) else path

    def _inside(self, name: str, text: object, must_exist: bool = True) -> str:
        """The real path of what is in the folder, links and .. followed. Raises InputError for anything else."""
        if self.folder is None or not isinstance(text, str) or not text.strip() or not text.isprintable():
            raise _refused(name, text)
        try:
            path = os.path.realpath(os.path.join(self.folder, text.strip()))
            inside = os.path.commonpath((self.folder, path)) == self.folder
            there = os.path.exists(path) or not must_exist
        except (OSError, ValueError):  # a name too long, or another drive
            inside = there = False
        if not (inside and there):
            raise InputError(f"{name} {shown(text, 80)!r} is no file in the folder that this server may read")
        return path


def _refused(name: str, text: object) -> InputError:
    """Why a path is not read, and what to give in its place."""
    return InputError(
        f"{name} {shown(text, 80)!r} would be read from this machine, and the server was started without --folder: "
        + _INSTEAD.get(name, "describe the rows by examples, seq_len and mean_seq_len")
    )
