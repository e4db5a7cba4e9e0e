"""The code of a vision tower, by TowerRow.code."""

from __future__ import annotations

from collections.abc import Callable

from advisor.decoders.stack import Stack
from advisor.decoders.vision import Seen, Tower, TowerWeights
from advisor.decoders.vision_clip import llava_next_tower, llava_tower
from advisor.decoders.vision_gemma4 import gemma4_tower
from advisor.decoders.vision_intern import internvl_tower
from advisor.decoders.vision_mllama import mllama_tower
from advisor.decoders.vision_pixtral import mistral3_tower, pixtral_tower
from advisor.decoders.vision_qwen import qwen_tower
from advisor.decoders.vision_siglip import gemma3_tower
from advisor.decoders.vision_smol import smolvlm_tower
from advisor.specs import ModelSpec, Recipe
from advisor.tape.tape import Tape

TOWERS: dict[str, Callable[[Tower, bool], Seen]] = {
    "gemma3": gemma3_tower,
    "gemma4": gemma4_tower,
    "internvl": internvl_tower,
    "llava": llava_tower,
    "llava_next": llava_next_tower,
    "mistral3": mistral3_tower,
    "mllama": mllama_tower,
    "pixtral": pixtral_tower,
    "qwen": qwen_tower,
    "smolvlm": smolvlm_tower,
}


def seen(
    t: Tape,
    m: ModelSpec,
    recipe: Recipe,
    stack: Stack,
    weights: TowerWeights,
    card: str,
    rows: int,
    enter: Callable[[int], None],
    leaf: bool,
) -> Seen:
    """The tokens of the images of `rows` rows; `leaf`: checkpointing makes embedded inputs require gradients."""
    v = m.vision
    assert v is not None
    return TOWERS[v.code.code](Tower(t, v, recipe, stack, weights, card, rows, enter), leaf)
