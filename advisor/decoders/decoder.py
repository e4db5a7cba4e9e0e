"""A dense decoder's forward, written like the model code it mirrors (transformers 5.23, models/*/modeling_*.py).

Hidden states are (B, S, H), heads (B, heads, S, D). Locals are kept as long as the real code keeps them, which is
what makes the peak right. `advisor.architectures` says how families differ in that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from advisor.architectures import architecture_of
from advisor.decoders.attention import (
    Layout,
    composed_attention,
    eager_attention,
    falcon_attention,
    model_repeat_kv,
)
from advisor.decoders.deepseek import latent_heads
from advisor.decoders.experts import Experts
from advisor.decoders.fused import (
    CUDNN_MASKED,
    FLASH,
    PREFERRED,
    efficient_attention,
    fused_attention,
    with_padding,
    without_padding,
)
from advisor.decoders.gpt_oss import OssExperts, oss_feed_forward, sink_attention
from advisor.decoders.heads import gated_heads
from advisor.decoders.kinds import attention_kind, calls_sdpa_itself, composes_attention, repeats_keys_values
from advisor.decoders.llama4 import Llama4Experts, llama4_feed_forward, placed, position_factors
from advisor.decoders.mixtures import mixture_of
from advisor.decoders.sdpa import Call, Kernel, cudnn_takes, sdpa_kernel, sums_in_memory
from advisor.decoders.stack import Stack
from advisor.decoders.step_inputs import LayerInputs
from advisor.decoders.token_mixers import mixer_code
from advisor.decoders.weights import Weights
from advisor.specs import ModelSpec, Recipe
from advisor.tape.graph import Tensor
from advisor.tape.layout import copy
from advisor.tape.ops import add, add_in_place, cast, dropout, mul, scale
from advisor.tape.tape import Tape

if TYPE_CHECKING:
    from advisor.decoders.vision import Seen


class Decoder:
    """The code of one model under one recipe; the toolbox that every layer is made with."""

    def __init__(self, t: Tape, m: ModelSpec, recipe: Recipe, single_row: bool, stack: Stack, card: str) -> None:
        """`single_row`: the batch is 1, which spares a batched product some copies.

        `card`: the compute capability that PyTorch picks its kernels by; '' if not known.
        """
        self.t, self.m, self.recipe, self.stack = t, m, recipe, stack
        self.quirks = architecture_of(m.architecture)
        self.single_row, self.card = single_row, card
        self.kind = attention_kind(m, recipe)
        self.composes = composes_attention(m, recipe, t.device)
        self.copies_heads = stack.copies_heads and not calls_sdpa_itself(m, stack.libraries)
        self.calls: dict[Call, None] = {}  # of scaled_dot_product_attention
        self.cache: list[Tensor] = []
        self.held: list[Tensor] = []
        self.choice: Tensor | None = None
        self.seen: Seen | None = None  # what layers that attend to images read

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, w: Weights, given: LayerInputs, dtype: str, kept: list[Tensor]
    ) -> Tensor:
        """The attention's output (B, H, S, D), copied where its heads are stored one after the other."""
        t, m, mask = self.t, w.m, given.mask
        k, v = self.stack.attended(t, m, k, v)
        causal = not m.bidirectional
        drops, own, single = m.attention_dropout > 0, self.quirks.attention == "own", self.single_row
        joined = given.rotated and self.stack.joins_heads(m)
        layout = Layout(joined or single, joined or single or m.kv_lora_rank > 0, single, not own, single)
        if self.kind == "eager":
            if own:
                out, weights = falcon_attention(t, q, k, v, given, dtype, layout)
            elif self.quirks.attention == "mimo":
                from advisor.decoders.mimo import mimo_attention

                out, weights = mimo_attention(t, q, k, v, w.sinks, m, mask, layout)
            elif w.sinks is not None:
                out, weights = sink_attention(t, q, k, v, w.sinks, m, mask, drops, layout)
            else:
                out, weights = eager_attention(t, q, k, v, m, mask, drops, layout)
            kept.append(weights)
            return out
        repeats = mask is not None or m.head_dim > 256 or repeats_keys_values(m, self.stack.libraries)
        if self.kind == "flash":
            repeats = self.stack.libraries.transformers < self.quirks.flash_repeats_before
        if not own and self.kind in ("sdpa", "flash") and repeats:
            k, v = model_repeat_kv(t, m, k), model_repeat_kv(t, m, v)
            if 1 < m.num_key_value_heads < m.num_attention_heads:
                layout = layout._replace(k=True, v=True)
        if not own and self.kind == "sdpa" and self.copies_heads:
            q, k, v = (x if there else copy(t, x, x.shape) for x, there in ((q, joined), (k, layout.k), (v, layout.v)))
            joined, layout = True, layout._replace(q=True, k=True, v=True)
        kernel = self._kernel(q, k, v, mask)
        if kernel == "math":
            out = composed_attention(t, q, k, v, mask, drops, layout, causal)
        elif kernel == "efficient":
            width = max(q.shape[-1], v.shape[-1])
            return efficient_attention(t, q, k, v, mask, sums_in_memory(width, self.card), causal)
        elif self.kind == "flash":
            return self._flash(q, k, v, given, joined)
        else:
            kinds = CUDNN_MASKED if kernel == "cudnn" and mask is not None else self._unmasked(q, v)
            out = fused_attention(t, q, k, v, mask, given.window, kinds, causal)
            if not joined:  # flash attention's output has the layout of q
                return out
        return copy(t, out, out.shape)

    def _kernel(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Kernel:
        """The kernel of `scaled_dot_product_attention`; on the CPU and on a card that is not known, flash attention."""
        if self.composes or self.kind != "sdpa":
            return "math" if self.composes else "flash"
        dtype, grouped = self.t.autocast or q.dtype, k.shape[1] != q.shape[1] and self.quirks.attention != "own"
        call = Call(dtype, q.shape[-1], v.shape[-1], grouped, mask is not None, self.m.attention_dropout)
        self.calls[call] = None
        return sdpa_kernel(call, self.card, self.stack.libraries.torch).kernel if self.card else "flash"

    def _unmasked(self, q: Tensor, v: Tensor) -> tuple[str, str]:
        """What is launched for heads of these widths: cards that prefer cuDNN share recordings with all others."""
        call = Call(self.t.autocast or q.dtype, q.shape[-1], v.shape[-1], False, False, self.m.attention_dropout)
        return PREFERRED if cudnn_takes(call) else FLASH

    def _flash(self, q: Tensor, k: Tensor, v: Tensor, given: LayerInputs, joined: bool) -> Tensor:
        """The flash-attn library: it takes 16 bits alone, and rows of different lengths without their padding.

        Source: transformers 5.23, integrations/flash_attention.py, `get_target_dtype`.
        """
        t, half = self.t, self.recipe.base_dtype
        if not t.autocast and half != "float32":
            q, k, v = cast(t, q, half), cast(t, k, half), cast(t, v, half)
        if given.mask is None:
            out = fused_attention(t, q, k, v, None, given.window, FLASH, not self.m.bidirectional)
            return copy(t, out, out.shape) if joined else out
        batch, _, length, _ = q.shape
        indices = t.empty((batch, length), "int64")
        t.kernel("reduce", "int64", 0, given.mask.bytes + indices.bytes)
        q, k, v = (without_padding(t, x, indices) for x in (q, k, v))
        out = fused_attention(t, q, k, v, None, given.window, FLASH, not self.m.bidirectional)
        return with_padding(t, out, indices)

    def attention(self, x: Tensor, w: Weights, given: LayerInputs, kept: list[Tensor]) -> Tensor:
        """Self-attention of x (B, S, H), or what mixes tokens in its place.

        Queries, keys and values live to its end, as the real locals do.

        Appends to `kept` what lives to the end of the layer.
        """
        if not w.m.attends:
            return mixer_code(w.m.mixer)(self.t, x, w, given, self.recipe)
        t, m = self.t, w.m
        batch, length, _ = x.shape
        _parts: tuple[Tensor, ...] = ()
        gate: Tensor | None = None
        if m.kv_lora_rank and given.rope is None:
            from advisor.decoders.kimi_linear import unturned_heads

            q, k, v, _parts, _ = unturned_heads(t, x, m, w.linears, w.qk_norms)
        elif m.kv_lora_rank and given.rope is not None:
            q, k, v, _parts, latent = latent_heads(t, x, m, w.linears, w.qk_norms, given.rope)
            if latent is not None:
                from advisor.decoders.indexer import chosen

                choice = chosen(t, x, latent, w, given, self.single_row)
                given, _parts = given._replace(mask=choice.mask), (*_parts, latent, choice.indices, choice.masked)
                self.choose(choice.indices)
        elif m.attention_gate == "with_queries":
            q, k, v, gate = gated_heads(t, x, m, w.linears, w.qk_norms)
        elif m.attention_gate != "none" and self.quirks.gates_by == "sigmoid":
            from advisor.decoders.attention_gate import heads_and_gate

            (q, k, v), gate = heads_and_gate(t, x, m, w.linears, w.qk_norms)
        else:
            q, k, v = self.stack.queries_keys_values(t, x, m, w.linears, w.qk_norms)
        t.label("attention")
        if given.rope is not None:
            given = given._replace(rope=self.stack.rope(t, given.rope))
        k, v = self.stack.keys_values(t, m, k, v)
        if self.quirks.rope_tables == "complex" and not m.kv_lora_rank:
            q, k = placed(t, m, q, k, given.rope if given.rotated else None)
        elif given.rotated and given.rope is not None and not m.kv_lora_rank:
            q, k, _parts = self.stack.rotated(t, m, q, k, given.rope)
        if self.quirks.norms_after_rope:
            q = w.qk_norms[0](t, q)
            k = w.qk_norms[1](t, k)
        if self.quirks.scales_queries_by_position and not m.kv_lora_rank:
            q = mul(t, q, position_factors(t, length, q.dtype))
        self.cache += self.stack.cached(self.recipe, k, v)
        out = self.attend(q, k, v, w, given, x.dtype, kept)
        out = t.view(out, (batch, length, m.attended_size))
        if m.attention_gate != "none":
            from advisor.decoders.attention_gate import gated

            out = gated(t, out, x, m, w.linears, gate)
        out = self.stack.output_projection(t, out, w.linears[m.out_name])
        return self.dropped(out) if self.quirks.drops_inside else out

    def choose(self, indices: Tensor) -> None:
        """Keep a layer's choice of tokens until the next layer returns, where the model hands it on."""
        if self.quirks.passes_choice_on and not self.t.replaying and not self.t.rerunning:
            self.choice = indices

    def mlp(self, x: Tensor, w: Weights) -> Tensor:
        """The feed-forward block of x (B, S, H)."""
        if isinstance(w.experts, OssExperts):
            return oss_feed_forward(self.t, x, w.experts)
        if isinstance(w.experts, Llama4Experts):
            return llama4_feed_forward(self.t, x, w.m, w.experts, w.linears)
        if isinstance(w.experts, Experts):
            return mixture_of(w.m)(self.t, x, w.m, w.experts, w.linears)
        out = self.stack.feed_forward(self.t, x, w.m, w.linears, w.own)
        return self.dropped(out) if self.quirks.drops_inside else out

    def hold(self, weights: Tensor) -> None:
        """Keep a layer's attention weights until the next layer returns, as a loop with `outputs = block(...)` does.

        For re-entrant checkpointing they are an output of the region besides the hidden states.
        """
        if self.t.side is not None:
            self.t.side.append(weights)
        if not self.t.replaying and not self.t.rerunning:
            self.held[:] = [weights]

    def dropped(self, h: Tensor) -> Tensor:
        """Residual dropout, where the model has it."""
        return dropout(self.t, h) if self.m.residual_dropout else h

    def _dropped_outside(self, h: Tensor) -> Tensor:
        return h if self.quirks.drops_inside else self.dropped(h)

    def sequential(self, x: Tensor, w: Weights, given: LayerInputs) -> Tensor:
        """Attention, then the MLP, each followed by its norm."""
        t, quirks = self.t, self.quirks
        kept: list[Tensor] = []
        h = w.norms[0](t, x)
        if quirks.keeps_normed != "none":
            kept.append(h)
        h = self.attention(h, w, given, kept)
        if quirks.keeps_attended or self.stack.keeps_attended:
            kept.append(h)
        x = self._join(x, h)
        del h
        h = w.norms[1](t, x)
        if quirks.keeps_normed == "both":
            kept.append(h)
        h = self.mlp(h, w)
        return self._join(x, h)

    def one_block(self, x: Tensor, w: Weights, given: LayerInputs) -> Tensor:
        """The mixer of tokens or the MLP, whichever the layer has, after a norm (Nemotron-H)."""
        h = w.norms[0](self.t, x)
        h = self.mlp(h, w) if w.m.mixer == "none" else self.attention(h, w, given, [])
        return add(self.t, x, h)

    def _join(self, x: Tensor, h: Tensor) -> Tensor:
        h = self._dropped_outside(h)
        if self.m.residual_multiplier:
            h = scale(self.t, h)
        return add(self.t, x, h)

    def normed_after(self, x: Tensor, w: Weights, given: LayerInputs) -> Tensor:
        """Attention, then the MLP, each before a norm (and, in a sandwich, after one)."""
        t, norms = self.t, w.norms
        kept: list[Tensor] = []
        before = w.m.norm_placement == "sandwich"
        h = norms[0](t, x) if before else x
        h = self.attention(h, w, given, kept)
        h = norms[1 if before else 0](t, h)
        x = add(t, x, h)
        del h
        h = norms[2](t, x) if before else x
        h = self.mlp(h, w)
        h = norms[3 if before else 1](t, h)
        return add(t, x, h)

    def parallel(self, x: Tensor, w: Weights, given: LayerInputs) -> Tensor:
        """Attention and MLP on the same input; codes differ in the order of the sums and in what keeps a name."""
        t, order = self.t, self.quirks.parallel_sum
        kept: list[Tensor] = []
        if order == "mlp_first":
            attended = self.dropped(self.attention(w.norms[0](t, x), w, given, kept))
            mixed = self.dropped(self.mlp(w.norms[1](t, x), w))
            return add(t, add(t, mixed, attended), x)
        h = w.norms[0](t, x)
        h_mlp = w.norms[1](t, x) if len(w.norms) > 1 else h
        attended = self.dropped(self.attention(h, w, given, kept))
        mixed = self.dropped(self.mlp(h_mlp, w))
        if order == "mlp_in_place":
            return add(t, x, add_in_place(t, mixed, attended))
        if order == "residual_last":
            return add(t, add(t, attended, mixed), x)
        return add(t, add(t, x, attended), mixed)


def decoder_layer(d: Decoder, x: Tensor, w: Weights, given: LayerInputs) -> Tensor:
    """One decoder layer: x (B, S, H) -> (B, S, H)."""
    if d.m.one_block:
        return d.one_block(x, w, given)
    match w.m.norm_placement:
        case "pre":
            return d.sequential(x, w, given)
        case "sandwich" | "post":
            return d.normed_after(x, w, given)
        case _:
            return d.parallel(x, w, given)
