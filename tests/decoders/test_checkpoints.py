"""Checkpoints that bitsandbytes quantized: what transformers loads of them on the CPU, against the formula."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("bitsandbytes")

from advisor.catalog.config_json import model_from_config
from advisor.costs.static import static_memory
from advisor.recipes import build_recipe, stored_fields
from advisor.terms import TermName
from calibrate.worker.loading import loaded_checkpoint
from tests.decoders.tiny import CONFIGS

LAYERS = {"num_hidden_layers": 3}
SKIPPED = ["lm_head", "model.layers.1.mlp.down_proj", "model.layers.2.self_attn", "multi_modal_projector"]


@pytest.mark.parametrize(
    ("name", "knobs", "skipped"),
    [
        ("llama", {}, None),
        ("llama", {}, SKIPPED),
        ("llama-biased", {"double_quant": False, "quant": "fp4"}, ["lm_head", "o_proj"]),
        ("llama", {"quant": "int8"}, SKIPPED),
    ],
)
def test_a_stored_checkpoint_holds_what_transformers_loads(
    name: str, knobs: dict[str, Any], skipped: list[str] | None
) -> None:
    chosen = build_recipe("qlora", {"kbit_upcast": False, **knobs})
    real = loaded_checkpoint({**CONFIGS[name], **LAYERS}, chosen, skipped)
    m = model_from_config(real.config, "tiny", "tiny")
    assert m.checkpoint is not None
    recipe = build_recipe("qlora", {"kbit_upcast": False, **stored_fields(m, "qlora")})
    assert (recipe.quant, recipe.double_quant) == (chosen.quant, chosen.double_quant)
    exact = static_memory(m, recipe, 1, 1).exact
    assert exact[TermName.BASE_WEIGHTS] == real.weight_bytes
    assert exact[TermName.QUANTIZATION_CONSTANTS] == real.constant_bytes
