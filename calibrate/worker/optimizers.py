"""The optimizers themselves, as transformers' Trainer makes them: the real ones, against which the formula is checked.

The table is therefore independent: it takes only the names from `advisor.optimizers`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily

from advisor.errors import UnknownName
from advisor.optimizers import Optimizer

Parameters = list[torch.nn.Parameter]
RATE = 1e-5


def _adafactor(parameters: Parameters) -> Any:
    from transformers.optimization import Adafactor

    return Adafactor(parameters, lr=RATE, scale_parameter=False, relative_step=False)


def _bitsandbytes(name: str, paged: bool) -> Callable[[Parameters], Any]:
    def make(parameters: Parameters) -> Any:
        import bitsandbytes

        with unset_fake_temporarily():  # its tables of 256 values are computed value by value
            return getattr(bitsandbytes.optim, name)(parameters, lr=RATE, weight_decay=0.0, is_paged=paged)

    return make


CONSTRUCTORS: Mapping[Optimizer, Callable[[Parameters], Any]] = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0, fused=True),
    "adamw_foreach": lambda parameters: torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0, foreach=True),
    "adamw_8bit": _bitsandbytes("AdamW8bit", paged=False),
    "paged_adamw": _bitsandbytes("AdamW", paged=True),
    "paged_adamw_8bit": _bitsandbytes("AdamW8bit", paged=True),
    "adafactor": _adafactor,
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=RATE, foreach=True),
}


def make_optimizer(parameters: Parameters, name: str) -> Any:
    """The optimizer of this name as Trainer configures it (weight decay 0). Raises UnknownName."""
    for known, make in CONSTRUCTORS.items():
        if known == name:
            return make(parameters)
    raise UnknownName("optimizer", name, CONSTRUCTORS)
