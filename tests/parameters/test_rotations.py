"""OFT's adapters."""

from __future__ import annotations

import pytest

from advisor.errors import BadValue
from advisor.parameters.rotations import rotation_shape
from advisor.specs import LinearShape


def test_blocks_must_fill_the_width() -> None:
    with pytest.raises(BadValue, match="no multiple of OFT's block of 32"):
        rotation_shape(LinearShape(name="q_proj", in_features=1000, out_features=8))
