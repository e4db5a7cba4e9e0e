"""The words that a question may use, and the ranges that several specs share."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from advisor.frozen import Range

Method = Literal["full", "lora", "dora", "qlora", "qdora"]
DType = Literal["float32", "bfloat16", "float16"]
Variant = Literal["plain", "rslora", "pissa", "olora", "loraplus", "oft", "ia3", "vera"]
TrainedDType = Literal["base", "float32", "bfloat16", "float16"]
Attention = Literal["sdpa", "eager", "flash"]
Loss = Literal["full", "chunked"]
Sharding = Literal["none", "ddp", "fsdp1", "fsdp2", "hsdp", "zero1", "zero2", "zero3"]
Link = Literal["auto", "nvlink", "pcie", "host"]
"""What joins the cards of a node; host: PCIe without peer-to-peer copies, through the host's memory."""
Priority = Literal["quality", "speed", "memory"]
Padding = Literal["longest", "max_length", "none"]
PackingStrategy = Literal["wrapped", "position_ids", "varlen"]
KernelSet = Literal["liger_norm", "liger_rope", "liger_mlp", "liger_loss", "cce", "fused_lora"]
FUSED_LOSSES: tuple[KernelSet, ...] = ("liger_loss", "cce")
"""Kernels that multiply by the head's weight and compute the loss at once."""
SequenceKernels = Literal["packages", "torch"]
"""What runs linear attention, Mamba layers and short convolutions."""
Offload = Literal["none", "activations"]
StateOffload = Literal["none", "optimizer", "parameters"]
"""What a sharded job keeps in the host's memory; parameters: with their gradients and optimizer states."""
RowKind = Literal["full", "padded", "packed"]
"""Rows of a micro-batch: all full; of different lengths, with a mask; several examples in one, with position ids."""
Trainer = Literal[
    "transformers",
    "trl",
    "axolotl",
    "llamafactory",
    "unsloth",
    "torchtune",
    "litgpt",
    "ms-swift",
    "nemo-automodel",
    "open-instruct",
    "qlora",
]
REPLACING: tuple[Variant, ...] = ("oft", "ia3", "vera")
"""Variants in LoRA's place."""

METHODS: tuple[Method, ...] = get_args(Method)
ADAPTER_METHODS: tuple[Method, ...] = ("lora", "dora", "qlora", "qdora")
QUANTIZED_METHODS: tuple[Method, ...] = ("qlora", "qdora")
DORA_METHODS: tuple[Method, ...] = ("dora", "qdora")

Size = Annotated[int, Range(1, 10_000_000)]
Chance = Annotated[float, Range(0, 1, open_high=True)]
Rate = Annotated[float, Range(0)]
