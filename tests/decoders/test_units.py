"""The units of a model hold every parameter once, and every trained one."""

from __future__ import annotations

import pytest

from advisor.catalog import find_model
from advisor.decoders.stack import THIS_STACK
from advisor.decoders.units import units_of
from advisor.parameters.layers import layer_groups
from advisor.parameters.modules import layer_parameter_count, parameter_count
from advisor.parameters.towers import tower_parameter_count
from advisor.parameters.trained import trained_shapes
from advisor.specs import METHODS
from tests.decoders.tiny import CONFIGS, recipe, spec


def test_units_hold_layers_that_rows_of_text_pass_over() -> None:
    m = find_model("llama-3.2-11b-vision")
    assert m.vision is not None
    pieces = [(p, unit.copies) for unit in units_of(m, recipe(m, "full"), THIS_STACK).all for p in unit.pieces]
    assert sum(p.elements * copies for p, copies in pieces) == parameter_count(m) - tower_parameter_count(m.vision)
    across, few = layer_groups(m)[1]
    idle = few * layer_parameter_count(across) + tower_parameter_count(m.vision)
    assert sum(p.elements * copies for p, copies in pieces if p.trained) == parameter_count(m) - idle


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
