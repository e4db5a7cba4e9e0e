"""DeepSpeed's JSON file: the stage, and the sizes that the estimate counts on; batches and dtype are the Trainer's.

Sources: DeepSpeed 0.19.8, runtime/zero/config.py; transformers 5.23, integrations/deepspeed.py, fills in "auto".
"""

from __future__ import annotations

import json
from typing import Any

from advisor.engines.zero_configs import config_of
from advisor.export.run import Run
from advisor.specs import Sharding

FILE = "deepspeed.json"
STAGES: dict[Sharding, int] = {"zero1": 1, "zero2": 2, "zero3": 3}


def stage_of(run: Run) -> int:
    """The stage of ZeRO; 0 for another engine."""
    return STAGES.get(run.placement.effective_sharding, 0)


def deepspeed_files(run: Run) -> tuple[tuple[str, str], ...]:
    """(name, text) of DeepSpeed's file, if it is the engine."""
    return ((FILE, json.dumps(_values(run), indent=2) + "\n"),) if stage_of(run) else ()


def _values(run: Run) -> dict[str, Any]:
    filled = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    return {
        **dict.fromkeys(filled, "auto"),
        "bf16": {"enabled": "auto"},
        "fp16": {"enabled": "auto"},
        "zero_optimization": _zero(run),
    }


def _zero(run: Run) -> dict[str, Any]:
    """The sizes; without stage3_gather_16bit_weights_on_model_save a model is not saved whole."""
    at, stage, hidden = run.placement, stage_of(run), run.model.hidden_size
    sizes = config_of(at.configs, stage == 3)
    on_host = {"device": "cpu", "pin_memory": True}
    values: dict[str, Any] = {
        "stage": stage,
        "reduce_bucket_size": at.bucket_elements or sizes.bucket(hidden),
        **({"offload_optimizer": on_host} if at.offload != "none" else {}),
        **({"offload_param": on_host} if at.offload == "parameters" else {}),
    }
    if stage < 3:
        return values | {"overlap_comm": sizes.overlap_comm}
    return values | {
        "stage3_prefetch_bucket_size": sizes.prefetch(hidden),
        "stage3_param_persistence_threshold": sizes.persistent(hidden),
        "stage3_max_live_parameters": sizes.max_live_parameters,
        "stage3_max_reuse_distance": sizes.max_live_parameters,
        "sub_group_size": sizes.sub_group_size,
        "stage3_gather_16bit_weights_on_model_save": True,
    }
