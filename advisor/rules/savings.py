"""Single settings that save memory, and which settings change what is trained: one list for rules, prices, remedies."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

SAVING: Mapping[str, object] = MappingProxyType(
    {
        "base_dtype": "bfloat16",
        "gradient_checkpointing": True,
        "loss": "chunked",
        "kbit_upcast": False,
        "optimizer": "paged_adamw_8bit",
        "dropout": 0.0,
        "target_modules": ("attention",),
    }
)
"""By knob, the value that takes less memory; those that leave the training as it is first."""

TRAINS_OTHERWISE = frozenset(
    {"group_by_length", "kbit_upcast", "method", "optimizer", "packing_strategy", "rank", "seq_len", "target_modules"}
)
"""Knobs whose change makes another model of the same data: other layers, rows, order or numbers."""

SHORTEST_ROW = 64
"""Tokens below which rows are not cut."""
ROUND_TO = 256
"""Padded lengths that are multiples of so many tokens are few enough for the allocator to use its blocks again."""
