"""One training step of the real transformers + peft + bitsandbytes code on fake CPU tensors, every byte recorded.

It runs what transformers' Trainer runs: `loss = model(input_ids, labels).loss` with the cache off (only the
loss is kept), backward, optimizer step, zero_grad; labels are the input ids, a padded batch has an attention mask. Left
out: gradient clipping (scalars only) and the copy of the logits that accelerate makes under autocast (not at the peak).

It shows the CPU's kernels: a dropout mask as wide as its input, an int8 product that dequantizes its weight. Paged
optimizer states of 100,000 elements and more are not counted: on a GPU they are outside torch's allocator.

    python -m calibrate.worker.dryrun --model llama-8b --method lora --seq-len 512 --census
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from advisor.errors import AdvisorError
from advisor.specs import Recipe
from calibrate.measurement import ModelFacts, OpCount, ShapeTraces, StepEvents, Trace, TrainedTensor
from calibrate.options import config_of, recipe_of, recipe_options
from calibrate.reserved import replayed, smallest_capacity_bytes
from calibrate.show import print_trace
from calibrate.worker.build import auto_name, build_model, step_inputs
from calibrate.worker.optimizers import make_optimizer
from calibrate.worker.patches import no_data_dependence, quiet, readable_4bit
from calibrate.worker.quantized import materialize, quantization_tensors
from calibrate.worker.tracker import AllocationTracker

WARM_UP_TOKENS = 4
UNFUSED = frozenset(
    {
        "aten.bernoulli_.float",
        "aten.native_dropout",
        "aten._scaled_dot_product_attention_math",
    }
)
"""Operations of a CPU step that keep more than their CUDA kernels do: masks as wide as their input, all scores."""


def trace_step(
    config: Mapping[str, Any],
    recipe: Recipe,
    batch: int,
    seq_len: int,
    *,
    layers: int | None = None,
    census: bool = False,
    events: bool = False,
    name_modules: bool = True,
    code: str = "",
    capacity: bool = False,
    padded: bool = False,
) -> Trace:
    """Trace one step of `recipe` for the model of a Hugging Face config, without allocating its tensors.

    `layers` cuts the model; `census` adds what is alive at the peak; `events` adds every allocation and release;
    `code` is the folder of a model that brings its own Python code; `padded` gives the batch a mask with zeros.
    Raises BadValue, BadConfig or UnsupportedArchitecture (see `calibrate.worker.build`).
    """
    start_s = time.perf_counter()
    with quiet():
        model = build_model(config, recipe, fake=True, layers=layers, code=code)
        with FakeTensorMode(allow_non_fake_inputs=True), readable_4bit(), no_data_dependence():
            materialize(model)
            tracker = _run(model, recipe, batch, seq_len, name_modules, padded)
    trace = _summary(tracker, model, recipe, str(config["model_type"]), batch, seq_len, census, events, start_s)
    return trace.model_copy(update=_capacities(tracker)) if capacity else trace


def _capacities(tracker: AllocationTracker) -> dict[str, int]:
    return {
        "needed_reserved_bytes": smallest_capacity_bytes(tracker.timeline),
        "needed_reserved_expandable_bytes": smallest_capacity_bytes(tracker.timeline, expandable_segments=True),
    }


class Prepared:
    """A fake model in its steady state, whose step can be traced at several shapes."""

    def __init__(self, config: Mapping[str, Any], recipe: Recipe, code: str = "") -> None:
        """Build the model; raises what `trace_step` raises."""
        self.recipe = recipe
        with quiet():
            self.model = build_model(config, recipe, fake=True, code=code)
            with self._fake():
                materialize(self.model)
                self.optimizer = _steady(self.model, recipe)

    def shapes(self, shapes: Iterable[tuple[int, int]]) -> ShapeTraces:
        """The step's bare events at each (batch, seq_len)."""
        with quiet(), self._fake():
            steps = tuple(self._step(batch, seq_len) for batch, seq_len in shapes)
        trained = tuple(
            TrainedTensor(shape=tuple(p.shape), dtype=str(p.dtype).removeprefix("torch."), count=1)
            for p in self.model.parameters()
            if p.requires_grad
        )
        return ShapeTraces(steps=steps, trained=trained)

    @contextlib.contextmanager
    def _fake(self) -> Iterator[None]:
        if not hasattr(self, "_mode"):
            self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        with self._mode, readable_4bit(), no_data_dependence():
            yield

    def _step(self, batch: int, seq_len: int) -> StepEvents:
        tracker = _tracked(self.model, self.optimizer, self.recipe, batch, seq_len, True, accumulated=True)
        timeline = tracker.timeline
        flop: dict[str, int] = {}
        launches: dict[str, int] = {}
        moved: dict[str, int] = {}
        for (phase, _), (count, amount, size) in tracker.counts.items():
            flop[phase] = flop.get(phase, 0) + amount
            launches[phase] = launches.get(phase, 0) + count
            moved[phase] = moved.get(phase, 0) + (0 if amount else size)
        highest = max(timeline.phase_peaks(), key=lambda p: p.peak_bytes)
        ops = {op for _, op in tracker.counts}
        return StepEvents(
            batch=batch,
            seq_len=seq_len,
            sizes=tuple(a.exact_bytes for a in timeline.allocations),
            categories=tuple(a.category for a in timeline.allocations),
            moves=tuple(timeline.moves),
            marks=tuple(timeline.marks),
            accumulated=tuple(timeline.accumulated),
            flop=flop,
            launches=launches,
            moved=moved,
            peak_op=f"{highest.phase}, {highest.op} in {highest.module or 'the model'}",
            unfused=bool(ops & UNFUSED),
        )


def model_facts(config: Mapping[str, Any], code: str = "") -> ModelFacts:
    """What transformers says about a model, from its parameters on the meta device."""
    recipe = Recipe(method="full", attention="eager", gradient_checkpointing=False)
    with quiet():
        model = build_model(config, recipe, fake=True, code=code)
    hf_config = model.config.get_text_config()
    found: dict[str, Any] = {
        k: v
        for k, v in {**model.config.to_dict(), **hf_config.to_dict()}.items()
        if isinstance(v, int) and not isinstance(v, bool)
    }
    positions = getattr(hf_config, "max_position_embeddings", None)
    kind = auto_name(model)
    return ModelFacts(
        architecture=str(config["model_type"]),
        kind=kind,
        parameters=sum(p.numel() for p in model.parameters()),
        max_position_embeddings=positions if isinstance(positions, int) and positions > 0 else 0,
        default_attention="sdpa" if model._supports_sdpa else "eager",
        breaks=tuple(sorted({v for k, v in found.items() if v > 0 and ("window" in k or "chunk" in k)})),
    )


def real_step(
    config: Mapping[str, Any],
    recipe: Recipe,
    batch: int,
    seq_len: int,
    *,
    layers: int | None = None,
    census: bool = False,
    events: bool = False,
    name_modules: bool = True,
    padded: bool = False,
) -> Trace:
    """The same step really executed on CPU tensors with random weights: only for tiny configs."""
    start_s = time.perf_counter()
    with quiet():
        torch.manual_seed(0)
        model = build_model(config, recipe, fake=False, layers=layers)
        tracker = _run(model, recipe, batch, seq_len, name_modules, padded)
    return _summary(tracker, model, recipe, str(config["model_type"]), batch, seq_len, census, events, start_s)


def _run(model: Any, recipe: Recipe, batch: int, seq_len: int, name_modules: bool, padded: bool) -> AllocationTracker:
    """Run the step until its steady state, then once under the tracker."""
    return _tracked(model, _steady(model, recipe), recipe, batch, seq_len, name_modules, padded=padded)


def _steady(model: Any, recipe: Recipe) -> Any:
    """The optimizer, with everything that its first step allocates permanently."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = make_optimizer(trained, recipe.optimizer)
    if recipe.is_quantized:
        # The first forward pass changes one thing permanently: the dtype of a quantized layer's bias.
        inputs = step_inputs(model, 1, WARM_UP_TOKENS)
        with torch.no_grad(), _autocast(recipe):
            model(**inputs)
        del inputs
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


def _autocast(recipe: Recipe) -> Any:
    half = torch.float16 if recipe.base_dtype == "float16" else torch.bfloat16  # Trainer's fp16=True or bf16=True
    return torch.autocast("cpu", dtype=half, enabled=recipe.autocast)


def _tracked(
    model: Any,
    optimizer: Any,
    recipe: Recipe,
    batch: int,
    seq_len: int,
    name_modules: bool,
    accumulated: bool = False,
    padded: bool = False,
) -> AllocationTracker:
    """Run one step of the steady state under the tracker; `accumulated` notes when gradients are complete."""
    trained = [p for p in model.parameters() if p.requires_grad]
    inputs = step_inputs(model, batch, seq_len, padded)
    if recipe.gradient_accumulation > 1:  # the last micro-batch finds the gradients of the first
        with _autocast(recipe):
            loss = model(**inputs).loss
        loss.backward()
        del loss
    names = {id(module): short_name(name) for name, module in model.named_modules()}
    tracker = AllocationTracker(names, name_modules)
    add_static(tracker, model, optimizer, inputs)
    hooks = tracker.watch_gradients(trained) if accumulated else []
    with tracker:
        tracker.mark("forward")
        with _autocast(recipe):
            loss = model(**inputs).loss
        tracker.mark("backward")
        loss.backward()
        del loss
        tracker.label_gradients(trained)
        tracker.mark("optimizer")
        optimizer.step()
        optimizer.zero_grad()
    for hook in hooks:
        hook.remove()
    return tracker


def add_static(tracker: AllocationTracker, model: Any, optimizer: Any, inputs: Mapping[str, Any]) -> None:
    """Count everything that is alive before the forward pass, by category."""
    has_adapters = hasattr(model, "peft_config")
    for name, parameter in model.named_parameters():
        adapter = has_adapters and parameter.requires_grad
        tracker.add(parameter, "adapters" if adapter else "base_weights", short_name(name))
    for name, buffer in model.named_buffers():
        tracker.add(buffer, "buffers", short_name(name))
    for name, module in model.named_modules():
        for constant, tensor in quantization_tensors(module).items():
            tracker.add(tensor, "quantization", f"{short_name(name)}.{constant}")
    names = {id(p): short_name(name) for name, p in model.named_parameters()}
    paged = getattr(optimizer, "is_paged", False)
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, torch.Tensor) and not (paged and _is_paged(key, parameter)):
                tracker.add(value, "optimizer_states", f"{names[id(parameter)]}.{key}")
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            tracker.add(parameter.grad, "gradients", short_name(name))
    for name, tensor in inputs.items():
        if isinstance(tensor, torch.Tensor):
            tracker.add(tensor, "inputs", name)


def _is_paged(key: str, parameter: torch.Tensor) -> bool:
    """Whether bitsandbytes keeps this state in managed memory (`get_state_buffer` in its optim/optimizer.py)."""
    return key in ("state1", "state2") and parameter.numel() >= 1e5


def _summary(
    tracker: AllocationTracker,
    model: Any,
    recipe: Recipe,
    model_type: str,
    batch: int,
    seq_len: int,
    census: bool,
    events: bool,
    start_s: float,
) -> Trace:
    timeline = tracker.timeline
    static = timeline.static_bytes()
    phases = timeline.phase_peaks()
    highest = max(phases, key=lambda p: p.peak_bytes)
    held = replayed(timeline)
    return Trace(
        recipe=recipe,
        model_type=model_type,
        batch=batch,
        seq_len=seq_len,
        base_weights_bytes=static["base_weights"],
        quantization_bytes=static["quantization"],
        adapters_bytes=static["adapters"],
        buffers_bytes=static["buffers"],
        inputs_bytes=static["inputs"],
        optimizer_states_bytes=static["optimizer_states"],
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        phases=phases,
        census=timeline.census(highest.move) if census else (),
        events=tuple(timeline.events()) if events else (),
        op_counts=tuple(
            OpCount(phase=phase, op=op, kernels=kernels, flop=flop, bytes=moved)
            for (phase, op), (kernels, flop, moved) in tracker.counts.items()
        ),
        peak_blocks_bytes=held.peak_allocated_bytes,
        peak_reserved_bytes=held.peak_reserved_bytes,
        peak_reserved_expandable_bytes=replayed(timeline, expandable_segments=True).peak_reserved_bytes,
        trace_s=time.perf_counter() - start_s,
    )


def short_name(name: str) -> str:
    """A module's path without peft's wrappers."""
    return "" if name in ("base_model", "base_model.model") else name.removeprefix("base_model.model.")


@click.command()
@click.option("--model", required=True, help="model name, or path of a config.json")
@click.option("--method", default="lora", show_default=True, help="full, lora, dora, qlora or qdora")
@recipe_options
@click.option("--layers", type=click.IntRange(1), help="cut the model to its first layers")
@click.option("--census", is_flag=True, help="list the tensors alive at the peak")
@click.option("--padded", is_flag=True, help="rows of different lengths: a batch with an attention mask")
@click.option("--real", is_flag=True, help="execute the step for real; only for tiny models")
@click.option("--json", "as_json", is_flag=True, help="print the trace as JSON")
def main(
    model: str, method: str, layers: int | None, census: bool, padded: bool, real: bool, as_json: bool, **knobs: Any
) -> None:
    """Trace one training step and show its phases and, with --census, what is alive at the peak."""
    torch.set_num_threads(1)
    try:
        recipe, seq_len = recipe_of(method, knobs)
        step = real_step if real else trace_step
        config = config_of(model)
        trace = step(config, recipe, recipe.micro_batch, seq_len, layers=layers, census=census, padded=padded)
    except AdvisorError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from None
    if as_json:
        click.echo(trace.model_dump_json())
    else:
        print_trace(trace)


if __name__ == "__main__":
    main()
