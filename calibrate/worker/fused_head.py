"""TRL's head and loss in one, in a dry run: tiles of logits as its CUDA kernels make them, every token scored.

TRL picks the scored hidden states by a mask, whose values fake tensors do not have. Here all of them are picked, by
places as the mask's own kernel makes them, and the kernels do nothing (see `silent_tiles`). Rows of padding and prompts
are scored, too: what a step needs where every token teaches.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from math import prod
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from advisor.errors import SourceUnavailable
from calibrate.worker.patches import silent_tiles

REPORTED = ("log_probs", "entropy", "is_top1")
"""What SFTTrainer asks of the head a token. Source: trl 1.16, trainer/sft_trainer.py, SFTTrainer.__init__."""


def with_fused_head(model: Any, coefficient: float | None = None) -> Any:
    """The model, whose forward with labels returns TRL's loss. Raises SourceUnavailable without trl.

    `coefficient`: what SFTConfig weighs the loss that balances a mixture's experts by; None for the model's own.
    """
    try:
        from trl.trainer.utils import add_fused_lm_head
    except ImportError:
        raise SourceUnavailable(
            "--loss chunked is TRL's, and its own code is run: `pip install 'trl>=1.16'`, or add --loss full"
        ) from None
    _balance(model.config.get_text_config(), coefficient)
    add_fused_lm_head(model, outputs=REPORTED)
    fused = model.forward

    @functools.wraps(type(model).forward)
    def forward(*args: Any, labels: Any = None, **options: Any) -> Any:
        return fused(*args, labels=labels, fused_lm_head=labels is not None, **options)

    model.forward = forward
    return model


def _balance(config: Any, coefficient: float | None) -> None:
    """Ask for the loss that balances experts where SFTTrainer does: where the model's config gives it a weight.

    Source: trl 1.16.0, trainer/sft_trainer.py, SFTTrainer.__init__, aux_loss_enabled.
    """
    if coefficient is None:
        coefficient = getattr(config, "router_aux_loss_coef", 0.0)
    if hasattr(config, "router_aux_loss_coef"):
        config.output_router_logits = hasattr(config, "output_router_logits") and coefficient != 0.0
        config.router_aux_loss_coef = coefficient


@contextlib.contextmanager
def every_token_scored(active: bool) -> Iterator[None]:
    """TRL's loss without kernels and without values: for fake tensors."""
    with silent_tiles(active), EveryToken() if active else contextlib.nullcontext():
        yield


class EveryToken(TorchFunctionMode):
    """Takes masks of scored tokens as if all were; with `any_shape` what any mask picks, in a model of unknown code."""

    def __init__(self, any_shape: bool = False) -> None:
        super().__init__()
        self._any_shape = any_shape

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.__getitem__ and _is_mask(args[1]) and (self._any_shape or args[1].ndim == 2):
            return args[0][_places(args[1])]
        if func is torch.Tensor.masked_scatter and _is_mask(args[1]) and args[1].ndim == 2:
            return args[2].reshape(args[1].shape).clone()
        return func(*args, **(kwargs or {}))


def _is_mask(index: Any) -> bool:
    return isinstance(index, torch.Tensor) and index.dtype == torch.bool


def _places(mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The places of all elements by dimension (rows and columns), as a mask is turned into them."""
    found = []
    for at, size in enumerate(mask.shape):
        one = torch.arange(size)
        if at < mask.ndim - 1:
            one = one.repeat_interleave(prod(mask.shape[at + 1 :]))
        found.append(one.repeat(prod(mask.shape[:at])) if at else one)
    return tuple(found)
