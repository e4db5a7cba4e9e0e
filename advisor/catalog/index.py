"""Writes the index.json of profiles/models, profiles/gpus and profiles/trainers from what people wrote there.

    python -m advisor.catalog.index

A look-up reads one index instead of a hundred files; a test checks that each index agrees with its files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from advisor.catalog.data import data_folder
from advisor.catalog.gpu_file import catalog_cards
from advisor.catalog.trainers import preset_from_toml


def model_index_text(folder: Path) -> str:
    """The text of index.json for the model files in `folder`: one line per model, by name."""
    paths = sorted(path for path in folder.glob("*.json") if path.name != "index.json")
    models = (json.loads(path.read_text(encoding="utf-8")) for path in paths)
    return _lines(map(_model_row, models))


def _model_row(model: dict[str, Any]) -> dict[str, object]:
    """One line: the names of a model's file, those of its variants and of registries among its aliases."""
    aliases = [*model["aliases"], *model.get("same_as", ()), *model.get("variants", ())]
    row = {"name": model["name"], "hub_id": model["hub_id"], "aliases": aliases, "parameters": model["parameters"]}
    return row | {key: list(model[key]) for key in ("bare", "derived", "kin") if key in model}


def gpu_index_text(folder: Path) -> str:
    """The text of index.json for the TOML files in `folder`: one line per card, in base units."""
    return _lines(
        {"aliases": card.aliases, "reported_as": card.reported_as or card.name, "spec": dict(spec)}
        for card, spec in catalog_cards(folder)
    )


def trainer_index_text(folder: Path) -> str:
    """The text of index.json for the TOML files in `folder`: one line per trainer, by name. Raises BadConfig."""
    paths = sorted(folder.glob("*.toml"))
    return _lines(
        preset_from_toml(path.read_text(encoding="utf-8"), path.name).model_dump(mode="json") for path in paths
    )


def _lines(rows: Iterable[object]) -> str:
    return "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"


if __name__ == "__main__":
    for _name, _text_of in (("models", model_index_text), ("gpus", gpu_index_text), ("trainers", trainer_index_text)):
        _folder = data_folder(_name)
        (_folder / "index.json").write_text(_text_of(_folder), encoding="utf-8")
