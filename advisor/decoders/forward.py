"""The forward of one micro-step: embedding, layers, last norm, head and loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from advisor.decoders.adapters import linear
from advisor.decoders.balancing import unrun, with_balance
from advisor.decoders.decoder import Decoder
from advisor.decoders.encoder import HeadTransform, Tables, encoder_embedding
from advisor.decoders.ends import embed
from advisor.decoders.gradients import shared_weight
from advisor.decoders.kinds import LayerKind
from advisor.decoders.layer_inputs import LayerTable, layer_inputs
from advisor.decoders.layers import LAYERS
from advisor.decoders.linear import Linear
from advisor.decoders.norms import Norm
from advisor.decoders.recorder import EMBEDDING, HEAD, Recorder
from advisor.decoders.sdpa import Call
from advisor.decoders.stack import LossInputs, Stack
from advisor.decoders.step_inputs import Chunks, StepInputs
from advisor.decoders.streams import averaged, gathered, spread
from advisor.decoders.vision_join import scattered, stacked_on
from advisor.decoders.weights import Weights
from advisor.parameters.layers import attends_anywhere
from advisor.specs import ModelSpec, Recipe
from advisor.tape.graph import Tensor
from advisor.tape.ops import cast
from advisor.tape.program import BATCH, LENGTH
from advisor.tape.tape import Tape

if TYPE_CHECKING:
    from advisor.decoders.classifier import Pooler
    from advisor.decoders.vision import Seen, TowerWeights


class Ends(NamedTuple):
    """The weights before and after the layers."""

    table: Tensor
    head: Linear
    positions: Tensor | None
    last_norm: Norm | None
    first_norm: Norm | None
    projections: dict[str, Linear]
    types: Tensor | None = None
    transform: HeadTransform | Pooler | None = None
    layer_table: LayerTable | None = None
    tower: TowerWeights | None = None

    @property
    def trained(self) -> list[Tensor]:
        """The tensors that get gradients."""
        return (
            [p for p in (self.table, self.positions, self.types) if p is not None and p.needs_grad]
            + [p for norm in (self.last_norm, self.first_norm) if norm is not None for p in norm.trained]
            + [p for part in (*self.projections.values(), self.head) for p in part.trained]
            + (self.transform.trained if self.transform is not None else [])
            + (self.layer_table.trained if self.layer_table is not None else [])
            + (self.tower.trained if self.tower is not None else [])
        )


class Forward:
    """The forward of one micro-step, split as the model's own functions are."""

    def __init__(
        self,
        t: Tape,
        recorder: Recorder,
        m: ModelSpec,
        recipe: Recipe,
        plan: list[tuple[LayerKind, int]],
        layers: list[Weights],
        slides: bool,
        one_tile: bool,
        single_row: bool,
        stack: Stack,
        padded: bool,
        card: str,
        packed: bool,
        chunks: Chunks | None,
        rows: int,
    ) -> None:
        """`rows`: of a micro-batch with images, else 0."""
        self.rows = rows
        self.offsets: Tensor | None = None
        self.t, self.recorder, self.m, self.recipe, self.stack = t, recorder, m, recipe, stack
        self.plan, self.layers, self.slides, self.single_row = plan, layers, slides, single_row
        self.held: list[Tensor] = []  # what the step keeps until after backward
        self.waiting: list[Tensor] = []  # gradients of layers that are not run
        self.returned: list[Tensor] = []  # what the model's outputs hold until the loss is taken of them
        self.calls: dict[Call, None] = {}
        self.one_tile, self.padded, self.packed, self.card, self.chunks = one_tile, padded, packed, card, chunks

    def forward(self, ends: Ends) -> Tensor:
        """The model's forward with its loss; the loss alone survives, as in transformers' Trainer."""
        t, m = self.t, self.m
        self.recorder.enter(EMBEDDING)
        t.label("embedding")
        t.offloader = self.stack.offloader(self.recipe) if t.grad_enabled else None
        table, head = ends.table, ends.head
        balances = self.stack.balances(m, self.recipe)
        if table is head.weight:
            table = head.weight = shared_weight(t, table)
        # no name for the hidden states here: a stack's loss may let go of them
        about = (head, self.one_tile, self.held, ends.transform, self.returned if balances else None)
        given = [LossInputs(m, self.recipe, self._decode(table, ends), *about)]
        loss = self.stack.loss(t, given[0] if balances else given.pop())
        if balances:
            loss = self._balanced(loss)
        self.returned.clear()
        return loss

    def _balanced(self, loss: Tensor) -> Tensor:
        """The loss with that of all layers' routers: of those that are not run, one like theirs."""
        routed = [
            one
            for w, (_, copies) in zip(self.layers, self.plan, strict=True)
            for logits in w.collected
            for one in (logits, *(unrun(self.t, logits, self.waiting) for _ in range(copies - 1)))
        ]
        mask = Tensor((BATCH, LENGTH), "int64") if self.padded and not self.packed else None
        return with_balance(self.t, loss, routed, self.m.experts_per_token, mask) if routed else loss

    def _decode(self, table: Tensor, ends: Ends) -> Tensor:
        """Embedding, layers and last norm: (B, S, H). What `embed` returns lives as long as this function."""
        t, m, recipe = self.t, self.m, self.recipe
        leaf = recipe.gradient_checkpointing and self.stack.leaf_under_checkpointing(recipe)
        project, noise = ends.projections.get("project_in"), recipe.neftune > 0
        pictures, mask = None, None
        if ends.tower is not None and m.cross_layers:
            pictures = self._seen(ends.tower, leaf)
        if ends.positions is not None and ends.types is not None and ends.first_norm is not None:
            tables = Tables(table, ends.positions, ends.types, ends.first_norm)
            ids, _kept, x = encoder_embedding(t, m, tables, BATCH, LENGTH, leaf, self.packed, noise)
        elif ends.first_norm is not None and m.bidirectional:
            from advisor.decoders.modernbert import normed_embedding

            ids, _kept, x = normed_embedding(t, m, table, ends.first_norm, BATCH, LENGTH, leaf, self.packed, noise)
        else:
            ids, _kept, x = embed(t, m, table, ends.positions, project, BATCH, LENGTH, leaf, self.packed, noise)
            if ends.tower is not None and pictures is None:
                pictures = self._seen(ends.tower, leaf)
                mask = t.empty((BATCH, LENGTH, 1), "bool")
                t.kernel("elementwise", "int64", 0, 9 * BATCH * LENGTH)
                tokens = cast(t, pictures.tokens, x.dtype)
                _kept[:] = [scattered(t, x, mask, tokens), tokens, *pictures.stacked]
                self._return(tokens, pictures)
                x = _kept[0]
                _kept += self._blocks()
                ids = self._placed(ids)
            x = self.stack.embedded(t, m, recipe, x)
            if ends.first_norm is not None:
                x = ends.first_norm(t, x)
        every = layer_inputs(t, m, ends.layer_table, ends.projections, x, BATCH, LENGTH)
        decoder = Decoder(t, m, recipe, self.single_row, self.stack, self.card)
        masked_as = "flash" if decoder.kind == "sdpa" and self.stack.windows_inside else decoder.kind
        if not attends_anywhere(m):
            masked_as = "none"
        rows = (self.padded, self.packed, self.chunks)
        shared = StepInputs(t, m, masked_as, BATCH, LENGTH, self.slides, ids, x.dtype, *rows)
        shared.layer_inputs, streams = every, list[Tensor]()
        if m.streams is not None:
            x = spread(t, m, x, ends.projections, streams)
        self.calls = decoder.calls
        if pictures is not None and m.cross_layers:
            decoder.seen = pictures._replace(kept=[])
        decoder.cache, layer = self.held, LAYERS[decoder.quirks.layer]
        for index, (kind, _) in enumerate(self.plan):
            self.recorder.enter(index)
            weights, given = self.layers[index], shared.of(t, m, kind)
            if decoder.choice is not None:
                given = given._replace(choice=decoder.choice)
            if recipe.gradient_checkpointing and t.grad_enabled:
                last = index == len(self.plan) - 1
                run = lambda h, *own, w=weights, g=given: layer(decoder, h, w, g.with_beside(*own))  # noqa: E731
                x = self.stack.checkpoint(t, run, x, recipe.reentrant, last, given.beside)
            else:
                x = layer(decoder, x, weights, given)
            if kind.stacked and pictures is not None and mask is not None:
                x = stacked_on(t, x, mask, pictures.stacked[kind.stacked - 1])
            del given  # it may hold what the layer before chose
        self.recorder.enter(HEAD)
        t.label("final norm")
        if m.streams is not None:
            x = gathered(t, m, x, ends.projections, streams)
            x = averaged(t, x)
        if ends.last_norm is not None:
            x = ends.last_norm(t, x)
        if "project_out" in ends.projections:
            x = linear(t, x, ends.projections["project_out"])
        decoder.held.clear()
        decoder.choice = None
        return x

    def _seen(self, weights: TowerWeights, leaf: bool) -> Seen:
        """The tokens of the images."""
        from advisor.decoders.towers import seen

        enter = self.recorder.enter_block
        return seen(self.t, self.m, self.recipe, self.stack, weights, self.card, self.rows, enter, leaf)

    def _return(self, tokens: Tensor, pictures: Seen) -> None:
        """Keep what the model's outputs hold of images."""
        assert self.m.vision is not None
        returned = self.m.vision.code.returns
        self.returned = {"": [], "tokens": [tokens], "tower": pictures.kept}[returned]

    def _blocks(self) -> list[Tensor]:
        """Which image each token belongs to, where those of one image attend to each other both ways.

        Source: transformers 5.23, models/gemma3/modeling_gemma3.py, get_block_sequence_ids_for_mask.
        """
        vision, t = self.m.vision, self.t
        if vision is None or not vision.sees_both_ways:
            return []
        made = t.empty((BATCH, LENGTH), "int64")
        tokens = BATCH * LENGTH
        for moved in (9 * tokens, 2 * tokens, 2 * tokens, 3 * tokens, 5 * tokens, 12 * tokens, 2 * made.bytes):
            t.kernel("elementwise", "int64", 0, moved)
        return [made]

    def _placed(self, ids: Tensor) -> Tensor:
        """Position ids on three axes, where the model has them; it keeps their offsets behind the images."""
        t = self.t
        if ids.buffer is not None:
            return ids
        self.offsets = t.empty((BATCH, 1), "int64")
        made = t.empty(ids.shape, "int64")
        t.kernel("elementwise", "int64", 0, 2 * made.bytes)
        return made
