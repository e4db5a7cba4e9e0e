"""Loading and k-bit preparation as transformers and peft really run them, on a tiny model, every byte recorded.

A checkpoint of random weights is saved, then loaded with bitsandbytes on the CPU. What a card would receive as a copy
of the file's tensor is copied here as well: the CPU would read it in place.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

import torch

from advisor.specs import Recipe
from calibrate.measurement import LoadingPeaks
from calibrate.worker.build import build_model
from calibrate.worker.patches import quiet
from calibrate.worker.tracker import AllocationTracker


def traced_loading(config: Mapping[str, Any], recipe: Recipe) -> LoadingPeaks:
    """Load a quantized tiny model from a checkpoint, and prepare it. Raises what `build_model` raises."""
    from peft import prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    int8 = recipe.quant == "int8"
    dtype = getattr(torch, recipe.base_dtype)
    options = BitsAndBytesConfig(
        load_in_8bit=int8,
        load_in_4bit=not int8,
        bnb_4bit_quant_type="nf4" if int8 else recipe.quant,
        bnb_4bit_use_double_quant=recipe.double_quant,
        bnb_4bit_compute_dtype=dtype,
    )
    plain = Recipe(
        method="full", base_dtype=recipe.base_dtype, attention=recipe.attention, gradient_checkpointing=False
    )
    with quiet(), tempfile.TemporaryDirectory() as folder, _copied_from_the_file():
        build_model(config, plain, fake=False).save_pretrained(folder)
        tracker = _OnDevice({}, name_modules=False)
        with tracker:
            tracker.mark("loading")
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, quantization_config=options, device_map={"": "cpu"}
            )
            tracker.mark("preparing")
            prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    loading, preparing = tracker.timeline.phase_peaks()
    return LoadingPeaks(
        loading_bytes=loading.peak_bytes, loaded_bytes=loading.end_bytes, preparing_bytes=preparing.peak_bytes
    )


class _OnDevice(AllocationTracker):
    """Leaves out tensors on the meta device, which weigh nothing."""

    def _track(self, tensor: torch.Tensor, category: str, op: str, module: str) -> None:
        if tensor.device.type != "meta":
            super()._track(tensor, category, op, module)


def _copied_from_the_file() -> Any:
    """Materialized tensors are copies, as they are on a card."""

    def copied(tensor: Any, device: Any = None, dtype: Any = None) -> torch.Tensor:
        read: torch.Tensor = tensor[...]
        return read.to(dtype=dtype, copy=True)

    return patch("transformers.core_model_loading._materialize_copy", copied)
