"""What Gemma 3n and Gemma 4 E have beside a plain decoder, from their published sizes."""

from __future__ import annotations

from advisor.catalog import find_model
from advisor.parameters.layer_inputs import further_outer_linears, layer_table, left_whole, stream_projections
from advisor.parameters.layers import layer_groups
from advisor.parameters.modules import layer_linears, layer_norms, outer_parameters, own_parameters
from advisor.parameters.paths import named_by
from advisor.parameters.storage import whole_linears
from advisor.parameters.targets import resolve_targets


def test_half_of_gemma_4_e2b_is_the_table_of_its_layers() -> None:
    gemma = find_model("gemma-4-e2b")
    assert layer_table(gemma) == (262_144, 35 * 256)
    assert [(one.shape, one.times) for one in outer_parameters(gemma) if one.part == "layer tokens"] == [
        ((262_144, 8960), 1)
    ]
    assert ((256,), 1, "norms") in outer_parameters(gemma)
    assert [(shape.name, shape.out_features) for shape in further_outer_linears(gemma)] == [
        ("per_layer_model_projection", 8960)
    ]


def test_layers_that_share_keys_have_only_queries_and_a_wider_mlp() -> None:
    groups = {
        (tuple(layer_linears(part))[:4], part.intermediate_size): count
        for part, count in layer_groups(find_model("gemma-4-e2b"))
    }
    own, shared = ("q_proj", "k_proj", "v_proj", "o_proj"), ("q_proj", "o_proj", "gate_proj", "up_proj")
    assert {key[0] for key in groups} == {own, shared}
    assert {(names, inner) for names, inner in groups} == {(own, 6144), (shared, 12_288)}
    counts = [count for part, count in layer_groups(find_model("gemma-4-e2b")) if part.qkv_names == ("q_proj",)]
    assert sorted(counts) == [4, 16]  # the last 20: full and sliding
    part = next(part for part, _ in layer_groups(find_model("gemma-4-e2b")) if part.qkv_names == ("q_proj",))
    assert [norm.name for norm in layer_norms(part)][-1:] == ["q_norm"]


def test_gemma_3n_has_four_streams() -> None:
    gemma = find_model("gemma-3n-e4b")
    assert [len(names) for names in stream_projections(gemma)] == [3, 3]
    assert [norm.name for norm in layer_norms(gemma)][4:7] == [
        "router_norm",
        "post_laurel_norm",
        "post_per_layer_input_norm",
    ]
    assert list(own_parameters(gemma)) == ["correct_output_scale"]
    assert "altup_projections.2" in resolve_targets(gemma, ("all-linear",))
    assert stream_projections(find_model("gemma-4-e4b")) == ((), ())


def test_what_a_quantized_gemma_3n_leaves_in_16_bits() -> None:
    gemma = find_model("gemma-3n-e2b")
    assert whole_linears(gemma) == (("prediction_coefs", "correction_coefs"),) * 30
    assert left_whole(find_model("gemma-4-e4b")) == whole_linears(find_model("gemma-4-e4b")) == ()


def test_patterns_see_where_the_layers_are() -> None:
    gemma = find_model("gemma-3n-e2b")
    assert named_by(gemma, (r"model\.layers\.\d+\.altup\..*_coefs",)) == ("prediction_coefs", "correction_coefs")
    assert named_by(gemma, (r"model\.layers\.\d+\.per_layer_\w+",)) == ("per_layer_input_gate", "per_layer_projection")
    assert named_by(gemma, (r".*\.laurel\.linear_left",)) == ("linear_left",)
