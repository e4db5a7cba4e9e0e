"""Mamba 2's scan in PyTorch's operations, at the shapes at which other tensors are copied than at most."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from tests.decoders.test_against_trace import ONE_ROW_TOLERANCE, check
from tests.decoders.tiny import config, recipe, spec


@pytest.mark.parametrize("shape", [(2, 48), (2, 13), (1, 49), (1, 16)])
def test_rows_of_whole_chunks_of_one_chunk_and_alone(shape: tuple[int, int]) -> None:
    m = spec("granitemoehybrid-dense", 1)
    chosen = recipe(m, "lora", gradient_checkpointing=False, autocast=False)
    check(m, config("granitemoehybrid-dense", 1), chosen, shape, ONE_ROW_TOLERANCE)
