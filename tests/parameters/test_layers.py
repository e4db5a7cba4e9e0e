"""Which layers are alike: from the patterns in the makers' config.json."""

from __future__ import annotations

from advisor.catalog import find_model
from advisor.images import with_pictures
from advisor.parameters.layers import Kind, dense_flags, layer_groups, part_of, sliding_flags
from advisor.parameters.modules import layer_linears
from advisor.specs import ModelSpec, Workload


def test_layers_that_attend_to_images() -> None:
    m = find_model("llama-3.2-11b-vision")
    (own, many), (across, few) = layer_groups(m)
    assert (many, few) == (32, 8)
    assert not own.passed_over
    assert across.passed_over
    seen = with_pictures(m, Workload(images=1))
    assert isinstance(seen, ModelSpec)
    assert [part.passed_over for part, _ in layer_groups(seen)] == [False, False]


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


def test_a_layer_of_nemotron_h_has_one_block() -> None:
    groups = {part.mixer: (part, count) for part, count in layer_groups(find_model("nemotron-3-nano"))}
    assert {mixer: count for mixer, (_, count) in groups.items()} == {"mamba2": 23, "none": 23, "attention": 6}
    assert {mixer: part.mlp for mixer, (part, _) in groups.items()} == {
        "mamba2": "none",
        "attention": "none",
        "none": "experts",
    }
    assert {name for part, _ in groups.values() for name in layer_linears(part)} == {
        *("in_proj", "out_proj", "q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj")
    }


def test_falcon_h1_has_attention_beside_its_state_space_layer() -> None:
    ((part, count),) = layer_groups(find_model("falcon-h1-7b"))
    assert (part.attends, count) == (True, 44)
    assert {"in_proj", "out_proj", "q_proj", "o_proj", "gate_proj"} <= layer_linears(part).keys()
