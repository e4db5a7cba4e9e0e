"""One training step of a decoder on the tape: forward, loss, backward, in segments.

Identical layers are run once: the first layer, then one layer of each kind that follows. What a further layer of a
kind adds is exactly linear (a test checks that it is), so each segment carries how many layers it stands for.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from advisor.specs import ModelSpec, Recipe
from advisor.tape.adapters import product
from advisor.tape.decoder import Decoder, LayerKind, Norm, Weights, embed, head_logits, layer_kinds, other_dtype
from advisor.tape.norms import log_softmax_loss
from advisor.tape.tape import GRADIENT, LOGITS, Device, Kernel, Node, Tape, Tensor

EMBEDDING, HEAD = -1, 1_000_000

Bytes = list[int]
"""Live bytes by category, in the order of tape.CATEGORY_NAMES."""


@dataclass(slots=True)
class Segment:
    """A stretch of the step: the embedding, one layer, or the head, forward or backward."""

    phase: str
    place: int
    copies: int
    before: Bytes
    peak: Bytes = field(default_factory=list)
    peak_at: str = ""
    after: Bytes = field(default_factory=list)
    dropped: Bytes = field(default_factory=lambda: [0, 0, 0, 0])
    kernels: list[Kernel] = field(default_factory=list)


class _Recorder:
    """Cuts the tape's record into segments."""

    def __init__(self, t: Tape, copies: dict[int, int]) -> None:
        self.t = t
        self.copies = copies
        self.segments: list[Segment] = []
        self.phase = "forward"
        t.on_segment = self.enter

    def enter(self, place: int) -> None:
        """Begin the segment of layer `place` in the present phase."""
        self.close()
        t = self.t
        t.segment = place
        t.peak, t.peak_by_category, t.peak_at = t.live, t.by_category[:], t.at
        t.kernels = []
        self.segments.append(Segment(self.phase, place, self.copies.get(place, 1), t.by_category[:]))

    def close(self) -> None:
        """End the segment that is open."""
        if self.segments:
            t, last = self.t, self.segments[-1]
            last.peak, last.peak_at, last.after = t.peak_by_category, t.peak_at, t.by_category[:]
            last.kernels = t.kernels


def layer_plan(m: ModelSpec) -> list[tuple[LayerKind, int]]:
    """Which layers to run and how many each stands for; the first layer stands for itself."""
    kinds = layer_kinds(m)
    return [(kinds[0], 1)] + [(kind, kinds[1:].count(kind)) for kind in dict.fromkeys(kinds[1:])]


def run_step(m: ModelSpec, recipe: Recipe, batch: int, length: int, device: Device) -> list[Segment]:
    """Simulate one micro-step of `batch` rows of `length` tokens; weights and optimizer states are not on the tape."""
    half = recipe.base_dtype if recipe.base_dtype != "float32" else "bfloat16"
    t = Tape(device, half if recipe.autocast else "")
    plan = layer_plan(m)
    recorder = _Recorder(t, {index: copies for index, (_, copies) in enumerate(plan)})
    layers = [Weights(m, recipe) for _ in plan]
    trained_outside = recipe.method == "full"
    other = other_dtype(recipe)
    table = Tensor((m.vocab_size, m.hidden_size), other, needs_grad=trained_outside)
    head = table if m.tie_word_embeddings else Tensor(table.shape, other, needs_grad=trained_outside)
    last_norm = Norm(m.norm, m.hidden_size, other, trained_outside, m.norm_bias)
    if recipe.gradient_accumulation > 1:
        _existing_gradients(t, [p for w in layers for p in w.trained] + last_norm.trained
                            + ([table, head] if trained_outside else []))
    loss = _forward(t, recorder, m, recipe, batch, length, plan, layers, table, head, last_norm)
    _drop_autocast_cache(t, recorder)
    recorder.phase = "backward"
    t.segment = -2
    t.backward(loss)
    del loss
    recorder.close()
    t.on_segment = lambda segment: None
    return recorder.segments


def _existing_gradients(t: Tape, parameters: list[Tensor]) -> None:
    """Under accumulation, gradients of the earlier micro-steps stand from the start."""
    for p in parameters:
        if p.grad is None:
            p.grad = t.empty(p.shape, p.dtype, GRADIENT)


def _shared(t: Tape, weight: Tensor) -> Tensor:
    """A weight used twice: its gradients meet before they reach it."""
    if not weight.needs_grad:
        return weight
    out = Tensor(weight.shape, weight.dtype, needs_grad=True)
    out.node = Node(t, (weight,), lambda g: (g,))
    return out


def _forward(
    t: Tape, recorder: _Recorder, m: ModelSpec, recipe: Recipe, batch: int, length: int,
    plan: list[tuple[LayerKind, int]], layers: list[Weights], table: Tensor, head: Tensor, last_norm: Norm,
) -> Tensor:
    """The causal language model's forward with its loss; the loss alone survives, as in transformers' Trainer."""
    recorder.enter(EMBEDDING)
    t.at = "embedding"
    if table is head:
        table = head = _shared(t, table)
    hidden = _decode(t, recorder, m, recipe, batch, length, plan, layers, table, last_norm)
    t.at = "lm_head"
    logits = product(t, hidden, head)
    logits = head_logits(t, m, logits)
    t.at = "loss"
    if logits.buffer is not None:
        logits.buffer.move_to(LOGITS)
    return log_softmax_loss(t, logits)


def _decode(
    t: Tape, recorder: _Recorder, m: ModelSpec, recipe: Recipe, batch: int, length: int,
    plan: list[tuple[LayerKind, int]], layers: list[Weights], table: Tensor, last_norm: Norm,
) -> Tensor:
    """Embedding, layers and last norm: (B, S, H). The embedding's output lives as long as this function."""
    embedded = embed(t, m, table, batch, length)
    # transformers turns this on with checkpointing, so that a frozen embedding does not cut the graph.
    if recipe.gradient_checkpointing and not embedded.needs_grad:
        embedded.needs_grad = True
    decoder = Decoder(t, m, recipe, batch, length, embedded.dtype)
    x = embedded
    for index, (kind, _) in enumerate(plan):
        recorder.enter(index)
        t.at = "decoder layer"
        weights = layers[index]
        if recipe.gradient_checkpointing:
            x = t.checkpoint(lambda h, w=weights, k=kind: decoder.layer(h, w, k), x, recipe.reentrant)
        else:
            x = decoder.layer(x, weights, kind)
    recorder.enter(HEAD)
    t.at = "final norm"
    return last_norm(t, x)


def _drop_autocast_cache(t: Tape, recorder: _Recorder) -> None:
    """Leaving autocast frees its cached casts; note what each layer loses by that."""
    recorder.close()
    places = {s.place: s for s in recorder.segments}
    while t.autocast_cache:
        before = t.by_category[:]
        _, (place, _cached) = t.autocast_cache.popitem()
        del _cached
        places[place].dropped = [
            d + b - a for d, b, a in zip(places[place].dropped, before, t.by_category, strict=True)
        ]
    t.autocast = ""
