from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from calibrate.worker.build import build_model, step_inputs
from tests.decoders.tiny import config, recipe, spec

CASES = [("llama", "lora"), ("llama", "qdora"), ("gemma2", "full"), ("gpt2", "qlora"), ("mixtral", "lora")]
INT8 = {"quant": "int8"}


def census(model: Any) -> list[tuple[str, str, tuple[int, ...], bool]]:
    named = [*model.named_parameters(), *model.named_buffers()]
    return sorted((name, str(t.dtype), tuple(t.shape), t.requires_grad) for name, t in named)


@pytest.mark.parametrize(("name", "method"), CASES)
def test_a_model_that_was_placed_is_the_model(name: str, method: str) -> None:
    """The same tensors, buffers with the same values, and a loss that is a number."""
    chosen = recipe(spec(name), method)
    plain, placed = (build_model(config(name), chosen, fake=False, device=device) for device in ("", "cpu"))
    assert census(placed) == census(plain)
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(plain.named_buffers(), placed.named_buffers(), strict=True))
    inputs = step_inputs(placed, 1, 20)
    inputs["input_ids"].random_(0, 1000)
    loss = placed(**inputs).loss
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in placed.parameters() if p.grad is not None)


def test_int8_weights_are_quantized_where_they_are() -> None:
    chosen = recipe(spec("llama"), "qlora", **INT8)
    plain, placed = (build_model(config("llama"), chosen, fake=False, device=device) for device in ("", "cpu"))
    assert census(placed) == census(plain)
    weight = placed.get_base_model().model.layers[0].self_attn.q_proj.base_layer.weight
    assert (weight.dtype, weight.SCB.shape) == (torch.int8, (weight.shape[0],))


def test_tied_weights_stay_one() -> None:
    tied = config("llama") | {"tie_word_embeddings": True}
    model = build_model(tied, recipe(spec("llama"), "full"), fake=False, device="cpu")
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert 0.015 < float(model.get_input_embeddings().weight.detach().float().std()) < 0.025
