"""The tape's functions of Unsloth's code, against the bytes that the code itself was seen to hold and make on a CPU.

`python -m benchmarks.against_kernels_unsloth --source FOLDER` measured the table: unsloth and unsloth_zoo 2026.10.9,
2 rows of 96 tokens, widths of 128, 64 (keys) and 352 (MLP), rank 8; the loss as its names say.
"""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from benchmarks.against_kernels_unsloth import all_cases
from benchmarks.autograd_bytes import Case, Found

MEASURED = {
    "LoRA_QKV none": Found(147_456, 152_576, 131_072),
    "LoRA_W none": Found(98_304, 103_424, 109_568),
    "LoRA_MLP none": Found(368_640, 512_512, 239_616),
    "LoRA_QKV none, dropout": Found(221_184, 294_912, 226_304),
    "LoRA_W none, dropout": Found(122_880, 177_152, 207_872),
    "LoRA_MLP none, dropout": Found(485_376, 764_416, 477_696),
    "LoRA_QKV nf4": Found(147_456, 152_576, 160_768),
    "LoRA_W nf4": Found(98_304, 103_424, 142_336),
    "LoRA_MLP nf4": Found(368_640, 512_512, 326_656),
    "LoRA_QKV nf4, dropout": Found(221_184, 294_912, 226_304),
    "LoRA_W nf4, dropout": Found(122_880, 204_800, 207_872),
    "LoRA_MLP nf4, dropout": Found(485_376, 845_824, 477_696),
    "RMSNorm": Found(99_072, 99_072, 49_152),
    "RMSNorm of Gemma": Found(99_072, 99_072, 98_304),
    "RoPE in place": Found(73_728, 73_728, 147_456),
    "RoPE apart": Found(73_728, 147_456, 147_456),
    "norms of heads and RoPE": Found(156_672, 156_672, 147_456),
    "loss 700 x 64 x 40000, chunked": Found(89_600, 112_309_864, 0),
    "loss 1025 x 64 x 40000, chunked": Found(5_251_200, 169_648_264, 0),
    "loss 3073 x 64 x 40000, chunked": Found(5_513_344, 170_082_440, 0),
    "loss 700 x 128 x 40000, tiled": Found(179_200, 46_617_972, 0),
    "loss 12289 x 256 x 40000, tiled": Found(6_291_968, 283_853_320, 0),
}
CASES = all_cases()


def test_every_case_was_measured() -> None:
    assert [case.name for case in CASES] == list(MEASURED)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_tape_has_the_bytes_of_the_code(case: Case) -> None:
    assert case.ours() == MEASURED[case.name]
