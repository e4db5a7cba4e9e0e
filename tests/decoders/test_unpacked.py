"""What a stored weight is unpacked with, and what its layers keep for backward."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.blocks import block_bytes
from advisor.decoders.base_linear import base_linear
from advisor.decoders.linear import Linear
from advisor.decoders.unpacked import UNPACKED
from advisor.recipes import build_recipe
from advisor.specs import LinearShape, Recipe
from advisor.tape.graph import Tensor
from advisor.tape.tape import Tape

OUT, IN = 512, 256
WEIGHT = 2 * OUT * IN  # bytes in 16 bits
ROWS = 64


def recipe(quant: str, **knobs: Any) -> Recipe:
    """QLoRA on a base stored so."""
    return build_recipe("qlora", {"quant": quant, **knobs})


def peak_and_end(t: Tape) -> tuple[int, int]:
    """Most bytes alive on the tape, and those alive now, in blocks."""
    sizes = {slot: block_bytes(size) for size, slot in t.slots.items()}
    live = peak = 0
    for event in t.events:
        live += sizes[event >> 3] * (1 - 2 * (event & 1))
        peak = max(peak, live)
    return peak, live


@pytest.mark.parametrize(
    ("quant", "knobs", "dtype", "peak"),
    [
        # hqq 0.2.8, core/quantize.py, Quantizer.dequantize of (512, 256), groups of 64, run on a CPU
        ("hqq", {"quant_bits": 8, "quant_group": 64}, "bfloat16", 786_432),
        ("hqq", {"quant_bits": 4, "quant_group": 64}, "bfloat16", 786_432),
        ("hqq", {"quant_bits": 2, "quant_group": 64}, "bfloat16", 786_432),
        # transformers 5.23, integrations/finegrained_fp8.py, _dequantize_fp8_weight of (512, 256), run on a CPU
        ("fp8", {"quant_group": 128}, "bfloat16", 264_704),
        ("fp8", {"quant_group": 0}, "bfloat16", 262_656),
        ("gptq", {}, "float16", WEIGHT),
        ("awq", {}, "float16", WEIGHT),
    ],
)
def test_unpacking_holds_what_the_library_holds(quant: str, knobs: dict[str, Any], dtype: str, peak: int) -> None:
    t = Tape("cuda")
    out = UNPACKED[quant](t, (OUT, IN), dtype, recipe(quant, **knobs))
    assert out.bytes == WEIGHT
    assert peak_and_end(t) == (peak, WEIGHT)
    assert t.kernels


@pytest.mark.parametrize(
    ("quant", "kept"),
    [
        ("gptq", WEIGHT),  # the unpacked weight
        ("awq", 0),
        ("hqq", 0),  # its input, which is held anyway
        ("fp8", 0),
        ("nf4", 0),
    ],
)
def test_what_is_kept_for_backward(quant: str, kept: int) -> None:
    t = Tape("cuda")
    chosen = recipe(quant, kbit_upcast=False)
    layer = Linear(LinearShape(name="up", in_features=IN, out_features=OUT), chosen, 0, quant, chosen.base_dtype)
    x = t.empty((1, ROWS, IN), chosen.base_dtype)
    x.needs_grad = True
    out = base_linear(t, x, layer)
    assert out.dtype == chosen.base_dtype
    assert peak_and_end(t)[1] == x.bytes + out.bytes + kept


def test_hqq_holds_an_input_that_nothing_else_does() -> None:
    t = Tape("cuda")
    layer = Linear(LinearShape(name="up", in_features=IN, out_features=OUT), recipe("hqq"), 0, "hqq", "bfloat16")
    x: Tensor = t.empty((1, ROWS, IN), "bfloat16")
    x.needs_grad = True
    size = x.bytes
    out = base_linear(t, x, layer)
    del x
    assert peak_and_end(t)[1] == size + out.bytes


def test_gptq_without_checkpointing_keeps_the_model_in_16_bits() -> None:
    """gptqmodel 7.7, TorchLinear._forward_eager: `torch.matmul(x, weights)` saves its weights."""
    from advisor.catalog import find_model
    from advisor.costs.memory import predict_step_memory

    m = find_model("llama-3.2-1b")
    held = {
        quant: predict_step_memory(m, recipe(quant, gradient_checkpointing=False, kbit_upcast=False), 1, 128).peak_bytes
        for quant in ("gptq", "awq")
    }
    linears = 973_078_528  # of its layers
    assert held["gptq"] - held["awq"] == pytest.approx(2 * linears, rel=0.02)
