"""What peft adapts: names as peft resolves them, and counts that its print_trainable_parameters() is known for."""

from __future__ import annotations

import pytest

from advisor.catalog import find_model
from advisor.errors import BadValue, UnknownName
from advisor.parameters.layers import layer_groups
from advisor.parameters.targets import (
    adapter_parameter_count,
    adapts_experts,
    default_targets,
    expert_adapters,
    never_called,
    passed_over,
    resolve_targets,
    same_layers,
    spelled_targets,
    unmatched_targets,
)
from advisor.specs import Recipe
from tests.decoders.tiny import spec

ALL, ATTENTION = ("all-linear",), ("attention",)
LLAMA_ALL = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
COUNTS = [
    ("llama-2-7b", ("q_proj", "v_proj"), 8, 4_194_304),  # peft's own example
    ("llama-2-7b", ALL, 64, 159_907_840),  # QLoRA's recipe
    ("llama-3.1-8b", ALL, 16, 41_943_040),
    ("llama-3.2-1b", ALL, 16, 11_272_192),
    ("mistral-7b", ALL, 16, 41_943_040),
    ("gpt2", ("c_attn",), 8, 12 * 8 * (768 + 2304)),
]


@pytest.mark.parametrize(("name", "targets", "rank", "count"), COUNTS)
def test_known_counts(name: str, targets: tuple[str, ...], rank: int, count: int) -> None:
    assert adapter_parameter_count(find_model(name), targets, rank, dora=False) == count


def test_dora_adds_a_magnitude_for_each_output() -> None:
    llama = find_model("llama-2-7b")
    lora, dora = (adapter_parameter_count(llama, ALL, 8, dora=dora) for dora in (False, True))
    assert dora - lora == 32 * (4 * 4096 + 2 * 11008 + 4096)


def test_the_head_gets_one_where_it_is_named() -> None:
    llama = find_model("llama-3.1-8b")
    assert resolve_targets(llama, ALL) == LLAMA_ALL
    assert resolve_targets(llama, ("q_proj", "lm_head")) == {"q_proj", "lm_head"}
    without, with_head = (
        adapter_parameter_count(llama, names, 16, False) for names in (("q_proj",), ("q_proj", "lm_head"))
    )
    assert with_head - without == 16 * (4096 + 128_256)


def test_attention_is_its_projections() -> None:
    assert resolve_targets(find_model("phi-3-mini"), ATTENTION) == {"qkv_proj", "o_proj"}
    assert resolve_targets(find_model("gpt2"), ATTENTION) == {"c_attn", "attn.c_proj"}


def test_a_gate_of_the_attention_that_is_named_as_the_mlps_gets_no_adapter() -> None:
    afmoe = spec("afmoe")
    assert resolve_targets(afmoe, ALL) == resolve_targets(afmoe, ATTENTION) == {"q_proj", "k_proj", "v_proj", "o_proj"}
    mixed = layer_groups(afmoe)[1][0]
    assert set(expert_adapters(mixed, Recipe(method="lora"), 8)) == {"router", "gate_up", "down"}
    assert spelled_targets(afmoe, Recipe(method="dora")) == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert "g_proj" in resolve_targets(spec("laguna"), ATTENTION)


def test_what_the_model_does_not_have_is_refused_with_what_it_has() -> None:
    with pytest.raises(UnknownName, match=r"'qproj'; did you mean q_proj.*down_proj"):
        resolve_targets(find_model("llama-3.1-8b"), ("qproj",))


def test_names_of_which_some_match_are_taken_as_peft_takes_them() -> None:
    llama = find_model("llama-3.1-8b")
    mixed = ("q_prj", "v_proj", "query_key_value")
    assert resolve_targets(llama, mixed) == {"v_proj"}
    assert unmatched_targets(llama, mixed) == ("q_prj", "query_key_value")
    assert unmatched_targets(llama, ALL) == unmatched_targets(llama, ("lm_head", "q_proj")) == ()
    assert adapter_parameter_count(llama, mixed, 8, False) == adapter_parameter_count(llama, ("v_proj",), 8, False)
    with pytest.raises(UnknownName, match=r"'self_attn\.q_proj'"):  # peft matches it, and this does not know how
        resolve_targets(llama, ("self_attn.q_proj", "v_proj"))


@pytest.mark.parametrize("name", ["all-linear", "attention"])
def test_what_stands_for_several_layers_stands_alone(name: str) -> None:
    with pytest.raises(BadValue, match=f"must be {name} alone"):
        resolve_targets(find_model("llama-3.1-8b"), ("q_proj", name))


def test_peft_fails_on_routers_that_return_two_tensors() -> None:
    scout = find_model("llama-4-scout")
    assert default_targets(scout) == ATTENTION
    with pytest.raises(BadValue, match="router of llama4_text"):
        resolve_targets(scout, ALL)
    assert default_targets(find_model("llama-3.1-8b")) == ALL


def test_peft_refuses_the_projection_out_of_a_state_space_layer_in_some_models() -> None:
    nano = find_model("nemotron-3-nano")
    assert default_targets(nano) == ATTENTION
    with pytest.raises(
        BadValue, match=r"peft 0\.21 refuses out_proj of nemotron_h; use attention, or name some of in_proj"
    ):
        resolve_targets(nano, ALL)
    with pytest.raises(BadValue, match=r"'out_proj': peft 0\.21 refuses it on nemotron_h"):
        resolve_targets(nano, ("in_proj", "out_proj"))
    assert resolve_targets(nano, ("in_proj", "down_proj")) == {"in_proj", "down_proj"}
    assert "out_proj" in resolve_targets(find_model("granite-4.0-h-1b"), ALL)


def test_a_fused_kernel_passes_over_the_adapter_of_that_projection() -> None:
    granite, torch = find_model("granite-4.0-h-1b"), {"sequence_kernels": "torch"}
    assert passed_over(granite, Recipe(method="lora")) == ("out_proj",)
    assert passed_over(granite, Recipe(method="lora", **torch)) == ()
    assert passed_over(granite, Recipe(method="lora", target_modules=("in_proj",))) == ()
    assert (
        passed_over(granite, Recipe(method="full")) == passed_over(find_model("lfm2-1.2b"), Recipe(method="lora")) == ()
    )


def test_fused_experts_are_adapted_by_plain_lora_alone() -> None:
    mixtral = find_model("mixtral-8x7b")
    assert adapts_experts(mixtral, ALL, dora=False, dropout=0.0)
    assert not adapts_experts(mixtral, ALL, dora=True, dropout=0.0)
    assert not adapts_experts(mixtral, ALL, dora=False, dropout=0.05)
    assert not adapts_experts(mixtral, ATTENTION, dora=False, dropout=0.0)
    assert not same_layers(mixtral)
    assert same_layers(find_model("llama-3.1-8b"))


@pytest.mark.parametrize("name", ["llama-3.2-1b", "gpt2", "bert-base-uncased", "modernbert-base", "phi-2"])
def test_names_that_are_spelled_out_reach_the_same_layers(name: str) -> None:
    m = find_model(name)
    spelled = spelled_targets(m, Recipe(method="lora", trained_layers=2))
    assert spelled != ALL
    assert resolve_targets(m, spelled) == resolve_targets(m, ALL)


def test_where_peft_would_refuse_the_names_are_spelled_out() -> None:
    mixtral = find_model("mixtral-8x7b")
    assert spelled_targets(mixtral, Recipe(method="lora")) == ALL
    assert spelled_targets(mixtral, Recipe(method="dora")) == ("q_proj", "k_proj", "v_proj", "o_proj")


def test_adapters_of_steps_that_the_code_never_calls() -> None:
    jamba, mamba = spec("jamba"), spec("mamba")
    assert never_called(jamba, Recipe(method="lora")) == ("dt_proj",)
    assert never_called(jamba, Recipe(method="qlora", quant="nf4")) == never_called(jamba, Recipe(method="full")) == ()
    assert never_called(spec("llama"), Recipe(method="lora")) == ()
    assert passed_over(jamba, Recipe(method="lora")) == ()
    reads = Recipe(method="lora", target_modules=("in_proj", "x_proj"))
    assert passed_over(mamba, reads) == ("x_proj",)
    assert passed_over(mamba, reads.model_copy(update={"sequence_kernels": "torch"})) == ()
    assert default_targets(mamba) == ("in_proj",)
