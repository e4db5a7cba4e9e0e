"""One training step of a decoder on the tape: forward, loss, backward, in segments.

Identical layers are run once: the first layer, then one layer of each kind that follows. Memory grows exactly linearly
with further layers of a kind (a test checks this), so each segment carries how many layers it stands for.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING

from advisor.architectures import architecture_of
from advisor.decoders.encoder import HeadTransform
from advisor.decoders.forward import Ends, Forward
from advisor.decoders.gradients import existing_gradients, updated_at_once
from advisor.decoders.kinds import composes_attention, layer_plan, masks_rows, sdpa_plan, slides
from advisor.decoders.layer_inputs import layer_table_of
from advisor.decoders.loss import TILE_TOKENS
from advisor.decoders.recorder import TOWER, Recorder, leave_model, leaving_garbage
from advisor.decoders.sdpa import Call
from advisor.decoders.stack import THIS_STACK, Stack
from advisor.decoders.step_inputs import Chunks, chunks_of
from advisor.decoders.weights import Weights, outer_norm, output_embedding, projections
from advisor.parameters.layers import part_of
from advisor.parameters.modules import transforms_head
from advisor.parameters.own_weights import own_weights
from advisor.parameters.storage import other_dtype
from advisor.specs import ModelSpec, Recipe
from advisor.tape.engine import run_backward
from advisor.tape.graph import Device, Tensor
from advisor.tape.program import RANK, Program
from advisor.tape.tape import LabeledTape, Tape

if TYPE_CHECKING:
    from advisor.decoders.classifier import Pooler


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
    chunks: Chunks | None,
    rows: int,
) -> StepProgram:
    """The program of `recipe`, whose rank is ignored.

    `slides`: rows are no shorter than the sliding window; `one_tile`: a chunked loss takes all tokens at once;
    `single_row`: the batch is 1 where that matters; `padded`: the batch has an attention mask with zeros, or
    `packed` rows are kept apart by one; `evaluating`: a forward alone, without gradients; `card`: the compute
    capability that attention kernels are picked by; `chunks`: those of a row, where layers loop over them; `rows`: of
    a micro-batch with images, else 0.
    """
    half = recipe.base_dtype if recipe.base_dtype != "float32" else "bfloat16"
    t = (LabeledTape if labeled else Tape)(device, half if recipe.autocast else "")
    t.grad_enabled = not evaluating
    plan = layer_plan(m, recipe, stack.keeps_last_apart(recipe), stack.unsteady_layers(recipe))
    copies = {index: copies for index, (_, copies) in enumerate(plan)}
    tower = None
    if m.vision is not None and m.vision.row:
        from advisor.decoders.vision import TowerWeights, block_plan

        tower = TowerWeights(m, m.vision, recipe, RANK, stack)
        copies |= {TOWER + index: times for index, (_, times) in enumerate(block_plan(m.vision))}
    recorder = Recorder(t, copies)
    layers = [
        Weights(part_of(m, kind.parameters), recipe, RANK, stack, kind.whole, kind.training == "frozen")
        for kind, _ in plan
    ]
    own, other = own_weights(m, recipe), other_dtype(recipe)
    table, head = (
        Tensor((rows, m.token_size), own.dtype if trained else other, needs_grad=trained)
        for rows, trained in ((m.embedding_rows, own.embedding), (m.labels or m.vocab_size, own.head))
    )
    if m.tie_word_embeddings and not m.labels and not (recipe.has_adapters and (own.embedding or own.head)):
        head = table
    types = Tensor((m.token_types, m.hidden_size), other, needs_grad=own.rest) if m.token_types else None
    around = projections(m, recipe, RANK, stack)
    transform: HeadTransform | Pooler | None = None
    if m.bidirectional and around:
        (dense,) = around.values()
        if transforms_head(m):
            norm = outer_norm(m, own.dtype if own.norms else other, own.norms, stack)
            transform = HeadTransform(dense, m.activation, norm)
        else:
            from advisor.decoders.classifier import Pooler

            transform = Pooler(dense)
    places = Tensor((m.position_rows, m.hidden_size), other, needs_grad=own.rest)
    norm_dtype = own.dtype if own.norms else other
    ends = Ends(
        table,
        output_embedding(m, recipe, RANK, head, stack),
        places if m.position == "learned" else None,
        outer_norm(m, norm_dtype, own.norms, stack, "final") if m.final_norm else None,
        outer_norm(m, norm_dtype, own.norms, stack) if m.embedding_norm else None,
        {} if transform is not None else around,
        types,
        transform,
        layer_table_of(m, own, other, norm_dtype, stack),
        tower,
    )
    if recipe.optimizer_in_backward:
        t.on_gradient = partial(updated_at_once, t, recipe.optimizer)
    if recipe.gradient_accumulation > 1:
        existing_gradients(t, [p for w in layers for p in w.trained] + ends.trained)
    about = (padded, card, packed, chunks, rows)
    step = Forward(t, recorder, m, recipe, plan, layers, slides, one_tile, single_row, stack, *about)
    loss = step.forward(ends)
    leave_model(t, recorder, [w.collected for w in layers])
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
    program.chunk = m.recurrence.chunk_size if m.recurrence is not None else 0
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
            "variant": recipe.variant if recipe.replaces_lora else "plain",
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

    The shape decides only whether the sliding window matters, how large the tiles of a chunked loss are, and how many
    chunks layers without attention loop over where they do so in Python. Knobs
    that do not change the structure of the step (rank, alpha, micro-batch, optimizer) share one program.
    """
    structure = _structure(recipe)
    slid = slides(m, length)
    one_tile = recipe.loss == "chunked" and batch * (length - 1) <= TILE_TOKENS
    if packed:
        padded = stack.sees_packed_rows and not architecture_of(m.architecture).sees_packed_rows_as_one
    stack = stack.shaped(m, recipe, batch, length)
    padded = masks_rows(m, stack.masks(padded))
    card, kernels = sdpa_plan(m, recipe, capability if device == "cuda" else "", slid, padded)
    single_row = batch == 1 and (composes_attention(m, recipe, device) or "math" in kernels)
    chunks, rows = chunks_of(m, recipe, batch, length), batch if m.vision is not None and m.vision.row else 0
    about = (padded, labeled, evaluating, card, packed, chunks, rows)
    return _recorded(m, structure, slid, one_tile, single_row, device, stack, *about)


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
