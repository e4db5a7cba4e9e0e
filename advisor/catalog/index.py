"""Writes profiles/models/index.json from the model files: `python -m advisor.catalog.index`."""

from __future__ import annotations

import json
from pathlib import Path

from advisor.catalog.models import model_folder


def index_text(folder: Path) -> str:
    """The text of index.json for the model files in `folder`: one line a model, by name."""
    rows = []
    for path in sorted(p for p in folder.glob("*.json") if p.name != "index.json"):
        model = json.loads(path.read_text(encoding="utf-8"))
        rows.append({key: model[key] for key in ("name", "hub_id", "aliases", "parameters")})
    return "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"


if __name__ == "__main__":
    _folder = Path(str(model_folder()))
    (_folder / "index.json").write_text(index_text(_folder), encoding="utf-8")
