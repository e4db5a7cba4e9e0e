"""The nouns of a question, frozen: what is trained, on what, with which data, how.

ModelSpec   sizes and structure of a decoder        (from a Hugging Face config.json)
VisionSpec  the tower beside it that reads images   (from the same)
GpuSpec     a card: memory, rates, capability       (from profiles/gpus)
Workload    the data set and how long to train
Recipe      how one training step is run: every knob that changes memory or time
Placement   how many GPUs, and what is sharded over them
"""

from __future__ import annotations

from advisor.specs.estimate import (
    AttentionUse,
    Estimate,
    Evidence,
    MemoryEstimate,
    Moment,
    MomentName,
    Term,
    TimeEstimate,
    terms_of,
)
from advisor.specs.gpu import GpuSpec
from advisor.specs.model import (
    ATTENDING,
    CAUSAL,
    EMBEDS,
    PART_OF,
    LinearShape,
    Mixer,
    Model,
    ModelSpec,
    Recurrence,
    Streams,
    TracedModel,
)
from advisor.specs.recipe import Placement, Recipe, Rental
from advisor.specs.vision import Picture, VisionSpec
from advisor.specs.words import (
    ADAPTER_METHODS,
    DORA_METHODS,
    FUSED_LOSSES,
    METHODS,
    QUANTIZED_METHODS,
    REPLACING,
    Attention,
    Chance,
    DType,
    KernelSet,
    Link,
    Loss,
    Method,
    Offload,
    PackingStrategy,
    Padding,
    Priority,
    Rate,
    RowKind,
    SequenceKernels,
    Sharding,
    Size,
    StateOffload,
    TrainedDType,
    Trainer,
    Variant,
)
from advisor.specs.workload import KNOWN, Workload

__all__ = [
    "ADAPTER_METHODS",
    "ATTENDING",
    "CAUSAL",
    "DORA_METHODS",
    "EMBEDS",
    "FUSED_LOSSES",
    "KNOWN",
    "METHODS",
    "PART_OF",
    "QUANTIZED_METHODS",
    "REPLACING",
    "Attention",
    "AttentionUse",
    "Chance",
    "DType",
    "Estimate",
    "Evidence",
    "GpuSpec",
    "KernelSet",
    "LinearShape",
    "Link",
    "Loss",
    "MemoryEstimate",
    "Method",
    "Mixer",
    "Model",
    "ModelSpec",
    "Moment",
    "MomentName",
    "Offload",
    "PackingStrategy",
    "Padding",
    "Picture",
    "Placement",
    "Priority",
    "Rate",
    "Recipe",
    "Recurrence",
    "Rental",
    "RowKind",
    "SequenceKernels",
    "Sharding",
    "Size",
    "StateOffload",
    "Streams",
    "Term",
    "TimeEstimate",
    "TracedModel",
    "TrainedDType",
    "Trainer",
    "Variant",
    "VisionSpec",
    "Workload",
    "terms_of",
]
