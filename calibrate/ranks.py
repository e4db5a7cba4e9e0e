"""Several cards: what the flags ask for, and a rank by formula beside the traced one. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advisor.advice.workload import placement_of
from advisor.costs.memory import StepMemory
from advisor.costs.micro_batches import MicroBatch
from advisor.costs.rank_memory import predict_rank_memory
from advisor.errors import BadValue
from advisor.knobs import KNOBS, SPREADING_KNOBS, read_question
from advisor.parameters.stored import as_stored
from advisor.specs import ModelSpec, Placement, Recipe
from advisor.stacks import library_stack
from advisor.terms import TermName
from calibrate.compare import static_terms, traced_terms
from calibrate.measurement import Figures, Trace

RUN_HERE = ("ddp", "fsdp2", "hsdp")
"""Engines of which a rank can be run: `calibrate.worker.rank_trace`."""
PLACEMENT_KNOBS = tuple(knob.name for knob in KNOBS if knob.home == "placement" and knob.name != "bucket_elements")


def placed(knobs: Mapping[str, Any]) -> Placement | None:
    """Where the flags place the job; None on one card. Raises BadValue for what cannot be run here."""
    names = (*PLACEMENT_KNOBS, "offload", "eval_batch", "images")
    question = read_question({name: knobs.get(name) for name in names})
    found = placement_of(question)
    if found.gpus == 1:
        for name in (*SPREADING_KNOBS, "state_offload"):
            if (value := getattr(question, name)) is not None:
                flag = "--offload" if name == "state_offload" else f"--{name.replace('_', '-')}"
                raise BadValue(flag, value, "has no effect on one card: add --gpus")
        return None
    if found.effective_sharding not in RUN_HERE:
        raise BadValue("--sharding", found.sharding, f"is not run here; {', '.join(RUN_HERE)} are")
    if found.offload != "none":
        raise BadValue("--offload", found.offload, "is not run here: on a CPU, card and host are one; leave it out")
    for name in ("eval_batch", "images"):
        if getattr(question, name):
            flag = f"--{name.replace('_', '-')}"
            raise BadValue(
                flag, getattr(question, name), f"is run on one card alone; leave it out, or --gpus {found.gpus}"
            )
    return found


def how(placement: Placement) -> str:
    """'one of 8 cards (fsdp2)'."""
    nodes = f" of {placement.nodes} machines" if placement.nodes > 1 else ""
    kept = "" if placement.reshard or placement.copies_model else ", not resharded"
    return f"one of {placement.gpus:,} cards{nodes} ({placement.effective_sharding}{kept})"


def rank_memory(model: ModelSpec, recipe: Recipe, placement: Placement, batch: MicroBatch) -> Figures:
    """The formula's figures for the step of a rank with the CPU's kernels, in blocks.

    Raises BadValue for a recipe that the engine cannot run.
    """
    model, stack = as_stored(model, recipe.stack), library_stack(recipe)
    rows, tokens, padded, packed = batch
    step = predict_rank_memory(model, recipe, placement, rows, tokens, "cpu", stack, padded, packed=packed)
    return rank_figures(step)


def rank_figures(step: StepMemory, beside: int = 0) -> Figures:
    """The figures of a rank; `beside`: bytes that stand besides what the step was computed from."""
    static = sum(step.static_blocks.values()) + beside
    return Figures(
        peak_allocated_bytes=step.peak_bytes + beside,
        static_bytes=static,
        forward_bytes=step.phase_peaks["forward"] + beside,
        buckets_bytes=step.static_blocks.get(TermName.REDUCTION, 0),
        peak_at=step.peak_at,
        **static_terms(step),
    )


def traced_rank(trace: Trace) -> Figures:
    """The same from a trace, whose phases come once for each micro-batch."""
    return Figures(
        peak_allocated_bytes=trace.peak_bytes,
        static_bytes=trace.static_bytes,
        forward_bytes=max(one.peak_bytes for one in trace.phases if one.phase == "forward"),
        buckets_bytes=trace.buckets_bytes,
        peak_at=trace.peak_at,
        **traced_terms(trace),
    )
