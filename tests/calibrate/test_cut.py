from __future__ import annotations

import pytest

from advisor.parameters.modules import parameter_count
from calibrate.cut import Whole, cut, spec_of, uncut
from tests.calibrate.made_up import whole
from tests.decoders.tiny import CONFIGS, config, spec


def test_layers_and_words_are_cut() -> None:
    found = cut(whole("llama-3.1-8b"), 2, 16_384)
    assert found.text == "2 of 32 layers, 16,384 of 128,256 words"
    assert found.spec is not None
    assert (found.spec.num_hidden_layers, found.spec.vocab_size, found.spec.hidden_size) == (2, 16_384, 4096)
    assert found.spec == spec_of("llama-3.1-8b", found.config)


def test_layers_that_share_keys_are_cut_from_the_end() -> None:
    found = cut(whole("gemma-4-e2b"), 20, 1000)
    assert found.spec is not None
    assert (found.spec.kv_shared_layers, found.spec.layer_input_vocab) == (5, 1000)
    assert cut(whole("gemma-4-e2b"), 2, 1000).config["num_kv_shared_layers"] == 0


def test_without_a_tower_no_layer_attends_to_images() -> None:
    found = cut(whole("llama-3.2-11b-vision"), 4, 1000)
    assert found.text == "4 of 40 layers, 1,000 of 128,256 words, without its vision tower"
    assert found.spec == spec_of("llama-3.2-11b-vision", {**found.config, "model_type": "llama"})


def test_what_is_small_stays_whole() -> None:
    model = whole("pythia-70m")
    assert cut(model, 100, 10**6) == uncut(model)
    assert cut(model, 100, 10**6).text == ""


def test_a_model_without_a_formula_stays_whole() -> None:
    model = Whole("strange", {"model_type": "mamba", "num_hidden_layers": 9}, None)
    assert cut(model, 2, 10).config["num_hidden_layers"] == 9


@pytest.mark.parametrize("name", CONFIGS)
def test_every_architecture_is_still_the_same_with_fewer_layers(name: str) -> None:
    """Config and formula agree on what is left: transformers would build a model with as many parameters."""
    m = spec(name)
    layers = 2
    found = cut(Whole(name, config(name), m), layers, 500)
    assert found.spec is not None
    assert (found.spec.num_hidden_layers, found.spec.vocab_size) == (layers, 500)
    assert parameter_count(found.spec) < parameter_count(m)


def test_an_unknown_architecture_has_no_spec() -> None:
    assert spec_of("x", {"model_type": "zamba2"}) is None


def test_how_a_checkpoint_stores_its_weights_is_left_out() -> None:
    """They are made here, and stored as the recipe says."""
    config_ = {**config("llama"), "quantization_config": {"quant_method": "gptq", "bits": 4}}
    found = spec_of("llama", config_)
    assert found is not None
    assert found.checkpoint is None
    assert "quantization_config" not in cut(Whole("llama", config_, found), 1, 500).config


def test_a_model_that_sees_is_cut_to_its_decoder() -> None:
    small = cut(whole("qwen3-vl-2b"), 2, 512)
    assert small.spec is not None
    assert (small.spec.vision, small.spec.num_hidden_layers, small.spec.vocab_size) == (None, 2, 512)
    assert small.text == "2 of 28 layers, 512 of 151,936 words, without its vision tower"
    assert "vision_config" not in small.config
