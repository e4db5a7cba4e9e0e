"""Attention that falls to PyTorch's math kernel.

`scaled_dot_product_attention` takes the first kernel that accepts a call. Where none does it composes the attention of
products in fp32: every layer keeps all scores, 4 bytes for each pair of tokens and head, and reads and writes them
several times. That happens on cards before Ampere for keys that query heads share, and for bfloat16, and on any card
where such keys are in fp32, as without autocast after k-bit preparation. The rule names what refused, and what of
autocast, float16, `--attention flash` or a newer PyTorch brings a fused kernel back. It also speaks up where
`--attention flash` was asked for on a card that the flash-attn library does not support.
"""

from __future__ import annotations

from advisor.answer import Candidate, Reason
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.wording import DISPLAY, extra_gib

CODE = "ADV112"
SOURCES = (
    "PyTorch, aten/src/ATen/native/transformers/cuda/sdp_utils.cpp, select_sdp_backend",
    "https://github.com/pytorch/pytorch/pull/191085",
)
FLASH_ATTN = "https://github.com/Dao-AILab/flash-attention#nvidia-cuda-support"
SLOW = ("math", "none")
"""Kernels that the rule is about: the composition, and none at all."""
CHANGES: tuple[tuple[str, dict[str, object]], ...] = (
    ("--autocast", {"autocast": True}),
    ("--attention flash", {"attention": "flash"}),
    ("--base-dtype float16", {"base_dtype": "float16"}),
)
"""What may bring a fused kernel back: flags, and fields of the recipe."""


def check(context: Context) -> Finding | None:
    """Speaks up when the row that is shown runs math attention."""
    row = context.shown
    bad = None if row is None else next((use for use in row.evidence.attention if use.kernel in SLOW), None)
    if row is None or bad is None:
        return None
    if bad.kernel == "none":
        text = f"--attention {row.recipe.attention} does not run on this card: {bad.why}."
        return Finding((Reason(code=CODE, text=text, source=FLASH_ATTN),))
    text = f"{DISPLAY[row.method]} runs math attention here, which keeps all scores in fp32: {bad.why}."
    ways = _ways(context, row)
    if bad.another_from:
        ways.append(f"PyTorch {bad.another_from} or newer")
    if ways:
        text += f" A fused kernel runs with {' or '.join(ways)}."
    return Finding((Reason(code=CODE, text=text, source=SOURCES[0]),))


def _ways(context: Context, row: Candidate) -> list[str]:
    """The changes of one knob with which no layer runs math attention, each with the memory that it saves."""
    found = []
    for flag, change in CHANGES:
        other = row.recipe.model_copy(update=change)
        if other == row.recipe:
            continue
        one = context.beside(row, other)
        saved = row.memory.needed_bytes.likely - one.memory.needed_bytes.likely
        if all(use.kernel not in SLOW for use in one.evidence.attention):
            found.append(f"{flag} ({extra_gib(saved)} less)" if saved > 0 else flag)
    return found


RULE = Rule(CODE, "warns", __doc__, (*SOURCES, FLASH_ATTN), check)
