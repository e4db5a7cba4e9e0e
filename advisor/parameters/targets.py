"""Which parameters get adapters: how peft resolves `target_modules` for each architecture."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from math import prod

from advisor.architectures import architecture_of
from advisor.errors import BadValue, UnknownName
from advisor.parameters.layers import attends_anywhere, layer_groups
from advisor.parameters.modules import gate_linear, head_linear, layer_linears, outer_linears, own_parameters
from advisor.parameters.own_weights import saves_inner
from advisor.parameters.token_mixers import PROJECTION_BACK, STATE_SPACES, one_function
from advisor.specs import LinearShape, Model, ModelSpec, Recipe

ATTENTION = "self_attn."
"""What the name of a linear layer of the attention begins with where one of the MLP has the same."""

_PARTS = ("gate_proj", "router.gate")
"""Names of AFMoE's that peft takes for parts of fused experts: the gate of its attention, and its router.

Source: peft 0.21, utils/transformers_weight_conversion.py, _MOE_TARGET_MODULE_MAPPING."""

_ALONE = ("all-linear", "attention")
"""What stands for several layers, and beside nothing else."""


CONVOLUTIONS = ("conv", "conv1d")
"""What models call the convolution of each channel by itself, in layers without attention."""


def fuses_experts(m: ModelSpec) -> bool:
    """Whether peft mistakes gate, up and down projections for parts of fused experts, so that no dense MLP is adapted.

    With 'all-linear' it adapts router and fused experts themselves, but not by DoRA and not with dropout.

    Source: peft 0.21, utils/transformers_weight_conversion.py, _convert_peft_config_moe.
    """
    return m.mlp == "experts" and _converts_targets(m)


def _converts_targets(m: ModelSpec) -> bool:
    return m.experts == "fused" and architecture_of(m.architecture).fused_experts_in_peft


def target_name(name: str) -> str:
    """What `target_modules` calls a linear layer: 'gate_proj' for each expert's own, 'dense' for three of an encoder's.

    Source: peft 0.9 to 0.21, tuners/tuners_utils.py, check_target_module_exists: the end of a module's path.
    """
    return name.rpartition(".")[2]


def _named(name: str, target_modules: tuple[str, ...]) -> bool:
    """Whether one of them names that linear layer: all of its name, or the end of it after a dot."""
    return name in target_modules or target_name(name) in target_modules


def attention_names(m: ModelSpec) -> tuple[str, ...]:
    """The linear layers of the attention block; () where a layer has none.

    An encoder's output projection is left out: it is called 'dense', as its MLP's layers are.
    """
    if not m.attends:
        return ()
    if m.bidirectional:
        return m.qkv_names
    apart = m.attention_gate in ("head", "feature") and not _converts_targets(m)
    return (*m.qkv_names, *((gate_linear(m).name,) if apart else ()), m.out_name)


@lru_cache(maxsize=1024)
def resolve_targets(m: ModelSpec, target_modules: tuple[str, ...]) -> frozenset[str]:
    """Names of the linear layers that get an adapter, in any layer of the model.

    'all-linear' is every linear layer except the output embedding, as in peft; 'attention' those of the attention. The
    output embedding ('lm_head') gets one where it is named. Names that the model does not have match nothing, as in
    peft, which complains only when none of them matches (`unmatched_targets`).
    Raises UnknownName when the model has none of the names, BadValue for what peft fails on.
    """
    if target_modules == ("all-linear",) and fails_on_all_linear(m):
        listed = ", ".join(architecture_of(m.architecture).refused_in_peft)
        why = (
            f"refuses {listed} of {m.architecture}"
            if listed
            else f"fails on the router of {m.architecture}, a linear layer that returns several tensors"
        )
        names, other = ", ".join(_names_of(m)), "use attention, or " if attends_anywhere(m) else ""
        raise BadValue("target modules", "all-linear", f"peft 0.21 {why}; {other}name some of {names}")
    if target_modules == ("attention",) and not attends_anywhere(m):
        names = ", ".join(_names_of(m))
        raise BadValue("target modules", "attention", f"names nothing in {m.name}: name some of {names}")
    if not (len(target_modules) == 1 and target_modules[0] in _ALONE):
        known, refused = _names_of(m), architecture_of(m.architecture).refused_in_peft
        for name in target_modules:
            if name in CONVOLUTIONS and m.mixers:
                why = f"must not be adapted: peft 0.21 fails on the convolutions of {m.name} (tuners/lora/layer.py)"
                raise BadValue("target modules", name, why)
            if name in refused:
                why = f"peft 0.21 refuses it on {m.architecture}, whose fused kernel would pass over the adapter"
                raise BadValue("target modules", name, f"{why}; name some of {', '.join(known)}")
            if name in _ALONE:
                raise BadValue("target modules", ",".join(target_modules), f"must be {name} alone, or names only")
            if name not in (*known, *_full_names(m)) and ("." in name or not set(known) & set(target_modules)):
                raise UnknownName("target module", name, known, hint=f"{m.name} has {', '.join(known)}")
    inside = (name for part, _ in layer_groups(m) for name in targets_in(part, target_modules))
    return frozenset((*inside, *(shape.name for shape in outer_targets(m, target_modules))))


def unmatched_targets(m: ModelSpec, target_modules: tuple[str, ...]) -> tuple[str, ...]:
    """The names that no linear layer of the model has.

    Source: peft 0.21, tuners/tuners_utils.py, inject_adapter: it raises only if no target matches.
    """
    return tuple(name for name in target_modules if name not in (*_names_of(m), *_ALONE))


def passed_over(m: ModelSpec, recipe: Recipe) -> tuple[str, ...]:
    """The targets whose adapters have no effect: mamba_ssm's kernel reads the weights of the projections after it.

    Source: transformers 5.23, models/granitemoehybrid/modeling_granitemoehybrid.py, GraniteMoeHybridMambaLayer.forward
    (`outproj_weight=self.out_proj.weight`), and the same of other models with Mamba 2's layers; models/mamba/
    modeling_mamba.py, MambaMixer.forward (`self.x_proj.weight`).
    """
    if recipe.sequence_kernels != "packages" or not recipe.has_adapters:
        return ()
    read = {PROJECTION_BACK} if not STATE_SPACES.isdisjoint(m.mixers) else {"x_proj"} if one_function(m) else set()
    return tuple(read & resolve_targets(m, recipe.target_modules)) if read else ()


def never_called(m: ModelSpec, recipe: Recipe) -> tuple[str, ...]:
    """The targets whose adapters have no effect because the model's code multiplies by the layer's weight itself."""
    alone = {
        shape.name
        for part, _ in layer_groups(m)
        for shape in layer_linears(part).values()
        if shape.weight_alone and idles(shape, recipe)
    }
    return tuple(alone & resolve_targets(m, recipe.target_modules)) if alone else ()


def idles(shape: LinearShape, recipe: Recipe) -> bool:
    """Whether a linear layer, or its adapter, gets no gradient.

    Source: transformers 5.23, models/jamba/modeling_jamba.py, JambaMambaMixer.forward: `self.dt_proj.weight @
    time_step`, and `self.dt_proj(time_step)` on a quantized base.
    """
    return shape.idle or (shape.weight_alone and recipe.has_adapters and not recipe.is_quantized)


def outer_targets(m: ModelSpec, target_modules: tuple[str, ...]) -> list[LinearShape]:
    """Those around the decoder layers, in the order of the forward."""
    found = [
        shape
        for name, shape in outer_linears(m).items()
        if target_modules == ("all-linear",) or _named(name, target_modules)
    ]
    if m.task == "embeddings":
        return found
    head = head_linear(m)
    return [*found, head] if head.name in target_modules and not m.labels else found


def outer_adapters(m: ModelSpec, recipe: Recipe) -> list[LinearShape]:
    """Those that a recipe gives an adapter: none that is trained whole, and none where only some layers have them.

    Source: peft 0.21, tuners/tuners_utils.py, check_target_module_exists: `layers_to_transform` matches paths with a
    layer's number, `modules_to_save` goes first.
    """
    if not recipe.has_adapters or recipe.trained_layers:
        return []
    if saves_inner(m):
        return []
    return [one for one in outer_targets(m, recipe.target_modules) if one.name not in recipe.modules_to_save]


def targets_in(part: ModelSpec, target_modules: tuple[str, ...]) -> frozenset[str]:
    """Those of one kind of layer; a name that only other layers have is left out."""
    if target_modules == ("attention",):
        return frozenset(attention_names(part))
    names = _adaptable(part)
    return frozenset(name for name in names if target_modules == ("all-linear",) or _named(name, target_modules))


def _adaptable(part: ModelSpec) -> list[str]:
    """The linear layers that peft can adapt, in the order of the forward."""
    fused = (*part.mlp_names, *_PARTS) if _converts_targets(part) else ()
    left = {*fused, *architecture_of(part.architecture).refused_in_peft}
    return [name for name in layer_linears(part) if target_name(name) not in left and name not in left]


def passes_over_linears(m: ModelSpec) -> bool:
    """Whether peft's LoRA leaves out linear layers beside fused experts that adapters of other kinds are put on.

    Source: peft 0.21, utils/transformers_weight_conversion.py, convert_peft_config_for_transformers.
    """
    return any(len(_adaptable(part)) < len(layer_linears(part)) for part, _ in layer_groups(m))


def _full_names(m: ModelSpec) -> set[str]:
    """The names of linear layers inside a decoder layer that have a dot."""
    return {name for part, _ in layer_groups(m) for name in _adaptable(part) if "." in name}


def _names_of(m: ModelSpec) -> list[str]:
    inside = (target_name(name) for part, _ in layer_groups(m) for name in _adaptable(part))
    heads = () if m.task in ("embeddings", "classification") else (head_linear(m).name,)
    return list(dict.fromkeys((*inside, *map(target_name, outer_linears(m)), *heads)))


def fails_on_all_linear(m: ModelSpec) -> bool:
    """Whether peft 0.21 cannot adapt every linear layer: it fails on a router that returns several tensors.

    And it refuses the projection out of a state-space layer, whose weight a fused kernel reads.
    Source: peft 0.21, tuners/tuners_utils.py, _check_lora_target_modules_mamba.
    """
    quirks = architecture_of(m.architecture)
    return bool(quirks.refused_in_peft) or (m.num_experts > 0 and quirks.router_returns_several)


def default_targets(m: Model) -> tuple[str, ...]:
    """What is adapted by default: every linear layer; where peft fails on that the attention's, or what it takes.

    Of Mamba's layers the first projection alone: the function that does the rest reads the others' weights.
    """
    if not isinstance(m, ModelSpec) or not fails_on_all_linear(m):
        return ("all-linear",)
    if attends_anywhere(m):
        return ("attention",)
    return tuple(name for part, _ in layer_groups(m) for name in _adaptable(part)[: 1 if one_function(m) else None])


def same_layers(m: Model) -> bool:
    """Whether LoRA and DoRA adapt the same layers by default: peft's DoRA does not reach fused experts."""
    return not (isinstance(m, ModelSpec) and fuses_experts(m))


def adapts_experts(m: ModelSpec, target_modules: tuple[str, ...], dora: bool, dropout: float) -> bool:
    """Whether peft adapts the fused experts; it refuses to where the recipe asks for DoRA or dropout."""
    return fuses_experts(m) and target_modules == ("all-linear",) and not dora and not dropout


def spelled_targets(m: ModelSpec, recipe: Recipe) -> tuple[str, ...]:
    """The recipe's targets as peft needs them: by name where its 'all-linear' would be refused.

    It reaches fused experts, which neither DoRA nor dropout does, and `layers_to_transform` takes names only (peft
    0.21, tuners/lora/config.py).
    """
    refused = recipe.trained_layers or (fuses_experts(m) and (recipe.is_dora or recipe.dropout))
    if refused and recipe.target_modules == ("all-linear",):
        reached = {target_name(name) for name in resolve_targets(m, recipe.target_modules)}
        return tuple(name for name in _names_of(m) if name in reached)
    return recipe.target_modules


Pair = tuple[tuple[int, int], tuple[int, int]]


def _expert_adapter_shapes(m: ModelSpec, rank: int) -> dict[str, Pair]:
    """Shapes of A and B for router, gate_up (whose rank is doubled, for it holds two projections) and down."""
    count, h, inner = m.num_experts, m.hidden_size, m.expert_size
    found = {
        "router": ((rank, h), (count, rank)),
        "gate_up": ((count * 2 * rank, h), (2 * inner, count * 2 * rank)),
        "down": ((count * rank, inner), (h, count * rank)),
    }
    router = m.router_linear in _PARTS
    return {name: pair for name, pair in found.items() if name in own_parameters(m) or (name == "router" and router)}


def expert_adapters(m: ModelSpec, recipe: Recipe, rank: int) -> dict[str, Pair]:
    """Shapes of A and B of each adapted parameter of a layer's experts; empty where peft adapts none.

    Source: peft 0.21, utils/transformers_weight_conversion.py and tuners/lora/layer.py, ParamWrapper.
    """
    if (
        not recipe.has_adapters
        or recipe.trained_layers
        or recipe.replaces_lora
        or not adapts_experts(m, recipe.target_modules, recipe.is_dora, recipe.dropout)
    ):
        return {}
    return _expert_adapter_shapes(m, rank)


def adapter_parameter_count(m: ModelSpec, target_modules: tuple[str, ...], rank: int, dora: bool) -> int:
    """Parameters that LoRA adds, rank * (in + out) per adapted linear layer; DoRA adds out more (its magnitude).

    Source: Hu et al. 2021, arXiv:2106.09685, section 4.1; Liu et al. 2024, arXiv:2402.09353, section 4.1.
    """

    def of(shapes: Iterable[LinearShape]) -> int:
        return sum(rank * (shape.in_features + shape.out_features) + dora * shape.out_features for shape in shapes)

    resolve_targets(m, target_modules)  # raises for what the model does not have
    total = of(outer_targets(m, target_modules))
    for part, layers in layer_groups(m):
        inside = targets_in(part, target_modules)
        per_layer = of(shape for name, shape in layer_linears(part).items() if name in inside)
        if adapts_experts(part, target_modules, dora, 0.0):
            per_layer += sum(prod(a) + prod(b) for a, b in _expert_adapter_shapes(part, rank).values())
        total += per_layer * layers
    return total
