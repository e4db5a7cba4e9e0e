"""The real optimizers: all that the formula knows, and no other."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

from advisor.errors import BadValue, UnknownName
from advisor.optimizers import OPTIMIZERS
from calibrate.worker.optimizers import CONSTRUCTORS, make_optimizer


def test_they_are_those_of_the_formula_but_for_further_packages() -> None:
    assert set(CONSTRUCTORS) == {name for name, row in OPTIMIZERS.items() if not row.package}
    with pytest.raises(BadValue, match="is from galore-torch"):
        make_optimizer([], "galore")


def test_an_unknown_one_is_an_error() -> None:
    with pytest.raises(UnknownName, match="unknown optimizer 'lion_4bit'"):
        make_optimizer([torch.nn.Parameter(torch.zeros(1))], "lion_4bit")


@pytest.mark.parametrize(
    ("name", "kind", "paged"),
    [
        ("adamw", "AdamW", False),
        ("adamw_foreach", "AdamW", False),
        ("adamw_8bit", "AdamW8bit", False),
        ("paged_adamw", "AdamW", True),
        ("paged_adamw_8bit", "AdamW8bit", True),
        ("adafactor", "Adafactor", False),
        ("sgd", "SGD", False),
        ("lion", "Lion", False),
        ("paged_lion_8bit", "Lion", True),
        ("ademamix_8bit", "AdEMAMix", False),
        ("rmsprop", "RMSprop", False),
        ("rmsprop_8bit", "RMSprop", False),
    ],
)
def test_each_is_the_one_it_says(name: str, kind: str, paged: bool) -> None:
    if OPTIMIZERS[name].needs_bitsandbytes:
        pytest.importorskip("bitsandbytes")
    made = make_optimizer([torch.nn.Parameter(torch.zeros(1))], name)
    assert (type(made).__name__, getattr(made, "is_paged", False)) == (kind, paged)
    assert type(made).__module__.startswith("bitsandbytes") is OPTIMIZERS[name].needs_bitsandbytes
