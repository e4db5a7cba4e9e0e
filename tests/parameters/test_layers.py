"""Which layers are alike: from the patterns in the makers' config.json."""

from __future__ import annotations

from advisor.catalog import find_model
from advisor.parameters.layers import Kind, dense_flags, layer_groups, part_of, sliding_flags


def test_equal_layers_are_one_group() -> None:
    llama = find_model("llama-3.1-8b")
    assert layer_groups(llama) == ((llama, 32),)
    assert set(sliding_flags(llama)) == set(dense_flags(llama)) == {False}


def test_every_sixth_layer_of_gemma_3_sees_everything() -> None:
    flags = sliding_flags(find_model("gemma-3-12b"))
    assert [i for i, sliding in enumerate(flags) if not sliding] == list(range(5, 48, 6))


def test_sliding_layers_of_equal_parameters_are_one_group() -> None:
    assert [count for _, count in layer_groups(find_model("gemma-3-12b"))] == [48]


def test_every_second_layer_of_maverick_has_experts() -> None:
    maverick = find_model("llama-4-maverick")
    assert dense_flags(maverick) == (True, False) * 24
    assert [(part.num_experts, count) for part, count in layer_groups(maverick)] == [(0, 24), (128, 24)]


def test_a_dense_layer_of_a_mixture_knows_no_experts() -> None:
    dense = part_of(find_model("deepseek-r1"), Kind(dense=True, sliding=False))
    assert (dense.mlp, dense.num_experts, dense.shared_expert_size, dense.intermediate_size) == ("gated", 0, 0, 18432)


def test_the_global_layers_of_gemma_4_have_heads_of_their_own() -> None:
    gemma = find_model("gemma-4-31b")
    wide, sliding = (part_of(gemma, Kind(dense=False, sliding=flag)) for flag in (False, True))
    assert sliding == gemma
    assert wide.head_dim == gemma.global_head_dim > gemma.head_dim
    assert sum(count for _, count in layer_groups(gemma)) == gemma.num_hidden_layers
