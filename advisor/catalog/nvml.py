"""Opening a card through NVML, the management library of NVIDIA's driver."""

from __future__ import annotations

import importlib
from typing import Any


def nvml_module() -> Any:
    """The module pynvml. Raises ImportError where the package nvidia-ml-py is missing."""
    return importlib.import_module("pynvml")


def open_card(nvml: Any, uuid: str = "") -> Any:
    """Start NVML; the handle of the card with this UUID ('GPU-...'), or of the first.

    Raises nvml.NVMLError; NVML is shut down again then. Otherwise the caller shuts it down.
    """
    nvml.nvmlInit()
    try:
        return nvml.nvmlDeviceGetHandleByUUID(uuid) if uuid else nvml.nvmlDeviceGetHandleByIndex(0)
    except nvml.NVMLError:
        nvml.nvmlShutdown()
        raise
