"""Cut cross entropy: no logits, 16 bits, one loss."""

from __future__ import annotations

import pytest

from advisor.errors import BadValue, InputError
from tests.decoders.tiny import spec
from tests.stacks.steps import recipe_of, step


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
