"""The cost on a card of an operation that PyTorch dispatches: kernels launched, bytes moved, FLOP computed.

The conventions, which the tape follows too:

    kernels   0 for a view or a bare allocation, 1 for nearly everything else; operations that CUDA composes of several
              kernels (`slice_backward` fills, then copies) count as those
    bytes     each element that is read or written, once; for a broadcast operand, the elements that exist; for a
              table, the rows that are picked
    FLOP      of matrix products and attention, a causal mask halving the pairs; elementwise arithmetic is not counted

Source of the special cases: PyTorch 2.13, aten/src/ATen/native/ (Embedding, LossNLL, TensorShape, TensorFactories).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

NO_KERNEL = frozenset(
    {
        "_local_scalar_dense",
        "_reshape_alias",
        "_unsafe_view",
        "alias",
        "empty",
        "empty_like",
        "empty_strided",
        "detach",
        "is_same_size",
        "lift_fresh",
        "new_empty",
        "new_empty_strided",
        "resize_",
        "set_",
        "sym_size",
        "record_stream",
    }
)
"""Operations other than views that only allocate or inspect, and launch nothing."""

WRITE_ONLY = frozenset(
    {
        "arange",
        "bernoulli_",
        "fill_",
        "full",
        "full_like",
        "new_full",
        "new_ones",
        "new_zeros",
        "normal_",
        "ones",
        "ones_like",
        "rand_like",
        "random_",
        "scalar_tensor",
        "uniform_",
        "zero_",
        "zeros",
        "zeros_like",
    }
)


class Cost(NamedTuple):
    """The cost of one dispatched operation."""

    kernels: int
    flop: int
    bytes: int


NOTHING = Cost(0, 0, 0)


def cost_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Cost:
    """The cost of one call of `func` that gave `out`; tensors may be fake."""
    name = str(func._overloadpacket.__name__)
    if name in NO_KERNEL or _is_view(func):
        return NOTHING
    inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    outputs = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
    special = _SPECIAL.get(name)
    if special is not None:
        kernels, moved = special(inputs, outputs)
    elif name in WRITE_ONLY:
        kernels, moved = 1, _bytes(outputs)
    else:
        kernels, moved = 1, _bytes(inputs) + _bytes(outputs)
    return Cost(kernels, flop_of(func, args, kwargs, out), moved)


def _is_view(func: Any) -> bool:
    returns = func._schema.returns
    return bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)


def _bytes(tensors: list[torch.Tensor]) -> int:
    return sum(map(_size, tensors))


def _size(tensor: torch.Tensor) -> int:
    """Bytes of the elements that exist: an expanded axis has one."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        if stride != 0:
            count *= size
    return int(count) * tensor.element_size()


Tensors = list[torch.Tensor]


def _picked(inputs: Tensors, outputs: Tensors) -> tuple[int, int]:
    """Rows of the first input, read and written; the indices."""
    return 1, 2 * _bytes(outputs) + _bytes(inputs[1:])


def _embedding_backward(inputs: Tensors, outputs: Tensors) -> tuple[int, int]:
    """Zeros for the whole table, then rows added into it."""
    return 2, _bytes(outputs) + 2 * _size(inputs[0]) + _size(inputs[1])


def _nll_forward(inputs: Tensors, outputs: Tensors) -> tuple[int, int]:
    scores, labels = inputs[:2]
    return 1, _size(labels) + labels.numel() * scores.element_size() + _bytes(outputs)


def _nll_backward(inputs: Tensors, outputs: Tensors) -> tuple[int, int]:
    """Zeros for all scores, then one number per row."""
    labels = next(t for t in inputs if not t.is_floating_point())
    return 2, _bytes(outputs) + _size(labels) + labels.numel() * outputs[0].element_size()


def _filled_and_copied(inputs: Tensors, outputs: Tensors) -> tuple[int, int]:
    """A constant everywhere, then a copy into a part."""
    return 2, _bytes(outputs) + 2 * _size(inputs[0])


def _copied(inputs: Tensors, outputs: Tensors) -> tuple[int, int]:
    """The first input is overwritten, not read."""
    return 1, _size(inputs[1]) + _size(inputs[0])


def _put(inputs: Tensors, outputs: Tensors) -> tuple[int, int]:
    """Values added to (or put into) the places of the first input that the indices name."""
    values = max((t for t in inputs[1:] if t.dtype == inputs[0].dtype), key=_size, default=inputs[0])
    indices = [t for t in inputs[1:] if not t.is_floating_point()]
    return 1, 3 * _size(values) + _bytes(indices)


_SPECIAL: dict[str, Callable[[Tensors, Tensors], tuple[int, int]]] = {
    "constant_pad_nd": _filled_and_copied,
    "copy_": _copied,
    "embedding": _picked,
    "embedding_dense_backward": _embedding_backward,
    "gather": _picked,
    "index": _picked,
    "index_add": _put,
    "index_add_": _put,
    "index_put": _put,
    "index_put_": _put,
    "index_select": _picked,
    "nll_loss_backward": _nll_backward,
    "nll_loss_forward": _nll_forward,
    "scatter": _put,
    "scatter_": _put,
    "scatter_add_": _put,
    "select_backward": _filled_and_copied,
    "slice_backward": _filled_and_copied,
}


def flop_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    """Floating point operations of one call, 0 where no formula is known.

    Adds to torch's own table its CPU attention (two products of query by key length by head size forward, five
    backward, half of that under a causal mask), grouped products, triangular systems and bitsandbytes' 4-bit product.
    """
    name = func._overloadpacket.__name__
    if name == "_scaled_dot_product_flash_attention_for_cpu":
        return _attention_flop(args[0], args[1], args[2], 2, len(args) > 4 and bool(args[4]))
    if name == "_scaled_dot_product_flash_attention_for_cpu_backward":
        return _attention_flop(args[1], args[2], args[3], 5, len(args) > 7 and bool(args[7]))
    if name == "gemm_4bit":
        return 2 * int(args[0].numel()) * int(args[2][0])
    if name == "_grouped_mm":  # rows of x (N, K) by their group's (K, M); or (K, N) by (N, M) for each group's weight
        return 2 * int(args[0].numel()) * int(args[1].shape[-1])
    if name == "linalg_solve_triangular":  # half of a product with a full matrix
        return int(args[0].shape[-1]) * int(args[1].numel())
    if name == "convolution_backward":
        return _convolution_backward_flop(*args, out_val=out)
    formula = flop_registry.get(func._overloadpacket)
    return int(formula(*args, **kwargs, out_val=out)) if formula is not None else 0


def _convolution_backward_flop(*args: Any, out_val: Any) -> int:
    """The gradients of input and weight; of the weight's, torch's formula counts each group with all other groups.

    Source: torch 2.13, torch/utils/flop_counter.py, conv_backward_flop.
    """
    formula = flop_registry[torch.ops.aten.convolution_backward]
    *others, groups, (of_input, of_weight, _) = args
    found = int(formula(*others, groups, (of_input, False, False), out_val=out_val))
    return found + int(formula(*others, groups, (False, of_weight, False), out_val=out_val)) // int(groups)


def _attention_flop(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, products: int, causal: bool) -> int:
    batch, heads, length, size = query.shape
    pairs = length * (length + 1) // 2 if causal else length * key.shape[2]
    return products * batch * heads * pairs * (size + value.shape[-1])
