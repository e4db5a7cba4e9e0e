"""Loading and k-bit preparation as transformers and peft really run them, on a tiny model, every byte recorded.

A checkpoint of random weights is saved, then loaded with bitsandbytes on the CPU, which quantizes it or finds it
quantized. What a card would receive as a copy of the file's tensor is copied here as well: the CPU would read it in
place.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch

from advisor.specs import Recipe
from calibrate.measurement import LoadingPeaks
from calibrate.worker.build import build_model
from calibrate.worker.patches import quiet
from calibrate.worker.quantized import quantization_tensors
from calibrate.worker.tracker import AllocationTracker


def traced_loading(config: Mapping[str, Any], recipe: Recipe) -> LoadingPeaks:
    """Load a tiny model from a 16-bit checkpoint and quantize it, and prepare it. Raises what `build_model` raises."""
    with quiet(), tempfile.TemporaryDirectory() as folder, _copied_from_the_file():
        _plain(config, recipe).save_pretrained(folder)
        return _loaded(folder, recipe)


class StoredLoaded(NamedTuple):
    """A tiny checkpoint that is quantized already: its config.json, and what its weights and constants hold."""

    config: dict[str, Any]
    weight_bytes: int
    constant_bytes: int


def loaded_checkpoint(config: Mapping[str, Any], recipe: Recipe, skipped: Sequence[str] | None) -> StoredLoaded:
    """Save a tiny model as bitsandbytes quantized it, without the modules in `skipped`, and load that."""
    from transformers import AutoModelForCausalLM

    given = {"dtype": getattr(torch, recipe.base_dtype), "device_map": {"": "cpu"}}
    with quiet(), tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as stored:
        _plain(config, recipe).save_pretrained(folder)
        options = _options(recipe, llm_int8_skip_modules=None if skipped is None else list(skipped))
        AutoModelForCausalLM.from_pretrained(folder, quantization_config=options, **given).save_pretrained(stored)
        model = AutoModelForCausalLM.from_pretrained(stored, **given)
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        constants = [tensor for module in model.modules() for tensor in quantization_tensors(module).values()]
        saved = json.loads((Path(stored) / "config.json").read_text(encoding="utf-8"))
    return StoredLoaded(saved, weights, sum(one.numel() * one.element_size() for one in constants))


def _plain(config: Mapping[str, Any], recipe: Recipe) -> Any:
    plain = Recipe(
        method="full", base_dtype=recipe.base_dtype, attention=recipe.attention, gradient_checkpointing=False
    )
    return build_model(config, plain, fake=False)


def _options(recipe: Recipe, **further: Any) -> Any:
    """The BitsAndBytesConfig of a recipe."""
    from transformers import BitsAndBytesConfig

    int8 = recipe.quant == "int8"
    return BitsAndBytesConfig(
        load_in_8bit=int8,
        load_in_4bit=not int8,
        bnb_4bit_quant_type="nf4" if int8 else recipe.quant,
        bnb_4bit_use_double_quant=recipe.double_quant,
        bnb_4bit_compute_dtype=getattr(torch, recipe.base_dtype),
        **further,
    )


def _loaded(folder: str, recipe: Recipe) -> LoadingPeaks:
    """What is alive while the model in `folder` is loaded and quantized, and while it is prepared."""
    from peft import prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM

    tracker = _OnDevice({}, name_modules=False)
    with tracker:
        tracker.mark("loading")
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, recipe.base_dtype),
            quantization_config=_options(recipe),
            device_map={"": "cpu"},
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
