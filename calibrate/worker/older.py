"""What other versions of transformers, peft and bitsandbytes call by another name, or cannot do with fake tensors.

The folders of `calibrate.stacks` bring these versions. Mirrored: transformers 4.45 to 5.23, peft 0.9 to 0.21,
bitsandbytes 0.42 to 0.50. Nothing here changes what a step allocates.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from advisor.specs import Recipe


def version_of(library: str) -> tuple[int, int]:
    """(major, minor) of the library that an import finds."""
    major, minor = metadata.version(library).split(".")[:2]
    return int(major), int(minor)


def dtype_keyword() -> str:
    """The keyword of `from_config` for the weights' dtype: transformers 4.56 renamed it."""
    return "dtype" if version_of("transformers") >= (4, 56) else "torch_dtype"


def enable_checkpointing(model: Any, recipe: Recipe) -> None:
    """What the Trainer and a script around it do for checkpointing, on the model or on peft's wrapper.

    transformers 5 makes the embedding's output require a gradient by itself. Before, a script had to for re-entrant
    checkpointing, which finds no gradient otherwise, and peft's k-bit preparation did.
    Source: transformers 4.57 and 5.0, modeling_utils.py, gradient_checkpointing_enable; peft 0.9 to 0.21,
    utils/other.py, prepare_model_for_kbit_training.
    """
    options = {"use_reentrant": recipe.reentrant}
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(options)
        return
    model.gradient_checkpointing_enable(options)
    if version_of("transformers") < (5, 0) and (recipe.reentrant or (recipe.is_quantized and recipe.kbit_upcast)):
        model.enable_input_require_grads()


def kept_linears(model: Any) -> list[str]:
    """The modules that transformers' quantizer leaves alone."""
    if version_of("transformers") >= (5, 0):
        from transformers.quantizers.base import get_keys_to_not_convert
    else:
        from transformers.integrations.bitsandbytes import get_keys_to_not_convert
    return [*get_keys_to_not_convert(model), *(model._keep_in_fp32_modules or ())]


def replace_linears(model: Any, kept: list[str], options: Any) -> None:
    """bitsandbytes' layers in place of linear ones."""
    import bitsandbytes
    from transformers.integrations import bitsandbytes as integration

    if not hasattr(integration, "bnb"):  # transformers finds that bitsandbytes before 0.43 does not run on a CPU
        integration.bnb, integration.nn = bitsandbytes, torch.nn
        from accelerate import init_empty_weights
        from transformers.pytorch_utils import Conv1D

        integration.init_empty_weights, integration.Conv1D = init_empty_weights, Conv1D
    integration.replace_with_bnb_linear(model, modules_to_not_convert=kept, quantization_config=options)


def reader_of_weights() -> Any:
    """The module in which peft's DoRA looks up `dequantize_module_weight`, which 0.11 brought."""
    if version_of("peft") >= (0, 12):
        from peft.tuners.lora import dora

        return dora
    from peft.tuners.lora import layer

    return layer


def peft_options(**options: Any) -> dict[str, Any]:
    """Those of `options` that the installed `get_peft_model` knows; the dtypes they decide are set afterwards."""
    from peft import get_peft_model

    known = inspect.signature(get_peft_model).parameters
    return {name: value for name, value in options.items() if name in known}


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    """Let bitsandbytes before 0.46 run on fake tensors: its compiled functions, which only fill tensors, do nothing.

    Later versions register their operations with PyTorch, which then knows their shapes.
    """
    if version_of("bitsandbytes") >= (0, 46):
        yield
        return
    from bitsandbytes import functional

    bnb: Any = functional
    changes = {
        "lib": _Silent(),
        "pre_call": lambda device: device,
        "post_call": lambda device: None,
        "is_on_gpu": lambda tensors: True,
        "get_ptr": lambda tensor: None,
        "get_tensor_stream": lambda tensor: None,
        "_get_tensor_stream": lambda tensor: None,
    }
    before = {name: getattr(bnb, name) for name in changes if hasattr(bnb, name)}
    for name in before:
        setattr(bnb, name, changes[name])
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(bnb, name, value)


class _Silent:
    """A compiled library whose functions do nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None


class _RealIndices(TorchDispatchMode):
    """Operations on nothing but real tensors are executed, so that their results have values.

    A fake truth value is false: transformers 4 asks whether an attention mask has no zeros, and one that is given has.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily

        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if tensors and not any(isinstance(tensor, FakeTensor) for tensor in tensors):
            with unset_fake_temporarily():
                return func(*args, **(kwargs or {}))
        if func is torch.ops.aten._local_scalar_dense.default and tensors[0].dtype == torch.bool:
            return False
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def even_routing() -> Iterator[None]:
    """Give the loop over experts of transformers 4 real indices: every expert gets the same number of tokens.

    It asks `one_hot` which tokens go where, and loops over what it finds.
    """
    if version_of("transformers") >= (5, 0):
        yield
        return
    functional: Any = torch.nn.functional
    original = functional.one_hot

    def one_hot(tensor: torch.Tensor, num_classes: int = -1) -> torch.Tensor:
        from torch._subclasses.fake_tensor import unset_fake_temporarily

        with unset_fake_temporarily():
            even = (torch.arange(tensor.numel()) % num_classes).view(tensor.shape)
            return torch.zeros(*tensor.shape, num_classes, dtype=torch.int64).scatter_(-1, even.unsqueeze(-1), 1)

    functional.one_hot = one_hot
    try:
        with _RealIndices():
            yield
    finally:
        functional.one_hot = original
