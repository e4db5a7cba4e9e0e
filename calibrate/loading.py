"""Loading and k-bit preparation of a cut of a model, formula against trace. Needs no torch.

The oracle really loads a checkpoint, so the model is cut to one layer and a few words; where even that is large, it
says so. On the CPU bitsandbytes quantizes with other temporaries than on a card: the formula's peak of loading is the
card's, read from source, and what is loaded and prepared is equal on both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from advisor.costs.memory import gradient_bytes
from advisor.costs.moments import base_of, beginnings
from advisor.parameters.layers import least_layers
from advisor.specs import CAUSAL, ModelSpec, Recipe
from advisor.units import MIB
from calibrate.cut import Whole, cut
from calibrate.measurement import LoadingPeaks, TracedLoading

WORDS = 2048
LARGEST_BYTES = 512 * MIB
"""Of the 16-bit checkpoint that is written and loaded."""


class Loader(Protocol):
    """What loads a model."""

    def loading(self, config: Mapping[str, Any], recipe: Recipe) -> LoadingPeaks:
        """Its peaks."""


def traced_loading(
    worker: Loader, name: str, config: Mapping[str, Any], model: ModelSpec, recipe: Recipe
) -> TracedLoading | str:
    """Formula and trace of loading a cut of `model`; why not, in words, where even that is too large.

    Raises what the worker raises.
    """
    if model.kind != CAUSAL:
        return f"loading is not traced: {name} has no head for next tokens"
    if model.vision is not None:
        return f"loading is not traced: {name} has a vision tower beside its layers"
    small = cut(Whole(name, config, model, "", model.default_attention), least_layers(model), WORDS)
    assert small.spec is not None
    size_bytes = gradient_bytes(small.spec, Recipe(method="full", base_dtype=recipe.base_dtype))
    if size_bytes > LARGEST_BYTES:
        return f"loading is not traced: one layer of {name} alone is {size_bytes / MIB:,.0f} MiB"
    found = beginnings(small.spec, base_of(recipe.model_copy(update={"kbit_upcast": True})))
    loading, held = found[0], sum(found[0].held.values())
    preparing = found[1].bytes if len(found) > 1 else held
    predicted = LoadingPeaks(loading_bytes=loading.bytes, loaded_bytes=held, preparing_bytes=preparing)
    return TracedLoading(cut=small.text, predicted=predicted, measured=worker.loading(small.config, recipe))
