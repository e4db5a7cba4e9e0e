"""Names, aliases, Hub ids and files -> specs: the core's only door to disk and to the network."""

from __future__ import annotations

from advisor.catalog.gpus import all_gpus, cards_near, cards_with_at_least, find_gpus, gpu_aliases, gpu_names
from advisor.catalog.models import ModelEntry, find_model, hub_id_of, model_entries, model_names

__all__ = [
    "ModelEntry",
    "all_gpus",
    "cards_near",
    "cards_with_at_least",
    "find_gpus",
    "find_model",
    "gpu_aliases",
    "gpu_names",
    "hub_id_of",
    "model_entries",
    "model_names",
]
