"""Peak memory of one of several cards: what its engine holds of the model, and the tape with the engine's buffers."""

from __future__ import annotations

from advisor.blocks import block_bytes
from advisor.costs.memory import StepMemory
from advisor.costs.optimizer import kept_tensors, temporary_bytes
from advisor.costs.static import Static, static_memory
from advisor.decoders.recorder import HEAD
from advisor.decoders.stack import THIS_STACK, Stack
from advisor.decoders.step import StepProgram, evaluation_program, step_program
from advisor.engines import engine_for
from advisor.engines.engine import Engine, Height
from advisor.engines.limits import check_placement
from advisor.engines.parts import Parts
from advisor.specs import ModelSpec, Placement, Recipe
from advisor.tape.graph import CATEGORY_NAMES, GRADIENT, Device
from advisor.tape.program import Bytes, plus
from advisor.terms import TermName

SHARDED = (TermName.BASE_WEIGHTS, TermName.ADAPTERS, TermName.OPTIMIZER_STATES, TermName.STEP_COUNTERS)


def rank_static(m: ModelSpec, engine: Engine, batch: int, length: int, beside: bool, stack: Stack) -> Static:
    """What the rank with the most holds from the first step to the last."""
    whole = static_memory(m, engine.recipe, batch, length, beside, stack)
    tensors = [one for one in whole.tensors if not engine.spreads or one[0] not in SHARDED]
    tensors += [(held.term, held.bytes, held.times) for held in (*engine.weights(), *engine.beside())]
    tensors += kept_tensors(engine.updated(), engine.recipe.optimizer) if engine.spreads else []
    exact: dict[TermName, int] = {}
    blocks: dict[TermName, int] = {}
    for term, size, count in tensors:
        exact[term] = exact.get(term, 0) + size * count
        blocks[term] = blocks.get(term, 0) + block_bytes(size) * count
    return Static(exact, blocks, tensors)


def predict_rank_memory(
    m: ModelSpec,
    recipe: Recipe,
    placement: Placement,
    batch: int,
    seq_len: int,
    device: Device = "cuda",
    stack: Stack = THIS_STACK,
    padded: bool = False,
    capability: str = "",
    packed: bool = False,
    evaluating: bool = False,
) -> StepMemory:
    """Peak memory of one of several cards that share a job; arguments as of `predict_step_memory`.

    It is that of the rank with the most rows of each parameter, in a step whose last micro-batch is reduced.
    `evaluating`: of a batch without gradients, between two steps. Raises BadValue for what cannot run so.
    """
    check_placement(m, recipe, placement)
    stack = stack.shaped(m, recipe, batch, seq_len)
    engine = engine_for(m, recipe, placement, stack)
    if engine is None:
        raise ValueError("one card has no engine")
    computed, stack = engine.computed(), engine.coded(stack)
    if engine.joins:
        computed = computed.model_copy(update={"gradient_accumulation": 1})
    static = rank_static(m, engine, batch, seq_len, padded or packed, stack)
    record = evaluation_program if evaluating else step_program
    program = record(m, computed, batch, seq_len, device, stack, padded=padded, capability=capability, packed=packed)
    shape = (batch, seq_len, computed.rank)
    states = kept_tensors(engine.updated_on_host(), recipe.optimizer)
    held = engine.host_bytes() + sum(size * times for _, size, times in states)
    return _highest(engine, static, program, shape, evaluating)._replace(
        calls=program.calls,
        host_bytes=stack.host_bytes(program.hosted(*shape)) + held,
        aside_bytes=engine.aside_bytes(),
    )


def _highest(
    engine: Engine, static: Static, program: StepProgram, shape: tuple[int, int, int], evaluating: bool
) -> StepMemory:
    """The highest point of a recorded step, with the engine's buffers."""
    recipe, base = engine.recipe, sum(static.blocks.values())
    segments = program.memory(*shape)
    standing = 0  # gradients of earlier micro-batches that belong to layers that were not run
    if recipe.gradient_accumulation > 1 and not evaluating:
        standing = engine.accumulated_bytes() - segments[0].before[GRADIENT]
    parts = Parts(segments, engine.reduced(), engine.holds_inputs)
    found = [(one, live_bytes(one) + standing + one.gathered + one.reduction) for one in engine.heights(parts)]
    highest, most = max(found, key=lambda one: one[1])
    gradients = engine.gradients_bytes()
    temporary = temporary_bytes(engine.updated(), recipe.optimizer) + engine.optimizer_beside()
    phases = {one.turn.part.phase: 0 for one, _ in found}
    phases = {phase: max(h for one, h in found if one.turn.part.phase == phase) for phase in phases}
    phases["optimizer"] = 0 if evaluating else gradients + temporary
    sure = max(h - one.gathered for one, h in found) if engine.gathers_at_most else most
    if phases["optimizer"] > most:
        where, moving, gathered, reduction = "optimizer step", [0, temporary, gradients, 0], 0, 0
    else:
        where, moving = described(program, highest, shape)
        moving[GRADIENT] += standing
        gathered, reduction = highest.gathered, highest.reduction
    terms = {**dict(zip(CATEGORY_NAMES, moving, strict=True)), TermName.GATHERED: gathered}
    terms[TermName.REDUCTION] = reduction
    return StepMemory(
        peak_bytes=base + sum(moving) + gathered + reduction,
        peak_at=where,
        static=static.exact,
        static_blocks=static.blocks,
        moving=terms,
        at_most_bytes=max(0, most - max(sure, phases["optimizer"])),
        after_forward_bytes=base,
        after_backward_bytes=base + (0 if evaluating else gradients),
        phase_peaks={phase: base + height for phase, height in phases.items()},
        part_peaks=(
            base + max(h for one, h in found if one.turn.part.place == HEAD),
            base + max(phases["optimizer"], *(h for one, h in found if one.turn.part.place != HEAD)),
        ),
    )


def live_bytes(height: Height) -> int:
    """The tape's bytes at that point."""
    part = height.turn.part
    own = {"before": sum(part.before), "peak": part.peak_bytes, "after": sum(part.after)}[height.at]
    return own + sum(height.turn.beside)


def described(program: StepProgram, height: Height, shape: tuple[int, int, int]) -> tuple[str, Bytes]:
    """Where in the step that point is, and the tape's bytes there by category."""
    part, beside = height.turn.part, height.turn.beside
    if height.at == "peak":
        where, live = program.label_at(part.peak_event), plus(program.live_at(part.peak_event, *shape), beside)
    else:
        where = "weights are gathered" if height.at == "before" else "gradients are reduced"
        live = plus(part.before if height.at == "before" else part.after, beside)
    return f"{part.phase}, {where}", live
