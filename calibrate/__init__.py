"""calibrate: measures what `advise` estimates.

    from calibrate import EstimateCallback # a transformers TrainerCallback; loads torch and transformers
    from calibrate import preflight        # whether a run that is about to start fits

Everything else is the command `calibrate`. Importing the package loads nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calibrate.worker.callback import EstimateCallback
    from calibrate.worker.preflight import preflight

__all__ = ["EstimateCallback", "preflight"]

_HOMES = {"EstimateCallback": "calibrate.worker.callback", "preflight": "calibrate.worker.preflight"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'calibrate' has no attribute {name!r}")
    # By its name as a text: torch stays out of every process that only imports the package.
    return getattr(importlib.import_module(_HOMES[name]), name)
