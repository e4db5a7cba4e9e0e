"""What the dry run and the trainers' steps replace in other libraries is still there to be replaced."""

from __future__ import annotations

import importlib
import inspect

import pytest

pytest.importorskip("torch")


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("transformers.masking_utils", ("find_packed_sequence_indices",)),
        ("torch.optim.adam", ("_get_value",)),
        ("torch._meta_registrations", ("_meta_grouped_mm_common", "_create_grouped_mm_output_tensor")),
        ("trl.trainer.utils", ("_use_triton",)),
    ],
)
def test_it_is_there(module: str, names: tuple[str, ...]) -> None:
    pytest.importorskip(module.partition(".")[0])
    found = importlib.import_module(module)
    assert [name for name in names if not callable(getattr(found, name, None))] == []


def test_the_kernels_of_trls_loss_have_their_names() -> None:
    """Without Triton they are not defined: its source is read."""
    pytest.importorskip("trl")
    source = inspect.getsource(importlib.import_module("trl.kernels.chunked_logprob"))
    for line in (
        "def _use_triton(",
        "def _forward_kernel(",
        "def _backward_kernel(",
        "def _addmm_fp32(",
        "triton.cdiv(",
    ):
        assert line in source, line
