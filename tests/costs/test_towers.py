"""What an estimate of a model that sees says is not known."""

from __future__ import annotations

import pytest

from advisor.catalog import find_model
from advisor.costs.towers import with_tower
from advisor.decoders.stack import Proof
from advisor.images import with_pictures
from advisor.specs import ModelSpec, Recipe, Workload

NOTHING = Proof((), (), ())


def unknown(name: str, images: int, **knobs: object) -> tuple[str, ...]:
    m = with_pictures(find_model(name), Workload(images=images))
    assert isinstance(m, ModelSpec)
    return with_tower(NOTHING, m, Recipe.model_validate({"method": "lora", **knobs})).unknown


def test_a_mirrored_tower_leaves_nothing_open() -> None:
    assert unknown("qwen2.5-vl-3b", 1) == ()
    assert unknown("llama-3.2-1b", 0) == ()
    assert unknown("gemma-3-4b", 1) == ()
    assert unknown("llama-3.2-11b-vision", 1, gradient_checkpointing=True) == ()


@pytest.mark.parametrize(
    ("name", "images", "knobs", "text"),
    [
        ("llama-3.2-11b-vision", 1, {"reentrant": True, "gradient_checkpointing": True}, "re-entrant checkpointing"),
        ("qwen3-vl-4b", 1, {"attention": "eager"}, "eager attention in a vision tower"),
        ("qwen3-vl-4b", 1, {"stack": ("transformers-4.57",)}, "transformers 4.57's code of a vision tower"),
        ("qwen3-vl-4b", 0, {"stack": ("unsloth-2026.10",)}, "the code that Unsloth compiles"),
        ("qwen3-vl-4b", 1, {"trained_layers": 2}, "whether the vision tower is trained beside the last layers"),
        ("qwen3-vl-4b", 1, {"offload": "activations"}, "what kernels and offloading do with a vision tower"),
    ],
)
def test_what_is_not_known(name: str, images: int, knobs: dict[str, object], text: str) -> None:
    assert any(one.startswith(text) for one in unknown(name, images, **knobs))
