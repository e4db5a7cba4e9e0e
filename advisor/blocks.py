"""Bytes of an element, and the blocks in which PyTorch's allocators count."""

from __future__ import annotations

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "bool": 1, "uint8": 1, "int8": 1, "int32": 4, "int64": 8}
"""Bytes of one element, by dtype."""

BLOCK_BYTES = 512
"""kMinBlockSize of PyTorch's c10/cuda/CUDACachingAllocator.cpp."""


def pinned_bytes(size_bytes: int) -> int:
    """The block of pinned host memory for one tensor: the next power of two.

    Source: PyTorch 2.13, aten/src/ATen/core/CachingHostAllocator.h, allocate.
    """
    return 1 << max(0, size_bytes - 1).bit_length()


def block_bytes(size_bytes: int) -> int:
    """Bytes that the allocator counts for a tensor: rounded up to blocks of 512."""
    return -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES
