"""Copies between the card and its host: a lane of their own beside the kernels, over PCI Express.

    forward    a layer's input leaves while the layer runs, and the next layer waits for it: the longer of the two
    backward   the input comes back while the layer before it in the queue runs, and its own layer waits for it: the
               longer of the two for each layer, and one copy before the first

Source of the order: unsloth_zoo 2026.10.9, gradient_checkpointing.py, UnslothCheckpointFunction, with two buffers.
Ignores: a host that falls behind, whose copies then start late; memory that is not pinned, whose copies block it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from advisor.interval import Interval

HOST_COPIES = ("to_host", "from_host")
"""Kinds of kernels that run in this lane."""

PCIE3, PCIE4, PCIE5 = (Interval(0.4 * peak, 0.8 * peak, 0.9 * peak) for peak in (15.75e9, 31.5e9, 63.0e9))
"""Bytes per second of a copy from or to pinned memory, by the generation of the bus.

Sixteen lanes carry 15.75, 31.5 and 63.0 GB/s each way (PCI-SIG, base specifications 3.0, 4.0 and 5.0); packets leave
0.8 to 0.9 of that, and a slot of eight lanes halves it: our judgment.
"""

_BUS = {3: PCIE3, 4: PCIE4, 5: PCIE5}
_GENERATIONS = {
    **dict.fromkeys(("pascal", "volta", "turing", ""), 3),
    **dict.fromkeys(("hopper", "hopper cut", "blackwell", "blackwell hbm", "cdna3", "cdna4", "rdna4"), 5),
}


def bus_generation(card_class: str) -> int:
    """Of PCI Express, by the class of the card (`costs.device.card_class`): 4 where nothing is said."""
    return _GENERATIONS.get(card_class, 4)


def host_link(card_class: str) -> Interval:
    """Bytes per second by the class of the card."""
    return _BUS[bus_generation(card_class)]


class Load(NamedTuple):
    """One part of a micro-step: seconds on the card and on the CPU, and what it copies."""

    card_s: float
    launch_s: float
    copied_bytes: float
    first_bytes: float  # that must be back before it starts


def with_copies(loads: Iterable[Load], factors: tuple[float, float], bytes_per_s: float) -> list[tuple[float, float]]:
    """(card, CPU) seconds of each part, where it waits for its copies; `factors` are those of card and CPU."""
    card, cpu = factors
    return [
        (max(one.card_s * card, one.copied_bytes / bytes_per_s) + one.first_bytes / bytes_per_s, one.launch_s * cpu)
        for one in loads
    ]
