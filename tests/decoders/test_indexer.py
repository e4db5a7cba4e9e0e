"""What an indexer without gradients holds, and what of it nothing updates."""

from __future__ import annotations

import pytest

from advisor.costs.memory import predict_step_memory
from advisor.costs.static import static_memory
from advisor.decoders.kinds import attention_kind, slides
from advisor.errors import BadValue
from advisor.parameters.modules import layer_linears
from advisor.parameters.trained import idle_adapters, trained_shapes
from advisor.specs import Recipe
from advisor.terms import TermName
from tests.decoders.tiny import recipe, spec


def test_keys_are_repeated_once_for_every_query_where_there_are_several_rows() -> None:
    m = spec("deepseek_v32-all", 2)
    length = 2048
    chosen = recipe(m, "lora", autocast=False)
    one, two = (predict_step_memory(m, chosen, rows, length, "cpu").phase_peaks["forward"] for rows in (1, 2))
    keys = 2 * length * m.index_head_dim * length * 4
    assert two > keys > 4 * one


def test_nothing_of_an_indexer_gets_a_gradient_or_states() -> None:
    m = spec("glm_moe_dsa", 2)
    idle = [shape for shape in layer_linears(m).values() if shape.idle]
    assert [shape.name for shape in idle] == ["wq_b", "wk", "weights_proj"]
    chosen = recipe(m, "lora")
    held = sum(p.elements * p.times for p in idle_adapters(m, chosen))
    assert held == 2 * sum(chosen.rank * (s.in_features + s.out_features) for s in idle)
    exact = static_memory(m, chosen, 1, 8).exact
    trained = sum(p.bytes * p.times for p in trained_shapes(m, chosen))
    assert exact[TermName.ADAPTERS] == trained + 4 * held
    assert exact[TermName.OPTIMIZER_STATES] == 2 * trained
    assert idle_adapters(m, recipe(m, "full")) == []


def test_rows_of_no_more_tokens_than_it_chooses_are_a_case_of_their_own() -> None:
    m = spec("deepseek_v32")
    assert not slides(m, m.index_topk)
    assert slides(m, m.index_topk + 1)


def test_flash_attention_is_refused() -> None:
    m = spec("glm_moe_dsa")
    with pytest.raises(BadValue, match="glm_moe_dsa has an indexer, which transformers runs with sdpa only"):
        attention_kind(m, Recipe(method="lora", attention="flash"))
    with pytest.raises(BadValue, match="mimo_v2_flash runs with flash-attn 4 alone"):
        attention_kind(spec("mimo_v2_flash"), Recipe(method="lora", attention="flash"))
