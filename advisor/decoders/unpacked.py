"""The 16-bit weight made from what a quantized checkpoint stores, with what that takes beside it."""

from __future__ import annotations

from collections.abc import Callable

from advisor.blocks import ITEM_BYTES
from advisor.parameters.storage import store_bytes
from advisor.specs import Recipe
from advisor.tape.graph import Tensor
from advisor.tape.tape import Tape


def _read_bytes(shape: tuple[int, ...], recipe: Recipe) -> int:
    """Bytes of the store of a weight (O, I)."""
    packed, constants = store_bytes(shape[1], shape[0], recipe)
    return packed + sum(constants)


def _in_one_kernel(t: Tape, shape: tuple[int, ...], dtype: str, recipe: Recipe) -> Tensor:
    """gptqmodel's: AWQ's CUDA kernel, and GPTQ's tensor operations after torch.compile, in the dtype of the scales.

    Source: gptqmodel 7.7, nn_modules/qlinear/gemm_awq.py, AwqGemmFn, and torch.py, TorchLinear.optimize.
    """
    out = t.empty(shape, "float16")
    t.kernel("dequantize", out.dtype, 0, _read_bytes(shape, recipe) + out.bytes)
    return out


def _hqq(t: Tape, shape: tuple[int, ...], dtype: str, recipe: Recipe) -> Tensor:
    """hqq's codes as numbers, less the zero, times the scale: three tensors at once.

    Source: hqq 0.2.8, core/quantize.py, Quantizer.dequantize, and bitpack.py, unpack_4bit_u8.
    """
    packed = store_bytes(shape[1], shape[0], recipe)[0]
    codes = t.empty(shape, dtype)
    if recipe.quant_bits < 5:
        masked = t.empty((packed,), "uint8")
        shifted = t.empty((packed,), "uint8")
        del masked, shifted
    parts = max(8 // recipe.quant_bits, 1)
    t.kernel("dequantize", dtype, 0, parts * 4 * packed + codes.bytes)
    shifted_by_zero = t.empty(shape, dtype)
    t.kernel("elementwise", dtype, 0, 2 * codes.bytes)
    out = t.empty(shape, dtype)
    t.kernel("elementwise", dtype, 0, 2 * codes.bytes)
    del codes, shifted_by_zero
    return out


def _fp8(t: Tape, shape: tuple[int, ...], dtype: str, recipe: Recipe) -> Tensor:
    """transformers' cast of the bytes, times the scales in place; the scales are spread over the rows before.

    Source: transformers 5.23, integrations/finegrained_fp8.py, _dequantize_fp8_weight.
    """
    scales = store_bytes(shape[1], shape[0], recipe)[1][0] // 4
    cast_scales = t.empty((scales,), dtype)
    out = t.empty(shape, dtype)
    t.kernel("dequantize", dtype, 0, shape[0] * shape[1] + out.bytes)
    spread = None
    if recipe.quant_group:
        spread = t.empty((shape[0] * -(-shape[1] // recipe.quant_group),), dtype)
        t.kernel("gather", dtype, 0, scales * ITEM_BYTES[dtype] + spread.bytes)
    t.kernel("elementwise", dtype, 0, 2 * out.bytes)
    del cast_scales, spread
    return out


UNPACKED: dict[str, Callable[[Tape, tuple[int, ...], str, Recipe], Tensor]] = {
    "gptq": _in_one_kernel,
    "awq": _in_one_kernel,
    "hqq": _hqq,
    "fp8": _fp8,
}
"""By the stored form: a weight (O, I) in a dtype, from a tape, for a recipe."""
