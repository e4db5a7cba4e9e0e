"""Single settings that save memory, and which settings change what is trained: one list for rules, prices, remedies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple, get_args

from advisor.catalog.trainers import Preset
from advisor.knobs import Question
from advisor.specs import KernelSet, Model, ModelSpec, Recipe

SAVING: Mapping[str, object] = MappingProxyType(
    {
        "base_dtype": "bfloat16",
        "gradient_checkpointing": True,
        "kbit_upcast": False,
        "optimizer": "paged_adamw_8bit",
        "dropout": 0.0,
        "target_modules": ("attention",),
    }
)
"""By knob, the value that takes less memory; those that leave the training as it is first."""

TRAINS_OTHERWISE = frozenset(
    {
        "autocast",
        "group_by_length",
        "kbit_upcast",
        "method",
        "optimizer",
        "packing_strategy",
        "rank",
        "seq_len",
        "target_modules",
    }
)
"""Knobs whose change makes another model of the same data: other layers, rows, order or numbers."""

LOW_RANK = 8
"""A rank below the default of 16 at which LoRA is still published: its authors' own tables (arXiv:2106.09685)."""
SHORTEST_ROW = 64
"""Tokens below which rows are not cut."""
ROUND_TO = 256
"""Padded lengths that are multiples of so many tokens are few enough for the allocator to use its blocks again."""

PACKAGES: Mapping[str, tuple[KernelSet, ...]] = MappingProxyType(
    {
        "liger-kernel": ("liger_norm", "liger_rope", "liger_mlp", "liger_loss"),
        "cut-cross-entropy": ("cce",),
        "": ("fused_lora",),
    }
)
"""Kernels that a trainer switches on together, by the package that they come in; '' for the trainer itself."""


class Switched(NamedTuple):
    """A knob with the value that saves memory, and the package that it then needs."""

    knob: str
    value: object
    package: str = ""


def switchable(preset: Preset, question: Question, m: Model, recipe: Recipe) -> Iterator[Switched]:
    """What the trainer could switch on beside what runs in `recipe`, where the question leaves it open.

    Ignores: what of it saves nothing for this model or recipe, which an estimate shows.
    """
    if not isinstance(m, ModelSpec):  # a trace is of transformers' own code
        return
    for package, kernels in PACKAGES.items() if "kernels" not in question.fixed else ():
        found = preset.switchable("kernels", kernels, recipe.method, architecture=m.architecture)
        if not set(found) <= set(recipe.kernels):
            beside = {*recipe.kernels, *found}
            yield Switched("kernels", tuple(name for name in get_args(KernelSet) if name in beside), package)
    if recipe.offload == "none" and "offload" not in question.fixed:
        for value in preset.switchable("offload", ("activations",), recipe.method, architecture=m.architecture):
            yield Switched("offload", value)
