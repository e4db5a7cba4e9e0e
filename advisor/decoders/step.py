"""One training step of a decoder on the tape: forward, loss, backward, in segments.

Identical layers are run once: the first layer, then one layer of each kind that follows. Memory grows exactly linearly
with further layers of a kind (a test checks this), so each segment carries how many layers it stands for.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple, ParamSpec

from advisor.architectures import architecture_of
from advisor.decoders.adapters import linear
from advisor.decoders.decoder import Decoder
from advisor.decoders.ends import embed
from advisor.decoders.gradients import existing_gradients, shared_weight, updated_at_once
from advisor.decoders.kinds import LayerKind, composes_attention, layer_plan, sdpa_plan, slides
from advisor.decoders.layers import LAYERS
from advisor.decoders.linear import Linear
from advisor.decoders.loss import TILE_TOKENS
from advisor.decoders.norms import Norm
from advisor.decoders.recording import EMBEDDING, HEAD, TOWER, Recorder, drop_autocast_cache, leaving_garbage
from advisor.decoders.sdpa import Call
from advisor.decoders.stack import THIS_STACK, LossInputs, Stack
from advisor.decoders.step_inputs import StepInputs
from advisor.decoders.vision_join import scattered, stacked_on
from advisor.decoders.weights import Weights, outer_norm, output_embedding, projections
from advisor.parameters.layers import part_of
from advisor.parameters.own_weights import own_weights
from advisor.parameters.rotations import rotates
from advisor.parameters.storage import other_dtype
from advisor.specs import ModelSpec, Recipe
from advisor.tape.engine import run_backward
from advisor.tape.graph import Device, Tensor
from advisor.tape.ops import cast
from advisor.tape.program import BATCH, LENGTH, RANK, Program
from advisor.tape.tape import LabeledTape, Tape

if TYPE_CHECKING:
    from advisor.decoders.vision import Seen, TowerWeights

P = ParamSpec("P")


class StepProgram(Program):
    """A recorded micro-step, and its calls of `scaled_dot_product_attention`, each kind once."""

    calls: tuple[Call, ...] = ()


@lru_cache(maxsize=512)
@leaving_garbage
def _recorded(
    m: ModelSpec,
    recipe: Recipe,
    slides: bool,
    one_tile: bool,
    single_row: bool,
    device: Device,
    stack: Stack,
    padded: bool,
    labeled: bool,
    evaluating: bool,
    card: str,
    packed: bool,
    rows: int,
) -> StepProgram:
    """The program of `recipe`, whose rank is ignored.

    `slides`: rows are no shorter than the sliding window; `one_tile`: a chunked loss takes all tokens at once;
    `single_row`: the batch is 1 where that matters; `padded`: the batch has an attention mask with zeros, or
    `packed` rows are kept apart by one; `evaluating`: a forward alone, without gradients; `card`: the compute
    capability that attention kernels are picked by; `rows`: of a micro-batch with images, else 0.
    """
    half = recipe.base_dtype if recipe.base_dtype != "float32" else "bfloat16"
    t = (LabeledTape if labeled else Tape)(device, half if recipe.autocast else "")
    t.grad_enabled = not evaluating
    plan = layer_plan(m, recipe, stack.keeps_last_apart(recipe), stack.unsteady_layers(recipe))
    copies = {index: copies for index, (_, copies) in enumerate(plan)}
    tower = None
    if m.vision is not None and m.vision.row and m.vision.code.code:
        from advisor.decoders.vision import TowerWeights, block_plan

        tower = TowerWeights(m.vision, recipe, RANK, stack)
        copies |= {TOWER + index: times for index, (_, times) in enumerate(block_plan(m.vision))}
    recorder = Recorder(t, copies)
    layers = [
        Weights(part_of(m, kind.parameters), recipe, RANK, stack, kind.whole, kind.training == "frozen")
        for kind, _ in plan
    ]
    own, other = own_weights(m, recipe), other_dtype(recipe)
    table, head = (
        Tensor((m.vocab_size, m.token_size), own.dtype if trained else other, needs_grad=trained)
        for trained in (own.embedding, own.head)
    )
    if m.tie_word_embeddings and not (recipe.has_adapters and (own.embedding or own.head)):
        head = table
    places = Tensor((m.position_rows, m.hidden_size), other, needs_grad=own.rest)
    norm_dtype = own.dtype if own.norms else other
    ends = _Ends(
        table,
        output_embedding(m, recipe, RANK, head, stack),
        places if m.position == "learned" else None,
        outer_norm(m, norm_dtype, own.norms, stack, "final") if m.final_norm else None,
        outer_norm(m, norm_dtype, own.norms, stack) if m.embedding_norm else None,
        projections(m, recipe, RANK, stack),
        tower,
    )
    if recipe.optimizer_in_backward:
        t.on_gradient = partial(updated_at_once, t, recipe.optimizer)
    if recipe.gradient_accumulation > 1:
        existing_gradients(t, [p for w in layers for p in w.trained] + ends.trained)
    step = _Step(t, recorder, m, recipe, plan, layers, slides, one_tile, single_row, stack, padded, card, packed, rows)
    loss = step.forward(ends)
    drop_autocast_cache(t, recorder)
    if not evaluating:
        recorder.phase = "backward"
        t.segment = -2
        t.kernel("elementwise", loss.dtype, 0, loss.bytes)
        ones = t.empty(loss.shape, loss.dtype)  # torch holds the gradient of the loss to the end of backward
        run_backward(t, loss, ones)
        if t.offloader is not None:
            t.offloader.finish_backward()
    recorder.finish()
    program = StepProgram(t.events[:], t.slots, t.labels)
    program.calls = tuple(step.calls)
    if m.experts == "linears":
        program.choices = (m.experts_per_token, m.num_experts)
    for part, kernels in recorder.parts:
        program.add(part, kernels)
    return program


def forget_recordings() -> None:
    """Forget all recorded programs: for tests and benchmarks that count or time recordings."""
    _recorded.cache_clear()


@lru_cache(maxsize=256)
def _structure(recipe: Recipe) -> Recipe:
    """The recipe with one value for each knob that does not change the structure of the step."""
    return recipe.model_copy(
        update={
            "rank": 1,
            "alpha": 1.0,
            "variant": recipe.variant if rotates(recipe) else "plain",
            "neftune": float(recipe.neftune > 0),
            "micro_batch": 1,
            "optimizer": recipe.optimizer if recipe.optimizer_in_backward else "adamw",
            "optimizer_rank": recipe.optimizer_rank if recipe.optimizer_in_backward else 1,
            "expandable_segments": False,
            "dropout": 0.5 if recipe.dropout else 0.0,
            "gradient_accumulation": min(recipe.gradient_accumulation, 2),
            "eval_batch": 0,
        }
    )


def step_program(
    m: ModelSpec,
    recipe: Recipe,
    batch: int,
    length: int,
    device: Device,
    stack: Stack = THIS_STACK,
    labeled: bool = False,
    padded: bool = False,
    evaluating: bool = False,
    capability: str = "",
    packed: bool = False,
) -> StepProgram:
    """The recorded micro-step of `recipe` (forward and backward of a micro-batch), without weights and optimizer state.

    `labeled`: the kernels say where they run, see LabeledTape. `padded`: rows differ in length, so there is an
    attention mask with zeros, of which each kind of attention makes its own. `evaluating`: see `evaluation_program`.
    `packed`: each row holds several examples, with position ids that begin anew; most codes make a mask of them.
    `capability`: the card's compute capability, by which PyTorch picks attention kernels; '' runs flash attention
    wherever it is fused.

    The shape decides only whether the sliding window matters and how large the tiles of a chunked loss are. Knobs
    that do not change the structure of the step (rank, alpha, micro-batch, optimizer) share one program.
    """
    structure = _structure(recipe)
    slid = slides(m, length)
    one_tile = recipe.loss == "chunked" and batch * (length - 1) <= TILE_TOKENS
    if packed:
        padded = stack.sees_packed_rows and not architecture_of(m.architecture).sees_packed_rows_as_one
    stack = stack.shaped(m, recipe, batch, length)
    padded = stack.masks(padded)
    card, kernels = sdpa_plan(m, recipe, capability if device == "cuda" else "", slid, padded)
    single_row = batch == 1 and (composes_attention(m, recipe, device) or "math" in kernels)
    rows = batch if m.vision is not None and m.vision.row else 0
    return _recorded(
        m, structure, slid, one_tile, single_row, device, stack, padded, labeled, evaluating, card, packed, rows
    )


def evaluation_program(
    m: ModelSpec,
    recipe: Recipe,
    batch: int,
    length: int,
    device: Device,
    stack: Stack = THIS_STACK,
    padded: bool = False,
    capability: str = "",
    packed: bool = False,
) -> StepProgram:
    """The recorded forward of an evaluation: no gradients, hence no checkpointing, and no dropout.

    The Trainer's evaluation keeps the loss alone where no metrics are computed; the logits are freed after it.
    Source: transformers 5.23, trainer.py, evaluation_loop and prediction_step.
    """
    quiet = recipe.model_copy(update={"dropout": 0.0, "neftune": 0.0, "gradient_accumulation": 1})
    still = dict.fromkeys(("attention_dropout", "residual_dropout", "embedding_dropout"), 0.0)
    m = m.model_copy(update={**still, "router_jitter": False})
    return step_program(m, quiet, batch, length, device, stack, False, padded, True, capability, packed)


class _Ends(NamedTuple):
    """The weights before and after the layers."""

    table: Tensor
    head: Linear
    positions: Tensor | None
    last_norm: Norm | None
    first_norm: Norm | None
    projections: dict[str, Linear]
    tower: TowerWeights | None

    @property
    def trained(self) -> list[Tensor]:
        """The tensors that get gradients."""
        return (
            [p for p in (self.table, self.positions) if p is not None and p.needs_grad]
            + [p for norm in (self.last_norm, self.first_norm) if norm is not None for p in norm.trained]
            + [p for part in (*self.projections.values(), self.head) for p in part.trained]
            + ([] if self.tower is None else self.tower.trained)
        )


class _Step:
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
        rows: int,
    ) -> None:
        self.rows = rows
        self.t, self.recorder, self.m, self.recipe, self.stack = t, recorder, m, recipe, stack
        self.plan, self.layers, self.slides, self.single_row = plan, layers, slides, single_row
        self.held: list[Tensor] = []
        self.offsets: Tensor | None = None
        self.calls: dict[Call, None] = {}
        self.one_tile, self.padded, self.packed, self.card = one_tile, padded, packed, card

    def forward(self, ends: _Ends) -> Tensor:
        """The model's forward with its loss; the loss alone survives, as in transformers' Trainer."""
        t, m = self.t, self.m
        self.recorder.enter(EMBEDDING)
        t.label("embedding")
        t.offloader = self.stack.offloader(self.recipe) if t.grad_enabled else None
        table, head = ends.table, ends.head
        if table is head.weight:
            table = head.weight = shared_weight(t, table)
        # no name for the hidden states here: a stack's loss may let go of them
        return self.stack.loss(t, LossInputs(m, self.recipe, self._decode(table, ends), head, self.one_tile, self.held))

    def _decode(self, table: Tensor, ends: _Ends) -> Tensor:
        """Embedding, layers and last norm: (B, S, H). What `embed` returns lives as long as this function."""
        t, m, recipe = self.t, self.m, self.recipe
        leaf = recipe.gradient_checkpointing and self.stack.leaf_under_checkpointing(recipe)
        project, noise = ends.projections.get("project_in"), recipe.neftune > 0
        ids, _kept, x = embed(t, m, table, ends.positions, project, BATCH, LENGTH, leaf, self.packed, noise)
        seen, mask = None, None
        if ends.tower is not None:
            seen = self._seen(ends.tower, leaf)
            mask = t.empty((BATCH, LENGTH, 1), "bool")
            t.kernel("elementwise", "int64", 0, 9 * BATCH * LENGTH)
            tokens = cast(t, seen.tokens, x.dtype)
            _kept[:] = [scattered(t, x, mask, tokens), tokens, *seen.stacked]
            x = _kept[0]
            ids = self._placed(ids)
        x = self.stack.embedded(t, m, recipe, x)
        if ends.first_norm is not None:
            x = ends.first_norm(t, x)
        decoder = Decoder(t, m, recipe, self.single_row, self.stack, self.card)
        masked_as = "flash" if decoder.kind == "sdpa" and self.stack.windows_inside else decoder.kind
        shared = StepInputs(t, m, masked_as, BATCH, LENGTH, self.slides, ids, x.dtype, self.padded, self.packed)
        self.calls = decoder.calls
        self.held, layer = decoder.cache, LAYERS[decoder.quirks.layer]
        for index, (kind, _) in enumerate(self.plan):
            self.recorder.enter(index)
            weights, given = self.layers[index], shared.of(kind.rotated, kind.sliding)
            if recipe.gradient_checkpointing and t.grad_enabled:
                run, last = (lambda h, w=weights, g=given: layer(decoder, h, w, g)), index == len(self.plan) - 1
                x = self.stack.checkpoint(t, run, x, recipe.reentrant, last)
            else:
                x = layer(decoder, x, weights, given)
            if kind.stacked and seen is not None and mask is not None:
                x = stacked_on(t, x, mask, seen.stacked[kind.stacked - 1])
        self.recorder.enter(HEAD)
        t.label("final norm")
        if ends.last_norm is not None:
            x = ends.last_norm(t, x)
        if ends.projections:
            x = linear(t, x, ends.projections["project_out"])
        decoder.held.clear()
        return x

    def _seen(self, weights: TowerWeights, leaf: bool) -> Seen:
        """The tokens of the images."""
        from advisor.decoders.towers import seen

        enter = self.recorder.enter_block
        return seen(self.t, self.m, self.recipe, self.stack, weights, self.card, self.rows, enter, leaf)

    def _placed(self, ids: Tensor) -> Tensor:
        """Position ids on three axes, where the model has them; it keeps their offsets behind the images."""
        t = self.t
        if ids.buffer is not None:
            return ids
        self.offsets = t.empty((BATCH, 1), "int64")
        made = t.empty(ids.shape, "int64")
        t.kernel("elementwise", "int64", 0, 2 * made.bytes)
        return made
