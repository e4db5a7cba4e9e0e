"""The memory of a job's moments one after the other: loading, each part of a step at its highest, the optimizer.

    load, forward, backward, optimizer, evaluation

A stretch is one part of the model, or all layers that are alike: what is alive at the highest point of its first layer
and of its last, which the layers between reach by equal steps. The highest stretch of a step is the step's peak, to the
byte. Tensors alone: the card holds cuBLAS' workspace, what the allocator keeps and the CUDA context besides.

Ignores: in which order layers of several kinds alternate; the end of autocast, which is never the highest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from advisor.costs.estimation import step_memory
from advisor.costs.memory import added, gradient_bytes, still_held
from advisor.costs.micro_batches import MicroBatch, evaluating, worst
from advisor.costs.moments import WEIGHTS, base_of, beginnings
from advisor.costs.optimizer import temporary_bytes
from advisor.costs.rank_memory import described, live_bytes, rank_static
from advisor.costs.static import static_memory
from advisor.decoders.kinds import attention_card
from advisor.decoders.stack import Stack
from advisor.decoders.step import StepProgram, step_program
from advisor.engines import engine_for
from advisor.engines.engine import Engine, Height
from advisor.engines.parts import Parts
from advisor.images import with_pictures
from advisor.parameters.trained import trained_shapes
from advisor.specs import GpuSpec, ModelSpec, Placement, Recipe, Workload
from advisor.stacks import stack_for
from advisor.tape.graph import CATEGORY_NAMES, GRADIENT
from advisor.tape.program import Bytes, PartMemory
from advisor.terms import TermName

Phase = Literal["load", "forward", "backward", "optimizer", "evaluation"]
Held = Mapping[TermName, int]


class Stretch(NamedTuple):
    """A part of the job: what is alive, by term, at the highest point of its first layer and of its last."""

    phase: Phase
    what: str  # where that point is, in a few words
    layers: int
    first: Held
    last: Held

    @property
    def peak_bytes(self) -> int:
        """The most of the two."""
        return max(sum(self.first.values()), sum(self.last.values()))

    @property
    def highest(self) -> Held:
        """What is alive there."""
        return max(self.first, self.last, key=lambda held: sum(held.values()))


def step_curve(
    model: ModelSpec, recipe: Recipe, workload: Workload, gpu: GpuSpec, placement: Placement
) -> tuple[Stretch, ...]:
    """The stretches of a job with its worst micro-batch on one card, in the order in which they come.

    Arguments are those of `estimation.estimate`, which raises the same; a data set without stated lengths is taken at
    its likely ones.
    """
    m = with_pictures(model, workload)
    assert isinstance(m, ModelSpec)
    batch = worst(workload, recipe)
    stack = stack_for(recipe, gpu, workload)
    m = stack.built(m)
    stack = stack.shaped(m, recipe, batch.rows, batch.tokens)
    card = attention_card(m, recipe, batch.tokens, gpu, stack.masks(batch.padded))
    step = _recorded(m, recipe, placement, batch, stack, card)
    return (*_load(m, recipe, placement, step), *step, *_evaluation(m, recipe, workload, gpu, placement))


def _recorded(
    m: ModelSpec, recipe: Recipe, placement: Placement, batch: MicroBatch, stack: Stack, card: str
) -> list[Stretch]:
    """A step: the points of which `predict_step_memory` or `predict_rank_memory` takes the highest."""
    rows, tokens, padded, packed = batch
    engine = engine_for(m, recipe, placement, stack)
    computed = recipe
    if engine is None:
        static = static_memory(m, recipe, rows, tokens, padded or packed, stack)
        standing, updated = gradient_bytes(m, recipe), list(trained_shapes(m, recipe))
        gradients, beside = standing, 0
    else:
        computed, stack = engine.computed(), engine.coded(stack)
        computed = computed.model_copy(update={"gradient_accumulation": 1}) if engine.joins else computed
        static = rank_static(m, engine, rows, tokens, padded or packed, stack)
        standing, updated = engine.accumulated_bytes(), engine.updated()
        gradients, beside = engine.gradients_bytes(), engine.optimizer_beside()
    program = step_program(m, computed, rows, tokens, "cuda", stack, padded=padded, capability=card, packed=packed)
    shape = (rows, tokens, computed.rank)
    segments = program.memory(*shape)
    held = static.blocks
    if recipe.gradient_accumulation > 1:
        held = added(held, {TermName.GRADIENTS: standing - segments[0].before[GRADIENT]})
    outlives = stack.graph_outlives_step and engine is None
    kept = added(held, {TermName.SAVED_ACTIVATIONS: still_held(segments)}) if outlives else held
    found = _stretches(_points(segments, engine), program, shape, {"forward": kept, "backward": held})
    if not (recipe.optimizer_in_backward and engine is None):
        temporary = temporary_bytes(updated, recipe.optimizer) + beside
        alive = added(static.blocks, {TermName.GRADIENTS: gradients, TermName.TEMPORARIES: temporary})
        found.append(Stretch("optimizer", "the optimizer's step", 1, alive, alive))
    return found


def _points(segments: list[PartMemory], engine: Engine | None) -> list[Height]:
    if engine is not None:
        return list(engine.heights(Parts(segments, engine.reduced(), engine.holds_inputs)))
    parts = Parts(segments, {})
    return [Height(turn, "peak", 0) for turn in (*parts.forward_turns(), *parts.backward_turns())]


def _stretches(
    points: Iterable[Height], program: StepProgram, shape: tuple[int, int, int], held: Mapping[str, Held]
) -> list[Stretch]:
    """The points of a part together: the highest as its first layers run, and as its last one does."""
    parts: dict[tuple[str, int], list[Height]] = {}
    for point in points:
        parts.setdefault((point.turn.part.phase, point.turn.part.place), []).append(point)
    found = []
    for (name, _), these in parts.items():
        phase: Phase = "forward" if name == "forward" else "backward"
        last = [one for one in these if one.turn.nth == these[-1].turn.nth]
        first = [one for one in these if one.turn.nth != these[-1].turn.nth] or last
        begin, end = (max(some, key=_bytes_of) for some in (first, last))
        what, moving = described(program, begin, shape)
        ends = (_alive(held[phase], begin, moving), _alive(held[phase], end, described(program, end, shape)[1]))
        found.append(Stretch(phase, what.partition(", ")[2], these[0].turn.part.copies, *ends))
    return found


def _alive(held: Held, point: Height, moving: Bytes) -> Held:
    """What is alive at a point, by term."""
    found = added(held, dict(zip(CATEGORY_NAMES, moving, strict=True)))
    found = added(found, {TermName.GATHERED: point.gathered, TermName.REDUCTION: point.reduction})
    if (less := found[TermName.TEMPORARIES]) < 0:  # casts that autocast drops were counted as kept for backward
        found = added(found, {TermName.SAVED_ACTIVATIONS: less, TermName.TEMPORARIES: -less})
    return {term: size for term, size in found.items() if size}


def _bytes_of(point: Height) -> int:
    return live_bytes(point) + point.gathered + point.reduction


def _load(m: ModelSpec, recipe: Recipe, placement: Placement, step: Iterable[Stretch]) -> list[Stretch]:
    """What is there before the first step: a quantized base is made on the card, another one is moved there."""
    if recipe.is_quantized and not placement.loads_on_host:
        return [
            Stretch("load", one.what, 1, held, held)
            for one in beginnings(m, base_of(recipe))
            if (held := {**one.held, TermName.TEMPORARIES: one.beside_bytes})
        ]
    loaded = (*WEIGHTS, TermName.ADAPTERS)
    held = {term: size for term, size in next(iter(step)).first.items() if term in loaded}
    return [Stretch("load", "loading", 1, held, held)]


def _evaluation(m: ModelSpec, recipe: Recipe, workload: Workload, gpu: GpuSpec, placement: Placement) -> list[Stretch]:
    """An evaluation between two steps, where the recipe has one."""
    if not recipe.eval_batch:
        return []
    one = evaluating(recipe)
    batch = worst(workload, one)
    stack = stack_for(one, gpu, workload).shaped(m, one, batch.rows, batch.tokens)
    card = attention_card(m, one, batch.tokens, gpu, stack.masks(batch.padded))
    found = step_memory(m, one, batch, stack, card, placement, evaluating=True)
    return [Stretch("evaluation", found.peak_at.partition(", ")[2], 1, found.terms, found.terms)]
