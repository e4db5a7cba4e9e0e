"""What a model does before its first layer and after its head."""

from __future__ import annotations

from typing import NamedTuple

from advisor.architectures import architecture_of
from advisor.decoders.adapters import linear
from advisor.decoders.linear import Linear
from advisor.decoders.norms import softcap
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.ops import add, cast, dropout, embedding, scale
from advisor.tape.tape import Tape


class Embedded(NamedTuple):
    """Position ids, what the model's forward keeps a name for until it ends, hidden states (B, S, H)."""

    position_ids: Tensor
    kept: list[Tensor]
    hidden: Tensor


def embed(
    t: Tape,
    m: ModelSpec,
    table: Tensor,
    positions: Tensor | None,
    project: Linear | None,
    batch: int,
    length: int,
    leaf: bool,
    packed: bool,
    noise: bool = False,
) -> Embedded:
    """The embedding of token ids, with positions and dropout where the model has them.

    `leaf`: checkpointing makes the embedding's output require a gradient, so that a frozen one does not cut the
    graph; then autograd holds it too. `packed`: position ids are a part of the batch. `noise`: NEFTune's hook, which
    comes after that (transformers 5.23, trainer.py).
    """
    quirks = architecture_of(m.architecture)
    rows = {"by_row": batch, "none": 0}.get(quirks.position_ids, 1)
    if packed:
        ids = Tensor((batch, length), "int64")
    else:
        ids = t.empty((rows, length), "int64")
        for passes in (1, 2):  # counted, then moved to where the row begins
            t.kernel("elementwise", "int64", 0, passes * ids.bytes)
    kept: list[Tensor] = []
    x = embedding(t, table, batch, length)
    if m.embedding_multiplier and quirks.embedding_scales_itself:
        x = scale(t, x)
    if leaf and not x.needs_grad:
        x.needs_grad = True
    if noise:
        x = noised(t, x)
    if m.embedding_multiplier and not quirks.embedding_scales_itself:
        if quirks.keeps_embedding == "unscaled":
            kept.append(x)
        x = scale(t, x)
    if positions is not None:
        if m.position_offset:
            kept.append(t.empty((batch, length), "float32"))  # a mask of ones
            places = embedding(t, positions, batch, length, (t.empty(ids.shape, "int64"),))
        else:
            places = embedding(t, positions, 1, length, (ids,))
        if project is not None:
            x = linear(t, x, project)
        kept += [x, places]
        x = add(t, x, places)
    elif not m.embedding_dropout or quirks.keeps_embedding == "undropped":
        kept.append(x)
    if m.embedding_dropout:
        x = dropout(t, x)
        if quirks.keeps_embedding == "dropped":
            kept.append(x)
    return Embedded(ids, kept, x)


def noised(t: Tape, x: Tensor) -> Tensor:
    """x plus uniform noise of its shape. Source: transformers 5.23, integrations/neftune.py."""
    noise = t.empty(x.shape, x.dtype)
    for _ in range(2):  # zeros, then filled in place
        t.kernel("elementwise", x.dtype, 0, noise.bytes)
    return add(t, x, noise)


def head_logits(t: Tape, m: ModelSpec, made: list[Tensor]) -> Tensor:
    """What the model does to the output of its head, alone in `made`, before the loss.

    It is popped: the model's code gives each result the name of the one before.
    """
    if architecture_of(m.architecture).logits_in_float:
        made.append(cast(t, made.pop(), "float32"))
    if m.logits_multiplier:
        made.append(scale(t, made.pop()))
    if m.final_softcap:
        made.append(softcap(t, made))
    return made.pop()
