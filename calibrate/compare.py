"""Formula against measurement, term by term. Needs no torch."""

from __future__ import annotations

from advisor.costs.fragmentation import held_bytes
from advisor.costs.memory import StepMemory, predict_step_memory
from advisor.costs.micro_batches import MicroBatch
from advisor.costs.moments import predict_evaluation_memory
from advisor.decoders.step import step_program
from advisor.interval import Interval
from advisor.parameters.paths import named_by
from advisor.parameters.stored import as_stored
from advisor.specs import ModelSpec, Recipe, RowKind
from advisor.stacks import library_stack
from advisor.tape.graph import Device
from advisor.terms import TermName
from calibrate.measurement import Comparison, Environment, Figures, Trace, TracedLoading, Work


def predicted_memory(
    model: ModelSpec,
    recipe: Recipe,
    batch: int,
    seq_len: int,
    rows: RowKind = "full",
    evaluated: MicroBatch | None = None,
) -> Figures:
    """The formula's figures for the step that a dry run traces: the CPU's kernels, in 512-byte blocks.

    `evaluated`: the batch of an evaluation between two steps, where there is one.
    """
    model, stack = as_stored(model, recipe.stack), library_stack(recipe)
    padded, packed = rows == "padded", rows == "packed"
    step = predict_step_memory(model, recipe, batch, seq_len, "cpu", stack, padded, packed=packed)
    static = step.static_blocks
    head, others = map(Interval.exact, map(float, step.part_peaks))
    return Figures(
        peak_allocated_bytes=step.peak_bytes,
        peak_reserved_bytes=round(held_bytes(recipe, (head, others), sum(static.values())).reserved.likely),
        static_bytes=sum(static.values()),
        after_forward_bytes=step.after_forward_bytes,
        evaluation_bytes=None if evaluated is None else evaluation_bytes(model, recipe, evaluated),
        peak_at=step.peak_at,
        **static_terms(step),
    )


def evaluation_bytes(
    model: ModelSpec, recipe: Recipe, batch: MicroBatch, device: Device = "cpu", capability: str = ""
) -> int:
    """The formula's peak of the evaluation of one batch between two steps."""
    model, (rows, tokens, padded, packed) = as_stored(model, recipe.stack), batch
    found = predict_evaluation_memory(
        model, recipe, rows, tokens, device, library_stack(recipe), padded, capability=capability, packed=packed
    )
    return found.peak_bytes


def static_terms(step: StepMemory) -> dict[str, int]:
    """The terms that stay allocated for the whole run, by their names in `Figures`."""
    static = step.static_blocks
    return {
        "base_weights_bytes": static[TermName.BASE_WEIGHTS],
        "quantization_bytes": static.get(TermName.QUANTIZATION_CONSTANTS, 0),
        "adapters_bytes": static.get(TermName.ADAPTERS, 0),
        "optimizer_states_bytes": static.get(TermName.OPTIMIZER_STATES, 0) + static.get(TermName.STEP_COUNTERS, 0),
    }


def traced_memory(trace: Trace) -> Figures:
    """The same terms from a trace."""
    return Figures(
        peak_allocated_bytes=trace.peak_bytes,
        peak_reserved_bytes=trace.peak_reserved_bytes,
        static_bytes=trace.static_bytes,
        after_forward_bytes=trace.after_forward_bytes,
        evaluation_bytes=trace.evaluation_peak_bytes or None,
        peak_at=trace.peak_at,
        **traced_terms(trace),
    )


def traced_terms(trace: Trace) -> dict[str, int]:
    """What `static_terms` names, from a trace."""
    return {
        "base_weights_bytes": trace.base_weights_bytes,
        "quantization_bytes": trace.quantization_bytes,
        "adapters_bytes": trace.adapters_bytes,
        "optimizer_states_bytes": trace.optimizer_states_bytes,
    }


def predicted_work(model: ModelSpec, recipe: Recipe, batch: int, seq_len: int, rows: RowKind = "full") -> Work:
    """Kernels, FLOP and memory traffic of forward and backward as the tape records them for a CPU."""
    model, stack = as_stored(model, recipe.stack), library_stack(recipe)
    padded, packed = rows == "padded", rows == "packed"
    program = step_program(model, recipe, batch, seq_len, "cpu", stack, padded=padded, packed=packed)
    kernels, flop, moved = 0, 0.0, 0.0
    for run in program.kernels(batch, seq_len, recipe.rank):
        for (_, _, kernel_flop, kernel_bytes, _), times in run.kernels:
            kernels += run.copies * times
            flop += run.copies * times * kernel_flop
            moved += run.copies * times * kernel_bytes
    return Work(kernels=kernels, flop=round(flop), bytes=round(moved))


def traced_work(trace: Trace) -> Work:
    """The same from a trace."""
    counts = [one for one in trace.op_counts if one.phase != "optimizer"]
    return Work(
        kernels=sum(one.kernels for one in counts),
        flop=sum(one.flop for one in counts),
        bytes=sum(one.bytes for one in counts),
    )


def compare(
    name: str,
    model: ModelSpec | None,
    trace: Trace,
    environment: Environment,
    evaluated: MicroBatch | None = None,
    loading: TracedLoading | None = None,
) -> Comparison:
    """Formula against trace for one recipe; `model` is None for an architecture that the formula does not know.

    `evaluated` is the batch of the traced evaluation; `loading` what was traced of a cut of the model.
    """
    recipe = trace.recipe
    shape = (trace.batch, trace.seq_len, trace.rows)
    if model is not None:  # a pattern of target modules, which only peft reads
        recipe = recipe.model_copy(update={"target_modules": named_by(model, recipe.target_modules)})
    predicted = None if model is None else predicted_memory(model, recipe, *shape, evaluated)
    return Comparison(
        model=name,
        method=recipe.method,
        recipe=recipe,
        batch=trace.batch,
        seq_len=trace.seq_len,
        rows=trace.rows,
        source="trace",
        predicted=predicted,
        measured=traced_memory(trace),
        predicted_work=None if model is None else predicted_work(model, recipe, *shape),
        measured_work=traced_work(trace),
        environment=environment,
        loading=loading,
    )
