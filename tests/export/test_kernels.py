"""Kernels in the trainers' files: each says what it switches on, or refuses what it cannot say."""

from __future__ import annotations

import pytest

from advisor.errors import BadValue
from advisor.export.kernels import liger_config, refuse
from advisor.specs import KernelSet, Recipe
from tests.export.test_configs import recipe_of, written

ALL: tuple[KernelSet, ...] = ("liger_norm", "liger_rope", "liger_mlp", "liger_loss")


def test_liger_config_says_what_is_off() -> None:
    assert liger_config(Recipe(method="lora")) is None
    assert liger_config(Recipe(method="lora", kernels=ALL)) == {}
    one = liger_config(Recipe(method="lora", kernels=("liger_norm", "liger_loss")))
    assert one == {"rope": False, "swiglu": False, "geglu": False}


def test_axolotl() -> None:
    text = written("axolotl", recipe_of("axolotl", "lora"))
    assert "lora_mlp_kernel: true" in text
    assert "plugins" not in text
    off = written("axolotl", recipe_of("axolotl", "qlora", kernels=("liger_norm", "cce"), offload="activations"))
    assert "lora_qkv_kernel: false" in off
    assert "LigerPlugin" in off
    assert "CutCrossEntropyPlugin" in off
    assert "liger_rms_norm: true" in off
    assert "cut_cross_entropy: true" in off
    assert "gradient_checkpointing: true\n" in off
    assert "activation_offloading: true" in off
    full = written("axolotl", recipe_of("axolotl", "full", kernels=("fused_lora",)))
    assert "lora_mlp_kernel: false" in full, "they are for adapters"


def test_trl_and_llamafactory() -> None:
    trl = written("trl", recipe_of("trl", "lora", kernels=ALL[:2], offload="activations"))
    assert "use_liger_kernel: true" in trl
    assert "activation_offloading: true" in trl
    assert "swiglu" in trl
    assert "enable_liger_kernel: true" in written("llamafactory", recipe_of("llamafactory", "lora", kernels=ALL))
    part = written("llamafactory", recipe_of("llamafactory", "lora", kernels=ALL[:1]))
    assert "some of Liger's kernels without the others" in part


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(method="lora", kernels=("cce",)), "--kernels is 'cce'.*--kernels none"),
        (Recipe(method="lora", offload="activations"), "--offload is 'activations'.*--offload none"),
        (Recipe(method="full", optimizer_in_backward=True), "--optimizer-in-backward"),
    ],
)
def test_what_a_file_cannot_say_is_refused(recipe: Recipe, message: str) -> None:
    with pytest.raises(BadValue, match=message):
        refuse(recipe, "transformers", ALL)
