"""Replacements inside torch, transformers, peft and trl, active within a `with` block."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import torch

from calibrate.worker.older import even_routing, reader_of_weights, without_kernels


@contextlib.contextmanager
def no_data_dependence(packed: bool = False) -> Iterator[None]:
    """Replace the two places that read values, which fake tensors do not have, and one that checks a dtype.

    transformers looks for packed sequences in the position ids: there are none, or with `packed` there are, which it
    need not check. Foreach Adam reads its step count. A fake grouped product of experts accepts only bf16; a real one
    also accepts fp32 and fp16. The shape is the same.
    """
    from torch import _meta_registrations
    from torch.optim import adam as _adam

    adam: Any = _adam
    meta: Any = _meta_registrations
    originals = adam._get_value, meta._meta_grouped_mm_common

    def grouped(a: Any, b: Any, scale_a: Any, scale_b: Any, offs: Any = None, **options: Any) -> Any:
        if scale_a is None and a.dtype == b.dtype != torch.bfloat16:
            return meta._create_grouped_mm_output_tensor(a, b, offs, options.get("out_dtype"))
        return originals[1](a, b, scale_a, scale_b, offs=offs, **options)

    adam._get_value = lambda _: 1.0
    meta._meta_grouped_mm_common = grouped
    try:
        with _packed_rows(packed), even_routing():
            yield
    finally:
        adam._get_value, meta._meta_grouped_mm_common = originals


@contextlib.contextmanager
def _packed_rows(packed: bool) -> Iterator[None]:
    """What transformers finds when it searches the position ids for packed rows, which it does since 4.53."""
    try:
        from transformers import masking_utils
    except ImportError:
        yield
        return
    original = masking_utils.find_packed_sequence_indices

    def indices(position_ids: Any) -> Any:
        with patch.object(masking_utils, "is_tracing", lambda *_: True, create=True):
            return original(position_ids)

    with patch.object(masking_utils, "find_packed_sequence_indices", indices if packed else lambda *_: None):
        yield


def leave_out_sequence_kernels() -> None:
    """Let models that are imported from here on run their own PyTorch code in place of kernels, which need a card.

    Source: transformers 5.23, integrations/hub_kernels.py, use_kernel_func_from_hub_with_fallback.
    """
    for name in ("causal_conv1d", "fla", "mamba_ssm"):
        cast("dict[str, ModuleType | None]", sys.modules).setdefault(name, None)


def keep_weights_as_they_are(model: Any) -> None:
    """Keep 4-bit layers from repacking their weights when they first evaluate, as some CPUs have them do."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings and no log lines from the libraries."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def readable_4bit() -> Iterator[None]:
    """Let peft's DoRA dequantize a fake 4-bit layer.

    peft recognizes a 4-bit weight only by bitsandbytes' parameter class, which cannot hold a fake tensor.
    """
    from bitsandbytes.functional import dequantize_4bit

    where = reader_of_weights()
    original = getattr(where, "dequantize_module_weight", None)

    def dequantize(module: Any) -> Any:
        assert original is not None
        state = getattr(module, "quant_state", None)
        if state is None or type(module.weight).__name__ == "Params4bit":
            return original(module)
        return dequantize_4bit(module.weight.data, state)

    if original is not None:
        where.dequantize_module_weight = dequantize
    try:
        with without_kernels():
            yield
    finally:
        if original is not None:
            where.dequantize_module_weight = original


class _Kernel:
    """A Triton kernel that leaves its tile unchanged."""

    def __getitem__(self, grid: Any) -> Any:
        return lambda *arguments, **_: None


@contextlib.contextmanager
def silent_tiles(active: bool) -> Iterator[None]:
    """Let TRL's loss take the CUDA path on the CPU; its two kernels and its fp32 sums do nothing."""
    if not active:
        yield
        return
    from trl.kernels import chunked_logprob
    from trl.trainer import utils

    tiles: Any = chunked_logprob
    changes: dict[str, Any] = {
        "_use_triton": lambda device: True,
        "_forward_kernel": _Kernel(),
        "_backward_kernel": _Kernel(),
        "_addmm_fp32": lambda total, a, b: None,
        "triton": SimpleNamespace(cdiv=lambda a, b: -(-a // b)),
    }
    before = {name: getattr(tiles, name, None) for name in changes}
    elsewhere, utils_module = utils._use_triton, utils
    for name, value in changes.items():
        setattr(tiles, name, value)
    utils_module._use_triton = changes["_use_triton"]
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(tiles, name, value)
        utils_module._use_triton = elsewhere
