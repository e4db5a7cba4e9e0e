"""How each architecture's code differs from Llama's: one row per architecture, with the line that shows each point.

`ModelSpec` holds what a config.json decides; a row holds what the code does whatever the config says. A field about
RoPE, ALiBi, experts or a fused projection applies only to models of the architecture that have them. Every family of
the catalog has a row, which a test checks.

Sources: transformers 5.23 (models/x/modeling_x.py is cited as modeling_x.py) and peft 0.21, whose
_convert_peft_config_moe reads transformers' _MODEL_TO_CONVERSION_PATTERN.
"""

from __future__ import annotations

from advisor.architectures.dense import DENSE
from advisor.architectures.encoders import ENCODERS
from advisor.architectures.mixtures import MIXTURES
from advisor.architectures.row import Architecture
from advisor.architectures.sigmoid_mixtures import SIGMOID_MIXTURES
from advisor.errors import UnsupportedArchitecture

__all__ = ["ARCHITECTURES", "Architecture", "architecture_of"]

ARCHITECTURES: dict[str, Architecture] = dict(sorted((DENSE | MIXTURES | SIGMOID_MIXTURES | ENCODERS).items()))


def architecture_of(model_type: str) -> Architecture:
    """The row of transformers' `model_type`. Raises UnsupportedArchitecture for one that has none."""
    found = ARCHITECTURES.get(model_type)
    if found is None:
        raise UnsupportedArchitecture(
            f"architecture {model_type[:60]!r} is not one that the formula knows: `calibrate --dry-run` measures it"
        )
    return found
