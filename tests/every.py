"""Whether tests run every combination (EVERY_COMBINATION=1 make test), or leave out those that repeat others."""

from __future__ import annotations

import os

EVERY_COMBINATION = bool(os.environ.get("EVERY_COMBINATION"))
