"""Memory of a machine that its cards' processes take: what is offloaded, how the model is loaded, the processes.

    offloaded   what each card keeps on the host, pinned: in blocks of powers of two (PyTorch's CachingHostAllocator)
    loading     one copy of the weights, or one for each process, before they go to the cards
    processes   Python, PyTorch and CUDA's part on the host

Who loads: under DDP and ZeRO's first stages each process the whole model (transformers' from_pretrained); under FSDP
one of a machine, by accelerate's launcher (fsdp_cpu_ram_efficient_loading, true where nothing is said: accelerate 1.15,
commands/launch.py; the Trainer's own fsdp_config says false), and under ZeRO-3 one (transformers 5.23,
modeling_utils.py). Weights in 4 and 8 bits are made on the card, tensor by tensor.
Ignores: the data set and its workers, and files that the system keeps in memory while there is room.
"""

from __future__ import annotations

from advisor.blocks import ITEM_BYTES
from advisor.interval import Interval
from advisor.parameters.modules import parameter_count
from advisor.specs import ModelSpec, Placement, Recipe
from advisor.units import GIB

PROCESS_BYTES = Interval(1.0 * GIB, 3.0 * GIB, 6.0 * GIB)
"""Of one process that trains: our judgment."""


def machine_bytes(m: ModelSpec, recipe: Recipe, placement: Placement, rank_bytes: int) -> Interval:
    """Of a machine whose cards keep `rank_bytes` each on the host."""
    ranks = placement.node_gpus
    held, weights = rank_bytes * ranks, parameter_count(m) * ITEM_BYTES[recipe.base_dtype]
    copies = 1 if placement.spreads_weights else ranks
    loaded = Interval(0, 0, weights) if recipe.is_quantized else Interval(weights, weights * copies, weights * ranks)
    most = held + loaded.high if held else loaded.high
    return Interval(max(held, loaded.low), max(held, loaded.likely), most).plus(PROCESS_BYTES.times(ranks))
