"""Stubs of kernels that save what their source saves, and make what it makes, no more."""

from __future__ import annotations

from typing import Any


def convolution_stub(torch: Any) -> Any:
    """causal-conv1d's CausalConv1dFn: keeps its input, its weight and a bias, if it has one."""

    class Convolution(torch.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(ctx: Any, x: Any, *weights: Any) -> Any:
            ctx.save_for_backward(x, *weights)
            return torch.empty_like(x)

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            raise NotImplementedError

    def convolution(x: Any, weight: Any, bias: Any = None, *_: Any, **__: Any) -> Any:
        return Convolution.apply(x, weight, *(() if bias is None else (bias,)))

    return convolution
