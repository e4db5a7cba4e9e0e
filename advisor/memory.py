"""Peak memory of a training step: static bytes counted, the rest walked on the tape.

    static   weights, quantisation constants, adapters, optimizer states, the batch: tensor by tensor
    moving   activations, gradients, logits, temporaries: the tape's segments, extended to all layers
    peak     static plus the highest point of forward, backward or the optimizer's step
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import NamedTuple

from advisor.buffers import buffer_bytes
from advisor.layers import layer_groups
from advisor.modules import (
    layer_linears,
    layer_norms,
    outer_linears,
    outer_parameters,
    own_dtype,
    own_parameters,
)
from advisor.specs import DTYPE_BYTES, LinearShape, ModelSpec, Recipe
from advisor.tape.graph import CATEGORY_NAMES, GRADIENT, Device
from advisor.tape.program import Bytes, Segment, block_bytes
from advisor.tape.stack import Stack
from advisor.tape.step import EMBEDDING, HEAD, THIS_STACK, step_program
from advisor.tape.trained import Trained, trained_shapes
from advisor.tape.weights import layer_quant, other_dtype, unquantized_name

QUANTIZATION_BLOCK = 64
NESTED_BLOCK = 256
OPTIMIZER_BLOCK = 256
MIN_8BIT_ELEMENTS = 4096


class Static(NamedTuple):
    """Bytes that stand for the whole run: `exact` as numel times itemsize, `blocks` as the allocator rounds them."""

    exact: dict[str, int]
    blocks: dict[str, int]


class StepMemory(NamedTuple):
    """Peak of one step in bytes, with what it is made of."""

    peak_bytes: int
    peak_at: str
    static: dict[str, int]
    static_blocks: dict[str, int]
    moving: dict[str, int]
    after_forward_bytes: int
    after_backward_bytes: int
    phase_peaks: dict[str, int]


def quantized_store_bytes(elements: int, quant: str, double_quant: bool) -> tuple[int, list[int]]:
    """(packed weight bytes, sizes of the constants' tensors) of one weight that bitsandbytes stores.

    nf4/fp4: half a byte, one fp32 absmax per 64, or with double quantisation one uint8 per 64, one fp32 per 256 of
    those and an fp32 offset; tables of 16 and (nested) 256 fp32. int8: one byte and one fp32 per output row (the
    rows are added by the caller). Source: bitsandbytes 0.50, functional.py, quantize_4bit.
    """
    if quant == "int8":
        return elements, []
    packed = -(-elements // 2)
    blocks = -(-elements // QUANTIZATION_BLOCK)
    if not double_quant:
        return packed, [4 * blocks, 16 * 4]
    return packed, [blocks, 4 * -(-blocks // NESTED_BLOCK), 256 * 4, 16 * 4, 4]


class _Tally:
    """Sums tensors by term, exact and in allocator blocks."""

    def __init__(self) -> None:
        self.exact: dict[str, int] = {}
        self.blocks: dict[str, int] = {}

    def add(self, term: str, size_bytes: int, times: int = 1) -> None:
        self.exact[term] = self.exact.get(term, 0) + size_bytes * times
        self.blocks[term] = self.blocks.get(term, 0) + block_bytes(size_bytes) * times


def _add_base_weights(tally: _Tally, m: ModelSpec, recipe: Recipe) -> None:
    other = DTYPE_BYTES[other_dtype(recipe)]
    for shape, times in outer_parameters(m):
        tally.add("base weights", prod(shape) * other, times)
    for linear in outer_linears(m).values():
        _add_linear(tally, m, linear, recipe, 1, 0)
    for part, layers in layer_groups(m):
        _add_layers(tally, part, recipe, layers)


def _add_linear(tally: _Tally, m: ModelSpec, shape: LinearShape, recipe: Recipe, times: int, whole: int) -> None:
    """A linear layer that is there `times` times, `whole` of them not quantised."""
    other, base = DTYPE_BYTES[other_dtype(recipe)], DTYPE_BYTES[recipe.base_dtype]
    quant, term = layer_quant(m, recipe), "base weights"
    if quant != "none":
        packed, constants = quantized_store_bytes(shape.weight_count, quant, recipe.double_quant)
        tally.add(term, packed, times - whole)
        tally.add(term, shape.weight_count * other, whole)
        for size in constants or [4 * shape.out_features]:
            tally.add("quantisation constants", size, times - whole)
    else:
        tally.add(term, shape.weight_count * (4 if shape.wide else other), times)
    if shape.bias:
        tally.add(term, shape.out_features * (base if quant != "none" else other), times)


def _add_layers(tally: _Tally, m: ModelSpec, recipe: Recipe, layers: int) -> None:
    """The weights of `layers` equal layers."""
    other, term = DTYPE_BYTES[other_dtype(recipe)], "base weights"
    for shape in layer_linears(m).values():
        _add_linear(tally, m, shape, recipe, layers, int(shape.name == unquantized_name(m)))
    for norm in layer_norms(m):
        tally.add(term, norm.width * other, norm.vectors * layers)
    for own in own_parameters(m).values():
        tally.add(term, prod(own.shape) * DTYPE_BYTES[own_dtype(own, other_dtype(recipe))], layers)


class Unquantized(NamedTuple):
    """Weights of the layers that bitsandbytes leaves alone: their bytes, and their share of the parameters there."""

    bytes: int
    share: float


def unquantized_layers(m: ModelSpec, recipe: Recipe) -> Unquantized:
    """What a quantised recipe leaves in 16 bits (fp32 after k-bit preparation): fused experts, layers of own classes.

    Ignores: biases and norms, which are vectors.
    """
    left = whole = size = 0
    for part, layers in layer_groups(m):
        linears = sum(shape.weight_count for shape in layer_linears(part).values())
        own = list(own_parameters(part).values())
        stays = sum(prod(p.shape) for p in own) + (linears if layer_quant(part, recipe) == "none" else 0)
        left += layers * stays
        whole += layers * (linears + sum(prod(p.shape) for p in own))
        size += layers * stays * DTYPE_BYTES[other_dtype(recipe)]
    return Unquantized(size, left / whole)


def optimizer_state_sizes(p: Trained, optimizer: str) -> list[int]:
    """Bytes of each state tensor that the optimizer keeps for one parameter, outside paged memory.

    AdamW keeps two moments in the parameter's dtype. bitsandbytes' 8-bit AdamW keeps two uint8 and two fp32 per
    256 elements, and 32-bit states below 4,096 elements; paged states of 100,000 elements and more live in managed
    memory, which spills to the CPU. Adafactor keeps a row and a column in fp32, or a vector's full second moment.
    """
    elements = p.elements
    if optimizer == "sgd":
        return []
    if optimizer == "adafactor":
        return [4 * p.rows, 4 * p.columns] if p.columns else [4 * p.rows]
    if optimizer in ("adamw", "adamw_foreach"):
        return [p.bytes] * 2
    if optimizer == "paged_adamw":
        return [] if elements >= 100_000 else [4 * elements] * 2
    if elements < MIN_8BIT_ELEMENTS:
        return [4 * elements] * 2
    blocks = 4 * -(-elements // OPTIMIZER_BLOCK)
    if optimizer == "paged_adamw_8bit" and elements >= 100_000:
        return [blocks] * 2
    return [elements, elements, blocks, blocks]


def optimizer_temporary_bytes(shapes: Iterable[Trained], optimizer: str) -> int:
    """Most that the optimizer's step allocates beside its states.

    Fused AdamW and bitsandbytes work in place. foreach AdamW makes one copy of all parameters (a square root).
    Adafactor makes, for the largest parameter, its update twice and, if it is in 16 bits, fp32 copies of it and of
    its gradient. Source: transformers/optimization.py, Adafactor.step.
    """
    if optimizer == "adamw_foreach":
        return sum(block_bytes(p.bytes) * p.times for p in shapes)
    if optimizer == "adafactor":
        return max((block_bytes(4 * p.elements) * (2 if p.dtype == "float32" else 4) for p in shapes), default=0)
    return 0


def static_memory(m: ModelSpec, recipe: Recipe, batch: int, length: int) -> Static:
    """Everything that stands from the first step to the last."""
    tally = _Tally()
    _add_base_weights(tally, m, recipe)
    shapes = trained_shapes(m, recipe)
    steps = 0
    for p in shapes:
        if recipe.has_adapters:
            tally.add("adapters", p.bytes, p.times)
        for size in optimizer_state_sizes(p, recipe.optimizer):
            tally.add("optimizer states", size, p.times)
        steps += p.times
    if recipe.optimizer in ("adamw", "adamw_foreach", "adafactor"):
        tally.add("optimizer step counters", 4, steps)
    if recipe.optimizer in ("adamw_8bit", "paged_adamw_8bit"):
        tally.add("optimizer states", 1024, 2)
    for size, times in buffer_bytes(m, recipe):
        tally.add("buffers", size, times)
    tally.add("batch", 8 * batch * length)
    return Static(tally.exact, tally.blocks)


def _minus(a: Bytes, b: Bytes) -> Bytes:
    return [x - y for x, y in zip(a, b, strict=True)]


class _Extra(NamedTuple):
    """What the layers that were not run add to a segment: (bytes by category, how many layers) pairs."""

    parts: list[tuple[Bytes, int]]

    @property
    def total(self) -> int:
        return sum(sum(part) * times for part, times in self.parts)

    def by_category(self) -> Bytes:
        out = [0] * len(CATEGORY_NAMES)
        for part, times in self.parts:
            out = [x + y * times for x, y in zip(out, part, strict=True)]
        return out


def extended(segments: list[Segment]) -> list[tuple[Segment, _Extra]]:
    """Each segment with what all the layers add that it and its neighbours stand for.

    A layer that was run once for n adds (n - 1) times what it left behind: saved tensors after forward, gradients
    after backward. In between the sum is linear, so the larger end is the peak.
    """
    zero = [0] * len(CATEGORY_NAMES)
    forward = {s.place: s for s in segments if s.phase == "forward"}
    backward = {s.place: s for s in segments if s.phase == "backward"}
    layers = sorted(p for p in forward if EMBEDDING < p < HEAD)
    extra = {p: forward[p].copies - 1 for p in layers}
    left = {p: _minus(forward[p].after, forward[p].before) for p in layers}
    # What autocast drops is a net of releases, hence negative.
    kept = {p: [a + b for a, b in zip(left[p], forward[p].dropped, strict=True)] for p in layers}
    grads = {
        p: _minus(kept[p], _minus(backward[p].before, backward[p].after)) if p in backward else zero for p in layers
    }
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
    m: ModelSpec, recipe: Recipe, batch: int, seq_len: int, device: Device = "cuda", stack: Stack = THIS_STACK
) -> StepMemory:
    """Peak memory of training `m` by `recipe` with micro-batches of `batch` rows of `seq_len` tokens.

    `device` names the kernels: 'cuda' for a card, 'cpu' to compare with a trace of the CPU's step. `stack` is
    another than the mirrored one only for comparing with measurements of older code.
    """
    static = static_memory(m, recipe, batch, seq_len)
    base = sum(static.blocks.values())
    program = step_program(m, recipe, batch, seq_len, device, stack)
    shape = (batch, seq_len, recipe.rank)
    segments = program.segments(*shape)
    grads = gradient_bytes(m, recipe)
    standing = 0  # gradients of earlier micro-steps that belong to layers that were not run
    if recipe.gradient_accumulation > 1:
        standing = grads - segments[0].before[GRADIENT]
    heights = [(s, extra, s.peak_bytes + extra.total + standing) for s, extra in extended(segments)]
    peak_of = {phase: max(h for s, _, h in heights if s.phase == phase) for phase in ("forward", "backward")}
    temporary = optimizer_temporary_bytes(trained_shapes(m, recipe), recipe.optimizer)
    peak_of["optimizer"] = grads + temporary
    segment, extra, height = max(heights, key=lambda found: found[2])
    if peak_of["optimizer"] > height:
        where, parts = "optimizer step", [0, temporary, grads, 0]
    else:
        where = f"{segment.phase}, {program.label_at(segment.peak_event)}"
        at_peak = program.live_at(segment.peak_event, *shape)
        parts = [a + b for a, b in zip(at_peak, extra.by_category(), strict=True)]
        parts[GRADIENT] += standing
    return StepMemory(
        peak_bytes=base + sum(parts),
        peak_at=where,
        static=static.exact,
        static_blocks=static.blocks,
        moving=dict(zip(CATEGORY_NAMES, parts, strict=True)),
        after_forward_bytes=base + standing + _left_by([s for s in segments if s.phase == "forward"]),
        after_backward_bytes=base + standing + _left_by(segments),
        phase_peaks={phase: base + height for phase, height in peak_of.items()},
    )


def _left_by(segments: list[Segment]) -> int:
    """Live bytes, static part excluded, after these segments and the layers that they stand for.

    After the forward ones: what backward will need. After all: gradients, and what the loop still holds.
    """
    live = sum(segments[-1].after)
    for s in segments:
        if EMBEDDING < s.place < HEAD:
            live += (s.copies - 1) * (sum(s.after) - sum(s.before) + sum(s.dropped))
    return live
