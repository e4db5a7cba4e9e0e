"""Mamba 2's fused layer: what it keeps, by what its source saves, and what it does without."""

from __future__ import annotations

import pytest

from advisor.catalog import find_model
from advisor.costs.memory import predict_step_memory
from advisor.decoders.fused_scan import Learned, fused_scan
from advisor.decoders.linear import Linear
from advisor.decoders.stack import THIS_STACK
from advisor.parameters.layers import layer_groups
from advisor.parameters.modules import layer_linears, own_parameters
from advisor.specs import ModelSpec, Recipe
from advisor.tape.graph import SAVED, Tensor
from advisor.tape.program import BATCH, LENGTH, Polynomials, basis, net_of, polynomial
from advisor.tape.tape import Tape

LORA = Recipe(method="lora", target_modules=("attention",))


def state_space_part(name: str) -> ModelSpec:
    found = find_model(name)
    assert isinstance(found, ModelSpec)
    return next(part for part, _ in layer_groups(found) if part.mixer in ("mamba2", "beside_mamba2"))


@pytest.mark.parametrize(("name", "per_token"), [("nemotron-3-nano", 28_832), ("falcon-h1-7b", 19_508)])
def test_a_token_keeps_the_input_the_scan_and_the_roots_of_its_norm(name: str, per_token: int) -> None:
    """2 (2 I + 2 G N + n) bytes of the input, 2 I of what was scanned, and 4 G where there is a norm."""
    part = state_space_part(name)
    assert part.recurrence is not None
    shapes, own = layer_linears(part), own_parameters(part)
    made = [Tensor(own[key].shape, "bfloat16") if key in own else None for key in ("conv", "conv_bias", "dt_bias")]
    vectors = (Tensor(own["a_log"].shape, "float32"), Tensor(own["d"].shape, "bfloat16"))
    norm = Tensor(own["gate_norm"].shape, "bfloat16") if "gate_norm" in own else None
    assert made[0] is not None
    assert made[2] is not None
    learned = Learned(made[0], made[1], made[2], *vectors, norm)
    t = Tape("cuda")
    x = t.empty((BATCH, LENGTH, shapes["in_proj"].out_features), "bfloat16")
    x.needs_grad = True
    out = fused_scan(t, x, learned, Linear(shapes["out_proj"], LORA, 0, "none", "bfloat16"), part.recurrence)
    assert out.shape == (BATCH, LENGTH, part.hidden_size)
    sizes = [polynomial(size) for size in t.slots]
    kept = {slot: count for slot, category, count in net_of(t.events) if category == SAVED}
    values = Polynomials(sizes[slot] for slot in kept).at(basis(1, 1000, 1, chunks=8))
    assert sum(size * count for size, count in zip(values, kept.values(), strict=True)) == 1000 * per_token


def test_pytorchs_own_operations_need_four_times_as_much() -> None:
    found = find_model("granite-4.0-h-1b")
    assert isinstance(found, ModelSpec)
    fused, torch = (
        predict_step_memory(
            found, LORA.model_copy(update={"gradient_checkpointing": False, "sequence_kernels": path}), 1, 2048
        )
        for path in ("packages", "torch")
    )
    assert torch.static == fused.static
    weights = sum(fused.static.values())
    assert torch.after_forward_bytes - weights > 4 * (fused.after_forward_bytes - weights)


def test_a_quantized_base_under_the_kernel_is_not_known() -> None:
    found = find_model("granite-4.0-h-1b")
    assert isinstance(found, ModelSpec)
    quantized = Recipe(method="qlora", quant="nf4")
    assert "out_proj" in " ".join(THIS_STACK.proof(found, quantized).unknown)
    assert THIS_STACK.proof(found, quantized.model_copy(update={"sequence_kernels": "torch"})).unknown == ()
    assert THIS_STACK.proof(found, LORA).unknown == ()
