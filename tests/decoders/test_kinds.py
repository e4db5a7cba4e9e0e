"""Which layers of a model are run, and how many each stands for."""

from __future__ import annotations

import pytest

from advisor.catalog import find_model
from advisor.decoders.kinds import layer_kinds, layer_plan
from advisor.specs import Recipe

LORA = Recipe(method="lora")


@pytest.mark.parametrize("name", ["llama-3.1-8b", "gemma-3-12b", "gemma-4-e2b", "gemma-4-e4b", "gemma-3n-e4b"])
def test_every_layer_is_counted_once(name: str) -> None:
    m = find_model(name)
    assert sum(count for _, count in layer_plan(m, LORA)) == m.num_hidden_layers


def test_layers_that_keep_what_others_read_stand_for_themselves() -> None:
    kinds = layer_kinds(find_model("gemma-4-e2b"), LORA)
    assert [i for i, kind in enumerate(kinds) if kind.stores] == [13, 14]
    assert [i for i, kind in enumerate(kinds) if kind.ends] == [33, 34]
    plan = layer_plan(find_model("gemma-4-e2b"), LORA)
    assert all(count == 1 for kind, count in plan if kind.stores or kind.ends)
    assert [kind.sliding for kind, _ in plan[-2:]] == [True, False]


def test_the_first_layers_of_gemma_3n_cut_their_gates() -> None:
    assert [kind.sparse for kind in layer_kinds(find_model("gemma-3n-e4b"), LORA)] == [True] * 10 + [False] * 25
