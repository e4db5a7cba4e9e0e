"""Peak memory of a training step: static bytes counted, the rest walked on the tape.

static   weights, quantization constants, adapters, optimizer states, the batch: tensor by tensor (advisor.costs.static)
moving   activations, gradients, logits, temporaries: the tape's segments, extended to all layers
peak     static plus the highest point of forward, backward or the optimizer's step
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from advisor.blocks import block_bytes
from advisor.costs.optimizer import temporary_bytes
from advisor.costs.static import static_memory
from advisor.decoders.recorder import EMBEDDING, HEAD
from advisor.decoders.sdpa import Call
from advisor.decoders.stack import THIS_STACK, Stack
from advisor.decoders.step import step_program
from advisor.parameters.trained import trained_shapes
from advisor.specs import ModelSpec, Recipe
from advisor.tape.graph import CATEGORY_NAMES, GRADIENT, SAVED, TEMPORARY, Device
from advisor.tape.program import Bytes, PartMemory, minus, plus, times
from advisor.terms import TermName


class StepMemory(NamedTuple):
    """Peak of one step in bytes, with its breakdown."""

    peak_bytes: int
    peak_at: str
    static: dict[TermName, int]
    static_blocks: dict[TermName, int]
    moving: dict[TermName, int]
    after_forward_bytes: int
    after_backward_bytes: int
    phase_peaks: dict[str, int]
    part_peaks: tuple[int, int]  # while the head and the loss run; while anything else does
    calls: tuple[Call, ...] = ()  # of scaled_dot_product_attention, each kind once
    host_bytes: int = 0  # of the host's memory, for what was moved there until backward
    aside_bytes: int = 0  # at most, of the allocator's pools for other streams than that of the kernels
    at_most_bytes: int = 0  # by which the peak may be less, where something is counted as the most that it may be

    @property
    def terms(self) -> dict[TermName, int]:
        """What is alive at the peak; an engine's buffers may hold some of what comes and goes elsewhere."""
        return added(self.static_blocks, self.moving)


def added(one: Mapping[TermName, int], other: Mapping[TermName, int]) -> dict[TermName, int]:
    """Both, term by term."""
    return {**one, **{term: one.get(term, 0) + size for term, size in other.items()}}


class _Extra(NamedTuple):
    """What the layers that were not run add to a segment: (bytes by category, how many layers) pairs."""

    parts: list[tuple[Bytes, int]]

    @property
    def total(self) -> int:
        return sum(sum(part) * count for part, count in self.parts)

    def by_category(self) -> Bytes:
        return plus([0] * len(CATEGORY_NAMES), *(times(part, count) for part, count in self.parts))


def extended(segments: list[PartMemory]) -> list[tuple[PartMemory, _Extra]]:
    """Each segment with what is added by all the layers that it and its neighbors stand for.

    A layer that was run once for n layers adds (n - 1) times what it left behind: saved tensors after forward,
    gradients after backward. In between the sum is linear, so the larger end is the peak.
    """
    zero = [0] * len(CATEGORY_NAMES)
    forward = {s.place: s for s in segments if s.phase == "forward"}
    backward = {s.place: s for s in segments if s.phase == "backward"}
    layers = sorted(p for p in forward if EMBEDDING < p < HEAD)
    extra = {p: forward[p].copies - 1 for p in layers}
    left = {p: minus(forward[p].after, forward[p].before) for p in layers}
    # What autocast drops is a net of releases, hence negative.
    kept = {p: plus(left[p], forward[p].dropped) for p in layers}
    grads = {p: minus(kept[p], minus(backward[p].before, backward[p].after)) if p in backward else zero for p in layers}
    found = []
    for s in segments:
        if s.phase == "forward":
            parts = [(left[p], extra[p]) for p in layers if p <= s.place]
        else:
            parts = [(kept[p], extra[p]) for p in layers if p < s.place]
            parts += [(grads[p], extra[p]) for p in layers if p > s.place]
            if s.place in extra:
                parts.append((max(kept[s.place], grads[s.place], key=sum), extra[s.place]))
        found.append((s, _Extra([part for part in parts if part[1]])))
    return found


def gradient_bytes(m: ModelSpec, recipe: Recipe) -> int:
    """Bytes, in blocks, of the gradients of all trained tensors."""
    return sum(block_bytes(p.bytes) * p.times for p in trained_shapes(m, recipe))


def predict_step_memory(
    m: ModelSpec,
    recipe: Recipe,
    batch: int,
    seq_len: int,
    device: Device = "cuda",
    stack: Stack = THIS_STACK,
    padded: bool = False,
    capability: str = "",
    packed: bool = False,
) -> StepMemory:
    """Peak memory of training `m` by `recipe` with micro-batches of `batch` rows of `seq_len` tokens.

    `device` names the kernels: 'cuda' for a card, 'cpu' to compare with a trace of the CPU's step. `stack` is
    not the mirrored one only when comparing with measurements of other code. `padded`: some rows are shorter than
    `seq_len`, so the micro-batch has an attention mask with zeros. `capability`: the card's compute capability, by
    which PyTorch picks its attention kernels; '' runs flash attention. `packed`: position ids keep examples apart.
    """
    stack = stack.shaped(m, recipe, batch, seq_len)
    static = static_memory(m, recipe, batch, seq_len, padded or packed, stack)
    base = sum(static.blocks.values())
    program = step_program(
        m, recipe, batch, seq_len, device, stack, padded=padded, capability=capability, packed=packed
    )
    shape = (batch, seq_len, recipe.rank)
    segments = program.memory(*shape)
    grads = gradient_bytes(m, recipe)
    standing = 0  # gradients of earlier micro-steps that belong to layers that were not run
    if recipe.gradient_accumulation > 1:
        standing = grads - segments[0].before[GRADIENT]
    held = still_held(segments) if stack.graph_outlives_step else 0
    heights = [
        (s, extra, s.peak_bytes + extra.total + standing + (held if s.phase == "forward" else 0))
        for s, extra in extended(segments)
    ]
    peak_of = {phase: max(h for s, _, h in heights if s.phase == phase) for phase in ("forward", "backward")}
    temporary = temporary_bytes(trained_shapes(m, recipe), recipe.optimizer)
    # in backward, each tensor's update is a part of the step
    peak_of["optimizer"] = 0 if recipe.optimizer_in_backward else grads + temporary
    segment, extra, height = max(heights, key=lambda found: found[2])
    if peak_of["optimizer"] > height:
        where, parts = "optimizer step", [0, temporary, grads, 0]
    else:
        where = f"{segment.phase}, {program.label_at(segment.peak_event)}"
        at_peak = program.live_at(segment.peak_event, *shape)
        parts = plus(at_peak, extra.by_category())
        parts[GRADIENT] += standing
        parts[SAVED] += held if segment.phase == "forward" else 0
    return StepMemory(
        peak_bytes=base + sum(parts),
        peak_at=where,
        static=static.exact,
        static_blocks=static.blocks,
        moving=dict(zip(CATEGORY_NAMES, parts, strict=True)),
        after_forward_bytes=base + standing + _left_by([s for s in segments if s.phase == "forward"]),
        after_backward_bytes=base + standing + _left_by(segments),
        phase_peaks={phase: base + height for phase, height in peak_of.items()},
        part_peaks=(
            base + max(h for s, _, h in heights if s.place == HEAD),
            base + max(peak_of["optimizer"], *(h for s, _, h in heights if s.place != HEAD)),
        ),
        calls=program.calls,
        host_bytes=stack.host_bytes(program.hosted(*shape)),
    )


def still_held(segments: list[PartMemory]) -> int:
    """Bytes that the graph of a finished step holds as long as its loss exists, its logits and gradients left out.

    They are what operations keep on the graph itself, where backward does not free it.
    """
    found = segments[-1].after[SAVED] + segments[-1].after[TEMPORARY]
    for s in segments:
        if EMBEDDING < s.place < HEAD:
            found += (s.copies - 1) * sum(s.after[at] - s.before[at] + s.dropped[at] for at in (SAVED, TEMPORARY))
    return found


def _left_by(segments: list[PartMemory]) -> int:
    """Live bytes, static part excluded, after these segments and the layers that they stand for.

    After the forward ones: what backward will need. After all: gradients, and what the loop still holds.
    """
    live = sum(segments[-1].after)
    for s in segments:
        if EMBEDDING < s.place < HEAD:
            live += (s.copies - 1) * (sum(s.after) - sum(s.before) + sum(s.dropped))
    return live
