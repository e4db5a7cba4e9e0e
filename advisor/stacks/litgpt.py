"""lit-gpt of October 2023 (finetune/lora.py) in Lightning Fabric, with bitsandbytes 0.41."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from advisor.blocks import ITEM_BYTES
from advisor.decoders.attention import model_repeat_kv
from advisor.decoders.dequantized import dequantized
from advisor.decoders.linear import Linear, LinearCode, autocast_operand
from advisor.decoders.stack import LossInputs, Stack
from advisor.parameters.modules import head_linear
from advisor.specs import ModelSpec, Recipe
from advisor.tape.graph import LOGITS, SAVED, Node, Tensor
from advisor.tape.layout import copy
from advisor.tape.ops import cast
from advisor.tape.tape import Tape

HEAD_TOKENS = 128
"""`lm_head_chunk_size`: head and loss run on slices of this many tokens."""


@dataclass(frozen=True)
class LitGpt2023(Stack):
    """Its own LoRA on fused projections, head and loss in slices, and what Fabric's bitsandbytes plugin replaces."""

    adapted_features: int
    """Width of the update of q and v, which is copied into zeros as wide as q, k and v together."""
    lacking_tokens: int = 0
    """What the last slice of a row has less."""
    later: bool = False
    """Whether an iteration with rows as long came before, whose logits and graph the loop still holds."""

    @property
    def name(self) -> str:
        """The libraries and versions whose code this is."""
        return "lit-gpt of October 2023, bitsandbytes 0.41"

    def quantized_head(self, recipe: Recipe) -> bool:
        """Fabric's plugin replaces every nn.Linear."""
        return recipe.is_quantized

    @property
    def graph_outlives_step(self) -> bool:
        """`logits` and `loss` are bound anew after the next forward pass only."""
        return self.later

    @property
    def linear(self) -> LinearCode:
        """bitsandbytes 0.41, and LoRA's update copied into zeros."""
        update = partial(padded, features=self.adapted_features) if self.adapted_features else None
        return LinearCode(libraries=self.libraries._replace(bitsandbytes=(0, 41)), update=update)

    def keys_values(self, t: Tape, m: ModelSpec, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Expanded to every query head. Source: lit_gpt/model.py, CausalSelfAttention.forward."""
        return model_repeat_kv(t, m, k), model_repeat_kv(t, m, v)

    def loss(self, t: Tape, given: LossInputs) -> Tensor:
        """In slices, whose logits Fabric casts to fp32; its bitsandbytes plugin replaces every nn.Linear, the head too.

        Sources: lit_gpt/utils.py, chunked_cross_entropy; lightning 2.1, plugins/precision/half.py, convert_output.
        """
        head = Linear(head_linear(given.m), given.recipe, 0, given.recipe.quant, given.head.weight.dtype)
        logits, loss = sliced_loss(t, given.hidden, head, HEAD_TOKENS, self.lacking_tokens, self.later)
        given.held.append(logits)
        return loss


def zero_padded(t: Tape, parts: list[Tensor], features: int, shape: tuple[int, ...]) -> Tensor:
    """`parts`, `features` wide together, in zeros of `shape`: one source that is kept; if they fill it, as they are.

    Source: litgpt 0.5.13, lora.py, LoRAQKVLinear.conv1d and zero_pad.
    """
    dtype, narrow = parts[0].dtype, [part.shape for part in parts]
    whole = features == shape[-1]
    source = t.empty((*shape[:-1], features), dtype)
    t.kernel("elementwise", dtype, 0, 2 * source.bytes)
    saved = () if whole else (source, t.empty((features,), "int64"))

    def backward(g: Tensor) -> tuple[Tensor, ...]:
        picked = g if whole else t.empty((*shape[:-1], features), dtype)
        t.kernel("gather", dtype, 0, 2 * picked.bytes)
        return tuple(t.empty(one, dtype) for one in narrow)

    t.kernel("gather", dtype, 0, 0 if whole else source.bytes)
    edges = []
    for part in parts:
        edge = Tensor(part.shape, dtype, needs_grad=part.needs_grad)
        edge.node = part.node
        edges.append(edge)
    del part
    parts.clear()
    return t.op(tuple(edges), shape, dtype, backward, saved)


def padded(t: Tape, update: Tensor, features: int) -> Tensor:
    """The part of `update` (B, S, O) that belongs here, `features` wide, copied, and again into zeros of width O.

    `index_copy` keeps its source. The index of the features goes to the card with every call.
    Source: lit_gpt/lora.py, LoRAQKVLinear.zero_pad; PyTorch, derivatives.yaml.
    """
    narrow, shape, dtype = (*update.shape[:-1], features), update.shape, update.dtype
    source = copy(t, Tensor(narrow, dtype, update.buffer), narrow)
    zeros = t.empty(shape, dtype)
    index = t.empty((features,), "int64")
    t.kernel("gather", dtype, 0, zeros.bytes + 2 * source.bytes)

    def backward(g: Tensor) -> tuple[Tensor]:
        t.kernel("gather", dtype, 0, 2 * g.bytes)
        return (t.empty(shape, dtype),)

    return t.op((update,), shape, dtype, backward, (source, index))


def sliced_loss(
    t: Tape, hidden: Tensor, head: Linear, tokens: int, lacking: int, again: bool = False
) -> tuple[Tensor, Tensor]:
    """(fp32 logits, loss) of hidden states (B, S, H), head and cross entropy in slices of `tokens`.

    All slices' logits exist before they are cast to fp32 one after the other, and their log-softmax is kept. Autograd
    runs what was made last first: the loss of every slice, whose gradient takes the place of its log-softmax, then the
    cast of every slice, and only then the products with the head, beside gradients in 16 bits. Autocast keeps a
    cast head for each slice, of a frozen head; the last one lacks `lacking` tokens. `again`: the loop holds the logits
    of the step before until these are returned.
    Source: lit-gpt, lit_gpt/lora.py, GPT.forward, and lit_gpt/utils.py, chunked_cross_entropy; PyTorch,
    torch/csrc/autograd/engine.cpp, CompareNodeTaskTime.
    """
    dtype = t.autocast or hidden.dtype
    shape, vocabulary, width = hidden.shape, head.out_features, head.in_features
    batch, length = shape[0], shape[1]
    rows, wide = batch * length, (batch, length, vocabulary)
    moved = ITEM_BYTES[dtype] * (rows * (width + vocabulary) + vocabulary * width)
    hidden_dtype = hidden.dtype
    trained = head.weight.needs_grad
    operand = autocast_operand(t, head.weight) if trained else head.weight
    casts = head.quant == "none" and operand.dtype != dtype

    def weight() -> list[Tensor]:
        """What a product with the head makes of its weight in 4 bits."""
        if head.quant == "none":
            return []
        made = dequantized(t, head)
        return [made, t.empty(made.shape, dtype)]

    t.label("lm_head")
    before = [t.empty(wide, "float32", LOGITS)] if again else []
    states = cast(t, hidden, dtype)
    scratch = [cast(t, operand, dtype)] if casts else weight()
    t.matmul(dtype, rows, vocabulary, width, moved)
    narrow = t.empty(wide, dtype)
    scratch.clear()
    logits = t.empty(wide, "float32", LOGITS)
    t.kernel("elementwise", "float32", 0, narrow.bytes + logits.bytes)
    del narrow
    before.clear()
    t.label("loss")
    log_probabilities = t.empty(wide, "float32")
    t.kernel("reduce", "float32", 0, 2 * logits.bytes)
    kept: list[Tensor] = []
    held = [log_probabilities]
    if log_probabilities.buffer is not None:
        log_probabilities.buffer.move_to(SAVED)
    if casts:  # each slice makes and keeps its own cast head
        kept.append(t.empty((length + lacking, vocabulary * width // tokens), dtype))
    if trained:
        kept.append(states)

    def backward(g: Tensor) -> tuple[Tensor, ...]:
        piece = (batch, tokens, vocabulary)
        scratch = [t.empty(piece, "float32"), t.empty(piece, "float32")]
        t.kernel("reduce", "float32", 0, 3 * rows * vocabulary * 4)
        scratch.clear()
        held.clear()
        scratch += [t.empty(wide, dtype), *weight()]
        t.matmul(dtype, rows, width, vocabulary, moved)
        out = t.empty(shape, hidden_dtype)
        if not trained:
            scratch.clear()
            return (out,)
        total = t.empty(operand.shape, operand.dtype)
        scratch.append(t.empty(operand.shape, operand.dtype))  # of one slice, beside the sum
        t.matmul(dtype, vocabulary, width, rows, moved)
        scratch.clear()
        return out, total

    inputs = (hidden, operand) if trained else (hidden,)
    loss = t.op(inputs, (1,), "float32", backward, tuple(kept))
    if head.quant != "none" and isinstance(loss.node, Node):  # bitsandbytes of that time holds its product's input
        loss.node.context = (states.buffer,)
    return logits, loss
