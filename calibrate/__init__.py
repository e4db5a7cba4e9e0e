"""calibrate: measures what `advise` estimates.

    from calibrate import EstimateCallback # a transformers TrainerCallback; loads torch and transformers

Everything else is the command `calibrate`. Importing the package loads nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calibrate.worker.callback import EstimateCallback

__all__ = ["EstimateCallback"]


def __getattr__(name: str) -> object:
    if name != "EstimateCallback":
        raise AttributeError(f"module 'calibrate' has no attribute {name!r}")
    # By its name as a text: torch stays out of every process that only imports the package.
    return importlib.import_module("calibrate.worker.callback").EstimateCallback
