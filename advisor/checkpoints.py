"""How a published checkpoint stores its weights, and which base training then has.

A base is quantized by bitsandbytes while it is loaded, or its checkpoint is quantized already. What each stored form
allows is a row of STORES, with its source.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from advisor.frozen import Frozen, Range

Quantization = Literal["none", "nf4", "fp4", "int8", "gptq", "awq", "hqq", "fp8"]
"""How linear layers are stored while training runs."""


class Store(NamedTuple):
    """What the libraries make of a base that is stored so."""

    title: str
    by_bitsandbytes: bool = False
    bits: tuple[int, ...] = ()
    """Widths of a weight to choose from; () for one."""
    group: int = 0
    """Weights to a scale where nothing else is said; 0 where there is no choice."""
    no_dora: str = ""
    """Who refuses DoRA on it, and how; '' where DoRA works."""
    casts_the_rest: bool = True
    """peft 0.21, utils/other.py, prepare_model_for_kbit_training: it passes over gptq and hqq models."""
    only_dtype: str = ""
    """The dtype that transformers casts everything else to; '' where any is left as it is."""
    until_transformers: tuple[int, int] = (1000, 0)
    """The first version of transformers that does not load it."""


# Widths and groups: transformers 5.23, utils/quantization_config.py; hqq 0.2.8, core/quantize.py, SUPPORTED_BITS.
STORES: dict[Quantization, Store] = {
    "nf4": Store("nf4", by_bitsandbytes=True),
    "fp4": Store("fp4", by_bitsandbytes=True),
    "int8": Store("int8", by_bitsandbytes=True),
    "gptq": Store(
        "GPTQ",
        bits=(2, 3, 4, 8),
        group=128,
        no_dora="peft 0.21 refuses DoRA on a GPTQ base (tuners/lora/gptq.py)",
        casts_the_rest=False,
    ),
    "awq": Store(
        "AWQ",
        bits=(4,),
        group=128,
        no_dora="peft 0.21 refuses DoRA on an AWQ base (tuners/lora/awq.py)",
        only_dtype="float16",  # transformers 5.23, quantizers/quantizer_awq.py, update_dtype
    ),
    # transformers 5.23, quantizers/quantizer_hqq.py, has no operation that loads or makes its weights.
    "hqq": Store("HQQ", bits=(1, 2, 3, 4, 5, 6, 8), group=64, casts_the_rest=False, until_transformers=(5, 0)),
    "fp8": Store(
        "FP8",
        group=128,
        no_dora="peft 0.21's DoRA multiplies the FP8 weight itself, for which PyTorch 2.13 has no kernel",
    ),
}

FP8_CAPABILITY = (8, 9)
"""Below it transformers dequantizes an FP8 base while loading it: quantizers/quantizer_finegrained_fp8.py."""


UNKNOWN_EXPERTS = "how transformers 5 loads experts that the checkpoint has in 4 or 8 bits; here they are in 16 bits"


class Checkpoint(Frozen):
    """What a checkpoint that is not in 16 bits holds, and the base that training has when it is loaded."""

    stored: str  # in words: 'GPTQ, 4 bits in groups of 128'
    quant: Quantization  # of the base that training has; none: dequantized to 16 bits while it is loaded
    method: str = ""  # quant_method of its quantization_config
    double_quant: bool = False
    bits: Annotated[int, Range(1, 8)] = 4
    group: Annotated[int, Range(0, 10_000_000)] = 0  # weights that share a scale; 0 = all of a row (fp8: of a tensor)
    whole: tuple[tuple[str, ...], ...] = ()  # of each layer, the linear layers left in 16 bits; () = none in any
    growth: Annotated[float, Range(1, 4)] = 1.0  # what it may hold over what `whole` says, where that is not known
    unknown: tuple[str, ...] = ()  # what is not known of it, each in words: then nothing surely fits
    original: str = ""  # the same model in 16 bits, as --model takes it; '' where it is not known

    @property
    def dequantized(self) -> bool:
        """Whether training has a base in 16 bits."""
        return self.quant == "none"
