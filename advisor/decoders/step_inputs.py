"""What a model makes once per step for all its layers, and what each layer is handed of it."""

from __future__ import annotations

from typing import NamedTuple

from advisor.architectures import architecture_of
from advisor.decoders.rope import Rope, rope_tables
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.tape import Tape


class StepInputs:
    """What a model makes once per step for all its layers: positions, rotary tables and, where needed, masks.

    transformers drops a causal mask that the kernel applies by itself. A sliding window shorter than the row keeps
    its mask, eager attention keeps a numeric one for each kind of layer, and Falcon's code always makes one. Flash
    attention is told which tokens are padding. MPT's biases are those of its longest row.
    """

    __slots__ = ("alibi", "masks", "position_ids", "ropes", "window")

    def __init__(
        self,
        t: Tape,
        m: ModelSpec,
        kind: str,
        batch: int,
        length: int,
        slides: bool,
        ids: Tensor,
        dtype: str,
        padded: bool,
        packed: bool,
    ) -> None:
        """`slides`: rows are longer than the window; `ids` are the positions, `dtype` is that of hidden states.

        `padded`: rows differ in length, so every mask is made, and for each row; the same where `packed` rows
        are kept apart.
        """
        quirks = architecture_of(m.architecture)
        hidden = m.vision is not None and m.vision.hides_places
        self.position_ids = ids if quirks.position_ids in ("shared", "by_row") and not hidden else None
        self.window = m.sliding_window if slides else 0
        self.alibi: Tensor | None = None
        square = (batch, 1, length, length)
        full: Tensor | None = None
        sliding: Tensor | None = None
        if quirks.alibi == "longest_row":
            self.alibi = t.empty((m.num_attention_heads, 1, m.max_position_embeddings), "float32")
            heads, positions = 8 * m.num_attention_heads, 4 * m.max_position_embeddings
            for moved in (positions, *(heads,) * 6, self.alibi.bytes + positions):  # positions, slopes, their product
                t.kernel("elementwise", "float32", 0, moved)
            full = t.empty(square, "bool")
        elif quirks.alibi == "by_row":
            self.alibi = t.empty((batch, m.num_attention_heads, 1, length), dtype)
            full = t.empty(square, dtype)
        elif m.position == "alibi":
            self.alibi = t.empty((batch, m.num_attention_heads, 1, length), dtype)
            full = t.empty((batch, m.num_attention_heads, length, length), dtype)
        elif kind == "eager" or (kind == "sdpa" and padded):
            form = dtype if kind == "eager" else "bool"
            if not m.sliding_window or not all(m.sliding_layers or (True,)):
                full = t.empty(square, form)
            if m.sliding_window:
                sliding = t.empty(square, form)
        elif kind == "flash":
            full = sliding = t.empty((batch, length), "bool") if padded else None
        elif kind == "sdpa":
            full = t.empty((1, *square[1:]), "bool") if quirks.always_makes_mask else None
            rows = batch if quirks.mask_by_row else 1
            sliding = t.empty((rows, *square[1:]), "bool") if slides else None
        for mask, band in ((full, 0), (sliding, self.window)):
            if mask is not None and kind != "flash":
                _note_mask_kernels(t, mask, batch, length, band, padded, packed)
        self.masks = {False: full, True: sliding}
        self.ropes = rope_tables(t, m, length, dtype, batch)

    def of(self, rotated: bool, sliding: bool) -> LayerInputs:
        """What a layer of that kind is called with; a checkpointed layer holds it until its backward."""
        return LayerInputs(
            self.masks[sliding],
            self.alibi,
            self.window if sliding else 0,
            self.ropes.get(sliding),
            rotated,
            self.position_ids,
        )


def _note_mask_kernels(t: Tape, mask: Tensor, batch: int, length: int, window: int, padded: bool, packed: bool) -> None:
    """What transformers' masking_utils launches for one mask: indices, comparisons, and numbers in place of bools."""
    axis, square = 8 * length, length * length
    moved = [8 * batch, 8, axis, 2 * axis, axis, 2 * axis, 2 * axis + square]
    if window:
        moved += [1, 2 * axis, 2 * axis + square, 1 + 2 * square, 3 * square]
    if padded and packed:  # where positions do not follow each other, examples so far, both looked up, compared, joined
        moved += [16, 2 * axis, 3 * axis, axis + length, axis + length, *(3 * axis,) * 4]
        moved += [2 * axis + square, 1 + 2 * square, 3 * square]
    elif padded:  # as bools, their sum against their number, picked for each key, joined with the square
        tokens = batch * length
        moved += [9 * tokens, tokens, 9, 9 * tokens, tokens + square + mask.count]
    if mask.dtype != "bool":
        moved += [2, 2, square + mask.bytes]
    for size in moved:
        t.kernel("elementwise", "int64", 0, size)


class LayerInputs(NamedTuple):
    """What one layer is called with besides its hidden states."""

    mask: Tensor | None
    alibi: Tensor | None
    window: int
    rope: Rope | None
    rotated: bool
    position_ids: Tensor | None
