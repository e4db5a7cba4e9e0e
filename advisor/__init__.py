"""finetune-advisor: memory and time of LoRA, QLoRA, DoRA and full fine-tuning, before anything is rented.

    from advisor import advise
    advice = advise("llama-8b", "24GB", examples=3000)
    print(advice.recommendation.method, advice.model_dump_json())

    from advisor import Recipe, Workload, estimate, find_gpus, find_model
    cost = estimate(find_model("qwen3-8b"), Recipe(method="dora"), Workload(examples=3000), find_gpus("rtx4090")[0])
    print(cost.memory.device_bytes.likely, cost.time.total_s.likely)

Names are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from advisor.advice.advise import advise
    from advisor.advice.compare import Pair, compare
    from advisor.answer import Advice, Candidate, Reason, Recommendation
    from advisor.catalog import all_gpus, find_gpus, find_model, model_entries
    from advisor.costs.estimation import estimate
    from advisor.errors import (
        AdvisorError,
        BadConfig,
        BadValue,
        InputError,
        SourceUnavailable,
        UnknownName,
        UnsupportedArchitecture,
    )
    from advisor.export.training_file import training_file
    from advisor.interval import Interval
    from advisor.parameters.modules import parameter_count
    from advisor.specs import (
        Estimate,
        GpuSpec,
        MemoryEstimate,
        ModelSpec,
        Placement,
        Recipe,
        TimeEstimate,
        Workload,
    )

__version__ = "0.1.0"

_HOME = {
    "advise": "advice.advise",
    **dict.fromkeys(("Pair", "compare"), "advice.compare"),
    **dict.fromkeys(("Advice", "Candidate", "Reason", "Recommendation"), "answer"),
    **dict.fromkeys(("all_gpus", "find_gpus", "find_model", "model_entries"), "catalog"),
    **dict.fromkeys(
        (
            "AdvisorError",
            "BadConfig",
            "BadValue",
            "InputError",
            "SourceUnavailable",
            "UnknownName",
            "UnsupportedArchitecture",
        ),
        "errors",
    ),
    "estimate": "costs.estimation",
    "Interval": "interval",
    "parameter_count": "parameters.modules",
    "training_file": "export.training_file",
    **dict.fromkeys(
        ("Estimate", "GpuSpec", "MemoryEstimate", "ModelSpec", "Placement", "Recipe", "TimeEstimate", "Workload"),
        "specs",
    ),
}

__all__ = [
    "Advice",
    "AdvisorError",
    "BadConfig",
    "BadValue",
    "Candidate",
    "Estimate",
    "GpuSpec",
    "InputError",
    "Interval",
    "MemoryEstimate",
    "ModelSpec",
    "Pair",
    "Placement",
    "Reason",
    "Recipe",
    "Recommendation",
    "SourceUnavailable",
    "TimeEstimate",
    "UnknownName",
    "UnsupportedArchitecture",
    "Workload",
    "__version__",
    "advise",
    "all_gpus",
    "compare",
    "estimate",
    "find_gpus",
    "find_model",
    "model_entries",
    "parameter_count",
    "training_file",
]


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'advisor' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"advisor.{home}"), name)
    globals()[name] = value
    return value
