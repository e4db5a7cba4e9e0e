"""What every test runs under: one thread, no network, none of the user's own files, reproducible draws."""

from __future__ import annotations

import os
import signal
import tempfile

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.quick"]

# Before anything imports torch, which reads these once.
for name, value in {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}.items():
    os.environ.setdefault(name, value)

# Each process that a test starts would compile the packages anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Caches and earlier calibrations of whoever runs the tests must not change their outcome.
_home = tempfile.TemporaryDirectory(prefix="finetune-advisor-tests-")
for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "HF_HOME"):
    os.environ[name] = os.path.join(_home.name, name.lower())

# A shell starts its background jobs with Ctrl-C ignored, which the programs under test would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the stand-in home."""
    _home.cleanup()
