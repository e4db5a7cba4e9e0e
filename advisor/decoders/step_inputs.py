"""What a model makes once per step for all its layers, and what each layer is handed of it."""

from __future__ import annotations

from typing import NamedTuple

from advisor.architectures import architecture_of
from advisor.decoders.kinds import LayerKind, masks_windows
from advisor.decoders.rope import Rope, rope_tables
from advisor.parameters.token_mixers import STATE_SPACES
from advisor.specs import ModelSpec, Recipe
from advisor.tape.graph import Tensor
from advisor.tape.layout import slice_last
from advisor.tape.program import CHUNKS
from advisor.tape.tape import Tape

KeysByKind = dict[bool, tuple[Tensor, Tensor]]
"""Keys and values (B, KV, S, D) that later layers take, by whether those slide."""


class Chunks(NamedTuple):
    """The chunks that a row is padded to and cut into by a model's own functions."""

    count: int  # type: ignore[assignment]  # CHUNKS where the code does the same for any number of them
    size: int  # tokens of each
    pads: bool  # the last one is not full
    one_row: bool = False  # the batch has one row, where that matters

    @property
    def length(self) -> int:
        """Tokens of a padded row."""
        return self.count * self.size


def chunks_of(m: ModelSpec, recipe: Recipe, batch: int, length: int) -> Chunks | None:
    """How the model's own functions cut each of `batch` rows of `length` tokens into chunks; None elsewhere.

    Mamba 2's work on all chunks at once: of their number they only care whether it is one. Mamba's run token by token;
    around its kernels, too, some copies are made of several rows alone.
    """
    size = m.recurrence.chunk_size if m.recurrence is not None else 0
    own = recipe.sequence_kernels == "torch"
    if "mamba1" in m.mixers:
        return Chunks(length, 1, False, batch == 1) if own else Chunks(CHUNKS, size, False, batch == 1)
    if not size or not own:
        return None
    count, pads = -(-length // size), length % size > 0
    if STATE_SPACES.isdisjoint(m.mixers):
        return Chunks(count, size, pads)
    return Chunks(CHUNKS if count > 1 else 1, size, pads, batch == 1)


class StepInputs:
    """What a model makes once per step for all its layers: positions, rotary tables and, where needed, masks.

    transformers drops a causal mask that the kernel applies by itself. A sliding window shorter than the row keeps
    its mask, eager attention keeps a numeric one for each kind of layer, and Falcon's code always makes one. Flash
    attention is told which tokens are padding. MPT's biases are those of its longest row.
    """

    __slots__ = (
        "alibi",
        "chosen",
        "chunks",
        "keys",
        "layer_inputs",
        "masks",
        "padding",
        "position_ids",
        "ropes",
        "spreads_ropes",
        "window",
    )

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
        chunks: Chunks | None = None,
    ) -> None:
        """`slides`: rows are longer than the window; `ids` are the positions, `dtype` is that of hidden states.

        `padded`: rows differ in length, so every mask is made, and for each row; the same where `packed` rows
        are kept apart.
        """
        quirks = architecture_of(m.architecture)
        self.chunks, self.spreads_ropes = chunks, not quirks.rope_for_attention_alone
        hidden = m.vision is not None and m.vision.hides_places
        self.position_ids = ids if quirks.position_ids in ("shared", "by_row") and not hidden else None
        self.chosen = m.index_topk if slides else 0
        slides = slides and not m.index_topk
        self.window = m.sliding_window if slides else 0
        # the batch's own mask, which layers without attention read
        self.padding = Tensor((batch, length), "int64") if m.mixers and padded and not packed else None
        self.keys: KeysByKind | None = {} if m.kv_shared_layers else None
        self.layer_inputs: Tensor | None = None
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
            needed = padded or not m.bidirectional  # rows that see all of themselves need none
            if needed and (not m.sliding_window or not all(m.sliding_layers or (True,))):
                full = t.empty(square, form)
            if m.sliding_window and (needed or slides):
                sliding = t.empty(square, form)
        elif kind == "flash":
            full = sliding = t.empty((batch, length), "bool") if padded else None
        elif kind == "sdpa":
            full = t.empty((1, *square[1:]), "bool") if quirks.always_makes_mask else None
            rows = batch if quirks.mask_by_row or masks_windows(m) else 1
            sliding = t.empty((rows, *square[1:]), "bool") if slides or masks_windows(m) else None
        for mask, band in ((full, 0), (sliding, self.window)):
            if mask is not None and kind != "flash":
                _note_mask_kernels(t, mask, batch, length, band, padded, packed)
        self.masks = {False: full, True: sliding}
        self.ropes = rope_tables(t, m, batch, length, dtype)

    def of(self, t: Tape, m: ModelSpec, kind: LayerKind) -> LayerInputs:
        """What a layer of that kind is called with; a checkpointed layer holds it until its backward.

        One that has no attention is given the batch's own mask alone.
        """
        sliding, attends, every = kind.sliding, kind.attends, self.layer_inputs
        return LayerInputs(
            self.masks[sliding] if attends else None,
            self.alibi,
            self.window if sliding else 0,
            self.ropes.get(sliding) if attends or self.spreads_ropes else None,
            kind.rotated,
            self.position_ids,
            self.padding,
            kind,
            self.keys,
            slice_last(t, every, m.layer_input_size) if every is not None else None,
            self.chunks,
            self.chosen,
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
    padding: Tensor | None
    """The batch's mask (B, S), where rows differ in length."""
    kind: LayerKind
    keys: KeysByKind | None
    layer_input: Tensor | None
    chunks: Chunks | None = None
    """Of a row, for code that loops over them."""
    chosen: int = 0
    """How many tokens an indexer chooses; 0 for all."""
    choice: Tensor | None = None
    """What the layer before chose."""

    @property
    def beside(self) -> tuple[Tensor, ...]:
        """Tensors that the layer is called with as with its hidden states: re-entrant checkpointing cuts both off."""
        return () if self.layer_input is None else (self.layer_input,)

    def with_beside(self, *tensors: Tensor) -> LayerInputs:
        """The same with these in place of `beside`."""
        return self._replace(layer_input=tensors[0]) if tensors else self


def unpadded(t: Tape, x: Tensor, padding: Tensor | None) -> Tensor:
    """Hidden states x (B, S, H) with zeros where a row is padding, for layers whose state runs over it.

    Source: transformers 5.23, models/*/modeling_*.py, apply_mask_to_padding_states.
    """
    if padding is None:
        return x
    shape, dtype, moved = x.shape, x.dtype, 2 * x.bytes + padding.bytes
    t.kernel("elementwise", dtype, 0, moved)

    def backward(g: Tensor) -> tuple[Tensor]:
        t.kernel("elementwise", g.dtype, 0, moved)
        return (t.empty(shape, g.dtype),)

    return t.op((x,), shape, dtype, backward, (padding,))
