"""What an estimate of a base that is stored in fewer bits stands on, and how far its memory is known."""

from __future__ import annotations

from math import prod

from advisor.blocks import ITEM_BYTES
from advisor.checkpoints import STORES, UNKNOWN_EXPERTS, Quantization
from advisor.costs.moments import base_of
from advisor.costs.peaks import MEMORY_COUNTERS
from advisor.costs.static import static_memory
from advisor.decoders.stack import Proof
from advisor.libraries import libraries_of
from advisor.parameters.storage import loads_experts, other_dtype, store_bytes
from advisor.specs import MemoryEstimate, ModelSpec, Recipe
from advisor.terms import TermName

READ: dict[Quantization, str] = {
    "gptq": "gptqmodel 7.7's layers (TorchLinear in training, its compiled dequantization as one kernel)",
    "awq": "gptqmodel 7.7's layers (AwqGEMMLinear, which dequantizes for more than 1,024 tokens)",
    "hqq": "hqq 0.2.8's layers (HQQMatmulNoCacheMul)",
    "fp8": "transformers 5.23's FP8Linear (the product's own scratch as DeepGEMM's, its rate as that of 16 bits)",
}
"""What was read, and not traced, of the layers that bitsandbytes does not make."""


def with_store(proof: Proof, m: ModelSpec, recipe: Recipe) -> Proof:
    """`proof` with what the stored form of the base adds to it."""
    if not recipe.is_quantized:
        return proof
    libraries = libraries_of(recipe.stack)
    code = libraries.code
    read = (READ[recipe.quant],) if recipe.quant in READ else ()
    unknown = m.checkpoint.unknown if m.checkpoint is not None else ()
    if loads_experts(libraries):
        unknown = tuple(what for what in unknown if what != UNKNOWN_EXPERTS)
    if read and (code or recipe.kernels):
        unknown = (*unknown, f"what {code or 'the kernels'} does on a {STORES[recipe.quant].title} base")
    return proof._replace(read=(*proof.read, *read), unknown=(*proof.unknown, *unknown)) if read or unknown else proof


def with_unknown_layers(memory: MemoryEstimate, m: ModelSpec, recipe: Recipe) -> MemoryEstimate:
    """`memory` with higher ends where a checkpoint leaves layers in 16 bits and it is not known which.

    They grow by the most that such a checkpoint is known to hold over one whose layers are all in 4 bits: as loaded, or
    in fp32 after k-bit preparation.
    """
    if m.checkpoint is None or m.checkpoint.growth == 1 or not recipe.is_quantized:
        return memory
    exact = static_memory(m, base_of(recipe).model_copy(update={"kbit_upcast": False}), 1, 1).exact
    held = sum(exact.get(name, 0) for name in (TermName.BASE_WEIGHTS, TermName.QUANTIZATION_CONSTANTS))
    half, whole = ITEM_BYTES[recipe.base_dtype], ITEM_BYTES[other_dtype(recipe)]
    packed, constants = store_bytes(*_ANY_LAYER, recipe)
    stored = (packed + sum(constants)) / prod(_ANY_LAYER)  # bytes of one weight
    extra = held * (m.checkpoint.growth - 1) * (whole - stored) / (half - stored)
    wider = {name: getattr(memory, name) for name in MEMORY_COUNTERS}
    return memory.model_copy(update={name: one._replace(high=one.high + extra) for name, one in wider.items()})


_ANY_LAYER = (4096, 4096)
