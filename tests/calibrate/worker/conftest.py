"""What the tests of the worker share: each may run after any other in one process."""

from __future__ import annotations

import gc

import pytest


@pytest.fixture
def foreign_bytes() -> int:
    """Tensors that other tests of this process have left alive; a burst on the CPU counts them as its own."""
    from calibrate.worker import cpu_memory

    gc.collect()
    return sum(cpu_memory.rounded(storage.nbytes()) for storage in cpu_memory.living_storages())
