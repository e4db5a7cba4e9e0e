"""The tape's functions of Unsloth's code, against the bytes that the code itself was seen to hold and make on a CPU.

`python -m benchmarks.against_kernels_unsloth --source FOLDER` measured the table: unsloth and unsloth_zoo 2026.10.9,
2 rows of 96 tokens, widths of 128, 64 (keys) and 352 (MLP), rank 8; the loss as its names say. Inputs live
throughout.
"""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from benchmarks.against_kernels_unsloth import Case, all_cases
from benchmarks.tape_bytes import Measured

MEASURED = {
    "LoRA_QKV none": Measured(103_424, 98_304, 32_768, 20_480),
    "LoRA_W none": Measured(54_272, 49_152, 60_416, 57_344),
    "LoRA_MLP none": Measured(463_360, 319_488, 190_464, -224_256),
    "LoRA_QKV none, dropout": Measured(245_760, 172_032, 128_000, -53_248),
    "LoRA_W none, dropout": Measured(128_000, 73_728, 158_720, 32_768),
    "LoRA_MLP none, dropout": Measured(715_264, 436_224, 428_544, -340_992),
    "LoRA_QKV nf4": Measured(103_424, 98_304, 62_464, 20_480),
    "LoRA_W nf4": Measured(54_272, 49_152, 93_184, 57_344),
    "LoRA_MLP nf4": Measured(463_360, 319_488, 277_504, -224_256),
    "LoRA_QKV nf4, dropout": Measured(245_760, 172_032, 128_000, -53_248),
    "LoRA_W nf4, dropout": Measured(155_648, 73_728, 158_720, 32_768),
    "LoRA_MLP nf4, dropout": Measured(796_672, 436_224, 428_544, -340_992),
    "RMSNorm": Measured(49_920, 49_920, 0, -768),
    "RMSNorm of Gemma": Measured(49_920, 49_920, 49_152, 48_384),
    "RoPE in place": Measured(0, 0, 73_728, 73_728),
    "RoPE apart": Measured(73_728, 73_728, 73_728, 73_728),
    "norms of heads and RoPE": Measured(82_944, 82_944, 73_728, 64_512),
    "loss 700 x 64 x 40000, chunked": Measured(112_309_864, 89_600, 89_600, 0),
    "loss 1025 x 64 x 40000, chunked": Measured(169_648_264, 5_251_200, 5_251_200, 0),
    "loss 3073 x 64 x 40000, chunked": Measured(170_082_440, 5_513_344, 5_513_344, 0),
    "loss 700 x 128 x 40000, tiled": Measured(46_617_972, 179_200, 179_200, 0),
    "loss 12289 x 256 x 40000, tiled": Measured(283_853_320, 6_291_968, 6_291_968, 0),
}
CASES = all_cases()


def test_every_case_was_measured() -> None:
    assert [case.name for case in CASES] == list(MEASURED)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_tape_has_the_bytes_of_the_code(case: Case) -> None:
    assert case.ours() == MEASURED[case.name]
