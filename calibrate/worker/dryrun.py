"""One training step of the real transformers + peft + bitsandbytes code on fake CPU tensors, every byte recorded.

It runs what transformers' Trainer runs: `loss = model(input_ids, labels).loss` with the cache off (only the
loss is kept), backward, optimizer step, zero_grad; labels are the input ids, a padded batch has an attention mask. Left
out: gradient clipping (scalars only) and the copy of the logits that accelerate makes under autocast (not at the peak).
A recipe with a chunked loss runs TRL's (`calibrate.worker.fused_head`).

It shows the CPU's kernels: a dropout mask as wide as its input, an int8 product that dequantizes its weight. Paged
optimizer states of 100,000 elements and more are not counted: on a GPU they are outside torch's allocator.

    python -m calibrate.worker.dryrun --model llama-8b --method lora --seq-len 512 --census
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, get_args

import click
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from advisor.costs.micro_batches import MicroBatch
from advisor.errors import AdvisorError
from advisor.specs import Picture, Recipe, RowKind
from calibrate.measurement import OpCount, PhasePeak, Trace
from calibrate.options import config_of, recipe_of, recipe_options
from calibrate.reserved import replayed, smallest_capacity_bytes
from calibrate.show import print_trace
from calibrate.timeline import Timeline
from calibrate.worker.build import autocast, build_model, step_inputs
from calibrate.worker.fused_head import every_token_scored
from calibrate.worker.optimizers import make_optimizer
from calibrate.worker.patches import keep_weights_as_they_are, no_data_dependence, quiet, readable_4bit
from calibrate.worker.pictures import parameters_for_images, reads_early, real_grids
from calibrate.worker.quantized import materialize, quantization_tensors
from calibrate.worker.tracker import AllocationTracker

WARM_UP_TOKENS = 4
WITHOUT_GRADIENTS = ".indexer."
"""Part of the names of parameters that the loss does not reach: transformers 5.23 runs indexers under no_grad, so no
optimizer keeps states for them (models/deepseek_v32/modeling_deepseek_v32.py, DeepseekV32Indexer.forward)."""
PASSED_OVER = ".mamba.dt_proj.", ".mixer.dt_proj."
"""Parts of the names of adapters that the model's code passes over, unless its base is quantized: it multiplies by the
layer's own weight (models/jamba/modeling_jamba.py, JambaMambaMixer.forward)."""


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
    rows: RowKind = "full",
    evaluated: MicroBatch | None = None,
    pictures: tuple[Picture, ...] = (),
) -> Trace:
    """Trace one step of `recipe` for the model of a Hugging Face config, without allocating its tensors.

    `layers` cuts the model; `census` adds what is alive at the peak; `events` adds every allocation and release;
    `code` is the folder of a model that brings its own Python code; `rows` is what `step_inputs` gives them.
    The forward of an evaluation of `evaluated` is traced as well. `pictures`: the images of each row.
    Raises BadValue, BadConfig or UnsupportedArchitecture (see `calibrate.worker.build`).
    """
    start_s = time.perf_counter()
    with quiet():
        model = build_model(config, recipe, fake=True, layers=layers, code=code, fused_head=True)
        with FakeTensorMode(allow_non_fake_inputs=True), readable_4bit(), no_data_dependence(rows == "packed"):
            materialize(model)
            with real_grids(model, pictures), every_token_scored(recipe.loss == "chunked"):
                tracker = _run(model, recipe, batch, seq_len, name_modules, rows, pictures)
    trace = summary(tracker, model, recipe, str(config["model_type"]), batch, seq_len, rows, census, events, start_s)
    found: dict[str, int] = {}
    if capacity:
        found["needed_reserved_bytes"] = smallest_capacity_bytes(tracker.timeline)
        found["needed_reserved_expandable_bytes"] = smallest_capacity_bytes(tracker.timeline, expandable_segments=True)
    if evaluated is not None:
        shape = (evaluated.rows, evaluated.tokens, evaluated.kind)
        evaluation = trace_evaluation(config, recipe, *shape, layers=layers, code=code)
        found["evaluation_peak_bytes"] = evaluation.peak_bytes
    return trace.model_copy(update=found) if found else trace


def trace_evaluation(
    config: Mapping[str, Any], recipe: Recipe, batch: int, seq_len: int, rows: RowKind = "full", **options: Any
) -> PhasePeak:
    """The peak of an evaluation; `options` are those of `evaluation_timeline`."""
    return evaluation_timeline(config, recipe, batch, seq_len, rows, **options).phase_peaks()[0]


def evaluation_timeline(
    config: Mapping[str, Any],
    recipe: Recipe,
    batch: int,
    seq_len: int,
    rows: RowKind = "full",
    *,
    layers: int | None = None,
    code: str = "",
) -> Timeline:
    """The forward of the Trainer's evaluation between two steady steps. Raises what `trace_step` raises."""
    with quiet():
        model = build_model(config, recipe, fake=True, layers=layers, code=code, fused_head=True)
        with FakeTensorMode(allow_non_fake_inputs=True), readable_4bit(), no_data_dependence(rows == "packed"):
            materialize(model)
            optimizer = steady(model, recipe)
            model.eval()
            keep_weights_as_they_are(model)
            inputs = step_inputs(model, batch, seq_len, rows)
            tracker = AllocationTracker({}, name_modules=False)
            add_static(tracker, model, optimizer, inputs)
            with tracker:
                tracker.mark("evaluation")
                with torch.no_grad(), autocast(recipe), every_token_scored(recipe.loss == "chunked"):
                    outputs = model(**inputs)
                del outputs
    return tracker.timeline


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
    rows: RowKind = "full",
    pictures: tuple[Picture, ...] = (),
) -> Trace:
    """The same step really executed on CPU tensors with random weights: only for tiny configs."""
    start_s = time.perf_counter()
    with quiet():
        torch.manual_seed(0)
        model = build_model(config, recipe, fake=False, layers=layers)
        tracker = _run(model, recipe, batch, seq_len, name_modules, rows, pictures)
    return summary(tracker, model, recipe, str(config["model_type"]), batch, seq_len, rows, census, events, start_s)


def _run(
    model: Any,
    recipe: Recipe,
    batch: int,
    seq_len: int,
    name_modules: bool,
    rows: RowKind,
    pictures: tuple[Picture, ...] = (),
) -> AllocationTracker:
    """Run the step until its steady state, then once under the tracker."""
    optimizer = steady(model, recipe, pictures)
    return tracked(model, optimizer, recipe, batch, seq_len, name_modules, rows=rows, pictures=pictures)


def steady(model: Any, recipe: Recipe, pictures: tuple[Picture, ...] = ()) -> Any:
    """The optimizer, with everything that its first step allocates permanently; `pictures`: the images of each row.

    On rows of text a vision tower, and layers that read it, get no gradients, and so no optimizer states.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    unused = parameters_for_images(model)
    optimizer = make_optimizer(trained, recipe.optimizer)
    tokens = WARM_UP_TOKENS + sum(one.tokens + 1 for one in pictures)
    if recipe.is_quantized:
        # The first forward pass changes one thing permanently: the dtype of a quantized layer's bias.
        with torch.no_grad(), autocast(recipe):
            model(**step_inputs(model, 1, tokens, pictures=pictures))
    if pictures:
        unused = _without_gradients(model, recipe, tokens, pictures) if reads_early(model) else set()
    adapts_whole = recipe.has_adapters and not recipe.is_quantized
    passed_over = (WITHOUT_GRADIENTS, *(PASSED_OVER if adapts_whole else ()))
    for name, parameter in model.named_parameters():
        reached = parameter.requires_grad and not any(part in name for part in passed_over)
        if reached and id(parameter) not in unused:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


def _without_gradients(model: Any, recipe: Recipe, tokens: int, pictures: tuple[Picture, ...]) -> set[int]:
    """The ids of the trained parameters that one step leaves without a gradient."""
    with autocast(recipe):
        loss = model(**step_inputs(model, 1, tokens, pictures=pictures)).loss
    loss.backward()
    return {id(parameter) for parameter in model.parameters() if parameter.grad is None}


def tracked(
    model: Any,
    optimizer: Any,
    recipe: Recipe,
    batch: int,
    seq_len: int,
    name_modules: bool,
    accumulated: bool = False,
    rows: RowKind = "full",
    pictures: tuple[Picture, ...] = (),
) -> AllocationTracker:
    """Run one step of the steady state under the tracker; `accumulated` notes when gradients are complete."""
    trained = [p for p in model.parameters() if p.requires_grad]
    inputs = step_inputs(model, batch, seq_len, rows, pictures)
    if recipe.gradient_accumulation > 1:  # the last micro-batch finds the gradients of the first
        with autocast(recipe):
            loss = model(**inputs).loss
        loss.backward()
        del loss
    names = {id(module): short_name(name) for name, module in model.named_modules()}
    tracker = AllocationTracker(names, name_modules)
    add_static(tracker, model, optimizer, inputs)
    hooks = tracker.watch_gradients(trained) if accumulated else []
    with tracker:
        tracker.mark("forward")
        with autocast(recipe):
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


def summary(
    tracker: AllocationTracker,
    model: Any,
    recipe: Recipe,
    model_type: str,
    batch: int,
    seq_len: int,
    rows: RowKind,
    census: bool,
    events: bool,
    start_s: float,
) -> Trace:
    """What was recorded, as a record."""
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
        rows=rows,
        base_weights_bytes=static["base_weights"],
        quantization_bytes=static["quantization"],
        adapters_bytes=static["adapters"],
        buffers_bytes=static["buffers"],
        inputs_bytes=static["inputs"],
        optimizer_states_bytes=static["optimizer_states"],
        buckets_bytes=static["buckets"],
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
@click.option("--rows", type=click.Choice(get_args(RowKind)), default="full", show_default=True)
@click.option("--real", is_flag=True, help="execute the step for real; only for tiny models")
@click.option("--json", "as_json", is_flag=True, help="print the trace as JSON")
def main(
    model: str, method: str, layers: int | None, census: bool, rows: RowKind, real: bool, as_json: bool, **knobs: Any
) -> None:
    """Trace one training step and show its phases and, with --census, what is alive at the peak."""
    torch.set_num_threads(1)
    try:
        recipe, seq_len = recipe_of(method, knobs)
        config = config_of(model)
        options: dict[str, Any] = {"layers": layers, "census": census, "rows": rows}
        if real:
            trace = real_step(config, recipe, recipe.micro_batch, seq_len, **options)
        else:
            evaluated = MicroBatch(recipe.eval_batch, seq_len, rows == "padded", rows == "packed")
            options["evaluated"] = evaluated if recipe.eval_batch else None
            trace = trace_step(config, recipe, recipe.micro_batch, seq_len, **options)
    except AdvisorError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from None
    if as_json:
        click.echo(trace.model_dump_json())
    else:
        print_trace(trace)


if __name__ == "__main__":
    main()
