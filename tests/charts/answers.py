"""Answers of every kind that there are pictures of; each asked once."""

from __future__ import annotations

from functools import cache
from typing import Any

from advisor import advise
from advisor.answer import Advice

QUESTIONS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "usual": ("llama-8b", "24GB", {}),
    "frontier": ("qwen2.5-7b", "h100", {}),
    "nothing fits": ("llama-405b", "24GB", {}),
    "one method": ("llama-8b", "24GB", {"method": "qlora"}),
    "only just": ("llama-8b", "rtx4090", {"method": "lora", "seq_len": 1024, "micro_batch": 4}),
    "eight cards": ("llama-70b", "80GB", {"gpus": 8}),
    "copies": ("qwen2.5-0.5b", "l4", {"gpus": 2, "method": "lora"}),
    "tiny": ("smollm2-135m", "80GB", {}),
    "no times": ("qwen2.5-0.5b", "AGX Orin 64GB", {}),
    "AMD": ("qwen2.5-0.5b", "rx7900xtx", {}),
    "no times, several cards": ("llama-8b", "24GB", {"gpus": 4, "sharding": "zero3", "offload": "optimizer"}),
    "images": ("qwen2.5-vl-7b", "40GB", {"images": 1, "method": "qlora"}),
    "evaluation": ("qwen2.5-0.5b", "24GB", {"eval_examples": 100}),
    "mixture": ("gpt-oss-20b", "80GB", {}),
    "kernels": ("llama-3b", "24GB", {"trainer": "unsloth"}),
}


@cache
def answer(name: str) -> Advice:
    """The answer to one of them."""
    model, gpu, knobs = QUESTIONS[name]
    return advise(model, gpu, examples=3000, **knobs)
