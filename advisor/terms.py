"""The parts of a memory peak, by the names that people read."""

from __future__ import annotations

from enum import StrEnum


class TermName(StrEnum):
    """A part of a memory peak; its value is what answers and their JSON call it."""

    # Held for the whole run.
    BASE_WEIGHTS = "base weights"
    QUANTIZATION_CONSTANTS = "quantization constants"
    ADAPTERS = "adapters"
    OPTIMIZER_STATES = "optimizer states"
    STEP_COUNTERS = "optimizer step counters"
    BUFFERS = "buffers"
    BATCH = "batch"

    # Allocated and freed within a step.
    SAVED_ACTIVATIONS = "saved activations"
    TEMPORARIES = "temporaries"
    GRADIENTS = "gradients"
    LOGITS = "logits and loss"
    GATHERED = "gathered weights"
    REDUCTION = "gradients on their way"

    # Dependent on the card.
    WORKSPACE = "cuBLAS workspace"
    FRAGMENTATION = "fragmentation"
    CONTEXT = "CUDA context"
    COMMUNICATION = "NCCL's buffers"

    @classmethod
    def _missing_(cls, value: object) -> TermName | None:
        """Older traced profiles spell one of them in British English."""
        return cls.QUANTIZATION_CONSTANTS if value == "quantisation constants" else None
