"""The optimizers themselves, as transformers' Trainer makes them: the real ones, against which the formula is checked.

The table is therefore independent: it takes only the names from `advisor.optimizers`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily

from advisor.errors import BadValue, UnknownName
from advisor.optimizers import Optimizer, optimizer_row

Parameters = list[torch.nn.Parameter]
RATE = 1e-5


def _adafactor(parameters: Parameters) -> Any:
    from transformers.optimization import Adafactor

    return Adafactor(parameters, lr=RATE, scale_parameter=False, relative_step=False)


def _bitsandbytes(name: str, **options: Any) -> Callable[[Parameters], Any]:
    def make(parameters: Parameters) -> Any:
        import bitsandbytes

        with unset_fake_temporarily():  # its tables of 256 values are computed value by value
            return getattr(bitsandbytes.optim, name)(parameters, lr=RATE, weight_decay=0.0, **options)

    return make


def _paged_ademamix(bits: int) -> Callable[[Parameters], Any]:
    """AdEMAMix has no way around managed memory on a CPU for its state of two elements, as the others have."""

    def make(parameters: Parameters) -> Any:
        made = _bitsandbytes("AdEMAMix", optim_bits=bits, is_paged=True)(parameters)
        made._get_state_double_buffer = lambda p, dtype: torch.zeros((2, *p.size()), dtype=dtype, device=p.device)
        return made

    return make


CONSTRUCTORS: Mapping[Optimizer, Callable[[Parameters], Any]] = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0, fused=True),
    "adamw_foreach": lambda parameters: torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0, foreach=True),
    "adamw_8bit": _bitsandbytes("AdamW8bit"),
    "paged_adamw": _bitsandbytes("AdamW", is_paged=True),
    "paged_adamw_8bit": _bitsandbytes("AdamW8bit", is_paged=True),
    "adafactor": _adafactor,
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=RATE, foreach=True),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=RATE, foreach=True),
    "rmsprop_32bit": _bitsandbytes("RMSprop", optim_bits=32),
    "rmsprop_8bit": _bitsandbytes("RMSprop", optim_bits=8),
    "lion": _bitsandbytes("Lion", optim_bits=32),
    "lion_8bit": _bitsandbytes("Lion", optim_bits=8),
    "paged_lion": _bitsandbytes("Lion", optim_bits=32, is_paged=True),
    "paged_lion_8bit": _bitsandbytes("Lion", optim_bits=8, is_paged=True),
    "ademamix": _bitsandbytes("AdEMAMix", optim_bits=32),
    "ademamix_8bit": _bitsandbytes("AdEMAMix", optim_bits=8),
    "paged_ademamix": _paged_ademamix(32),
    "paged_ademamix_8bit": _paged_ademamix(8),
}


def make_optimizer(parameters: Parameters, name: str) -> Any:
    """The optimizer of this name as Trainer configures it (weight decay 0).

    Raises UnknownName, and BadValue for one from another package, which benchmarks/against_optimizers.py checks.
    """
    for known, make in CONSTRUCTORS.items():
        if known == name:
            return make(parameters)
    if package := optimizer_row(name).package:
        raise BadValue("--optimizer", name, f"is from {package}, which a dry run does not trace; add --optimizer adamw")
    raise UnknownName("optimizer", name, CONSTRUCTORS)
