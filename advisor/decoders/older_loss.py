"""Losses of other stacks: see `advisor.tape.stack`."""

from __future__ import annotations

from advisor.blocks import ITEM_BYTES
from advisor.decoders.linear import Linear, dequantized
from advisor.tape.graph import Tensor
from advisor.tape.ops import cast
from advisor.tape.tape import Tape


def shifted(t: Tape, logits: Tensor) -> Tensor:
    """`logits[..., :-1, :].contiguous()`; backward copies the gradient into a full tensor of zeros.

    Source: transformers 4.38, models/llama/modeling_llama.py, LlamaForCausalLM.forward.
    """
    shape, dtype = logits.shape, logits.dtype
    batch, length, vocabulary = shape
    t.kernel("elementwise", dtype, 0, 2 * logits.bytes)

    def backward(g: Tensor) -> tuple[Tensor]:
        full = t.empty(shape, dtype)
        t.kernel("elementwise", dtype, 0, full.bytes + 2 * g.bytes)
        return (full,)

    return t.op((logits,), (batch, length - 1, vocabulary), dtype, backward)


def sliced_loss(t: Tape, hidden: Tensor, head: Linear) -> tuple[Tensor, Tensor]:
    """(fp32 logits, loss) of hidden states (B, S, H), head and cross entropy in slices of `Stack.sliced_head` tokens.

    All slices' logits exist before they are cast to fp32 one after the other, and their log-softmax is kept; backward
    takes slice by slice, so that its temporaries are those of one slice. A row is taken as whole slices and a part of
    one, where autocast keeps a cast head for each slice.
    Source: lit-gpt, lit_gpt/lora.py, GPT.forward, and lit_gpt/utils.py, chunked_cross_entropy.
    """
    dtype = t.autocast or hidden.dtype
    shape, vocabulary, width = hidden.shape, head.out_features, head.in_features
    batch, length = shape[0], shape[1]
    rows, wide = batch * length, (batch, length, vocabulary)
    moved = ITEM_BYTES[dtype] * (rows * (width + vocabulary) + vocabulary * width)
    hidden_dtype = hidden.dtype

    def weight() -> list[Tensor]:
        """What a product with the head makes of its weight."""
        if head.quant != "none":
            made = dequantized(t, head)
            return [made, t.empty(made.shape, dtype)] if t.stack.quantized_head else [made]
        return [cast(t, head.weight, dtype)] if head.weight.dtype != dtype else []

    t.label("lm_head")
    states = cast(t, hidden, dtype)
    scratch = weight()
    t.matmul(dtype, rows, vocabulary, width, moved)
    narrow = t.empty(wide, dtype)
    scratch.clear()
    logits = t.empty(wide, "float32")
    t.kernel("elementwise", "float32", 0, narrow.bytes + logits.bytes)
    del narrow
    t.label("loss")
    log_probabilities = t.empty(wide, "float32")
    t.kernel("reduce", "float32", 0, 2 * logits.bytes)
    kept = [log_probabilities]
    if head.quant == "none" and head.weight.dtype != dtype:  # each slice makes and keeps a cast head of its own
        kept.append(t.empty((length, vocabulary * width // t.stack.sliced_head), dtype))
    if head.quant != "none" and t.stack.keeps_quantized_input:
        kept.append(states)

    def backward(g: Tensor) -> tuple[Tensor]:
        piece = (batch, t.stack.sliced_head, vocabulary)
        scratch = [t.empty(piece, "float32"), t.empty(piece, "float32")]
        t.kernel("reduce", "float32", 0, 3 * rows * vocabulary * 4)
        scratch.pop(0)
        scratch += [t.empty(piece, dtype), *weight()]
        t.matmul(dtype, rows, width, vocabulary, moved)
        out = t.empty(shape, hidden_dtype)
        scratch.clear()
        return (out,)

    return logits, t.op((hidden,), (1,), "float32", backward, tuple(kept))
