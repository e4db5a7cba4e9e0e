"""Cut cross entropy: no logits, 16 bits, one loss."""

from __future__ import annotations

import pytest

from advisor.decoders.linear import Linear
from advisor.errors import BadValue, InputError
from advisor.specs import LinearShape, Recipe
from advisor.stacks.cut_cross_entropy import cut_loss
from advisor.tape.tape import Tape
from benchmarks.tape_bytes import Measured, mirrored
from tests.decoders.tiny import spec
from tests.stacks.steps import recipe_of, step


@pytest.mark.parametrize(
    ("vocabulary", "trains", "measured"),
    [
        (1000, False, (7040, 6280, 57912, 44392)),
        (1000, True, (7040, 6280, 313912, 300392)),
        (4096, True, (19424, 18664, 1131256, 1080584)),
    ],
)
def test_bytes_are_those_of_its_own_code(vocabulary: int, trains: bool, measured: tuple[int, ...]) -> None:
    """cut-cross-entropy 25.1.1 on a CPU, bf16, x (2, 96, 128): python -m benchmarks.against_kernels_cce."""
    t = Tape("cpu")
    x, w = t.empty((2, 96, 128), "bfloat16"), t.empty((vocabulary, 128), "bfloat16")
    x.needs_grad, w.needs_grad = True, trains
    shape = LinearShape(name="head", in_features=128, out_features=vocabulary)
    head = Linear(shape, Recipe(method="full"), 0, "none", "bfloat16")
    head.weight = w
    assert mirrored(lambda t, x, w: cut_loss(t, x, head), [x, w], t) == Measured(*measured)


def test_cut_cross_entropy_has_no_logits_and_wants_16_bits() -> None:
    m = spec("llama")
    one, plain = step(m, recipe_of("lora", "cce")), step(m, recipe_of("lora"))
    assert one.part_peaks[0] < plain.part_peaks[0] - 2 * 2 * 256 * m.vocab_size
    with pytest.raises(BadValue, match=r"cce.*16 bits"):
        step(m, recipe_of("lora", "cce", base_dtype="float32"))


def test_two_losses_contradict_each_other() -> None:
    with pytest.raises(InputError, match="cce and liger_loss replace the same code"):
        recipe_of("lora", "cce", "liger_loss")
    with pytest.raises(InputError, match="cce and loss chunked"):
        recipe_of("lora", "cce", loss="chunked")
