"""Formula beside measurement, term by term. Needs no torch."""

from __future__ import annotations

from advisor.fragmentation import held_bytes, shares_of
from advisor.interval import Interval
from advisor.memory import predict_step_memory
from advisor.specs import ModelSpec, Recipe
from calibrate.measurement import Comparison, Environment, Memory, Trace


def predicted_memory(model: ModelSpec, recipe: Recipe, batch: int, seq_len: int) -> Memory:
    """What the formula says about the step that a dry run traces: the CPU's kernels, in 512-byte blocks."""
    step = predict_step_memory(model, recipe, batch, seq_len, device="cpu")
    static = step.static_blocks
    peak = Interval.around(float(step.peak_bytes), 0.0, 0.0)
    return Memory(
        peak_allocated_bytes=step.peak_bytes,
        peak_reserved_bytes=round(held_bytes(shares_of(recipe).reserved, peak, sum(static.values())).likely),
        after_forward_bytes=step.after_forward_bytes,
        base_weights_bytes=static["base weights"],
        quantization_bytes=static.get("quantisation constants", 0),
        adapters_bytes=static.get("adapters", 0),
        optimizer_states_bytes=static.get("optimizer states", 0) + static.get("optimizer step counters", 0),
        peak_at=step.peak_at,
    )


def traced_memory(trace: Trace) -> Memory:
    """The same terms from a trace."""
    return Memory(
        peak_allocated_bytes=trace.peak_bytes,
        peak_reserved_bytes=trace.peak_reserved_bytes,
        after_forward_bytes=trace.after_forward_bytes,
        base_weights_bytes=trace.base_weights_bytes,
        quantization_bytes=trace.quantization_bytes,
        adapters_bytes=trace.adapters_bytes,
        optimizer_states_bytes=trace.optimizer_states_bytes,
        peak_at=trace.peak_at,
    )


def compare(name: str, model: ModelSpec | None, trace: Trace, environment: Environment) -> Comparison:
    """Formula against trace for one recipe; `model` is None for an architecture that the formula does not know."""
    recipe = trace.recipe
    predicted = None if model is None else predicted_memory(model, recipe, trace.batch, trace.seq_len)
    return Comparison(
        model=name, method=recipe.method, recipe=recipe, batch=trace.batch, seq_len=trace.seq_len, source="trace",
        predicted=predicted, measured=traced_memory(trace), environment=environment,
    )
