"""A dense decoder's forward, written like the model code it mirrors (transformers 5.23, models/*/modeling_*.py).

Hidden states are (B, S, H), heads (B, heads, S, D). Locals are kept as long as the real code keeps them: that is
what makes the peak right.
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.modules import layer_linears, resolve_targets
from advisor.specs import ModelSpec, Recipe
from advisor.tape.adapters import Linear, linear
from advisor.tape.norms import layer_norm, layer_norm_float, rms_norm, rms_norm_unit_offset, softcap
from advisor.tape.ops import (
    add,
    batched_matmul,
    cast,
    cat_last,
    chunk_last,
    copy,
    embedding,
    fused_attention,
    mul,
    negate,
    repeat_kv,
    scale,
    slice_last,
    softmax,
    unary,
)
from advisor.tape.tape import Tape, Tensor


class Norm:
    """The learnt vectors of one norm."""

    __slots__ = ("bias", "kind", "weight")

    def __init__(self, kind: str, width: int, dtype: str, trained: bool, has_bias: bool) -> None:
        self.kind = kind
        self.weight = Tensor((width,), dtype, needs_grad=trained)
        self.bias = Tensor((width,), dtype, needs_grad=trained) if has_bias else None

    def __call__(self, t: Tape, x: Tensor) -> Tensor:
        if self.kind == "rms":
            return rms_norm(t, x, self.weight)
        if self.kind == "rms_unit_offset":
            return rms_norm_unit_offset(t, x, self.weight)
        if self.kind == "layer_float":
            return layer_norm_float(t, x, self.weight)
        return layer_norm(t, x, self.weight, self.bias)

    @property
    def trained(self) -> list[Tensor]:
        """The tensors that get gradients."""
        return [p for p in (self.weight, self.bias) if p is not None and p.needs_grad]


class Weights:
    """The weights of one decoder layer as the tape sees them."""

    __slots__ = ("linears", "norms")

    def __init__(self, m: ModelSpec, recipe: Recipe, rank: int) -> None:
        other = other_dtype(recipe)
        trained = recipe.method == "full"
        targets = resolve_targets(m, recipe.target_modules) if recipe.has_adapters else frozenset[str]()
        self.linears = {
            name: Linear(shape, recipe, rank if name in targets else 0, recipe.quant, other)
            for name, shape in layer_linears(m).items()
        }
        qk = {"none": (), "head": (m.head_dim, m.head_dim), "full": (m.q_size, m.kv_size)}[m.qk_norm]
        count = {"pre": 2, "sandwich": 4, "post": 2, "parallel_one": 1, "parallel_two": 2}[m.norm_placement]
        self.norms = [Norm(m.norm, m.hidden_size, other, trained, m.norm_bias) for _ in range(count)]
        self.norms += [Norm(m.norm, width, other, trained, False) for width in qk]

    @property
    def trained(self) -> list[Tensor]:
        """The tensors that get gradients."""
        return [p for part in (*self.linears.values(), *self.norms) for p in part.trained]


def other_dtype(recipe: Recipe) -> str:
    """The dtype of everything bitsandbytes does not quantise: fp32 after peft's k-bit preparation."""
    return "float32" if recipe.is_quantized and recipe.kbit_upcast else recipe.base_dtype


class LayerKind(NamedTuple):
    """What may differ between the layers of one model."""

    rotated: bool
    sliding: bool


def layer_kinds(m: ModelSpec) -> list[LayerKind]:
    """The kind of every layer, in order."""
    slides = m.sliding_layers or (bool(m.sliding_window),) * m.num_hidden_layers
    return [
        LayerKind(not (m.nope_every and (i + 1) % m.nope_every == 0), slides[i]) for i in range(m.num_hidden_layers)
    ]


class Rope:
    """The tables of the rotary embedding, made once a step: cos and sin (1, 1, S, rotary)."""

    __slots__ = ("cos", "sin", "width")

    def __init__(self, t: Tape, m: ModelSpec, length: int, dtype: str) -> None:
        self.width = m.rotary_dim or m.head_dim
        self.cos = t.empty((1, 1, length, self.width), dtype)
        self.sin = t.empty((1, 1, length, self.width), dtype)


def _rotate_half(t: Tape, x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    first = slice_last(t, x, half)
    second = slice_last(t, x, x.shape[-1] - half)
    return cat_last(t, negate(t, second), first)


def _rotated(t: Tape, x: Tensor, rope: Rope) -> Tensor:
    return add(t, mul(t, x, rope.cos), mul(t, _rotate_half(t, x), rope.sin))


def joins_rotary(m: ModelSpec) -> bool:
    """Whether the rotated part of a head is joined with the rest by `cat`; Phi-3's code does it in any case."""
    return m.architecture == "phi3" or m.rotary_dim not in (0, m.head_dim)


def _apply_rope(t: Tape, x: Tensor, rope: Rope, joined: bool) -> Tensor:
    width = x.shape[-1]
    if not joined:
        return _rotated(t, x, rope)
    rotated, passed = slice_last(t, x, rope.width), slice_last(t, x, width - rope.width)
    return cat_last(t, _rotated(t, rotated, rope), passed)


def _activation(t: Tape, kind: str, x: Tensor) -> Tensor:
    if kind == "relu":
        return unary(t, x, "output")
    if kind == "relu2":
        return unary(t, unary(t, x, "output"), "input", backward_temporaries=2)
    if kind == "gelu_new":
        cubed = unary(t, x, "input", backward_temporaries=2)
        inner = scale(t, add(t, x, scale(t, cubed)))
        outer = unary(t, unary(t, inner, "output"), "nothing")
        return mul(t, scale(t, x), outer)
    return unary(t, x, "input")


def _qkv(t: Tape, x: Tensor, m: ModelSpec, w: Weights) -> tuple[Tensor, Tensor, Tensor]:
    batch, length, _ = x.shape
    q_shape = (batch, m.num_attention_heads, length, m.head_dim)
    kv_shape = (batch, m.num_key_value_heads, length, m.head_dim)
    if m.fused_qkv:
        fused = linear(t, x, w.linears[m.qkv_names[0]])
        q, k, v = _split_fused(t, fused, m)
    else:
        q, k, v = (linear(t, x, w.linears[name]) for name in m.qkv_names)
    if m.qk_norm == "full":
        q, k = w.norms[-2](t, q), w.norms[-1](t, k)
    q, k, v = t.view(q, q_shape), t.view(k, kv_shape), t.view(v, kv_shape)
    if m.qk_norm == "head":
        q, k = w.norms[-2](t, q), w.norms[-1](t, k)
    return q, k, v


def _split_fused(t: Tape, fused: Tensor, m: ModelSpec) -> tuple[Tensor, Tensor, Tensor]:
    sizes = (m.q_size, m.kv_size, m.kv_size)
    if m.architecture == "phi3":
        q, k, v = (slice_last(t, fused, size) for size in sizes)
    else:
        q, k, v = chunk_last(t, fused, sizes)
    return q, k, v


def _eager_attention(t: Tape, q: Tensor, k: Tensor, v: Tensor, m: ModelSpec, mask: Tensor | None) -> Tensor:
    groups = m.num_attention_heads // m.num_key_value_heads
    keys, values = repeat_kv(t, k, groups), repeat_kv(t, v, groups)
    batch, heads, length, width = q.shape
    square = (batch, heads, length, length)
    weights = scale(t, batched_matmul(t, q, keys, square, width))
    if m.attention_softcap:
        weights = scale(t, weights)
        weights = unary(t, weights, "output")
        weights = scale(t, weights)
    if mask is not None:
        weights = add(t, weights, mask)
    weights = cast(t, softmax(t, weights, "float32"), q.dtype)
    out = batched_matmul(t, weights, values, q.shape, length)
    return copy(t, out, q.shape)


class Decoder:
    """The forward of one model under one recipe; `layer` runs one decoder layer."""

    def __init__(
        self, t: Tape, m: ModelSpec, recipe: Recipe, batch: int, length: int, slides: bool, dtype: str
    ) -> None:
        """Makes what the forward makes once: positions, rotary tables and, where they are needed, masks.

        `slides`: whether rows are longer than the window. transformers drops a causal mask that the kernel knows by itself; a sliding window shorter than the row
        keeps its mask, and eager attention keeps one of numbers for each kind of layer.
        """
        self.t, self.m, self.recipe = t, m, recipe
        self.kind = "eager" if m.default_attention == "eager" and recipe.attention != "flash" else recipe.attention
        self.position_ids = t.empty((1, length), "int64")
        self.cache: list[Tensor] = []
        self.rope = Rope(t, m, length, dtype) if m.position == "rope" else None
        self.full_mask: Tensor | None = None
        self.sliding_mask: Tensor | None = None
        square = (batch, 1, length, length)
        self.window = m.sliding_window if slides else 0
        if self.kind == "eager":
            if not m.sliding_window or not all(m.sliding_layers or (True,)):
                self.full_mask = t.empty(square, dtype)
            if m.sliding_window:
                self.sliding_mask = t.empty(square, dtype)
        elif self.kind == "sdpa" and slides:
            self.sliding_mask = t.empty((1, *square[1:]), "bool")

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, sliding: bool) -> Tensor:
        t, m = self.t, self.m
        mask = self.sliding_mask if sliding else self.full_mask
        if self.kind == "eager":
            return _eager_attention(t, q, k, v, m, mask)
        if mask is not None or m.head_dim > 256:
            groups = m.num_attention_heads // m.num_key_value_heads
            k, v = repeat_kv(t, k, groups), repeat_kv(t, v, groups)
        return fused_attention(t, q, k, v, mask, self.window if sliding else 0)

    def attention(self, x: Tensor, w: Weights, rope: Rope | None, sliding: bool) -> Tensor:
        """Self-attention of x (B, S, H); queries, keys and values live to its end, as the real locals do."""
        t, m = self.t, self.m
        batch, length, _ = x.shape
        q, k, v = _qkv(t, x, m, w)
        t.label("attention")
        if rope is not None:
            joined = joins_rotary(m)
            q, k = _apply_rope(t, q, rope, joined), _apply_rope(t, k, rope, joined)
        if t.stack.caches_keys and not self.recipe.gradient_checkpointing:
            self.cache += [k, v]
            q, k, v = copy(t, q, q.shape), copy(t, k, k.shape), copy(t, v, v.shape)
        out = self._attend(q, k, v, sliding)
        if rope is not None and self.kind != "eager" and joins_rotary(m):
            # The attention's output has the layout of q, and `cat` made q head-major.
            out = copy(t, out, out.shape)
        out = t.view(out, (batch, length, m.q_size))
        result = linear(t, out, w.linears[m.out_name])
        del q, k, v, out
        return result

    def mlp(self, x: Tensor, w: Weights) -> Tensor:
        """The feed-forward block of x (B, S, H)."""
        t, m, names = self.t, self.m, self.m.mlp_names
        if m.mlp == "plain":
            up = linear(t, x, w.linears[names[0]])
            up = _activation(t, m.activation, up)
            return linear(t, up, w.linears[names[1]])
        if m.mlp == "gated_fused":
            joined = linear(t, x, w.linears[names[0]])
            gate, up = chunk_last(t, joined, (m.intermediate_size, m.intermediate_size))
            up = mul(t, up, _activation(t, m.activation, gate))
            return linear(t, up, w.linears[names[1]])
        activated = [_activation(t, m.activation, linear(t, x, w.linears[names[0]]))]
        return linear(t, mul(t, activated.pop(), linear(t, x, w.linears[names[1]])), w.linears[names[2]])

    def layer(self, x: Tensor, w: Weights, kind: LayerKind) -> Tensor:
        """One decoder layer: x (B, S, H) -> (B, S, H)."""
        t, m, norms = self.t, self.m, w.norms
        t.label("norm")
        rope, sliding = (self.rope if kind.rotated else None), kind.sliding
        if m.norm_placement in ("parallel_one", "parallel_two"):
            return self._parallel_layer(x, w, rope, sliding)
        if m.norm_placement == "post":
            h = norms[0](t, self.attention(x, w, rope, sliding))
            x = add(t, x, h)
            h = norms[1](t, self.mlp(x, w))
            return add(t, x, h)
        sandwich = m.norm_placement == "sandwich"
        h = norms[0](t, x)
        h = self.attention(h, w, rope, sliding)
        if sandwich:
            h = norms[1](t, h)
        x = self._join(x, h)
        h = norms[2 if sandwich else 1](t, x)
        h = self.mlp(h, w)
        if sandwich:
            h = norms[3](t, h)
        return self._join(x, h)

    def _join(self, x: Tensor, h: Tensor) -> Tensor:
        if self.m.residual_multiplier:
            h = scale(self.t, h)
        return add(self.t, x, h)

    def _parallel_layer(self, x: Tensor, w: Weights, rope: Rope | None, sliding: bool) -> Tensor:
        t, norms = self.t, w.norms
        if len(norms) == 1 or self.m.norm_placement == "parallel_one":
            h = norms[0](t, x)
            attended = self.attention(h, w, rope, sliding)
            return add(t, add(t, attended, self.mlp(h, w)), x)
        attended = self.attention(norms[0](t, x), w, rope, sliding)
        mixed = self.mlp(norms[1](t, x), w)
        return add(t, add(t, mixed, attended), x)


def embed(t: Tape, m: ModelSpec, weight: Tensor, batch: int, length: int) -> Tensor:
    """Token embeddings (B, S, H), scaled where the model scales them."""
    x = embedding(t, weight, batch, length)
    return scale(t, x) if m.embedding_multiplier else x


def head_logits(t: Tape, m: ModelSpec, logits: Tensor) -> Tensor:
    """What the model does to the output of its head before the loss."""
    if m.logits_multiplier:
        logits = scale(t, logits)
    return softcap(t, logits) if m.final_softcap else logits
