"""The one builder of a recipe, and the way back: the flags that ask for one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from advisor.checkpoints import STORES, Store
from advisor.errors import BadValue
from advisor.knobs import BY_NAME, Knob, idle_knobs
from advisor.libraries import libraries_of, version_text
from advisor.specs import QUANTIZED_METHODS, Method, Model, ModelSpec, Recipe, Variant

_SEARCHED = (
    "rank",
    "alpha",
    "target_modules",
    "gradient_checkpointing",
    "micro_batch",
    "gradient_accumulation",
    "expandable_segments",
)
"""What an answer chooses by itself, and may choose differently for each method."""


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
    Other library versions than the mirrored ones come with defaults of their own, before those of the preset.
    Raises UnknownName or BadValue for a field or a value that a recipe does not have.
    """
    quantized = method in QUANTIZED_METHODS
    given = {**(preset or {}), **fixed}
    quant = (given if quantized else {}).get("quant", "nf4" if quantized else "none")
    stored = STORES.get(quant) if isinstance(quant, str) else None  # type: ignore[call-overload]
    layers = cast(int, given.get("trained_layers", 0))
    variant = cast(Variant, given.get("variant", "plain"))
    idle = idle_knobs(method, quant if stored else "nf4", trained_layers=layers, variant=variant)  # type: ignore[arg-type]
    settings = {**(defaults or {}), **{name: value for name, value in given.items() if name not in idle}}
    if settings.get("stack"):
        settings |= {name: value for name, value in _of_versions(method, settings).items() if name not in fixed}
    settings.setdefault("quant", quant)
    settings.setdefault("double_quant", quant in ("nf4", "fp4"))
    if stored and not stored.by_bitsandbytes:
        settings |= _of_a_checkpoint(stored, fixed)
        settings.setdefault("quant_group", stored.group)
    settings.setdefault("kbit_upcast", quantized)
    if "adapter_dtype" in settings:
        settings.setdefault("magnitude_dtype", settings["adapter_dtype"])
    rank = settings.get("rank")
    if isinstance(rank, int):
        settings.setdefault("alpha", 2.0 * rank)
    return Recipe.model_validate({"method": method, **settings})


def _of_a_checkpoint(store: Store, fixed: Mapping[str, object]) -> dict[str, object]:
    """Knobs on a base that its checkpoint quantized: trainers do not prepare it, and it may have but one dtype."""
    found: dict[str, object] = {"kbit_upcast": store.casts_the_rest and bool(fixed.get("kbit_upcast", False))}
    if store.only_dtype:
        asked = fixed.get("base_dtype", store.only_dtype)
        if asked != store.only_dtype:
            raise BadValue(
                "--base-dtype",
                asked,
                f"must be {store.only_dtype}: transformers 5.23 casts an {store.title} base to it",
            )
        found["base_dtype"] = store.only_dtype
    return found


def stored_fields(m: Model, method: Method) -> dict[str, object]:
    """The recipe's fields that the checkpoint of `m` decides for `method`."""
    found = m.checkpoint if isinstance(m, ModelSpec) else None
    if found is None or found.dequantized or method not in QUANTIZED_METHODS:
        return {}
    fields: dict[str, object] = {"quant": found.quant, "double_quant": found.double_quant}
    if not STORES[found.quant].by_bitsandbytes:
        fields |= {"quant_bits": found.bits, "quant_group": found.group}
    return fields


def _of_versions(method: Method, settings: Mapping[str, Any]) -> dict[str, object]:
    """The knobs that older versions of the libraries set differently by themselves.

    Sources: transformers 4.57 and 5.0, modeling_utils.py, gradient_checkpointing_enable (`use_reentrant`); peft 0.11
    and 0.12, mapping.py, get_peft_model (`autocast_adapter_dtype`); peft 0.8 to 0.10, tuners/lora/config.py and bnb.py.
    Raises BadValue for a method that peft did not have.
    """
    libraries = libraries_of(settings["stack"])
    first = {"dora": (0, 9), "qdora": (0, 10)}.get(method, (0, 0))
    if libraries.peft < first:
        needed = f"needs peft {version_text(first)} or later, and --stack has {version_text(libraries.peft)}"
        raise BadValue("--method", method, needed)
    found: dict[str, object] = {}
    if libraries.transformers < (5, 0):
        found["reentrant"] = True
    if libraries.peft < (0, 12) and method in ("lora", "dora"):  # those of a quantized layer stay in fp32
        found["adapter_dtype"] = found["magnitude_dtype"] = settings.get("base_dtype", "bfloat16")
    return found


def like(recipe: Recipe, other: Recipe) -> Recipe:
    """`recipe` with everything that an answer searches as in `other`, so that only the method differs."""
    idle = {*idle_knobs(recipe.method), *idle_knobs(other.method)}
    return recipe.model_copy(update={name: getattr(other, name) for name in _SEARCHED if name not in idle})


def flag(name: str, value: object) -> str:
    """A knob as the command line takes it: '--seq-len 512', '--no-packing', '--target-modules q_proj,v_proj'."""
    knob = BY_NAME[name]
    if isinstance(value, bool):
        return knob.flag if value else f"--no-{knob.flag[2:]}"
    if isinstance(value, tuple):
        return f"{knob.flag} {','.join(_shortest(knob, tuple(map(str, value))))}"
    return f"{knob.flag} {value:.15g}" if isinstance(value, float) else f"{knob.flag} {value}"


def _shortest(knob: Knob, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names with the one word in the place of several that stands for them all."""
    for word, stands_for in knob.aliases.items():
        several = stands_for.split()
        if len(several) > 1 and set(several) <= set(names):
            names = tuple(dict.fromkeys(word if name in several else name for name in names))
    return names


def flags_of(recipe: Recipe, fixed: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The flags that pin what an answer would search; knobs in `fixed` are given already."""
    idle = idle_knobs(recipe.method, recipe.quant, recipe.gradient_checkpointing, variant=recipe.variant)
    pinned = ("method", *(name for name in _SEARCHED if name in BY_NAME and name not in idle))
    return tuple(flag(name, getattr(recipe, name)) for name in pinned if name not in fixed)
