"""Config and GPU files as nobody should write them: one line for each, no traceback. Seeded, so that a find stays."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from advisor.catalog.config_json import model_from_config, parse_config
from advisor.catalog.entries import model_folder
from advisor.catalog.gpus import find_gpus
from advisor.costs.memory import predict_step_memory
from advisor.errors import AdvisorError
from advisor.specs import Recipe
from tests.catalog.test_config_json import KEYS
from tests.catalog.test_gpu_file import ENTRY, toml_of
from tests.hostile import check_line, damaged, mutated

CONFIGS = [
    json.loads(path.read_text(encoding="utf-8"))["config"]
    for path in sorted(model_folder().glob("*.json"))
    if path.name != "index.json"
]
CARD: dict[str, Any] = ENTRY | {
    "bf16_tflops": 99.0,
    "compute_capability": "8.9",
    "generation": "Ada",
    "aliases": ["mine"],
    "power_w": 300,
    "sources": {"memory": "my notes"},
}


def test_three_hundred_configs() -> None:
    assert len(CONFIGS) > 50
    known = 0
    for seed in range(300):
        draw = random.Random(seed)
        text = json.dumps(mutated(draw.choice(CONFIGS), draw, KEYS))
        data = damaged(text, draw) if seed % 4 == 0 else text.encode()
        try:
            spec = model_from_config(parse_config(data, "config.json"), "m", "config.json")
        except AdvisorError as error:
            check_line(error, "config.json")
            continue
        known += 1
        assert predict_step_memory(spec, Recipe(method="full"), 1, 64).peak_bytes > 0
    assert 60 < known < 240


def test_a_hundred_gpu_files(tmp_path: Path) -> None:
    known = 0
    for seed in range(100):
        draw = random.Random(seed)
        card = mutated(CARD, draw, ("tf32_tflops", "reported_as"))
        as_toml = seed % 2 == 0 and all(value is not None for value in card.values())
        text = toml_of(card) if as_toml else json.dumps(card)
        path = tmp_path / f"card.{'toml' if as_toml else 'json'}"
        path.write_bytes(damaged(text, draw) if seed % 3 == 0 else text.encode())
        try:
            (found,) = find_gpus(str(path))
        except AdvisorError as error:
            check_line(error, path.name)
            continue
        known += 1
        assert found.memory_bytes > 0
    assert 3 < known < 60
