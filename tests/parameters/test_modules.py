"""The shapes that config.json's numbers make, from the layers that transformers' code builds of them."""

from __future__ import annotations

from math import prod

import pytest

from advisor.catalog import find_model
from advisor.parameters.layers import layer_groups
from advisor.parameters.modules import (
    NormVectors,
    head_linear,
    layer_linears,
    layer_norms,
    layer_parameter_count,
    outer_parameters,
    own_parameters,
    parameter_count,
)

Sizes = dict[str, tuple[int, int]]
LINEARS: dict[str, Sizes] = {
    # grouped queries: 32 heads of 128, 8 of keys and values
    "llama-3.1-8b": {
        "q_proj": (4096, 4096),
        "k_proj": (4096, 1024),
        "v_proj": (4096, 1024),
        "o_proj": (4096, 4096),
        "gate_proj": (4096, 14336),
        "up_proj": (4096, 14336),
        "down_proj": (14336, 4096),
    },
    # two projections in one, twice
    "phi-3-mini": {
        "qkv_proj": (3072, 3 * 3072),
        "o_proj": (3072, 3072),
        "gate_up_proj": (3072, 2 * 8192),
        "down_proj": (8192, 3072),
    },
    # one head of keys and values beside 71 of queries, all of 64, in one projection
    "falcon-7b": {
        "query_key_value": (4544, (71 + 2) * 64),
        "dense": (4544, 4544),
        "dense_h_to_4h": (4544, 18176),
        "dense_4h_to_h": (18176, 4544),
    },
    # latent attention: 128 heads of 128 + 64 (RoPE) for queries and keys, 128 for values; the shared expert of 2,048
    "deepseek-r1": {
        "q_a_proj": (7168, 1536),
        "q_b_proj": (1536, 128 * 192),
        "kv_a_proj_with_mqa": (7168, 512 + 64),
        "kv_b_proj": (512, 128 * (128 + 128)),
        "o_proj": (128 * 128, 7168),
        "gate_proj": (7168, 2048),
        "up_proj": (7168, 2048),
        "down_proj": (2048, 7168),
    },
}


@pytest.mark.parametrize("name", LINEARS)
def test_linear_layers_of_a_layer(name: str) -> None:
    last, _ = layer_groups(find_model(name))[-1]
    assert {s.name: (s.in_features, s.out_features) for s in layer_linears(last).values()} == LINEARS[name]


def test_biases_stand_where_the_code_has_them() -> None:
    biased = {
        name: {shape.name for shape in layer_linears(find_model(name)).values() if shape.bias}
        for name in ("llama-3.1-8b", "qwen2.5-7b", "gpt2", "gpt-j-6b")
    }
    assert biased == {
        "llama-3.1-8b": set(),
        "qwen2.5-7b": {"q_proj", "k_proj", "v_proj"},
        "gpt2": {"c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"},
        "gpt-j-6b": {"fc_in", "fc_out"},
    }


def test_experts_are_fused_tensors() -> None:
    shapes = {name: p.shape for name, p in own_parameters(find_model("mixtral-8x7b")).items()}
    assert shapes == {"router": (8, 4096), "gate_up": (8, 2 * 14336, 4096), "down": (8, 4096, 14336)}
    assert own_parameters(find_model("llama-3.1-8b")) == {}


def test_norms_and_what_they_learn() -> None:
    assert layer_norms(find_model("gpt2")) == (NormVectors("norm_0", 768, 2), NormVectors("norm_1", 768, 2))
    assert [norm.width for norm in layer_norms(find_model("gemma-3-12b"))] == [3840] * 4 + [256] * 2
    assert [norm.width for norm in layer_norms(find_model("olmo-2-7b"))] == [4096] * 4  # queries and keys whole
    assert layer_norms(find_model("gpt-oss-20b"))[-1] == NormVectors("sinks", 64, 1)


def test_around_the_layers() -> None:
    llama = find_model("llama-3.1-8b")
    size = (128_256, 4096)
    assert outer_parameters(llama) == [(size, 1, "tokens"), (size, 1, "head"), ((4096,), 1, "norms")]
    assert (head_linear(llama).in_features, head_linear(llama).out_features) == (4096, 128_256)
    assert outer_parameters(find_model("gpt2")) == [
        ((50_257, 768), 1, "tokens"),
        ((1024, 768), 1, "positions"),
        ((768,), 2, "norms"),
    ]


def test_a_layer_and_a_model_by_hand() -> None:
    """Meta gives Llama 3.1 8B's 8,030,261,248 parameters, OpenAI GPT-2's 124,439,808."""
    llama = find_model("llama-3.1-8b")
    layer = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096
    assert layer_parameter_count(llama) == layer == 218_112_000
    assert parameter_count(llama) == 32 * layer + 2 * 128_256 * 4096 + 4096 == 8_030_261_248
    assert parameter_count(find_model("gpt2")) == 124_439_808


def test_each_kind_of_layer_counts_for_itself() -> None:
    """DeepSeek-R1: 671 billion; three layers are dense, 58 have 256 experts of 3 x 7168 x 2048."""
    (dense, three), (sparse, many) = layer_groups(find_model("deepseek-r1"))
    assert (three, many) == (3, 58)
    dense_mlp, expert = 3 * 7168 * 18432, 3 * 7168 * 2048
    router = prod(own_parameters(sparse)["router"].shape)
    assert layer_parameter_count(sparse) - layer_parameter_count(dense) == 257 * expert + router - dense_mlp
