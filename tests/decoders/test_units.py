"""The units of a model hold every parameter once, and every trained one."""

from __future__ import annotations

import pytest

from advisor.decoders.stack import THIS_STACK
from advisor.decoders.units import units_of
from advisor.parameters.modules import parameter_count
from advisor.parameters.trained import trained_shapes
from advisor.specs import METHODS
from tests.decoders.tiny import CONFIGS, recipe, spec


@pytest.mark.parametrize("name", [name for name in CONFIGS if spec(name, 3).task != "classification"])
def test_units_hold_every_parameter(name: str) -> None:
    m = spec(name, 3)
    for method in METHODS:
        asked = recipe(m, method)
        pieces = [(piece, unit.copies) for unit in units_of(m, asked, THIS_STACK).all for piece in unit.pieces]
        trained = sum(piece.elements * copies for piece, copies in pieces if piece.trained)
        assert trained == sum(p.elements * p.times for p in trained_shapes(m, asked))
        if method == "full":
            assert sum(piece.elements * copies for piece, copies in pieces) == parameter_count(m)
