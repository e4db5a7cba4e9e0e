"""LitGPT 0.5 (litgpt/finetune/*.py) in Lightning Fabric: its own model, LoRA, loss and loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from advisor.blocks import ITEM_BYTES
from advisor.decoders.attention import model_repeat_kv
from advisor.decoders.base_linear import base_linear
from advisor.decoders.linear import Linear, LinearCode, autocast_operand, product
from advisor.decoders.norms import HeadNorms, Norm
from advisor.decoders.rope import Rope, joins_parts, turned
from advisor.decoders.stack import LossInputs, Proof, Stack
from advisor.libraries import version_text
from advisor.parameters.buffers import rope_width
from advisor.parameters.modules import head_linear
from advisor.specs import LinearShape, ModelSpec, Recipe
from advisor.stacks.litgpt import HEAD_TOKENS, sliced_loss, zero_padded
from advisor.tape.graph import Node, Tensor
from advisor.tape.layout import chunk_last, copy
from advisor.tape.ops import add, cast, dropout, scale
from advisor.tape.tape import Tape

CONFIGURED = (
    "falcon",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gpt_neox",
    "lit-gpt",
    "llama",
    "mistral",
    "mixtral",
    "olmo",
    "olmo2",
    "phi",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "stablelm",
)
"""The architectures that litgpt 0.5.13 describes (litgpt/config.py)."""
QKV_NAMES, MLP_NAMES = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj", "down_proj")
"""What a Llama's layers are called in transformers, for those that its settings name (lora_query, lora_mlp ...)."""
BITSANDBYTES = (0, 42)
"""The version that it asks for (litgpt/constants.py, _BITANDBYTES_AVAILABLE_NOT_EQUAL_0_42_0)."""


@dataclass(frozen=True)
class LitGpt(Stack):
    """One projection for queries, keys and values, a head that is never tied, and logits that outlive their step."""

    lacking_tokens: int = 0
    """What the last slice of a row has less than the others, where that matters."""

    @property
    def name(self) -> str:
        """The libraries and versions whose code this is."""
        own = version_text(self.libraries.code_version)
        return f"litgpt {own}, lightning 2.5, bitsandbytes {version_text(BITSANDBYTES)}"

    def proof(self, m: ModelSpec, recipe: Recipe) -> Proof:
        """Its modules were traced for a Llama; what of the recipe and the model it does not have."""
        version = version_text(self.libraries.code_version)
        unknown = [f"litgpt {version} does not describe {m.architecture}"] if m.architecture not in CONFIGURED else []
        unknown += [f"litgpt {version} has no DoRA"] if recipe.is_dora else []
        unknown += (
            ["its experts, linear layers of their own: counted as transformers' fused ones"] if m.num_experts else []
        )
        read = ("CUDA's own kernels, from their source", "Lightning Fabric and bitsandbytes 0.42, from their source")
        return Proof(("its decoder, LoRA and loss on a CPU, for a Llama",), read, tuple(unknown))

    def named(self, m: ModelSpec) -> ModelSpec:
        """Every model has the same layers, with LoRA on queries, keys and values apart, whatever transformers' has.

        A plain MLP is called by the last two of a gated one's names; `lora_mlp` adapts all of an MLP.
        Source: litgpt 0.5.13, lora.py, CausalSelfAttention, GptNeoxMLP and LLaMAMLP.
        """
        if m.architecture not in CONFIGURED or m.num_experts:
            return m
        gated = {"gated_fused": "gated"}.get(m.mlp, m.mlp)
        names: dict[str, object] = {
            "out_name": "o_proj",
            "mlp": gated,
            "mlp_names": MLP_NAMES if gated == "gated" else MLP_NAMES[1:],
        }
        if m.fused_qkv:  # code of the architecture's own, which splits the fused projection, does not run
            whole = rope_width(m, False) == m.head_dim
            names |= {"fused_qkv": False, "qkv_names": QKV_NAMES, "architecture": "llama" if whole else "lit-gpt"}
        return m.model_copy(update=names)

    def built(self, m: ModelSpec) -> ModelSpec:
        """Embedding and head are two tensors, and RMSNorm is multiplied by its weight before it is cast back.

        Source: litgpt 0.5.13, model.py, GPT.__init__; RMSNorm.forward.
        """
        norm = "rms_float" if m.norm == "rms" else m.norm
        return super().built(self.named(m)).model_copy(update={"tie_word_embeddings": False, "norm": norm})

    def quantized_head(self, recipe: Recipe) -> bool:
        """Fabric's plugin replaces every nn.Linear. Source: lightning 2.5, plugins/precision/bitsandbytes.py."""
        return recipe.is_quantized

    def shaped(self, m: ModelSpec, recipe: Recipe, batch: int, length: int) -> Stack:
        """A frozen head in fp32 is cast for each slice of a row."""
        casts = recipe.autocast and recipe.base_dtype == "float32" and recipe.has_adapters and not recipe.is_quantized
        return replace(self, lacking_tokens=-length % HEAD_TOKENS) if casts else self

    @property
    def keeps_attended(self) -> bool:
        """litgpt 0.5.13, model.py, Block.forward: `attention_output`."""
        return True

    @property
    def graph_outlives_step(self) -> bool:
        """`logits` of the step before are there until new ones are, and what 4-bit products hold with them.

        Source: litgpt 0.5.13, finetune/lora.py, fit; bitsandbytes 0.42, autograd/_functions.py, MatMul4Bit.forward.
        """
        return True

    def embedded(self, t: Tape, m: ModelSpec, recipe: Recipe, x: Tensor) -> Tensor:
        """The embedding of a quantized base takes a gradient, which is added to the one that stands."""
        if not recipe.is_quantized:
            return x
        table, dtype = (m.vocab_size, m.token_size), x.dtype

        def backward(g: Tensor) -> tuple[None]:
            t.empty(table, dtype)
            return (None,)

        out = Tensor(x.shape, dtype, x.buffer, needs_grad=True)
        out.node = Node(t, (Tensor(table, dtype, needs_grad=True),), backward)
        return out

    @property
    def outputs_outlive_step(self) -> bool:
        """The logits."""
        return True

    @property
    def linear(self) -> LinearCode:
        """bitsandbytes 0.42, whose 4-bit products hold their input."""
        return LinearCode(libraries=self.libraries._replace(bitsandbytes=BITSANDBYTES))

    def masks(self, padded: bool) -> bool:
        """Padding makes no mask. Source: litgpt 0.5.13, model.py, GPT.forward: `mask = None`."""
        return False

    def standing_bytes(self, m: ModelSpec, recipe: Recipe, batch: int, length: int) -> tuple[int, ...]:
        """Cosines and sines in fp32 for the longest row, and of a quantized base the embedding's gradient.

        The embedding is replaced by bitsandbytes' StableEmbedding when all else is frozen already and the optimizer
        made: nobody freezes it, and nobody sets its gradient back. Source: litgpt 0.5.13, finetune/lora.py, main.
        Ignores: that gradient's absence in the first step.
        """
        tables = (4 * length * rope_width(m, False),) * 2 if m.position == "rope" else ()
        return (*tables, 2 * m.vocab_size * m.token_size) if recipe.is_quantized else tables

    def queries_keys_values(
        self, t: Tape, x: Tensor, m: ModelSpec, linears: Mapping[str, Linear], norms: Sequence[Norm | HeadNorms]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One product for all three; LoRA's update of those that have one, copied into zeros as wide as all.

        Source: litgpt 0.5.13, lora.py, LoRAQKVLinear.forward; model.py, CausalSelfAttention.forward.
        Ignores: norms of queries and keys, and latent attention, which take transformers' way.
        """
        parts = [linears[name] for name in m.qkv_names if name in linears]
        if m.fused_qkv or norms or len(parts) < 3 or parts[0].recipe.is_dora:
            return super().queries_keys_values(t, x, m, linears, norms)
        t.label("qkv")
        fused = _trained(t, x, parts) if parts[0].weight.needs_grad else base_linear(t, x, _joined(parts))
        adapted = [part for part in parts if part.lora_a is not None]
        if adapted:
            fused = add(t, fused, _update(t, x, adapted, fused.shape))
        sizes = (m.q_size, m.kv_size, m.kv_size)
        heads = (m.num_attention_heads, m.num_key_value_heads, m.num_key_value_heads)
        batch, length, _ = x.shape
        q, k, v = (
            t.view(part, (batch, count, length, m.head_dim))
            for part, count in zip(chunk_last(t, fused, sizes), heads, strict=True)
        )
        return q, k, v

    def rotated(
        self, t: Tape, m: ModelSpec, q: Tensor, k: Tensor, rope: Rope
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Turned in fp32 by tables that are held anyway, and joined with the rest, which also copies where none is.

        Source: litgpt 0.5.13, model.py, apply_rope and CausalSelfAttention.forward; GPT.max_seq_length, which makes the
        tables anew, in fp32.
        """
        if joins_parts(m):
            return super().rotated(t, m, q, k, rope)
        tables = rope.standing()
        first, second = (cast(t, turned(t, x, tables), x.dtype) for x in (q, k))
        return copy(t, first, first.shape), copy(t, second, second.shape), (first, second)

    def attended(self, t: Tape, m: ModelSpec, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Expanded to every query head. Source: litgpt 0.5.13, model.py, CausalSelfAttention.forward."""
        return model_repeat_kv(t, m, k), model_repeat_kv(t, m, v)

    def output_projection(self, t: Tape, x: Tensor, layer: Linear) -> Tensor:
        """Heads are stored one after the other: joining them copies."""
        return super().output_projection(t, copy(t, x, x.shape), layer)

    def loss(self, t: Tape, given: LossInputs) -> Tensor:
        """In slices, whose logits Fabric casts to fp32, beside those of the step before.

        Sources: litgpt 0.5.13, utils.py, chunked_cross_entropy; lightning 2.5, fabric/wrappers.py, convert_output.
        """
        recipe, head = given.recipe, given.head
        if recipe.is_quantized:
            head = Linear(head_linear(given.m), recipe, 0, recipe.quant, given.head.weight.dtype, self.linear)
        logits, loss = sliced_loss(t, given.hidden, head, HEAD_TOKENS, self.lacking_tokens, again=True)
        given.held.append(logits)
        return loss


def _joined(parts: Sequence[Linear]) -> Linear:
    """The frozen layers as the one that they are in LitGPT."""
    first = parts[0]
    width = sum(part.out_features for part in parts)
    shape = LinearShape(name="qkv", in_features=first.in_features, out_features=width, bias=first.bias is not None)
    return Linear(shape, first.recipe, 0, first.quant, first.weight.dtype, first.code)


def _trained(t: Tape, x: Tensor, parts: Sequence[Linear]) -> Tensor:
    """One product with the trained weights of all parts, whose gradients are made at once."""
    own = [p for part in parts for p in (part.weight, part.bias) if p is not None]
    operands = [autocast_operand(t, p) for p in own] if t.autocast else own
    x = autocast_operand(t, x) if t.autocast else x
    shape, dtype, x_needs = x.shape, x.dtype, x.needs_grad
    width, inner = sum(part.out_features for part in parts), parts[0].in_features
    rows, shapes = x.count // inner, [one.shape for one in operands]
    moved = ITEM_BYTES[dtype] * (rows * (inner + width) + inner * width)
    t.matmul(dtype, rows, width, inner, moved)

    def backward(g: Tensor) -> tuple[Tensor | None, ...]:
        given = t.empty(shape, dtype) if x_needs else None
        if x_needs:
            t.matmul(dtype, rows, inner, width, moved)
        t.matmul(dtype, width, inner, rows, moved)
        return given, *(t.empty(one, dtype) for one in shapes)

    saved = (x, *operands) if x_needs else (x,)
    return t.op((x, *operands), (*shape[:-1], width), dtype, backward, saved)


def _update(t: Tape, x: Tensor, adapted: Sequence[Linear], shape: tuple[int, ...]) -> Tensor:
    """LoRA's update (B, S, all features) of x (B, S, H): one dropout, as many products as parts are adapted."""
    dropped = dropout(t, x) if adapted[0].recipe.dropout else x
    if t.autocast:
        dropped = autocast_operand(t, dropped)
    widths = [part.out_features for part in adapted]
    made: list[Tensor] = []
    for part in adapted:
        assert part.lora_a is not None and part.lora_b is not None
        made.append(product(t, product(t, dropped, part.lora_a), part.lora_b))
    del dropped
    return scale(t, zero_padded(t, made, sum(widths), shape))
