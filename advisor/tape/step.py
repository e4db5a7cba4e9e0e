"""One training step of a decoder on the tape: forward, loss, backward, in segments.

Identical layers are run once: the first layer, then one layer of each kind that follows. What a further layer of a
kind adds is exactly linear (a test checks that it is), so each segment carries how many layers it stands for.
"""

from __future__ import annotations

from functools import lru_cache

from advisor.specs import ModelSpec, Recipe
from advisor.tape.adapters import product
from advisor.tape.decoder import (
    Decoder,
    LayerKind,
    Norm,
    Weights,
    embed,
    head_logits,
    layer_kinds,
    other_dtype,
)
from advisor.tape.loss import TILE_TOKENS, chunked_loss, log_softmax_loss, mean_of_logits
from advisor.tape.ops import cast
from advisor.tape.program import BATCH, LENGTH, RANK, Program, Stretch, net_of
from advisor.tape.stack import Stack
from advisor.tape.tape import GRADIENT, LOGITS, Device, Node, RawKernel, Tape, Tensor

EMBEDDING, HEAD, LEAVING_AUTOCAST = -1, 1_000_000, 1_000_001
THIS_STACK = Stack()


class _Recorder:
    """Cuts the tape's record into stretches."""

    def __init__(self, t: Tape, copies: dict[int, int]) -> None:
        self.t = t
        self.copies = copies
        self.parts: list[tuple[Stretch, list[RawKernel]]] = []
        self.phase = "forward"
        t.on_segment = self.enter

    def enter(self, place: int) -> None:
        """Begin the stretch of layer `place` in the present phase."""
        self.close()
        t = self.t
        t.segment = place
        t.kernels = []
        self.parts.append((Stretch(self.phase, place, self.copies.get(place, 1), len(t.events)), t.kernels))

    def close(self) -> None:
        """End the stretch that is open."""
        if self.parts:
            self.parts[-1][0].end = len(self.t.events)


def layer_plan(m: ModelSpec) -> list[tuple[LayerKind, int]]:
    """Which layers to run and how many each stands for; the first layer stands for itself."""
    kinds = layer_kinds(m)
    return [(kinds[0], 1)] + [(kind, kinds[1:].count(kind)) for kind in dict.fromkeys(kinds[1:])]


@lru_cache(maxsize=512)
def _recorded(
    m: ModelSpec, recipe: Recipe, slides: bool, one_tile: bool, device: Device, stack: Stack
) -> Program:
    """The program of `recipe`, whose rank is ignored.

    `slides`: rows are longer than the sliding window; `one_tile`: a chunked loss takes all tokens at once.
    """
    half = recipe.base_dtype if recipe.base_dtype != "float32" else "bfloat16"
    t = Tape(device, half if recipe.autocast else "", stack)
    plan = layer_plan(m)
    recorder = _Recorder(t, {index: copies for index, (_, copies) in enumerate(plan)})
    layers = [Weights(m, recipe, RANK) for _ in plan]
    if stack.freezes_lora_a:
        for part in (part for w in layers for part in w.linears.values()):
            if part.lora_a is not None:
                part.lora_a = Tensor(part.lora_a.shape, part.lora_a.dtype)
    full = recipe.method == "full"
    other = other_dtype(recipe)
    table = Tensor((m.vocab_size, m.hidden_size), other, needs_grad=full)
    head = table if m.tie_word_embeddings else Tensor(table.shape, other, needs_grad=full)
    last_norm = Norm(m.norm, m.hidden_size, other, full, m.norm_bias)
    if recipe.gradient_accumulation > 1:
        _existing_gradients(t, [p for w in layers for p in w.trained] + last_norm.trained
                            + ([table, head] if full else []))
    step = _Step(t, recorder, m, recipe, plan, layers, slides, one_tile)
    loss = step.forward(table, head, last_norm)
    _drop_autocast_cache(t, recorder)
    recorder.phase = "backward"
    t.segment = -2
    t.backward(loss)
    recorder.close()
    program = Program(t.events[:], t.slots, t.labels)
    for stretch, kernels in recorder.parts:
        program.add(stretch, kernels)
    return program


def step_program(
    m: ModelSpec, recipe: Recipe, batch: int, length: int, device: Device, stack: Stack = THIS_STACK
) -> Program:
    """The recorded micro-step of `recipe`; weights and optimizer states are not on the tape.

    The shape decides only whether the sliding window matters and how large the tiles of a chunked loss are. Knobs
    that do not change the structure of the step (rank, alpha, micro-batch, optimizer) share one program.
    """
    structure = recipe.model_copy(update={
        "rank": 1, "alpha": 1.0, "micro_batch": 1, "optimizer": "adamw",
        "dropout": 0.5 if recipe.dropout else 0.0,
        "gradient_accumulation": min(recipe.gradient_accumulation, 2),
    })  # fmt: skip
    slides = bool(m.sliding_window) and m.sliding_window < length
    one_tile = recipe.loss == "chunked" and batch * length <= TILE_TOKENS
    return _recorded(m, structure, slides, one_tile, device, stack)


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


class _Step:
    """The forward of one micro-step, split as the model's own functions are."""

    def __init__(
        self, t: Tape, recorder: _Recorder, m: ModelSpec, recipe: Recipe,
        plan: list[tuple[LayerKind, int]], layers: list[Weights], slides: bool, one_tile: bool,
    ) -> None:  # fmt: skip
        self.t, self.recorder, self.m, self.recipe = t, recorder, m, recipe
        self.plan, self.layers, self.slides = plan, layers, slides
        self.held: list[Tensor] = []
        self.tile_tokens = BATCH * LENGTH if one_tile else TILE_TOKENS

    def forward(self, table: Tensor, head: Tensor, last_norm: Norm) -> Tensor:
        """The model's forward with its loss; the loss alone survives, as in transformers' Trainer."""
        t, m = self.t, self.m
        self.recorder.enter(EMBEDDING)
        t.label("embedding")
        if table is head:
            table = head = _shared(t, table)
        hidden = self._decode(table, last_norm)
        if self.recipe.loss == "chunked":
            t.label("loss")
            return chunked_loss(t, hidden, head, self.tile_tokens)
        t.label("lm_head")
        logits = head_logits(t, m, product(t, hidden, head))
        t.label("loss")
        if logits.buffer is not None:
            logits.buffer.move_to(LOGITS)
        if t.stack.mean_of_logits:
            logits = cast(t, logits, "float32")
            self.held.append(logits)
            return mean_of_logits(t, logits)
        if t.stack.keeps_outputs:
            self.held.append(logits)
        return log_softmax_loss(t, logits)

    def _decode(self, table: Tensor, last_norm: Norm) -> Tensor:
        """Embedding, layers and last norm: (B, S, H). The embedding's output lives as long as this function."""
        t, m, recipe = self.t, self.m, self.recipe
        embedded = embed(t, m, table, BATCH, LENGTH)
        # transformers turns this on with checkpointing, so that a frozen embedding does not cut the graph.
        if recipe.gradient_checkpointing and not embedded.needs_grad:
            embedded.needs_grad = True
        decoder = Decoder(t, m, recipe, BATCH, LENGTH, self.slides, embedded.dtype)
        self.held = decoder.cache
        x = embedded
        for index, (kind, _) in enumerate(self.plan):
            self.recorder.enter(index)
            weights = self.layers[index]
            if recipe.gradient_checkpointing:
                x = t.checkpoint(lambda h, w=weights, k=kind: decoder.layer(h, w, k), x, recipe.reentrant)
            else:
                x = decoder.layer(x, weights, kind)
        self.recorder.enter(HEAD)
        t.label("final norm")
        return last_norm(t, x)


def _drop_autocast_cache(t: Tape, recorder: _Recorder) -> None:
    """Leaving autocast frees its cached casts; note what each layer loses by that."""
    recorder.enter(LEAVING_AUTOCAST)
    places = {stretch.place: stretch for stretch, _ in recorder.parts}
    lost: dict[int, list[int]] = {}
    while t.autocast_cache:
        start = len(t.events)
        _, (place, _cached) = t.autocast_cache.popitem()
        del _cached
        lost.setdefault(place, []).extend(t.events[start:])
    for place, events in lost.items():
        places[place].dropped = net_of(events)
    t.autocast = ""
