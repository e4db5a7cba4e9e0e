"""Mixtures as versions of the libraries build them."""

from __future__ import annotations

import pytest

from advisor.costs.static import static_memory
from advisor.errors import UnsupportedArchitecture
from advisor.parameters.layers import layer_groups
from advisor.parameters.modules import layer_linears, own_parameters, parameter_count
from advisor.parameters.stored import as_linears, as_stored
from advisor.parameters.targets import adapter_parameter_count, fuses_experts, resolve_targets
from advisor.specs import Recipe
from advisor.terms import TermName
from tests.decoders.tiny import spec

OLD = ("transformers-4.57",)


@pytest.mark.parametrize(
    "name", ["mixtral", "qwen2_moe", "qwen3_moe", "qwen3_moe-some", "olmoe", "glm4_moe", "dots1", "deepseek_v3-experts"]
)
def test_linear_layers_hold_as_many_parameters_as_fused_ones(name: str) -> None:
    m = spec(name)
    old = as_stored(m, OLD)
    assert old.experts == "linears"
    assert parameter_count(old) == parameter_count(m)
    part = next(part for part, _ in layer_groups(old) if part.num_experts)
    experts = [layer for layer in layer_linears(part) if layer.startswith("experts.")]
    assert len(experts) == 3 * m.num_experts
    assert not {"gate_up", "down"} & set(own_parameters(part))


def test_bitsandbytes_quantizes_linear_layers_of_experts() -> None:
    recipe = Recipe(method="qlora", quant="nf4")
    fused, linears = (static_memory(one, recipe, 1, 1).exact for one in (spec("mixtral"), as_linears(spec("mixtral"))))
    assert linears[TermName.BASE_WEIGHTS] < 0.6 * fused[TermName.BASE_WEIGHTS]
    assert linears[TermName.QUANTIZATION_CONSTANTS] > fused[TermName.QUANTIZATION_CONSTANTS]


def test_peft_adapts_them_by_the_names_of_the_layers() -> None:
    m = as_stored(spec("mixtral"), OLD)
    assert {"gate", "experts.0.w1", "experts.3.w2"} <= resolve_targets(m, ("all-linear",))
    assert resolve_targets(m, ("w1",)) == {f"experts.{index}.w1" for index in range(m.num_experts)}
    one = adapter_parameter_count(m, ("w1",), 4, dora=False) // (m.num_experts * m.num_hidden_layers)
    assert one == 4 * (m.hidden_size + m.expert_size)


def test_peft_before_0_19_leaves_fused_experts_alone() -> None:
    m = spec("mixtral")
    assert fuses_experts(as_stored(m, ("peft-0.19",)))
    old = as_stored(m, ("transformers-5.0",))  # whose time is that of peft 0.18
    assert old.experts == "fused_alone"
    assert not fuses_experts(old)


def test_the_mirrored_stack_and_other_families_stay_as_they_are() -> None:
    assert as_stored(spec("mixtral"), ()).experts == "fused"
    llama = spec("llama")
    assert parameter_count(as_stored(llama, OLD)) == parameter_count(llama)


def test_peft_before_0_19_adapts_the_dense_layers_of_a_mixture() -> None:
    m = spec("deepseek_v3")  # whose layers are all dense
    assert "gate_proj" not in resolve_targets(m, ("all-linear",))
    assert "gate_proj" in resolve_targets(as_stored(m, ("peft-0.18",)), ("all-linear",))


def test_a_loop_that_is_not_mirrored_is_refused() -> None:
    with pytest.raises(UnsupportedArchitecture, match=r"experts of gpt_oss in transformers 4\.57 are not mirrored"):
        as_stored(spec("gpt_oss"), OLD)
