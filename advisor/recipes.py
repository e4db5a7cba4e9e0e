"""The one builder of a recipe: what was asked for, what a trainer sets, and defaults for the rest."""

from __future__ import annotations

from collections.abc import Mapping

from advisor.knobs import idle_knobs
from advisor.specs import QUANTIZED_METHODS, Method, Recipe


def build_recipe(
    method: Method,
    fixed: Mapping[str, object],
    preset: Mapping[str, object] | None = None,
    defaults: Mapping[str, object] | None = None,
) -> Recipe:
    """The recipe of `method` with the fields of `fixed`, else of a trainer's `preset`, else of `defaults`.

    If none of them sets it: an alpha of twice the rank, nf4 with double quantization and k-bit preparation for the
    quantized methods, DoRA's magnitudes in the adapters' dtype, and `Recipe`'s own defaults for the rest. Knobs that
    mean nothing for the method are left out of `fixed` and `preset`.
    Raises UnknownName or BadValue for a field or a value that a recipe does not have.
    """
    idle = idle_knobs(method)
    given = {**(preset or {}), **fixed}
    settings = {**(defaults or {}), **{name: value for name, value in given.items() if name not in idle}}
    quantized = method in QUANTIZED_METHODS
    quant = settings.setdefault("quant", "nf4" if quantized else "none")
    settings.setdefault("double_quant", quant in ("nf4", "fp4"))
    settings.setdefault("kbit_upcast", quantized)
    if "adapter_dtype" in settings:
        settings.setdefault("magnitude_dtype", settings["adapter_dtype"])
    rank = settings.get("rank")
    if isinstance(rank, int):
        settings.setdefault("alpha", 2.0 * rank)
    return Recipe.model_validate({"method": method, **settings})
