"""OFT's adapters: one orthogonal block for each 32 inputs of a linear layer, stored as the half of a skew matrix.

Source: peft 0.21, tuners/oft/config.py (oft_block_size = 32) and layer.py, OFTRotationModule.
"""

from __future__ import annotations

from advisor.architectures import architecture_of
from advisor.errors import BadValue
from advisor.specs import LinearShape, ModelSpec, Recipe

BLOCK = 32
ELEMENTS = BLOCK * (BLOCK - 1) // 2
INDEX_BYTES = 8 * ELEMENTS
"""Of each of the two buffers that say where in a block the elements go."""


def rotates(recipe: Recipe) -> bool:
    """Whether the adapters are OFT's."""
    return recipe.has_adapters and recipe.variant == "oft"


def rotation_shape(shape: LinearShape) -> tuple[int, int]:
    """The parameter of one adapter: a row for each block. Raises BadValue for a width that blocks do not fill."""
    if shape.in_features % BLOCK:
        width = f"{shape.name} reads {shape.in_features} features, no multiple of OFT's block of {BLOCK}"
        raise BadValue("--variant", "oft", f"{width}; leave it out of --target-modules")
    return shape.in_features // BLOCK, ELEMENTS


def check_rotations(m: ModelSpec, recipe: Recipe) -> None:
    """Raises BadValue for what peft cannot turn, and for what is not mirrored of OFT."""
    if architecture_of(m.architecture).linears_are_conv1d:
        raise BadValue("--variant", "oft", f"peft 0.21 has none for the Conv1D layers of {m.name}")
    fused = [name for name in (*recipe.kernels, *recipe.stack) if name.startswith(("fused_lora", "unsloth"))]
    if fused:
        raise BadValue("--variant", "oft", f"{fused[0]} has none: its functions are for LoRA")
    if recipe.is_dora or recipe.dropout or recipe.quant == "int8":
        wrong = recipe.method if recipe.is_dora else "dropout" if recipe.dropout else "int8"
        raise BadValue("--variant", "oft", f"must be with lora or qlora, 16 or 4 bits, no dropout: not {wrong}")
