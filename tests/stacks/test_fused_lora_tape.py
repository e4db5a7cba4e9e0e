"""LoRA in one function, by the bytes that axolotl's own code took (benchmarks.against_kernels_axolotl).

axolotl 0.19.0 on a CPU, PyTorch 2.13, bf16: x (2, 96, 128), inner width 352, rank 8 in fp32; the columns are those of
test_liger_tape, DoRA's norms of weights are cached.
"""

from __future__ import annotations

import pytest

from advisor.decoders.linear import Linear
from advisor.specs import LinearShape, Recipe
from advisor.stacks.fused_lora_tape import dora_scale, gated_mlp, projections
from advisor.tape.graph import Tensor
from advisor.tape.ops import add
from advisor.tape.tape import Tape
from benchmarks.tape_bytes import Measured, mirrored

QKV, OUT, MLP = ((128, 128),) * 3, ((128, 128),), ((128, 352), (128, 352), (352, 128))


def run(t: Tape, x: Tensor, layers: list[Linear], shapes: tuple[tuple[int, int], ...]) -> Tensor:
    if shapes is MLP:
        return gated_mlp(t, x, layers)
    made = projections(t, x, layers)
    return made[0] if shapes is OUT else add(t, add(t, made[0], made[1]), made[2])


@pytest.mark.parametrize(
    ("shapes", "dora", "dropout", "measured"),
    [
        (QKV, False, 0.0, (258048, 61440, 75776, 61440)),
        (OUT, False, 0.0, (56320, 53248, 59392, 53248)),
        (MLP, False, 0.0, (477696, 342528, 216576, -198144)),
        (QKV, False, 0.1, (356352, 159744, 124928, -36864)),
        (OUT, False, 0.1, (154624, 151552, 154624, -45056)),
        (MLP, False, 0.1, (576000, 440832, 265728, -296448)),
        (QKV, True, 0.0, (602880, 209664, 219648, -85248)),
        (OUT, True, 0.0, (200960, 102656, 105984, 4352)),
        (MLP, True, 0.0, (1437824, 663680, 539392, -515968)),
        (MLP, True, 0.1, (1536128, 761984, 588544, -614272)),
    ],
)
def test_bytes(shapes: tuple[tuple[int, int], ...], dora: bool, dropout: float, measured: tuple[int, ...]) -> None:
    recipe = Recipe(method="dora" if dora else "lora", rank=8, dropout=dropout, adapter_dtype="float32")
    layers = [
        Linear(LinearShape(name="linear", in_features=i, out_features=o), recipe, 8, "none", "bfloat16")
        for i, o in shapes
    ]
    t = Tape("cpu")
    t.rerunning = dora
    x = t.empty((2, 96, 128), "bfloat16")
    x.needs_grad = True
    assert mirrored(lambda t, x: run(t, x, layers, shapes), [x], t) == Measured(*measured)


def test_norms_of_weights_are_computed_once_a_step() -> None:
    recipe = Recipe(method="qdora", rank=8, quant="nf4", double_quant=False)
    layer = Linear(LinearShape(name="linear", in_features=128, out_features=64), recipe, 8, "nf4", "bfloat16")
    t = Tape("cuda")
    dora_scale(t, layer, "bfloat16")
    assert 2 * 128 * 64 in t.slots, "the weight is dequantized"
    again = Tape("cuda")
    again.replaying = True
    dora_scale(again, layer, "bfloat16")
    assert set(again.slots) == {2 * 64}
