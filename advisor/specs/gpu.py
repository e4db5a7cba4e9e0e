"""A card: memory, rates, capability."""

from __future__ import annotations

from typing import Annotated

from advisor.frozen import Frozen, Pattern, Range
from advisor.specs.words import Rate


class GpuSpec(Frozen):
    """A card as the driver and the data sheet describe it. FLOP/s are dense, with fp32 accumulation."""

    name: str  # as nvidia-smi and torch print it, for example 'NVIDIA GeForce RTX 4090'
    generation: str  # Turing, Ampere, Ada, Hopper, Blackwell, CDNA3, RDNA4 ...; '' when unknown
    compute_capability: Annotated[str, Pattern(r"(\d{1,2}\.\d)?")] = ""
    memory_bytes: Annotated[int, Range(2**28, 2**50)]  # total memory that the driver reports
    marketed_gb: Annotated[float, Range(0, open_low=True)]  # what is printed on the box, in GB
    memory_bytes_per_s: Rate = 0.0  # peak bandwidth; 0 = unknown
    bf16_flop_per_s: Rate = 0.0  # 0 = no bf16 matrix units, or unknown
    fp16_flop_per_s: Rate = 0.0
    tf32_flop_per_s: Rate = 0.0
    fp32_flop_per_s: Rate = 0.0
    power_w: Rate = 0.0  # what the maker lets it draw; 0 = unknown
    for_training: bool = True  # not a board for virtual desktops or inference, nor a part of a laptop
    unified_memory: bool = False  # shared with the CPU: the operating system and every program take their part
    links: Annotated[int, Range(0, 1000)] = 0  # of NVLink or Infinity Fabric on the card; 0 = PCI Express alone
    link_cards: Annotated[int, Range(0, 1000)] = 0  # that a bridge, sold apart, joins; 0 = all of a node are joined
    peer_to_peer: bool = True  # cards reach each other over PCI Express, past the host's memory
    sources: tuple[str, ...] = ()

    @property
    def speed_known(self) -> bool:
        """Whether a step time can be computed for this card."""
        return self.memory_bytes_per_s > 0 and self.fp32_flop_per_s > 0

    @property
    def rocm(self) -> bool:
        """Whether it is an AMD card, which PyTorch drives by ROCm in CUDA's place."""
        return self.generation.startswith(("CDNA", "RDNA"))
