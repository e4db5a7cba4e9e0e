"""Which attention kernels an estimate stands on, and why they run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from advisor.decoders.kinds import attention_kind
from advisor.decoders.sdpa import GROUPED_IN_EFFICIENT, KERNEL_NAMES, Call, sdpa_kernel
from advisor.libraries import Version, libraries_of, version_text
from advisor.specs import AttentionUse, GpuSpec, ModelSpec, Recipe

NOT_MIRRORED = "what PyTorch picks on this card is not mirrored; estimated as flash attention"
NAMES = {
    **KERNEL_NAMES,
    "flash_attn": "the flash-attn library",
    "eager": "eager attention",
    "unknown": "an unknown kernel",
    "none": "no kernel",
}
"""Kernels as people read them."""


def attention_uses(m: ModelSpec, recipe: Recipe, gpu: GpuSpec, calls: tuple[Call, ...]) -> tuple[AttentionUse, ...]:
    """The kernels that the layers of a step run on a card, from the step's calls of `scaled_dot_product_attention`."""
    kind, capability = attention_kind(m, recipe), "" if gpu.rocm else gpu.compute_capability
    if kind == "flash" and capability and int(capability.partition(".")[0]) < 8:
        return (AttentionUse(kernel="none", why="the flash-attn library needs compute capability 8.0"),)
    if kind == "flash":
        return (AttentionUse(kernel="flash_attn", why="asked for"),)
    if kind == "eager":
        why = "asked for" if recipe.attention == "eager" else "the only one in this model's code"
        return (AttentionUse(kernel="eager", why=why),)
    if not calls:
        return (AttentionUse(kernel="math", why="its one key head is repeated without enable_gqa"),)
    return _picked(calls, capability, libraries_of(recipe.stack).torch)


@lru_cache(maxsize=256)
def _picked(calls: tuple[Call, ...], capability: str, torch: Version) -> tuple[AttentionUse, ...]:
    if not capability:
        return (AttentionUse(kernel="unknown", masked=any(call.masked for call in calls), why=NOT_MIRRORED),)
    uses = []
    for call in calls:
        choice = sdpa_kernel(call, capability, torch)
        newer = ""
        if choice.kernel == "math" and sdpa_kernel(call, capability, GROUPED_IN_EFFICIENT).kernel != "math":
            newer = version_text(GROUPED_IN_EFFICIENT)
        uses.append(AttentionUse(kernel=choice.kernel, masked=call.masked, why=choice.why, another_from=newer))
    return tuple(dict.fromkeys(uses))


def attention_text(uses: Sequence[AttentionUse], stack: tuple[str, ...] = ()) -> str:
    """Which kernels run and why, as one sentence without its full stop; '' where nothing is known."""
    parts = []
    for use in uses:
        with_mask = " under a mask" if use.masked else ""
        parts.append(f"{NAMES[use.kernel]}{with_mask}" + (f" ({use.why})" if use.why else ""))
    rules = {"cudnn", "flash", "efficient", "math"}
    by = (
        f", as PyTorch {version_text(libraries_of(stack).torch)} picks it"
        if any(use.kernel in rules for use in uses)
        else ""
    )
    return " and ".join(parts) + by
