"""Creates a model's random weights on the training device, tensor by tensor: a burst needs only their sizes.

A model of 8 billion parameters takes minutes to initialize on a CPU, and before quantization it may not fit on the card
that can train it. So it is built with unwritten weights, for which the operating system allocates no memory. Then the
weights are created and quantized on the device, one after the other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

SPREAD = 0.02
"""Standard deviation of the weights, as most configs' `initializer_range`."""
QUANTIZED = ("Params4bit", "Int8Params")


@contextlib.contextmanager
def unfilled() -> Iterator[None]:
    """Modules created within this context hold weights that were never written."""
    from transformers.initialization import no_init_weights

    with no_init_weights():
        yield


def random_like(weight: torch.Tensor, device: str) -> torch.Tensor:
    """A random tensor of the same shape and dtype on `device`."""
    made = torch.empty(weight.shape, dtype=weight.dtype, device=device)
    return made.normal_(0.0, SPREAD)


def fill(model: nn.Module, device: str) -> None:
    """Give every parameter that is not quantized its values on `device`, and move buffers there; ties are kept."""
    for name, parameter in model.named_parameters():
        if type(parameter).__name__ in QUANTIZED:
            continue
        if parameter.ndim >= 2:
            parameter.data = random_like(parameter.data, device)
        else:  # a bias, or the scale of a norm
            value = 0.0 if name.endswith("bias") else 1.0
            parameter.data = torch.full(parameter.shape, value, dtype=parameter.dtype, device=device)
    for module in model.modules():
        held: dict[str, Any]
        for held in (module._buffers, vars(module)):
            for name, tensor in list(held.items()):
                if isinstance(tensor, torch.Tensor) and not isinstance(tensor, nn.Parameter):
                    held[name] = tensor.to(device)
