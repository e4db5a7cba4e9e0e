"""Which bursts to run and in which order: a pure function of the question and the machine. Needs no torch.

A round is every method at one model, shape and checkpointing. Rounds start with the cheap shapes and alternate between
the models, so that whenever time runs out, every method has been measured at the same points.

Where the device is too small, a model is cut to its first layers at full width: on a card if its memory is too small,
on a CPU if the arithmetic takes too long, and then its vocabulary is cut too. All adapter methods use the same cut of a
model, so that they can be compared; full fine-tuning may need a deeper cut.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from advisor.catalog.trainers import find_trainer
from advisor.checkpoints import STORES
from advisor.costs.micro_batches import MicroBatch
from advisor.engines.limits import refusal
from advisor.errors import InputError
from advisor.optimizers import optimizer_row
from advisor.parameters.layers import least_layers
from advisor.parameters.replacing import targets_by_default
from advisor.specs import METHODS, Method, ModelSpec, Placement, Recipe, Variant, Workload
from advisor.units import GIB, format_gib
from calibrate.batches import (
    VARYING_STEPS,
    Draws,
    as_drawn,
    draw,
    evaluated_batch,
    micro_batch_of,
    rows_of,
    varies,
)
from calibrate.compare import predicted_work
from calibrate.cut import Cut, Whole, cut, uncut
from calibrate.options import recipe_of
from calibrate.predict import Prediction, predict
from calibrate.runner import Machine
from calibrate.sequence_kernels import as_run, note_on

DEFAULT_MODELS = {
    "cpu": ("smollm2-135m", "llama-3.2-1b", "pythia-70m"),
    "cuda": ("llama-3.2-1b", "llama-3.1-8b", "llama-3.2-3b"),
}
DEFAULT_ROWS = {"cpu": ((1, 64), (1, 256)), "cuda": ((1, 512), (4, 1024))}
"""(micro-batch, sequence length), the cheapest first."""
SMALL_CARD_ROWS = ((1, 256), (1, 1024))
SMALL_CARD_BYTES = 20 * GIB
LAYER_CUTS = (32, 24, 16, 12, 8, 6, 4, 3, 2, 1)
CPU_WORDS = 16_384
CPU_FLOP = 1e11
"""Most arithmetic of one micro-step on a CPU: a second or two on one core."""
CPU_FLOP_PER_S = 4e10
CUDA_FLOP_PER_S = 5e13
"""Rough rates for a burst's planned time; the runner corrects them as it goes."""
OVERHEAD_S = {"cpu": 2.0, "cuda": 4.0}
LAUNCH_S = 15.0
"""Rough time to start the processes of several cards."""
WATCHED_STEPS = {"cpu": 3, "cuda": 1}
"""Steps that a step takes whose memory is measured: on a CPU it runs under the profiler."""
STEPS = 11
"""Steps of a slow burst, including those for warm-up and for the memory measurement."""

Rows = tuple[int, int]


class Request(NamedTuple):
    """What to measure. `knobs` are those that were given; without `rows` the plan chooses its shapes.

    `placement`: the cards that share each burst, where there are several.
    """

    models: tuple[Whole, ...]
    methods: tuple[Method, ...] = METHODS
    knobs: Mapping[str, Any] = {}
    rows: tuple[Rows, ...] = ()
    trainer: str = ""
    steps: int = 0
    placement: Placement | None = None


class PlannedBurst(NamedTuple):
    """One burst before it runs, with what is predicted for it; `cost_s` is a rough guess of how long it takes.

    `workload` says how rows come, None where all are full; `draws` are the steps of one whose rows vary.
    """

    model: Cut
    recipe: Recipe
    seq_len: int
    prediction: Prediction
    cost_s: float
    workload: Workload | None = None
    draws: Draws = ()
    placement: Placement | None = None

    @property
    def label(self) -> str:
        """'llama-3.1-8b qlora 1x512 c', as a progress line shows it."""
        batch = self.batch
        shape = shape_text(self.recipe, batch.rows, batch.tokens, "varying" if self.draws else batch.kind)
        return f"{self.model.name} {self.recipe.method} {shape}{cards_text(self.placement)}"

    @property
    def batch(self) -> MicroBatch:
        """Its largest micro-batch."""
        return micro_batch_of(self.recipe, self.seq_len, self.workload)

    @property
    def evaluated(self) -> MicroBatch | None:
        """The batch of its evaluation, if there is one."""
        return evaluated_batch(self.recipe, self.seq_len, self.workload)


class Skipped(NamedTuple):
    """A burst that will not run, and why; `needed_bytes` is 0 when the reason is not its size."""

    label: str
    reason: str
    needed_bytes: float = 0.0


class Plan(NamedTuple):
    """Bursts in the order to run them; those that are skipped; notes for the user."""

    bursts: tuple[PlannedBurst, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]


class NothingToRun(InputError):
    """No burst of the plan can run here; the message says why not."""


def shape_text(recipe: Recipe, rows: int, tokens: int, kind: str = "full") -> str:
    """'4x1024 c': micro-batch, sequence length, checkpointing; '4x1024/2' with two micro-batches per step.

    '4x1024 varying', 'padded' or 'packed' where rows are of that `kind`.
    """
    repeats = f"/{recipe.gradient_accumulation}" if recipe.gradient_accumulation > 1 else ""
    said = "" if kind == "full" else f" {kind}"
    return f"{rows}x{tokens}{repeats}{said}{' c' if recipe.gradient_checkpointing else ''}"


def cards_text(placement: Placement | None) -> str:
    """', ddp on 2' cards; '' for one."""
    return "" if placement is None else f", {placement.effective_sharding} on {placement.gpus}"


def make_plan(asked: Request, machine: Machine) -> Plan:
    """The bursts that answer a question on this machine.

    Raises NothingToRun when none can run, and what `recipe_of` and the formula raise for impossible knobs.
    """
    rounds = [(model, rows, way) for (rows, way), model in itertools.product(_shapes(asked, machine), asked.models)]
    cuts: dict[tuple[str, bool], Cut] = {}
    seen: set[tuple[str, Recipe, int]] = set()  # where checkpointing is fixed, both ways are one
    bursts: list[PlannedBurst] = []
    skipped: list[Skipped] = []
    for model, rows, checkpointing in rounds:
        for method in asked.methods:
            recipe = _recipe(asked, machine, model, method, rows, checkpointing)
            if (model.name, recipe, rows[1]) in seen:
                continue
            seen.add((model.name, recipe, rows[1]))
            reason = why_not(recipe, machine) or _why_not_spread(model, recipe, asked.placement)
            key = (model.name, method == "full")
            if not reason and key not in cuts:
                cuts[key] = _cut(asked, machine, model, method == "full")
            burst = _planned(cuts.get(key, uncut(model)), recipe, rows[1], machine, asked)
            large = _too_large(burst, machine)
            reason = reason or large
            if reason:
                needed = burst.prediction.needed if reason == large else None
                skipped.append(Skipped(burst.label, reason, 0.0 if needed is None else needed.likely))
            else:
                bursts.append(burst)
    if not bursts:
        raise NothingToRun(_nothing(skipped, machine))
    return Plan(tuple(bursts), tuple(skipped), tuple(_notes(asked, bursts)))


def _shapes(asked: Request, machine: Machine) -> Iterator[tuple[Rows, bool]]:
    """(rows, checkpointing) in the order to measure them: every shape one way, then every shape the other way."""
    device = machine.device
    small = device.kind == "cuda" and device.memory_bytes < SMALL_CARD_BYTES
    rows = asked.rows or (SMALL_CARD_ROWS if small else DEFAULT_ROWS[device.kind])
    for other in (False, True):
        for number, shape in enumerate(rows):
            # Alternate between with and without, so that the first shapes cover both.
            yield shape, (number % 2 == 1) != other


def _recipe(asked: Request, machine: Machine, model: Whole, method: Method, rows: Rows, checkpointing: bool) -> Recipe:
    """The trainer's recipe, overridden by the knobs that were given, with a loss that a burst can run."""
    knobs = {"micro_batch": rows[0]} | {name: value for name, value in asked.knobs.items() if value is not None}
    preset = find_trainer(asked.trainer).values(method) if asked.trainer else {}
    defaults: dict[str, object] = {"gradient_checkpointing": checkpointing, "attention": model.attention}
    if asked.trainer:
        knobs.setdefault("loss", "full")
    if not machine.bf16 and preset.get("base_dtype", "bfloat16") == "bfloat16":
        knobs.setdefault("base_dtype", "float16")
    if model.spec is not None:
        variant = cast(Variant, asked.knobs.get("variant") or "plain")
        defaults["target_modules"] = targets_by_default(model.spec, variant)
    return as_run(recipe_of(method, knobs, asked.trainer, defaults)[0], model.spec, machine.device.kind)


def why_not(recipe: Recipe, machine: Machine) -> str:
    """Why a recipe cannot run as a burst on this machine, whatever the model; '' when it can."""
    if recipe.is_quantized and machine.quantization_problem:
        return f"bitsandbytes cannot quantize on this device: {machine.quantization_problem}"
    if recipe.is_quantized and not STORES[recipe.quant].by_bitsandbytes:
        return f"weights are made here, and bitsandbytes stores them: not as {STORES[recipe.quant].title}"
    if recipe.quant == "int8" and recipe.is_dora:
        return "peft's DoRA loses the scales of int8 weights; use nf4"
    if recipe.attention == "flash":
        return "bursts run sdpa or eager attention; sdpa already uses flash kernels"
    if recipe.loss == "chunked":
        return "bursts run only transformers' own loss; use --loss full"
    if optimizer_row(recipe.optimizer).paged and machine.device.kind == "cpu":
        return "paged optimizer states need a GPU"
    return ""


def _why_not_spread(model: Whole, recipe: Recipe, placement: Placement | None) -> str:
    """Why several cards cannot share it; '' where they can."""
    return refusal(model.spec, recipe, placement) if placement is not None and model.spec is not None else ""


def _planned(model: Cut, recipe: Recipe, seq_len: int, machine: Machine, asked: Request) -> PlannedBurst:
    device, speed = machine.device, machine.speed
    draws: Draws = ()
    workload = rows_of({**asked.knobs, "attention": recipe.attention}, seq_len, asked.trainer)
    if workload is not None and varies(workload):
        draws = draw(workload, recipe, asked.steps or VARYING_STEPS)
        workload = as_drawn(workload, draws)
    place = asked.placement
    prediction = predict(model.spec, recipe, seq_len, device, machine.available_bytes, speed, workload, place)
    cost_s = _cost_s(model, recipe, seq_len, prediction, machine, len(draws))
    if place is not None:
        cost_s = LAUNCH_S + cost_s * (place.gpus if device.kind == "cpu" else 1)
    return PlannedBurst(model, recipe, seq_len, prediction, cost_s, workload, draws, place)


def _cost_s(
    model: Cut, recipe: Recipe, seq_len: int, prediction: Prediction, machine: Machine, varying: int = 0
) -> float:
    kind = machine.device.kind
    figures = prediction.figures
    if figures is not None and figures.step_s is not None:
        step_s = figures.step_s
    elif model.spec is not None:
        rate = CPU_FLOP_PER_S * machine.device.threads if kind == "cpu" else CUDA_FLOP_PER_S
        flop = predicted_work(model.spec, recipe, recipe.micro_batch, seq_len).flop
        step_s = 0.01 + recipe.gradient_accumulation * flop / rate
    else:
        step_s = 1.0
    return OVERHEAD_S[kind] + (varying * WATCHED_STEPS[kind] if varying else STEPS) * step_s


def _too_large(burst: PlannedBurst, machine: Machine) -> str:
    needed = burst.prediction.needed
    if burst.prediction.verdict != "does_not_fit" or needed is None:
        return ""
    return (
        f"cannot fit: it needs a predicted {format_gib(needed.likely)} GiB and only"
        f" {format_gib(machine.available_bytes)} GiB are free"
    )


def _cut(asked: Request, machine: Machine, model: Whole, full: bool) -> Cut:
    """The largest cut of a model at which its group of methods (full, or all others) can be measured."""
    if model.spec is None:
        return uncut(model)
    group = [m for m in asked.methods if (m == "full") == full]
    rows = list(dict.fromkeys(shape for shape, _ in _shapes(asked, machine)))
    # On a card, some layers at one shape are better than one layer at all of them; on a CPU, time decides.
    for wanted in (rows, rows[:1]) if machine.device.kind == "cuda" else (rows,):
        recipes = [(_recipe(asked, machine, model, m, shape, True), shape[1]) for m in group for shape in wanted]
        for candidate in _candidates(model, machine):
            if all(_suits(candidate, recipe, seq_len, machine, asked.placement) for recipe, seq_len in recipes):
                return candidate
    return candidate


def _candidates(model: Whole, machine: Machine) -> Iterator[Cut]:
    """Cuts of a model, starting with the whole model."""
    assert model.spec is not None
    least = least_layers(model.spec)
    yield uncut(model)
    words = CPU_WORDS if machine.device.kind == "cpu" else model.spec.vocab_size
    for layers in LAYER_CUTS:
        if least <= layers < model.spec.num_hidden_layers:
            yield cut(model, layers, words)


def _suits(model: Cut, recipe: Recipe, seq_len: int, machine: Machine, placement: Placement | None) -> bool:
    """Whether a burst fits and, on a CPU, is short enough."""
    assert model.spec is not None
    if why_not(recipe, machine) or (placement is not None and refusal(model.spec, recipe, placement)):
        return True
    if machine.device.kind == "cpu" and not _in_a_moment(model.spec, recipe, seq_len):
        return False
    free_bytes = machine.available_bytes
    found = predict(model.spec, recipe, seq_len, machine.device, free_bytes, placement=placement)
    return found.verdict != "does_not_fit"


def _in_a_moment(model: ModelSpec, recipe: Recipe, seq_len: int) -> bool:
    """Whether a step is short enough on a CPU; judged by full fine-tuning, so that all methods get the same cut."""
    whole = recipe.model_copy(update={"method": "full", "quant": "none"})
    return predicted_work(model, whole, recipe.micro_batch, seq_len).flop <= CPU_FLOP


def _nothing(skipped: Sequence[Skipped], machine: Machine) -> str:
    """One line on why no burst can run."""
    least = min(skipped, key=lambda one: one.needed_bytes)
    more = f" (and {len(skipped) - 1} more bursts)" if len(skipped) > 1 else ""
    if least.needed_bytes:  # else the reason is one that a smaller model would not change
        return (
            f"{machine.device.name} is too small for the smallest burst, {least.label}, which {least.reason}{more};"
            " choose a smaller --model, --seq-len or --micro-batch"
        )
    return f"nothing can be measured on {machine.device.name}: {least.label}: {least.reason}{more}"


def _notes(asked: Request, bursts: Sequence[PlannedBurst]) -> Iterator[str]:
    if asked.trainer and any(find_trainer(asked.trainer).values(one).get("loss") == "chunked" for one in METHODS):
        yield f"{asked.trainer} computes its loss in chunks; bursts compute transformers' own loss, on all logits"
    yield from dict.fromkeys(note for one in bursts if (note := note_on(one.model.spec, one.recipe)))
    told: dict[str, dict[str, None]] = {}
    for burst in bursts:
        told.setdefault(burst.model.name, {})[burst.model.text] = None
    for name, cuts in told.items():
        if any(cuts):
            yield f"{name} is cut to {' and to '.join(text or 'the whole model' for text in cuts)}"
