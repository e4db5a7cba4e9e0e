"""What spreads a job over cards, as configuration files name it: accelerate's FSDP, DeepSpeed's JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from advisor.configs.sheet import Sheet
from advisor.specs import Placement

_STAGE = re.compile(r"(?:zero|stage|z|ds)[-_]?([0-3])", re.IGNORECASE)
_OFFLOADED = {"offload_param": "parameters", "offload_optimizer": "optimizer"}
_NOWHERE = (None, "none", "null", "")


class Engine(NamedTuple):
    """How cards share a job."""

    sharding: str
    offload: str = ""
    reshard: bool = True
    bucket_elements: int = 0
    cards: int = 0
    machines: int = 0

    def sets(self, sheet: Sheet, *keys: str) -> None:
        """Set the knobs that say the same; offloading wins over that of activations, which no run has beside it."""
        sheet.sets("sharding", self.sharding, *keys)
        if self.offload:
            sheet.sets("offload", self.offload, *keys)
        if not self.reshard:
            sheet.sets("reshard", False, *keys)
        if self.bucket_elements:
            sheet.sets("bucket_elements", self.bucket_elements, *keys)
        if self.cards > 1:
            sheet.sets("gpus", self.cards, *keys)
        if self.machines > 1:
            sheet.sets("nodes", self.machines, *keys)


def read_engine(sheet: Sheet) -> None:
    """The engine of axolotl's, LLaMA-Factory's, ms-swift's and TRL's keys `deepspeed`, `fsdp` and `fsdp_config`."""
    path = sheet.word("accelerate_config")
    if path:
        tree = _file(sheet.name, path)
        if tree is None:
            sheet.loses("accelerate_config", "how cards share the job is in a file that is not here")
        else:
            accelerate_engine(tree, path).sets(sheet, "accelerate_config")
    value = sheet.get("deepspeed")
    if value:
        config = value if isinstance(value, Mapping) else _file(sheet.name, str(value))
        engine = _by_name(str(value)) if config is None else deepspeed_engine(config)
        if engine is None:
            sheet.loses("deepspeed", "the stage is in a file that is not here: give it beside this one, or --sharding")
        else:
            engine.sets(sheet, "deepspeed")
        return
    if sheet.peek("fsdp") or sheet.peek("fsdp_config"):
        config, words = sheet.get("fsdp_config") or {}, sheet.get("fsdp")
        key = "fsdp_config" if config else "fsdp"
        own = _file(sheet.name, words) if isinstance(words, str) else None  # ms-swift's, with both in one
        if own is not None:
            config, words = own.get("fsdp_config") or {}, own.get("fsdp")
        config = dict(config) if isinstance(config, Mapping) else {}
        config |= {"offload_params": True} if "offload" in str(words) else {}
        config |= {"sharding_strategy": "SHARD_GRAD_OP"} if "shard_grad_op" in str(words) else {}
        version = sheet.get("fsdp_version") or ("2" if str(words) == "fsdp2" else None)
        fsdp_engine(config, version).sets(sheet, key)


def shares_whole(sheet: Sheet) -> None:
    """A 4-bit base whose bytes are packed as uint8 is not shared out: every card holds all of it.

    Source: accelerate 1.15, utils/fsdp_utils.py, fsdp2_prepare_model.
    """
    storage = sheet.word("bnb_4bit_quant_storage", "uint8")
    spread = Placement(gpus=2, sharding=sheet.knobs.get("sharding", "none")).spreads_weights
    if spread and storage == "uint8" and str(sheet.knobs.get("method")).startswith("q"):
        sheet.loses("bnb_4bit_quant_storage", "without a floating dtype each card holds the whole 4-bit base")


def deepspeed_engine(config: Mapping[str, Any]) -> Engine:
    """What DeepSpeed's JSON says: zero_optimization. Sizes that are "auto" are the Trainer's."""
    zero = config.get("zero_optimization")
    zero = zero if isinstance(zero, Mapping) else {}
    stage = zero.get("stage", 0)
    offloaded = ""
    for key, word in _OFFLOADED.items():
        part = zero.get(key)
        if isinstance(part, Mapping) and part.get("device") not in _NOWHERE:
            offloaded = offloaded or word
    bucket = zero.get("reduce_bucket_size")
    elements = int(bucket) if isinstance(bucket, (int, float)) and not isinstance(bucket, bool) else 0
    return Engine(f"zero{stage}" if stage in (1, 2, 3) else "ddp", offloaded, bucket_elements=elements)


def fsdp_engine(config: Mapping[str, Any], version: Any = None) -> Engine:
    """FSDP1 unless version 2 is said: accelerate 1.15, utils/dataclasses.py, FullyShardedDataParallelPlugin."""
    words = {str(key).removeprefix("fsdp_"): value for key, value in config.items()}
    number = str(version or words.get("version") or 1)
    kept = words.get("reshard_after_forward") in (False, "false", "SHARD_GRAD_OP")
    kept = kept or words.get("sharding_strategy") in ("SHARD_GRAD_OP", 2)
    return Engine(
        "fsdp2" if number == "2" else "fsdp1", "parameters" if words.get("offload_params") is True else "", not kept
    )


def accelerate_engine(config: Mapping[str, Any], path: str = "") -> Engine:
    """What accelerate's YAML at `path` says: distributed_type, with the configuration of that kind."""
    kind = str(config.get("distributed_type", "NO")).upper()
    counts = {key: value for key in ("num_processes", "num_machines") if isinstance(value := config.get(key), int)}
    if kind == "DEEPSPEED":
        inner = config.get("deepspeed_config") or {}
        own = _file(path, str(inner.get("deepspeed_config_file", "")))
        engine = deepspeed_engine(
            own
            or {
                "zero_optimization": {
                    "stage": inner.get("zero_stage", 2),
                    "offload_param": {"device": inner.get("offload_param_device")},
                    "offload_optimizer": {"device": inner.get("offload_optimizer_device")},
                }
            }
        )
    elif kind == "FSDP":
        engine = fsdp_engine(config.get("fsdp_config") or {})
    else:
        engine = Engine("ddp" if kind == "MULTI_GPU" else "none")
    return engine._replace(cards=counts.get("num_processes", 0), machines=counts.get("num_machines", 0))


def _by_name(path: str) -> Engine | None:
    """The stage in a file's name, as zero2.json or ds_z3_offload_config.json; 'offload' in it is of all that it can."""
    match = _STAGE.search(path.rsplit("/", 1)[-1])
    if match is None:
        return None
    offloaded = "offload" in path or "cpu" in path
    where = ("parameters" if match[1] == "3" and "optimizer" not in path else "optimizer") if offloaded else ""
    return Engine(f"zero{match[1]}" if match[1] != "0" else "ddp", where)


def _file(beside: str, path: str) -> Mapping[str, Any] | None:
    """The JSON or YAML that a file names, from this folder or from that of the file `beside` it; None if not here."""
    from advisor.configs.tree import LIMIT_BYTES, json_tree, yaml_tree
    from advisor.files.guarded import read_text

    reader = json_tree if path.endswith(".json") else yaml_tree if path.endswith((".yaml", ".yml")) else None
    for folder in (Path(), Path(beside).parent):
        if reader is not None and (folder / path).is_file():
            name = str(folder / path)
            return reader(
                read_text(folder / path, name, "name a file of accelerate or DeepSpeed", LIMIT_BYTES), name
            ).values
    return None
