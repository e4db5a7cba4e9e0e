"""The learning rate that a run starts from, by method and size of the model, with where it comes from.

A good rate depends on batch, data and schedule, none of which is in these figures: they are starting points.
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.specs import DORA_METHODS, Method, Variant

LARGE = 13_000_000_000
"""Parameters above which QLoRA's authors halve the rate."""


class Rate(NamedTuple):
    """A learning rate, what it is taken from and how good that evidence is, and the source."""

    value: float
    evidence: str
    source: str


_FULL = Rate(
    1e-5,
    "Stanford Alpaca took 2e-5 for LLaMA-7B and 1e-5 for 13B at batch 128 (anecdote)",
    "https://github.com/tatsu-lab/stanford_alpaca",
)
_DORA = Rate(
    1e-4,
    "DoRA's authors take it for LLaMA3-8B (benchmark suite)",
    "https://github.com/NVlabs/DoRA, commonsense_reasoning/llama3_8B_DoRA.sh",
)
_LORA = Rate(
    2e-4,
    "QLoRA's authors take it for models up to 13B (benchmark suite)",
    "https://github.com/artidoro/qlora, qlora.py",
)
_LORA_LARGE = Rate(
    1e-4,
    "QLoRA's authors take it for models larger than 13B (benchmark suite)",
    "https://github.com/artidoro/qlora, README.md",
)


_COMPARISON = "https://github.com/huggingface/peft, method_comparison/MetaMathQA/experiments and results"
_IN_PLACE: dict[Variant, Rate] = {
    "oft": Rate(1e-4, "PEFT's MetaMathQA comparison takes it for OFT, and no other (benchmark suite)", _COMPARISON),
    "ia3": Rate(
        1e-3,
        "in PEFT's MetaMathQA comparison IA3 scored 0.398 with it and 0.311 with 1e-4 (benchmark suite)",
        _COMPARISON,
    ),
    "vera": Rate(1e-3, "PEFT's MetaMathQA comparison takes it for VeRA, and no other (benchmark suite)", _COMPARISON),
}


def learning_rate(method: Method, parameters: int, variant: Variant = "plain") -> Rate:
    """The peak learning rate for AdamW to start from, for a model of that many parameters."""
    if method == "full":
        return _FULL
    if variant in _IN_PLACE:
        return _IN_PLACE[variant]
    if method in DORA_METHODS:
        return _DORA
    return _LORA_LARGE if parameters > LARGE else _LORA
