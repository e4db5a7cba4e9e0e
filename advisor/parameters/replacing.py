"""Adapters that stand in LoRA's place: OFT, IA3 and VeRA, each a value of `--variant`.

What they train of a linear layer, which layers they are put on by default, and what peft or this mirror of it does not
have.
"""

from __future__ import annotations

from advisor.architectures import architecture_of
from advisor.architectures.scaled import READ_SCALED, scaled_modules
from advisor.errors import BadValue
from advisor.libraries import MIRRORED, Version, libraries_of, version_text
from advisor.parameters.rotations import rotation_shape
from advisor.parameters.storage import other_dtype
from advisor.parameters.targets import default_targets, passes_over_linears, resolve_targets
from advisor.specs import REPLACING, DType, LinearShape, Model, ModelSpec, Recipe, Variant

_TITLES: dict[Variant, str] = {"oft": "OFT", "ia3": "IA3", "vera": "VeRA"}

BY_BASE: Version = (0, 18)
"""The version of peft whose OFT has a class for each kind of quantized base; known beside 0.21's."""
VERA_RANK = 256
"""peft's own. Source: peft 0.21, tuners/vera/config.py."""


def title_of(recipe: Recipe) -> str:
    """The name of the adapters."""
    return _TITLES.get(recipe.variant, "LoRA")


def scales_input(name: str) -> bool:
    """Whether IA3 scales what this layer reads: peft's "feedforward" modules, by the end of a module's path."""
    return name.rpartition(".")[2] in READ_SCALED or name in READ_SCALED


def scaled_targets(m: ModelSpec) -> tuple[str, ...]:
    """The layers that IA3 scales where nobody names any. Raises BadValue for a model for which peft names none."""
    named = scaled_modules(architecture=m.architecture)
    if not named:
        raise BadValue("--variant", "ia3", f"peft 0.21 names no modules of {m.architecture} for it")
    return named


def targets_by_default(m: Model, variant: Variant = "plain") -> tuple[str, ...]:
    """What is adapted where nobody says it."""
    if variant not in REPLACING or not isinstance(m, ModelSpec):
        return default_targets(m)
    if variant == "ia3":
        return scaled_targets(m)
    return ("attention",) if passes_over_linears(m) else default_targets(m)


def replacing_shapes(shape: LinearShape, recipe: Recipe, rank: int) -> tuple[tuple[int, ...], ...]:
    """What is trained of one linear layer (O, I): OFT's rotation, IA3's vector, or VeRA's vectors of O and `rank`.

    Source: peft 0.21, tuners/oft/layer.py; tuners/ia3/layer.py and tuners/vera/layer.py, update_layer.
    """
    if recipe.variant == "oft":
        return (rotation_shape(shape),)
    if recipe.variant == "ia3":
        return ((1, shape.in_features) if scales_input(shape.name) else (shape.out_features, 1),)
    return (shape.out_features,), (rank,)


def _in_attention(m: ModelSpec, target_modules: tuple[str, ...]) -> bool:
    return target_modules != ("all-linear",) and resolve_targets(m, target_modules) <= resolve_targets(
        m, ("attention",)
    )


def shared_dtype(recipe: Recipe) -> DType:
    """The dtype of VeRA's shared matrices: that of the vectors, but fp32 where the base's weights are integers.

    Source: peft 0.21, tuners/tuners_utils.py, _move_adapter_to_device_of_base_layer, which casts them to a dtype of
    numbers with a point, and cast_adapter_dtype, which makes fp32 of that by default.
    """
    return "float32" if recipe.quant == "int8" else recipe.adapter_dtype


def _mixes_dtypes(recipe: Recipe) -> bool:
    """Whether a product without autocast would get operands of two dtypes, which PyTorch refuses.

    On a quantized base IA3 leaves what it scales in fp32, and a head in 16 bits reads that. VeRA's matrices on an int8
    base are in fp32 whatever the vectors are.
    """
    if recipe.variant == "ia3":
        return recipe.is_quantized and other_dtype(recipe) != "float32"
    return recipe.variant == "vera" and recipe.adapter_dtype != shared_dtype(recipe)


def _knows_rotation(recipe: Recipe, peft: Version) -> bool:
    """Whether OFT on that base is mirrored of that version of peft: 0.18 but for GPTQ, whose layer it runs twice.

    Its classes for quantized bases let the fp32 input go before the layer runs, not after; the rotation before that
    holds more, so that no peak differs. Source: peft 0.18.1, tuners/oft/layer.py, bnb.py, awq.py and gptq.py.
    """
    return recipe.variant == "oft" and peft == BY_BASE and recipe.quant in ("none", "nf4", "fp4", "awq")


def check_replacing(m: ModelSpec, recipe: Recipe) -> None:
    """Raises BadValue for what peft cannot adapt so, and for what is not mirrored of it."""
    name, title = recipe.variant, title_of(recipe)
    fused = [one for one in (*recipe.kernels, *recipe.stack) if one.startswith(("fused_lora", "unsloth"))]
    if fused:
        raise BadValue("--variant", name, f"{fused[0]} has none: its functions are for LoRA")
    libraries = libraries_of(recipe.stack)
    if libraries.code and (name, libraries.code) != ("oft", "llamafactory"):
        raise BadValue("--variant", name, f"{libraries.code} has none")
    if libraries.peft != MIRRORED.peft and not _knows_rotation(recipe, libraries.peft):
        mirrored, other = version_text(MIRRORED.peft), version_text(libraries.peft)
        raise BadValue("--variant", name, f"is mirrored of peft {mirrored} alone, and this stack has {other}")
    if name == "oft" and architecture_of(m.architecture).linears_are_conv1d:
        raise BadValue("--variant", "oft", f"peft 0.21 has none for the Conv1D layers of {m.name}")
    if name == "ia3":
        scaled_targets(m)
    if passes_over_linears(m) and not _in_attention(m, recipe.target_modules):
        raise BadValue("--variant", name, f"is not mirrored for the MLP of {m.name}: add --target-modules attention")
    if recipe.attention == "flash" and name == "ia3" and _mixes_dtypes(recipe):
        raise BadValue("--attention", "flash", f"gets two dtypes from peft 0.21's {title} on this base: take sdpa")
    if not recipe.autocast and _mixes_dtypes(recipe):
        raise BadValue(
            "--autocast", False, f"must be on: without it peft 0.21's {title} hands two dtypes to one product"
        )
    stores = {"oft": ("none", "nf4", "fp4")}.get(name, ("none", "nf4", "fp4", "int8"))
    stores = (*stores, *(("awq",) if name == "oft" and libraries.peft == BY_BASE else ()))
    wrong: list[str] = [recipe.method] * recipe.is_dora
    wrong += ["dropout"] * (recipe.dropout > 0 and name != "vera")
    wrong += ["trained layers"] * (recipe.trained_layers > 0 and name == "ia3")
    wrong += [recipe.quant] * (recipe.quant not in stores)
    if wrong:
        bits = "16 or 4" if name == "oft" else "16, 8 or 4"
        without = {"oft": ", no dropout", "ia3": ", no dropout, in all layers", "vera": ""}[name]
        raise BadValue("--variant", name, f"{title} must be with lora or qlora, {bits} bits{without}: not {wrong[0]}")
