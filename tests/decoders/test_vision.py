"""Vision-language models on the tape against the executed step of transformers: images, and rows of text."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

from tests.decoders.seeing import CONFIGS, check
from tests.every import in_turn

CASES = [
    ("full", False, True),
    ("lora", True, True),
    ("qlora", True, True),
    ("qlora", False, False),
]


LIKE_OTHERS = ("idefics3", "llava_next")
"""Models whose code is that of others, but for what a case of their own shows."""
NAMES = [name for name in CONFIGS if name not in LIKE_OTHERS]


@pytest.mark.parametrize(
    ("name", "method", "checkpointing", "autocast"),
    [(name, *case) for index, name in enumerate(NAMES) for case in in_turn(CASES, 2, index)],
)
def test_the_step_on_images(name: str, method: str, checkpointing: bool, autocast: bool) -> None:
    check(name, method, gradient_checkpointing=checkpointing, autocast=autocast)


@pytest.mark.parametrize(
    ("name", "method", "knobs"),
    [
        ("qwen2_vl", "dora", {}),
        ("qwen2_5_vl", "qdora", {"images": 2, "size": "400x100", "rows": 3}),
        ("qwen3_vl", "dora", {"gradient_checkpointing": False}),
        ("qwen3_vl", "full", {"images": 3, "size": "100x300", "rows": 1}),
        ("qwen2_5_vl", "lora", {"reentrant": True}),
        ("qwen2_vl", "full", {"gradient_accumulation": 4, "gradient_checkpointing": False}),
        ("qwen2_5_vl", "lora", {"target_modules": ("attention",)}),
        ("qwen2_5_vl", "lora", {"target_modules": ("q_proj", "up_proj")}),
        ("qwen3_vl", "full", {"base_dtype": "float32"}),
        ("gemma3", "qdora", {"gradient_checkpointing": False, "rows": 3}),
        ("gemma3", "lora", {"images": 4, "train_tower": False}),
        ("qwen3_5", "full", {"train_tower": False}),
        ("qwen2_5_vl", "qlora", {"kbit_upcast": False, "double_quant": False}),
        ("llava", "full", {"images": 2, "size": "400x100", "rows": 3}),
        ("llava", "qdora", {"gradient_checkpointing": False, "autocast": False}),
        ("llava", "lora", {"target_modules": ("attention",)}),
        ("internvl", "qdora", {"images": 2, "size": "400x100", "rows": 1}),
        ("llava_next", "full", {"images": 2, "size": "400x100", "rows": 3}),
        ("llava_next", "qlora", {"gradient_checkpointing": False}),
        ("idefics3", "lora", {}),
        ("mllama", "full", {"images": 2, "base_dtype": "float32"}),
        ("mllama", "lora", {"train_tower": False}),
        ("gemma4", "lora", {"images": 2, "size": "300x300", "target_modules": ("attention",)}),
        ("smolvlm", "dora", {"gradient_checkpointing": False}),
        ("mistral3", "dora", {"images": 2, "size": "400x100", "rows": 3}),
        ("llava_pixtral", "qlora", {"kbit_upcast": False, "gradient_checkpointing": False}),
    ],
)
def test_other_images_and_knobs(name: str, method: str, knobs: dict[str, Any]) -> None:
    check(name, method, **knobs)


@pytest.mark.parametrize(("name", "method"), [("qwen2_5_vl", "lora"), ("qwen3_vl", "full"), ("gemma3", "lora")])
def test_padded_rows_with_images(name: str, method: str) -> None:
    check(name, method, padded=True)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava", "internvl", "smolvlm", "mistral3"])
@pytest.mark.parametrize(("method", "checkpointing"), [("full", False), ("lora", True)])
def test_a_frozen_tower(name: str, method: str, checkpointing: bool) -> None:
    check(name, method, train_tower=False, gradient_checkpointing=checkpointing)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("qwen2_5_vl", "lora"),
        ("qwen3_vl", "full"),
        ("llava", "full"),
        ("smolvlm", "lora"),
        ("mistral3", "lora"),
        ("gemma4", "lora"),
    ],
)
def test_fake_tensors_show_the_same(name: str, method: str) -> None:
    check(name, method, fake=True)


@pytest.mark.parametrize(
    ("name", "method", "checkpointing"),
    [
        (name, *case)
        for index, name in enumerate(NAMES)
        for case in in_turn((("full", True), ("lora", False), ("qlora", True)), 3, index)
    ],
)
def test_rows_of_text(name: str, method: str, checkpointing: bool) -> None:
    check(name, method, images=0, gradient_checkpointing=checkpointing)
