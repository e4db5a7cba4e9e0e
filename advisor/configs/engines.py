"""What spreads a job over cards, as configuration files name it: accelerate's FSDP, DeepSpeed's JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advisor.configs.sheet import Sheet

_STAGE = re.compile(r"(?:zero|stage|z|ds)[-_]?([0-3])", re.IGNORECASE)


def read_engine(sheet: Sheet) -> None:
    """The engine of axolotl's, LLaMA-Factory's and TRL's keys `deepspeed`, `fsdp` and `fsdp_config`."""
    value = sheet.get("deepspeed")
    if value:
        _deepspeed(sheet, value)
    elif sheet.peek("fsdp") or sheet.peek("fsdp_config"):
        _fsdp(sheet)


def _deepspeed(sheet: Sheet, value: Any) -> None:
    config = value if isinstance(value, Mapping) else _beside(sheet, str(value))
    zero = config.get("zero_optimization", {}) if config else {}
    stage = zero.get("stage", 0) if config else None
    if stage is None:
        match = _STAGE.search(str(value))
        stage = int(match[1]) if match else None
    if stage is None:
        sheet.loses("deepspeed", "the stage is in a file that is not here; say --sharding zero1, zero2 or zero3")
        return
    sheet.sets("sharding", f"zero{stage}" if stage else "ddp", "deepspeed")
    for name in ("offload_param", "offload_optimizer"):
        device = (zero.get(name) or {}).get("device", "none")
        if device != "none" and "cpu_offload" not in sheet.knobs:
            sheet.sets("cpu_offload", "parameters" if name == "offload_param" else "optimizer", "deepspeed")


def _beside(sheet: Sheet, path: str) -> Mapping[str, Any] | None:
    """A DeepSpeed JSON that a file names, from this folder or from the file's own; None where it is not here."""
    from advisor.configs.tree import LIMIT_BYTES, json_tree
    from advisor.files.guarded import read_text

    for folder in (Path(), Path(sheet.name).parent):
        if path.endswith(".json") and (folder / path).is_file():
            text = read_text(folder / path, str(folder / path), "name DeepSpeed's JSON", LIMIT_BYTES)
            return json_tree(text, str(folder / path)).values
    return None


def _fsdp(sheet: Sheet) -> None:
    """FSDP1 unless version 2 is said: accelerate 1.15, utils/dataclasses.py, FullyShardedDataParallelPlugin."""
    config = sheet.get("fsdp_config") or {}
    sheet.get("fsdp")
    version = str(sheet.get("fsdp_version") or (config.get("fsdp_version") if isinstance(config, Mapping) else "") or 1)
    sheet.sets("sharding", "fsdp2" if version == "2" else "fsdp1", "fsdp_config" if config else "fsdp")
    offloaded = isinstance(config, Mapping) and (config.get("offload_params") or config.get("fsdp_offload_params"))
    if offloaded:
        sheet.sets("cpu_offload", "parameters", "fsdp_config")
    kept = isinstance(config, Mapping) and config.get("reshard_after_forward") is False
    if kept:
        sheet.sets("reshard", False, "fsdp_config")
