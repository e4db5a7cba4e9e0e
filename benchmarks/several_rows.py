"""Published runs on several cards as questions: which model, recipe and cards a row of such a file stands for.

MPT (llm-foundry) is taken as a StarCoder2 of its widths, which has the same products. The network of a node is what the
row says, and otherwise that of the cloud machines of that card.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from advisor.catalog import find_gpus, find_model
from advisor.libraries import OLDEST, version_text
from advisor.specs import GpuSpec, KernelSet, Model, ModelSpec, Placement, Recipe, StateOffload, Workload
from advisor.validation.figures import Row

MPT = re.compile("mpt")
SANTACODER = "bigcode/gpt_bigcode-santacoder"
"""A StarCoder of 24 layers (its config.json)."""
CARDS = {
    "NVIDIA H100 80GB": "h100",
    "NVIDIA H100 80GB (DGX)": "h100",
    "NVIDIA A100-80GB": "a100-80gb",
    "NVIDIA A800-80GB": "a800",
    "NVIDIA H20 96GB": "h20",
    "NVIDIA A10G 24GB (4x24GB)": "a10g",
    "80GB class": "a100-80gb",
    "2 GPUs (not stated)": "a100-80gb",
    "40 GB cards (2x40GB)": "a100",
    "24GB cards": "rtx-3090",
    "24 GB cards (2x24GB)": "rtx-3090",
}
NAMES = {"LLaMA-7B": "huggyllama/llama-7b"}
MODULES = {"output_proj": "o_proj"}
LIGER: tuple[KernelSet, ...] = ("liger_norm", "liger_rope", "liger_mlp", "liger_loss")
OF_CONFIG: dict[str | None, tuple[KernelSet, ...]] = {
    "foak-fast-kernels-liger": ("liger_norm", "liger_rope", "liger_loss")
}
"""Kernels by the configuration of fms-acceleration: its norm and RoPE are Unsloth's, which keep what Liger's do.

Source: fms-acceleration 876e2ed6, plugins/fused-ops-and-kernels, fms_acceleration_foak/models/mistral.py,
kernels/unsloth/rms_layernorm.py and rope_embedding.py, fused_ops/liger_ce.
"""
BY_TRAINER = ("fms-accel", "peft-docs", "hf-blog", "ms-swift-dist", "longlora")
"""Groups of rows that transformers' Trainer ran."""
OWN_ADAPTERS = ("vectorlm", "torchtune-dist")
"""Groups of rows whose code keeps adapters in the dtype of the base."""
OF_ITS_TIME = {
    "gist-a800-llama7b": {"transformers": "4.40"},
    "peft-docs": {"transformers": "4.39", "peft": "0.10"},
    "hf-blog": {"transformers": "4.40", "peft": "0.10"},
}
"""Versions that a group does not state: the newest when DeepSpeed 0.14.2 was, and when those pages were written.

Source: peft's pull request 1550 (March 2024); philschmid.de/fsdp-qlora-llama3, which installs them.
"""
OFFLOADS: tuple[tuple[str, StateOffload], ...] = (("params", "parameters"), ("optimizer", "optimizer"))
"""What is kept on the host, by a word of the row."""
GBIT_OF_NODE = {"h100": 3200.0, "a100": 1600.0}
"""Of eight ports where a row does not say: a DGX H100, and the machines with A100 of the same source."""


def rows_of(path: str) -> list[Row]:
    """One published run a line."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def model_of(row: Row) -> Model:
    """The row's model."""
    name = row["model_id"]
    if MPT.search(name):
        facts, plain = row["model_facts"], "starcoder2-3b"
        changes = {"intermediate_size": facts["expansion_ratio"] * facts["d_model"], "sliding_window": 0}
        heads = {"num_key_value_heads": facts["n_heads"], "num_hidden_layers": facts["n_layers"]}
    elif name == SANTACODER:
        facts, plain = {"n_heads": 16, "d_model": 2048, "vocab_size": 49_280}, "starcoder-15b"
        changes, heads = {"intermediate_size": 8192, "max_position_embeddings": 2048}, {"num_hidden_layers": 24}
    else:
        return find_model(NAMES.get(name, name))
    found = find_model(plain)
    assert isinstance(found, ModelSpec)
    width, count = facts["d_model"], facts["n_heads"]
    sizes = {"hidden_size": width, "num_attention_heads": count, "head_dim": width // count}
    more = {"name": name.split("/")[1], "vocab_size": facts["vocab_size"]}
    return found.model_copy(update={**sizes, **changes, **heads, **more})


def card_of(row: Row) -> GpuSpec:
    """The row's card, by its name or, where it has none, by its size."""
    return find_gpus(CARDS.get(row["gpu"], row["gpu"]))[0]


def work_of(row: Row) -> Workload:
    """Rows of the row's length."""
    return Workload(examples=1, seq_len=row["seq_len"], mean_seq_len=row["seq_len"])


def stack_of(row: Row) -> tuple[str, ...]:
    """The versions that the row states of libraries whose older ones are mirrored, or that its time had."""
    stated = {**OF_ITS_TIME.get(row["group"], {}), **row.get("versions", {})}
    found = {name: tuple(map(int, stated[name].split(".")[:2])) for name in OLDEST if name in stated}
    return tuple(f"{name}-{version_text(version)}" for name, version in found.items() if version >= OLDEST[name])


def recipe_of(row: Row) -> Recipe:
    """The row's recipe; what it does not say is as its trainer sets it.

    transformers before 5 checkpoints the re-entrant way, peft keeps adapters in fp32, and a base in 4 bits that is
    spread is not cast by TRL (sft_trainer.py, `is_sharded_qlora`) nor by fms-acceleration (framework_plugin_bnb.py).
    """
    dtypes = row.get("compute_dtype") or row["base_dtype"]
    half = "float16" if "float16" in dtypes and "bfloat16" not in dtypes else "bfloat16"
    full32 = row["base_dtype"].startswith("float32")
    pure = dtypes.startswith("pure") or row["group"] == "vectorlm"
    attention = row.get("attn_impl") or ""
    checkpoints = bool(row["gradient_checkpointing"])
    return Recipe(
        method=row["method"],
        quant=row["quant"],
        double_quant=row.get("double_quant", True),
        kbit_upcast=row["num_gpus"] == 1 and row.get("framework_config") == "baseline-peft-bnb",
        base_dtype="float32" if full32 else half,
        autocast=not pure,
        optimizer="adamw" if "fused" in row["optimizer"] else "adamw_foreach",
        attention="flash" if "flash" in attention else "eager" if "eager" in attention else "sdpa",
        kernels=LIGER
        if row.get("loss_impl", "").startswith("liger")
        else OF_CONFIG.get(row.get("framework_config"), ()),
        stack=stack_of(row),
        gradient_checkpointing=checkpoints,
        reentrant=checkpoints and row.get("reentrant", row["group"] in BY_TRAINER),
        micro_batch=row["micro_batch"],
        gradient_accumulation=accumulation_of(row),
        **_adapters(row, half),
    )


def accumulation_of(row: Row) -> int:
    """Micro-batches of a step: as stated, or by the rows of a step that stand beside the micro-batch."""
    if "batch_column" in row:
        return int(row["batch_column"].split("/")[1]) // (row["micro_batch"] * row["num_gpus"])
    return int(row.get("grad_accum") or 1)


def _adapters(row: Row, half: str) -> dict[str, Any]:
    if row["method"] == "full":
        return {}
    names = row.get("target_modules") or ("q_proj", "v_proj")
    dtype = row.get("adapter_dtype") or ("bfloat16" if row["group"] in OWN_ADAPTERS else "float32")
    return {
        "target_modules": tuple(MODULES.get(name, name) for name in names if name != "c_attn"),
        "rank": row.get("rank", 16),
        "dropout": row.get("lora_dropout", 0.0),
        "adapter_dtype": half if dtype.startswith(("bfloat16", "float16")) else "float32",
    }


def placement_of(row: Row) -> Placement:
    """The row's cards and what joins them."""
    cards, nodes = row["num_gpus"], row.get("num_nodes") or 1
    if cards == 1:
        return Placement()
    network = 0.0
    if nodes > 1:
        said = re.search(r"(\d+) Gbps", row["interconnect"])
        of_node = float(said[1]) if said else GBIT_OF_NODE["h100" if "H100" in row["gpu"] else "a100"]
        network = of_node / (cards // nodes)
    return Placement(
        gpus=cards,
        nodes=nodes,
        sharding=row["sharding"],
        prefetch=row.get("backward_prefetch") == "BACKWARD_PRE",
        reshard=row.get("sharding_detail") != "SHARD_GRAD_OP",
        offload=next((what for word, what in OFFLOADS if word in row["offload"]), "none"),
        network_gbit=network,
    )
