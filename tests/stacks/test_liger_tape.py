"""Liger's functions on the tape, by the bytes that its own code took (benchmarks.against_kernels_liger).

liger-kernel 0.8.5 on a CPU, PyTorch 2.13: x (2, 96, 128), gate and up (2, 96, 352), four heads of 32; each row is the
peak of forward, what is left after it, the peak of backward, what is left after that, beyond the inputs.
"""

from __future__ import annotations

from functools import partial

import pytest

from advisor.decoders.linear import Linear
from advisor.decoders.rope import Rope
from advisor.specs import LinearShape, Recipe
from advisor.stacks.liger_tape import (
    chunk_rows,
    cross_entropy,
    fused_linear_loss,
    gated,
    relu_squared,
    rms_norm,
    rotated,
)
from advisor.tape.graph import Tensor
from advisor.tape.ops import add
from advisor.tape.program import COEFFICIENT_BITS
from advisor.tape.tape import MATMUL, Tape
from benchmarks.tape_bytes import Measured, mirrored

BATCH, LENGTH, WIDTH, INNER = 2, 96, 128, 352


def leaf(t: Tape, shape: tuple[int, ...], dtype: str, needs_grad: bool = True) -> Tensor:
    x = t.empty(shape, dtype)
    x.needs_grad = needs_grad
    return x


@pytest.mark.parametrize(
    ("dtype", "in_place", "trains", "measured"),
    [
        ("bfloat16", True, True, (49920, 49920, 1280, -512)),
        ("bfloat16", True, False, (49920, 49920, 0, -768)),
        ("bfloat16", False, True, (49920, 49920, 50432, 48640)),
        ("float32", True, True, (99072, 99072, 1024, -256)),
        ("float32", False, False, (99072, 99072, 98304, 97536)),
    ],
)
def test_rms_norm(dtype: str, in_place: bool, trains: bool, measured: tuple[int, ...]) -> None:
    t = Tape("cpu")
    inputs = [leaf(t, (BATCH, LENGTH, WIDTH), dtype), leaf(t, (WIDTH,), dtype, trains)]
    assert mirrored(partial(rms_norm, in_place=in_place), inputs, t) == Measured(*measured)


def test_activations() -> None:
    shape = (BATCH, LENGTH, INNER)
    t = Tape("cpu")
    both = [leaf(t, shape, "bfloat16"), leaf(t, shape, "bfloat16")]
    assert mirrored(gated, both, t) == Measured(135168, 135168, 0, 0)
    t = Tape("cpu")
    assert mirrored(relu_squared, [leaf(t, shape, "bfloat16")], t) == Measured(135168, 135168, 135168, 135168)


@pytest.mark.parametrize(("whole", "measured"), [(True, (49152, 49152, 0, 0)), (False, (147456, 49152, 0, 0))])
def test_rotation(whole: bool, measured: tuple[int, ...]) -> None:
    t = Tape("cpu")
    q, k = (leaf(t, (BATCH, 4, LENGTH, 32), "bfloat16") for _ in range(2))
    rope = Rope.__new__(Rope)
    rope.cos = rope.sin = t.empty((1, LENGTH, 32), "bfloat16")
    assert mirrored(lambda t, q, k: add(t, *rotated(t, q, k, rope, whole)), [q, k], t) == Measured(*measured)


@pytest.mark.parametrize(
    ("vocabulary", "dtype", "head_dtype", "trains", "autocast", "measured"),
    [
        (100, "bfloat16", "bfloat16", False, False, (140752, 49152, 0, 0)),
        (1000, "bfloat16", "bfloat16", False, False, (125392, 49152, 0, 0)),
        (1000, "bfloat16", "bfloat16", True, False, (1141200, 305152, 0, 0)),
        (1000, "float32", "float32", False, True, (430544, 98304, 0, 0)),
        (1000, "float32", "float32", True, True, (1702352, 610304, 0, 0)),
        (4096, "float32", "float32", True, False, (4427728, 2195456, 0, 0)),
        (4096, "bfloat16", "float32", True, True, (6410192, 2146304, 0, 0)),
    ],
)
def test_fused_loss(
    vocabulary: int, dtype: str, head_dtype: str, trains: bool, autocast: bool, measured: tuple[int, ...]
) -> None:
    t = Tape("cpu", "bfloat16" if autocast else "")
    x, w = leaf(t, (BATCH, LENGTH, WIDTH), dtype), leaf(t, (vocabulary, WIDTH), head_dtype, trains)
    shape = LinearShape(name="head", in_features=WIDTH, out_features=vocabulary)
    head = Linear(shape, Recipe(method="full"), 0, "none", head_dtype)
    head.weight = w
    rows = chunk_rows(BATCH * LENGTH, vocabulary, WIDTH)
    found = mirrored(lambda t, x, w: fused_linear_loss(t, x, head, rows), [x, w], t)
    assert found == Measured(*measured)


@pytest.mark.parametrize(("rows", "trains"), [(0, False), (16, False), (16, True)])
def test_chunks_compute_each_product_once(rows: int, trains: bool) -> None:
    t = Tape("cuda")
    x, w = leaf(t, (BATCH, LENGTH, WIDTH), "bfloat16"), leaf(t, (1000, WIDTH), "bfloat16", trains)
    head = Linear(
        LinearShape(name="head", in_features=WIDTH, out_features=1000), Recipe(method="full"), 0, "none", "bfloat16"
    )
    head.weight = w
    fused_linear_loss(t, x, head, rows)
    products = [flop for kind, _, flop, *_ in t.kernels if kind == MATMUL]
    assert products == [2 * BATCH * LENGTH * WIDTH * 1000] * (3 if trains else 2)


def test_cross_entropy() -> None:
    for dtype, measured in (("bfloat16", (773584, 768000, 384000, -384000)), ("float32", (5584, 0, 0, 0))):
        t = Tape("cpu")
        assert mirrored(cross_entropy, [leaf(t, (BATCH, LENGTH, 1000), dtype)], t) == Measured(*measured)


def test_a_chunk_takes_about_as_much_as_the_hidden_states() -> None:
    assert chunk_rows(16_384, 128_256, 4096) == 512
    assert chunk_rows(2_048, 128_256, 4096) == 64
    assert chunk_rows(100, 1_000, 4096) == 100, "one chunk takes all"
    assert chunk_rows(1, 128_256, 4096) == 1


def test_older_cards_make_the_head_s_gradient_apart() -> None:
    def peak(apart: bool) -> int:
        t = Tape("cuda")
        x, w = leaf(t, (2, 512, 64), "float16"), leaf(t, (4096, 64), "float16")
        head = Linear(
            LinearShape(name="head", in_features=64, out_features=4096), Recipe(method="full"), 0, "none", "float16"
        )
        head.weight = w
        return mirrored(lambda t, x, w: fused_linear_loss(t, x, head, 16, apart), [x, w], t).forward_peak

    assert peak(True) - peak(False) == 2 * 4096 * 64 + 4 * 4096 * 64


def test_no_chunk_is_larger_than_a_recorded_size_can_say() -> None:
    assert chunk_rows(10**12, 262_144, 4096) * 262_144 * 4 < 1 << COEFFICIENT_BITS
    assert chunk_rows(10**6, 128_256, 4096) == 1 << 15
