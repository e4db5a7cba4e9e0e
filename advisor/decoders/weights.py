"""The weights of a decoder's layers as the tape sees them, and in which dtypes and stores they are."""

from __future__ import annotations

from advisor.architectures import architecture_of
from advisor.decoders.experts import Experts
from advisor.decoders.gpt_oss import OssExperts
from advisor.decoders.linear import Linear
from advisor.decoders.llama4 import Llama4Experts
from advisor.decoders.norms import HeadNorms, Norm, NormPlace
from advisor.decoders.stack import Stack
from advisor.errors import BadValue
from advisor.parameters.layer_inputs import PASSED_OVER
from advisor.parameters.modules import (
    GATED_NORM,
    HEAD_NORMS,
    PLAIN_NORM,
    SINKS,
    head_linear,
    layer_linears,
    layer_norms,
    outer_linears,
    own_dtype,
    own_parameters,
)
from advisor.parameters.own_weights import own_weights, saves_inner
from advisor.parameters.storage import experts_made, layer_quant, other_dtype, own_quant, quantized_bias_dtype
from advisor.parameters.targets import expert_adapters, outer_adapters, targets_in
from advisor.parameters.token_mixers import Parameter
from advisor.specs import FUSED_LOSSES, ModelSpec, Recipe
from advisor.tape.graph import Tensor


class Weights:
    """The weights of one decoder layer as the tape sees them."""

    __slots__ = ("experts", "further_norms", "linears", "m", "norms", "own", "qk_norms", "sinks")

    def __init__(
        self,
        m: ModelSpec,
        recipe: Recipe,
        rank: int,
        stack: Stack,
        whole: tuple[str, ...] = (),
        frozen: bool = False,
    ) -> None:
        """`m` is the model as this layer knows it; `whole`: linear layers that are not quantized.

        `frozen`: nothing is trained.
        """
        self.m = m
        own = own_weights(m, recipe)
        trained = own.layers and not frozen
        other = own.dtype if trained else other_dtype(recipe)
        norms = trained if own.layers else own.norms
        normed = own.dtype if norms else other
        bias_apart = architecture_of(m.architecture).bias_apart
        targets = targets_in(m, recipe.target_modules) if recipe.has_adapters and not frozen else frozenset[str]()
        if m.router_linear and not frozen and "router" in expert_adapters(m, recipe, rank):
            targets |= {m.router_linear}
        self.linears = {
            name: Linear(
                shape,
                recipe,
                rank if name in targets else 0,
                "none" if name in whole else layer_quant(m, recipe),
                other,
                stack.linear,
                bias_apart=bias_apart,
                frozen=frozen,
                bias_dtype=quantized_bias_dtype(m, recipe, name),
            )
            for name, shape in layer_linears(m).items()
        }
        of_heads = [(norm.width, norm.vectors) for norm in layer_norms(m) if norm.name in (*HEAD_NORMS, GATED_NORM)]
        names = [norm.name for norm in layer_norms(m) if norm.name not in (*HEAD_NORMS, GATED_NORM, SINKS)]
        self.norms = [outer_norm(m, normed, norms, stack) for name in names if name.startswith(PLAIN_NORM)]
        self.further_norms = {
            name: outer_norm(m, normed, norms, stack, "further") for name in names if not name.startswith(PLAIN_NORM)
        }
        self.sinks = Tensor((m.num_attention_heads,), other, needs_grad=trained) if m.attention_sinks else None
        self.own = {
            name: Tensor(p.shape, _stored_or_made(p, m, recipe, other), needs_grad=trained and not p.fixed)
            for name, p in own_parameters(m).items()
        }
        self.experts = _experts_of(m, recipe, rank, self.own, stack)
        self.qk_norms = [
            HeadNorms(count, width, normed, norms)
            if m.qk_norm == "each_apart"
            else Norm(m.norm, width, normed, norms, False, code=stack.norm(m, "heads"))
            for width, count in of_heads
        ]

    @property
    def collected(self) -> list[Tensor]:
        """The logits of its router, where they are collected."""
        mixture = self.experts
        return (mixture.logits or []) if isinstance(mixture, Experts | OssExperts) else []

    @property
    def trained(self) -> list[Tensor]:
        """The tensors that get gradients."""
        every = (*self.norms, *self.further_norms.values(), *self.qk_norms)
        norms = [p for norm in every for p in norm.trained]
        sinks = [self.sinks] if self.sinks is not None and self.sinks.needs_grad else []
        own = [p for p in self.own.values() if p.needs_grad]
        own += self.experts.adapted if isinstance(self.experts, Experts) else []
        linears = [one for name, one in self.linears.items() if name not in PASSED_OVER or one.weight.needs_grad]
        return [p for one in linears if not one.idle for p in one.trained] + norms + sinks + own


def _stored_or_made(p: Parameter, m: ModelSpec, recipe: Recipe, other: str) -> str:
    """The dtype a layer's own parameter is worked with in: of one that is quantized, what is made of it."""
    return own_dtype(p, other) if own_quant(p, m, recipe) == "none" else recipe.base_dtype


def _experts_of(
    m: ModelSpec, recipe: Recipe, rank: int, own: dict[str, Tensor], stack: Stack
) -> Experts | OssExperts | Llama4Experts | None:
    """The mixture, where a layer has one."""
    logits: list[Tensor] | None = [] if stack.balances(m, recipe) else None
    match m.mlp:
        case "experts":
            return Experts(m, recipe, rank, own, stack.experts(m), logits)
        case "oss_experts":
            made = experts_made(recipe) if own_quant(own_parameters(m)["down"], m, recipe) != "none" else "never"
            nested = recipe.double_quant if made == "once" else None
            return OssExperts(**own, top_k=m.experts_per_token, logits=logits, decodes=made == "twice", nested=nested)
        case "llama4_experts":
            return Llama4Experts(**own, top_k=m.experts_per_token)
    return None


def outer_norm(m: ModelSpec, dtype: str, trained: bool, stack: Stack, place: NormPlace = "layer") -> Norm:
    """A norm of hidden states."""
    return Norm(m.norm, m.hidden_size, dtype, trained, m.norm_bias, m.norm_weight, stack.norm(m, place))


def projections(m: ModelSpec, recipe: Recipe, rank: int, stack: Stack) -> dict[str, Linear]:
    """The linear layers around the decoder layers."""
    targets, own = outer_adapters(m, recipe), own_weights(m, recipe)
    frozen = not own.rest
    found = {
        name: Linear(
            shape,
            recipe,
            rank if shape in targets else 0,
            layer_quant(m, recipe),
            other_dtype(recipe),
            stack.linear,
            frozen=frozen,
        )
        for name, shape in outer_linears(m).items()
    }
    if own.head and recipe.has_adapters and saves_inner(m):  # a copy of it is trained, as it is
        for one in found.values():
            one.weight = Tensor(one.weight.shape, own.dtype, needs_grad=True)
            one.bias = Tensor((one.out_features,), own.dtype, needs_grad=True) if one.bias is not None else None
    return found


def output_embedding(m: ModelSpec, recipe: Recipe, rank: int, weight: Tensor, stack: Stack) -> Linear:
    """The head, never quantized, with an adapter where it is named among the targets; `weight` may be the embedding's.

    Raises BadValue for a loss that multiplies by the weight itself and bypasses the adapter.
    """
    shape = head_linear(m)
    adapted = shape in outer_adapters(m, recipe)
    fused = next((kernel for kernel in recipe.kernels if kernel in FUSED_LOSSES), "")
    if adapted and (recipe.loss == "chunked" or fused):
        flag, value, do = ("--kernels", fused, "leave it out") if fused else ("--loss", "chunked", "add --loss full")
        raise BadValue(flag, value, f"it bypasses the adapter of {shape.name}; {do}")
    head = Linear(shape, recipe, rank if adapted else 0, "none", weight.dtype, stack.linear)
    head.weight = weight
    if head.bias is not None:
        head.bias.needs_grad = weight.needs_grad
    return head
