"""A dense decoder's forward, written like the model code it mirrors (transformers 5.23, models/*/modeling_*.py).

Hidden states are (B, S, H), heads (B, heads, S, D). Locals are kept as long as the real code keeps them: that is
what makes the peak right. Where families differ only in that, they are told apart by name.
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.modules import (
    HEAD_NORMS,
    UNGATED_SHARED,
    layer_linears,
    layer_norms,
    own_parameters,
    resolve_targets,
)
from advisor.specs import ModelSpec, Quantization, Recipe
from advisor.tape.adapters import Linear, linear
from advisor.tape.attention import (
    LayerInputs,
    Layout,
    composed_attention,
    eager_attention,
    falcon_attention,
    fused_attention,
    model_repeat_kv,
)
from advisor.tape.deepseek_moe import deepseek_feed_forward
from advisor.tape.graph import Device, Tensor
from advisor.tape.heads import TURNS_FIRST, queries_keys_values
from advisor.tape.llama4 import placed, position_factors
from advisor.tape.llama4_experts import Llama4Experts, llama4_feed_forward
from advisor.tape.mla import latent_heads
from advisor.tape.mlp import feed_forward
from advisor.tape.moe import Experts, sparse_feed_forward
from advisor.tape.norms import HeadNorms, Norm, softcap
from advisor.tape.ops import add, add_in_place, copy, dropout, embedding, mul, scale
from advisor.tape.oss_experts import OssExperts, oss_feed_forward
from advisor.tape.own_layers import OWN_LAYERS
from advisor.tape.rope import apply_rope, joins_parts
from advisor.tape.sinks import sink_attention
from advisor.tape.tape import Tape

DROPS_INSIDE = frozenset({"gpt2", "gpt_bigcode", "seed_oss", "starcoder2"})
"""Residual dropout stands at the end of attention and MLP, not in the layer."""

KEEPS_NORMED = frozenset({"falcon", "stablelm"})
KEEPS_ATTENDED = frozenset({"falcon", "gpt2", "gpt_bigcode", "llama4_text", "stablelm"})
"""What the layer's code keeps a name for to its end: the first norm's output, the attention's output."""


class Weights:
    """The weights of one decoder layer as the tape sees them."""

    __slots__ = ("experts", "linears", "norms", "qk_norms", "sinks")

    def __init__(self, m: ModelSpec, recipe: Recipe, rank: int, last: bool = False) -> None:
        """`last`: the layer has a linear layer that is not quantised, see `unquantized_name`."""
        other = other_dtype(recipe)
        whole = unquantized_name(m) if last else ""
        trained = recipe.method == "full"
        targets = resolve_targets(m, recipe.target_modules) if recipe.has_adapters else frozenset[str]()
        self.linears = {
            name: Linear(
                shape, recipe, rank if name in targets else 0, "none" if name == whole else layer_quant(m, recipe),
                other, bias_apart=m.architecture == "falcon",
            )
            for name, shape in layer_linears(m).items()
        }
        of_heads = [(norm.width, norm.vectors) for norm in layer_norms(m) if norm.name in HEAD_NORMS]
        others = len(layer_norms(m)) - len(of_heads) - m.attention_sinks
        self.norms = [outer_norm(m, other, trained) for _ in range(others)]
        self.sinks = Tensor((m.num_attention_heads,), other, needs_grad=trained) if m.attention_sinks else None
        self.experts = Experts(m, recipe, rank, other) if m.mlp == "experts" else _experts_of(m, other, trained)
        self.qk_norms = [
            HeadNorms(count, width, other, trained) if m.qk_norm == "each_apart"
            else Norm(m.norm, width, other, trained, False)
            for width, count in of_heads
        ]

    @property
    def trained(self) -> list[Tensor]:
        """The tensors that get gradients."""
        norms = [p for norm in (*self.norms, *self.qk_norms) for p in norm.trained]
        sinks = [self.sinks] if self.sinks is not None and self.sinks.needs_grad else []
        sinks += self.experts.trained if self.experts is not None else []
        return [p for part in self.linears.values() for p in part.trained] + norms + sinks


def _experts_of(m: ModelSpec, dtype: str, trained: bool) -> OssExperts | Llama4Experts | None:
    """The mixture's own weights, where a layer has one."""
    own = [Tensor(size, dtype, needs_grad=trained) for size in own_parameters(m)]
    if m.mlp == "oss_experts":
        router, router_bias, gate_up, gate_up_bias, down, down_bias = own
        return OssExperts(router, router_bias, gate_up, gate_up_bias, down, down_bias, m.experts_per_token)
    if m.mlp == "llama4_experts":
        router, gate_up, down = own
        return Llama4Experts(router, gate_up, down, m.experts_per_token)
    return None


def outer_norm(m: ModelSpec, dtype: str, trained: bool) -> Norm:
    """A norm of hidden states."""
    return Norm(m.norm, m.hidden_size, dtype, trained, m.norm_bias, m.norm_weight)


def other_dtype(recipe: Recipe) -> str:
    """The dtype of everything bitsandbytes does not quantise: fp32 after peft's k-bit preparation."""
    return "float32" if recipe.is_quantized and recipe.kbit_upcast else recipe.base_dtype


def layer_quant(m: ModelSpec, recipe: Recipe) -> Quantization:
    """How the linear layers of the decoder are stored.

    transformers 5.23 replaces nn.Linear and Conv1D, but no subclass: Falcon's layers stay as they are. Source:
    transformers/integrations/bitsandbytes.py, replace_with_bnb_linear.
    """
    return "none" if m.architecture == "falcon" else recipe.quant


def unquantized_name(m: ModelSpec) -> str:
    """The linear layer of the last decoder layer that transformers leaves in 16 bits, or ''.

    It spares the module of the model's last parameter, meant to be the head. OLMo's norms have no parameters: where
    its head is tied, that is the last MLP. Source: transformers/quantizers/base.py, get_keys_to_not_convert.
    """
    return m.mlp_names[-1] if m.tie_word_embeddings and not m.norm_weight else ""


def attention_kind(m: ModelSpec, recipe: Recipe) -> str:
    """'eager', 'sdpa' or 'flash': what was asked for, unless the model's code has only eager attention."""
    return "eager" if m.default_attention == "eager" and recipe.attention != "flash" else recipe.attention


def composes_attention(m: ModelSpec, recipe: Recipe, device: Device) -> bool:
    """Whether attention is made of batched products: no fused kernel takes its dropout, heads or soft cap."""
    kind = attention_kind(m, recipe)
    one_key_head = m.architecture == "falcon" and m.num_key_value_heads == 1 < m.num_attention_heads
    odd = m.attention_dropout > 0 or m.value_dim != m.head_dim  # what the CPU's fused kernel does not take
    return kind == "eager" or (kind == "sdpa" and (one_key_head or (odd and device == "cpu")))


class LayerKind(NamedTuple):
    """What may differ between the layers of one model; `last`: its last layer has an unquantised linear layer."""

    rotated: bool
    sliding: bool
    last: bool
    dense: bool


def layer_kinds(m: ModelSpec) -> list[LayerKind]:
    """The kind of every layer, in order."""
    slides = m.sliding_layers or (bool(m.sliding_window),) * m.num_hidden_layers
    rotates, odd_end, end = m.position == "rope", bool(unquantized_name(m)), m.num_hidden_layers - 1
    return [
        LayerKind(rotates and not (m.nope_every and (i + 1) % m.nope_every == 0), slides[i], odd_end and i == end,
                  i < m.dense_layers)
        for i in range(m.num_hidden_layers)
    ]


class Decoder:
    """The code of one model under one recipe; `layer` runs one decoder layer."""

    def __init__(self, t: Tape, m: ModelSpec, recipe: Recipe, single_row: bool) -> None:
        """`single_row`: the batch is 1, which spares a batched product some copies."""
        self.t, self.m, self.recipe = t, m, recipe
        self.single_row = single_row
        self.kind = attention_kind(m, recipe)
        self.composes = composes_attention(m, recipe, t.device)
        self.cache: list[Tensor] = []
        self.held: list[Tensor] = []

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, given: LayerInputs, dtype: str, kept: list[Tensor]
    ) -> Tensor:
        """The attention's output (B, H, S, D), copied where its heads lie one after the other in memory."""
        t, m, mask = self.t, self.m, given.mask
        drops, falcon, single = m.attention_dropout > 0, m.architecture == "falcon", self.single_row
        joined = given.rotated and joins_parts(m)
        layout = Layout(joined or single, joined or single, single, not falcon, single)
        if self.kind == "eager":
            if falcon:
                out, weights = falcon_attention(t, q, k, v, given, dtype, layout)
            elif sinks is not None:
                out, weights = sink_attention(t, q, k, v, sinks, m, mask, drops, layout)
            else:
                out, weights = eager_attention(t, q, k, v, m, mask, drops, layout)
            kept.append(weights)
            return out
        if not falcon and self.kind == "sdpa" and (mask is not None or m.head_dim > 256):
            k, v = model_repeat_kv(t, m, k), model_repeat_kv(t, m, v)
            if 1 < m.num_key_value_heads < m.num_attention_heads:
                layout = layout._replace(k=True, v=True)
        if self.composes:
            out = composed_attention(t, q, k, v, mask, drops, layout)
        else:
            out = fused_attention(t, q, k, v, mask, given.window)
            if not joined:  # the fused kernels' output has the layout of q
                return out
        return copy(t, out, out.shape)

    def attention(self, x: Tensor, w: Weights, given: LayerInputs, kept: list[Tensor]) -> Tensor:
        """Self-attention of x (B, S, H); queries, keys and values live to its end, as the real locals do.

        Appends to `kept` what lives to the end of the layer.
        """
        t, m = self.t, self.m
        batch, length, _ = x.shape
        _parts: tuple[Tensor, ...] = ()
        if m.kv_lora_rank and given.rope is not None:
            q, k, v, _parts = latent_heads(t, x, m, w.linears, w.qk_norms, given.rope)
        else:
            q, k, v = queries_keys_values(t, x, m, w.linears, w.qk_norms)
        t.label("attention")
        if t.stack.tables_by_layer and given.rope is not None:
            given = given._replace(rope=given.rope.spread(t))
        if t.stack.repeated_keys:
            k, v = model_repeat_kv(t, m, k), model_repeat_kv(t, m, v)
        if m.architecture == "llama4_text":
            q, k = placed(t, m, q, k, given.rope if given.rotated else None)
        elif given.rotated and given.rope is not None and not m.kv_lora_rank:
            q, k, _parts = apply_rope(t, m, q, k, given.rope)
        if m.architecture in TURNS_FIRST:
            q = w.qk_norms[0](t, q)
            k = w.qk_norms[1](t, k)
        if m.architecture == "ministral3":  # queries times a function of their position
            q = mul(t, q, position_factors(t, length, q.dtype))
        if t.stack.caches_keys and not self.recipe.gradient_checkpointing:
            self.cache += [k, v]
            q, k, v = copy(t, q, q.shape), copy(t, k, k.shape), copy(t, v, v.shape)
        out = self._attend(q, k, v, w.sinks, given, x.dtype, kept)
        out = t.view(out, (batch, length, m.attended_size))
        out = linear(t, out, w.linears[m.out_name])
        return self.dropped(out) if m.architecture in DROPS_INSIDE else out

    def mlp(self, x: Tensor, w: Weights) -> Tensor:
        """The feed-forward block of x (B, S, H)."""
        if isinstance(w.experts, OssExperts):
            return oss_feed_forward(self.t, x, w.experts)
        if isinstance(w.experts, Experts) and self.m.architecture in UNGATED_SHARED:
            return deepseek_feed_forward(self.t, x, self.m, w.experts, w.linears)
        if isinstance(w.experts, Experts):
            return sparse_feed_forward(self.t, x, self.m, w.experts, w.linears)
        if isinstance(w.experts, Llama4Experts):
            return llama4_feed_forward(self.t, x, self.m, w.experts, w.linears)
        out = feed_forward(self.t, x, self.m, w.linears)
        return self.dropped(out) if self.m.architecture in DROPS_INSIDE else out

    def hold(self, weights: Tensor) -> None:
        """Keep a layer's attention weights until the next layer returns, as a loop with `outputs = block(...)` does."""
        if not self.t.replaying:
            self.held[:] = [weights]

    def dropped(self, h: Tensor) -> Tensor:
        """Residual dropout, where the model has it."""
        return dropout(self.t, h) if self.m.residual_dropout else h

    def _dropped_outside(self, h: Tensor) -> Tensor:
        return h if self.m.architecture in DROPS_INSIDE else self.dropped(h)

    def layer(self, x: Tensor, w: Weights, given: LayerInputs) -> Tensor:
        """One decoder layer: x (B, S, H) -> (B, S, H)."""
        if self.m.architecture in OWN_LAYERS:
            return OWN_LAYERS[self.m.architecture](self, x, w, given)
        match self.m.norm_placement:
            case "pre":
                return self._sequential(x, w, given)
            case "sandwich" | "post":
                return self._normed_after(x, w, given)
            case _:
                return self._parallel(x, w, given)

    def _sequential(self, x: Tensor, w: Weights, given: LayerInputs) -> Tensor:
        t, name = self.t, self.m.architecture
        kept: list[Tensor] = []
        h = w.norms[0](t, x)
        if name in KEEPS_NORMED:
            kept.append(h)
        h = self.attention(h, w, given, kept)
        if name in KEEPS_ATTENDED:
            kept.append(h)
        x = self._join(x, h)
        del h
        h = w.norms[1](t, x)
        if name == "falcon":
            kept.append(h)
        h = self.mlp(h, w)
        return self._join(x, h)

    def _join(self, x: Tensor, h: Tensor) -> Tensor:
        h = self._dropped_outside(h)
        if self.m.residual_multiplier:
            h = scale(self.t, h)
        return add(self.t, x, h)

    def _normed_after(self, x: Tensor, w: Weights, given: LayerInputs) -> Tensor:
        t, norms = self.t, w.norms
        kept: list[Tensor] = []
        before = self.m.norm_placement == "sandwich"
        h = norms[0](t, x) if before else x
        h = self.attention(h, w, given, kept)
        h = norms[1 if before else 0](t, h)
        x = add(t, x, h)
        del h
        h = norms[2](t, x) if before else x
        h = self.mlp(h, w)
        h = norms[3 if before else 1](t, h)
        return add(t, x, h)

    def _parallel(self, x: Tensor, w: Weights, given: LayerInputs) -> Tensor:
        """Attention and MLP on the same input; what is added to what first differs, and what keeps a name."""
        t, name = self.t, self.m.architecture
        kept: list[Tensor] = []
        if name == "gpt_neox":
            attended = self.dropped(self.attention(w.norms[0](t, x), w, given, kept))
            mixed = self.dropped(self.mlp(w.norms[1](t, x), w))
            return add(t, add(t, mixed, attended), x)
        h = w.norms[0](t, x)
        h_mlp = w.norms[1](t, x) if len(w.norms) > 1 else h
        attended = self.dropped(self.attention(h, w, given, kept))
        mixed = self.dropped(self.mlp(h_mlp, w))
        if name == "falcon":
            return add(t, x, add_in_place(t, mixed, attended))
        if name == "phi":
            return add(t, add(t, attended, mixed), x)
        return add(t, add(t, x, attended), mixed)


class Embedded(NamedTuple):
    """Position ids (1, S), what the model's forward keeps a name for to its end, hidden states (B, S, H)."""

    position_ids: Tensor
    kept: list[Tensor]
    hidden: Tensor


def embed(
    t: Tape, m: ModelSpec, table: Tensor, positions: Tensor | None, batch: int, length: int, leaf: bool
) -> Embedded:
    """The embedding of token ids, with positions and dropout where the model has them.

    `leaf`: checkpointing makes the embedding's output require a gradient, so that a frozen one does not cut the
    graph; then autograd holds it too.
    """
    # OPT counts positions row by row; the ALiBi models make none that lasts.
    rows = batch if m.architecture == "opt" else 0 if m.architecture in ("bloom", "mpt") else 1
    ids = t.empty((rows, length), "int64")
    for passes in (1, 2):  # counted, then moved to where the row begins
        t.kernel("elementwise", "int64", 0, passes * ids.bytes)
    kept: list[Tensor] = []
    x = embedding(t, table, batch, length)
    if m.embedding_multiplier and m.architecture.startswith("gemma"):
        x = scale(t, x)
    if leaf and not x.needs_grad:
        x.needs_grad = True
    if m.embedding_multiplier and not m.architecture.startswith("gemma"):
        x = scale(t, x)
    if positions is not None:
        if m.position_offset:
            kept.append(t.empty((batch, length), "float32"))  # a mask of ones
            places = embedding(t, positions, batch, length, (t.empty(ids.shape, "int64"),))
        else:
            places = embedding(t, positions, 1, length, (ids,))
        kept += [x, places]
        x = add(t, x, places)
    elif not m.embedding_dropout or m.architecture != "phi":
        kept.append(x)
    if m.embedding_dropout:
        x = dropout(t, x)
        if m.architecture == "phi":
            kept.append(x)
    return Embedded(ids, kept, x)


def head_logits(t: Tape, m: ModelSpec, logits: Tensor) -> Tensor:
    """What the model does to the output of its head before the loss."""
    if m.logits_multiplier:
        logits = scale(t, logits)
    return softcap(t, logits) if m.final_softcap else logits
