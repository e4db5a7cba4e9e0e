"""Norms, written as the model code computes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from advisor.errors import UnknownName
from advisor.tape.graph import Tensor
from advisor.tape.layout import join_heads, split_heads
from advisor.tape.ops import cast, mean_last, mul, scale, shift, subtract, unary
from advisor.tape.tape import Tape

NormPlace = Literal["layer", "final", "heads", "further"]
"""Around a layer's blocks (or before the layers), after the last layer, of queries, keys and latents, or elsewhere."""

NormFunction = Callable[[Tape, Tensor, Tensor], Tensor]
"""(tape, x (..., width), weight (width,)) -> the norm of x."""


def square(t: Tape, x: Tensor) -> Tensor:
    """`x.pow(2)`: backward makes `x.pow(1)` and its double beside the result."""
    return unary(t, x, "input", backward_temporaries=2)


def inverse_root(t: Tape, variance: Tensor) -> Tensor:
    """`rsqrt(variance + eps)`."""
    return unary(t, shift(t, variance), "output", backward_temporaries=2)


def _unit_norm(t: Tape, x: Tensor) -> Tensor:
    """`x * rsqrt(mean(x^2) + eps)` over the last axis."""
    return mul(t, x, inverse_root(t, mean_last(t, square(t, x))))


def unit_norm(t: Tape, x: Tensor) -> Tensor:
    """Llama 4's norm of queries and keys: x * rsqrt(...) in fp32, cast back, without weights."""
    return cast(t, _unit_norm(t, cast(t, x, "float32")), x.dtype)


def rms_norm(t: Tape, x: Tensor, weight: Tensor, keeps_twice: bool = False) -> Tensor:
    """Llama's RMSNorm: computed in fp32, cast back, then times the weight.

    `keeps_twice`: x is cast to fp32 once more for its square.
    """
    wide = cast(t, x, "float32")
    variance = mean_last(t, square(t, cast(t, x, "float32") if keeps_twice else wide))
    wide = mul(t, wide, inverse_root(t, variance))
    return mul(t, cast(t, wide, x.dtype), weight)


def rms_norm_unit_offset(t: Tape, x: Tensor, weight: Tensor) -> Tensor:
    """Gemma's RMSNorm: x * rsqrt(...) * (1 + weight), all in fp32, cast back at the end."""
    output = _unit_norm(t, cast(t, x, "float32"))
    output = mul(t, output, shift(t, cast(t, weight, "float32")))
    return cast(t, output, x.dtype)


def rms_norm_float(t: Tape, x: Tensor, weight: Tensor) -> Tensor:
    """OLMo 2's RMSNorm: Llama's, but multiplied by the weight before it is cast back."""
    wide = cast(t, x, "float32")
    variance = mean_last(t, square(t, wide))
    wide = mul(t, wide, inverse_root(t, variance))
    return cast(t, mul(t, wide, weight), x.dtype)


def rms_norm_wide(t: Tape, x: Tensor, weight: Tensor) -> Tensor:
    """Nemotron-H's RMSNorm: OLMo 2's, whose weight is cast to fp32 before the product."""
    wide = cast(t, x, "float32")
    variance = mean_last(t, square(t, wide))
    wide = mul(t, wide, inverse_root(t, variance))
    return cast(t, mul(t, cast(t, weight, "float32"), wide), x.dtype)


def rms_norm_power(t: Tape, x: Tensor, weight: Tensor | None) -> Tensor:
    """Gemma 4's RMSNorm: times a power of the mean square, in fp32, then the weight, if any, and cast back.

    A power keeps its base, where the root keeps its result.
    """
    wide = cast(t, x, "float32")
    power = unary(t, shift(t, mean_last(t, square(t, wide))), "input", backward_temporaries=2)
    wide = mul(t, wide, power)
    if weight is not None:
        wide = mul(t, wide, cast(t, weight, "float32"))
    return cast(t, wide, x.dtype)


def rms_norm_gated(t: Tape, x: Tensor, gate: Tensor, weight: Tensor) -> Tensor:
    """Llama's RMSNorm times SiLU of a gate, which is taken in fp32: the norm after a recurrence.

    Source: transformers 5.23, models/qwen3_5/modeling_qwen3_5.py, Qwen3_5RMSNormGated.
    """
    wide = cast(t, x, "float32")
    variance = mean_last(t, square(t, wide))
    wide = mul(t, wide, inverse_root(t, variance))
    hidden = mul(t, cast(t, wide, x.dtype), weight)
    del wide
    hidden = mul(t, hidden, unary(t, cast(t, gate, "float32"), "input"))
    return cast(t, hidden, x.dtype)


def layer_norm(t: Tape, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """`F.layer_norm`: one kernel that keeps its input and two statistics per row. CUDA's autocast runs it in fp32.

    The statistics are in fp32; on a CPU in x's dtype, unless the weight has another.
    """
    if t.autocast and t.device == "cuda":
        x = cast(t, x, "float32")
        weight = cast(t, weight, "float32") if weight is not None else None
        bias = cast(t, bias, "float32") if bias is not None else None
    return _layer_norm(t, x, weight, bias)


def _layer_norm(t: Tape, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """The kernel behind `F.layer_norm`, in the dtypes that it is given."""
    shape, dtype = x.shape, x.dtype
    rows = (*shape[:-1], 1)
    statistics = dtype if t.device == "cpu" and (weight is None or weight.dtype == dtype) else "float32"
    mean, rstd = t.empty(rows, statistics), t.empty(rows, statistics)
    vectors = tuple(p for p in (weight, bias) if p is not None)
    aside = mean.bytes + rstd.bytes + sum(p.bytes for p in vectors)
    t.kernel("reduce", dtype, 0, 2 * x.bytes + aside)
    needs = [x.needs_grad] + [p.needs_grad for p in vectors]
    shapes = [(shape, dtype)] + [(p.shape, p.dtype) for p in vectors]

    def backward(g: Tensor) -> tuple[Tensor | None, ...]:
        t.kernel("reduce", dtype, 0, 3 * g.bytes + aside)
        return tuple(t.empty(*like) if wanted else None for wanted, like in zip(needs, shapes, strict=True))

    return t.op((x, *vectors), shape, dtype, backward, (x, *vectors), beside=(mean, rstd))


def layer_norm_unit_offset(t: Tape, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Nemotron's LayerNorm of (1 + weight), outside autocast: on CUDA its code casts everything to autocast's dtype."""
    weight = shift(t, weight)
    if t.autocast and t.device == "cuda":
        x, weight = cast(t, x, t.autocast), cast(t, weight, t.autocast)
        bias = cast(t, bias, t.autocast) if bias is not None else None
    return _layer_norm(t, x, weight, bias)


def layer_norm_float(t: Tape, x: Tensor, weight: Tensor) -> Tensor:
    """A LayerNorm written out in fp32 (Cohere): subtract the mean, times the inverse root, times the weight."""
    wide = cast(t, x, "float32")
    mean = mean_last(t, wide)
    variance = mean_last(t, square(t, subtract(t, wide, mean)))
    wide = mul(t, subtract(t, wide, mean), inverse_root(t, variance))
    wide = mul(t, wide, cast(t, weight, "float32"))
    return cast(t, wide, x.dtype)


class Norm:
    """The learned vectors of one norm."""

    __slots__ = ("bias", "code", "kind", "weight")

    def __init__(
        self,
        kind: str,
        width: int,
        dtype: str,
        trained: bool,
        has_bias: bool,
        has_weight: bool = True,
        code: NormFunction | None = None,
    ) -> None:
        """`kind` as in ModelSpec.norm; `code` is what the training stack runs for it, unless `F.layer_norm` does.

        Raises UnknownName for a kind that NORMS lacks.
        """
        if kind not in NORMS:
            raise UnknownName("norm", kind, NORMS, f"known: {', '.join(NORMS)}")
        self.kind, self.code = kind, code
        self.weight = Tensor((width,), dtype, needs_grad=trained) if has_weight else None
        self.bias = Tensor((width,), dtype, needs_grad=trained) if has_bias else None

    def __call__(self, t: Tape, x: Tensor) -> Tensor:
        """The norm of x over its last axis."""
        t.label("norm")
        if self.weight is None:  # OLMo: in fp32, and back
            return cast(t, layer_norm(t, cast(t, x, "float32"), None, None), x.dtype)
        if self.kind == "layer":
            return layer_norm(t, x, self.weight, self.bias)
        if self.kind == "layer_unit_offset":
            return layer_norm_unit_offset(t, x, self.weight, self.bias)
        assert self.code is not None, f"no code for the norm {self.kind!r}"
        return self.code(t, x, self.weight)

    @property
    def trained(self) -> list[Tensor]:
        """The tensors that get gradients."""
        return [p for p in (self.weight, self.bias) if p is not None and p.needs_grad]


class HeadNorms:
    """A LayerNorm without bias for every head of queries or keys: StableLM 2 12B."""

    __slots__ = ("norms",)

    def __init__(self, heads: int, width: int, dtype: str, trained: bool) -> None:
        self.norms = [Norm("layer", width, dtype, trained, has_bias=False) for _ in range(heads)]

    def __call__(self, t: Tape, x: Tensor) -> Tensor:
        """x (B, heads, S, D), cut into heads and joined again."""
        return join_heads(t, [norm(t, part) for norm, part in zip(self.norms, split_heads(t, x), strict=True)])

    @property
    def trained(self) -> list[Tensor]:
        """The tensors that get gradients."""
        return [p for norm in self.norms for p in norm.trained]


WRITTEN_OUT: dict[str, NormFunction] = {
    "rms": rms_norm,
    "rms_unit_offset": rms_norm_unit_offset,
    "rms_float": rms_norm_float,
    "rms_power": rms_norm_power,
    "rms_wide": rms_norm_wide,
    "layer_float": layer_norm_float,
}
"""The norms that the model code writes out, by ModelSpec.norm."""

NORMS: dict[str, str] = {
    "rms": "Llama's",
    "rms_unit_offset": "Gemma's, of (1 + weight)",
    "rms_float": "OLMo 2's, cast back after the weight",
    "rms_power": "Gemma 4's, of a power instead of a root",
    "rms_wide": "Nemotron-H's, of the weight in fp32",
    "layer": "nn.LayerNorm",
    "layer_unit_offset": "Nemotron's, of (1 + weight)",
    "layer_float": "a LayerNorm in fp32 (Cohere's; OLMo's has no weight)",
}
"""Every kind of norm that the tape knows, and what it is."""


def softcap(t: Tape, made: list[Tensor]) -> Tensor:
    """`tanh(x / cap) * cap` of the one tensor in `made`, which is popped."""
    x = scale(t, made.pop())
    x = unary(t, x, "output")
    return scale(t, x)
