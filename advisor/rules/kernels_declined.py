"""Kernels that do not run.

A package of kernels patches the models and the recipes that it knows, and passes over the rest, mostly without a word:
Liger lists the types of models that it patches, axolotl's LoRA kernels need adapters on every layer of a group. What
does not run is estimated as the model's own code.
"""

from __future__ import annotations

from advisor.answer import Reason
from advisor.rules.context import Context, Finding, Rule

CODE = "ADV113"
SOURCE = "liger-kernel 0.8.5, transformers/monkey_patch.py; axolotl 0.19.0, monkeypatch/lora_kernels.py"


def check(context: Context) -> Finding | None:
    """One reason for the kernels that the row on show asks for in vain, by why they do not run."""
    row = context.shown
    if row is None or not row.evidence.declined:
        return None
    names: dict[str, list[str]] = {}
    for text in row.evidence.declined:
        name, _, why = text.partition(": ")
        names.setdefault(why, []).append(name)
    texts = (f"{', '.join(kernels)}: {why}." for why, kernels in names.items())
    return Finding(tuple(Reason(code=CODE, text=text, source=SOURCE) for text in texts))


RULE = Rule(CODE, "warns", __doc__, (SOURCE,), check)
