"""OFT's adapters: one orthogonal block for each 32 inputs of a linear layer, stored as the half of a skew matrix.

Source: peft 0.21, tuners/oft/config.py (oft_block_size = 32) and layer.py, OFTRotationModule.
"""

from __future__ import annotations

from advisor.errors import BadValue
from advisor.specs import LinearShape

BLOCK = 32
ELEMENTS = BLOCK * (BLOCK - 1) // 2
INDEX_BYTES = 8 * ELEMENTS
"""Of each of the two buffers that say where in a block the elements go."""


def rotation_shape(shape: LinearShape) -> tuple[int, int]:
    """The parameter of one adapter: a row for each block. Raises BadValue for a width that blocks do not fill."""
    if shape.in_features % BLOCK:
        width = f"{shape.name} reads {shape.in_features} features, no multiple of OFT's block of {BLOCK}"
        raise BadValue("--variant", "oft", f"{width}; leave it out of --target-modules")
    return shape.in_features // BLOCK, ELEMENTS
