"""One training step of the real transformers + peft + bitsandbytes code on fake CPU tensors, every byte recorded.

What runs is what transformers' Trainer runs: `loss = model(input_ids, labels, use_cache=False).loss` (only the loss
is kept), backward, optimizer step, zero_grad; no attention mask, labels are the input ids. Left out: gradient
clipping (scalars only) and the copy of the logits that accelerate makes under autocast (not at the peak).

Shows the CPU's kernels: a dropout mask as wide as its input, an int8 product that dequantises its weight. Paged
optimizer states of 100,000 elements and more are not counted: on a GPU they are outside of torch's allocator.

    python -m calibrate.dryrun --model llama-8b --method lora --seq-len 512 --census
"""

from __future__ import annotations

import contextlib
import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import click
import torch
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from advisor.errors import AdvisorError
from advisor.specs import Recipe
from calibrate.build import build_model, materialize, quantization_tensors, readable_4bit
from calibrate.measurement import OpCount, Trace
from calibrate.options import config_of, recipe_of, recipe_options
from calibrate.show import print_trace
from calibrate.tracker import AllocationTracker

WARM_UP_TOKENS = 4


def trace_step(
    config: Mapping[str, Any], recipe: Recipe, batch: int, seq_len: int, *,
    layers: int | None = None, census: bool = False, events: bool = False, name_modules: bool = True,
) -> Trace:
    """Trace one step of `recipe` for the model of a Hugging Face config, without allocating its tensors.

    `layers` cuts the model; `census` adds what is alive at the peak; `events` adds every allocation and release.
    Raises BadValue, BadConfig or UnsupportedArchitecture (see `calibrate.build`).
    """
    start_s = time.perf_counter()
    with _quiet():
        model = build_model(config, recipe, fake=True, layers=layers)
        with FakeTensorMode(allow_non_fake_inputs=True), readable_4bit(), _no_data_dependence():
            materialize(model)
            tracker = _run(model, recipe, batch, seq_len, name_modules)
    return _summary(tracker, model, recipe, str(config["model_type"]), batch, seq_len, census, events, start_s)


def real_step(
    config: Mapping[str, Any], recipe: Recipe, batch: int, seq_len: int, *,
    layers: int | None = None, census: bool = False, events: bool = False, name_modules: bool = True,
) -> Trace:
    """The same step really executed on CPU tensors with random weights: only for tiny configs."""
    start_s = time.perf_counter()
    with _quiet():
        torch.manual_seed(0)
        model = build_model(config, recipe, fake=False, layers=layers)
        tracker = _run(model, recipe, batch, seq_len, name_modules)
    return _summary(tracker, model, recipe, str(config["model_type"]), batch, seq_len, census, events, start_s)


def _run(model: Any, recipe: Recipe, batch: int, seq_len: int, name_modules: bool) -> AllocationTracker:
    """Bring the step into its steady state, then run it once under the tracker."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = make_optimizer(trained, recipe)
    half = torch.float16 if recipe.base_dtype == "float16" else torch.bfloat16  # Trainer's fp16=True or bf16=True
    autocast = torch.autocast("cpu", dtype=half, enabled=recipe.autocast)
    if recipe.is_quantized:
        # The first forward pass changes one thing for good: the dtype of a quantised layer's bias.
        with torch.no_grad(), autocast:
            model(input_ids=torch.zeros(1, WARM_UP_TOKENS, dtype=torch.long), use_cache=False)
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    input_ids = torch.zeros(batch, seq_len, dtype=torch.long)
    if recipe.gradient_accumulation > 1:  # the last micro-batch finds the gradients of the first
        with autocast:
            loss = model(input_ids=input_ids, labels=input_ids, use_cache=False).loss
        loss.backward()
        del loss
    names = {id(module): _short(name) for name, module in model.named_modules()}
    tracker = AllocationTracker(names, name_modules)
    _add_static(tracker, model, optimizer, input_ids)
    with tracker:
        tracker.mark("forward")
        with autocast:
            loss = model(input_ids=input_ids, labels=input_ids, use_cache=False).loss
        tracker.mark("backward")
        loss.backward()
        del loss
        tracker.label_gradients(trained)
        tracker.mark("optimizer")
        optimizer.step()
        optimizer.zero_grad()
    return tracker


def make_optimizer(parameters: list[torch.nn.Parameter], recipe: Recipe) -> Any:
    """The optimizer as Trainer configures it (weight decay 0)."""
    match recipe.optimizer:
        case "adamw":
            return torch.optim.AdamW(parameters, lr=1e-5, weight_decay=0.0, fused=True)
        case "adamw_foreach":
            return torch.optim.AdamW(parameters, lr=1e-5, weight_decay=0.0, foreach=True)
        case "sgd":
            return torch.optim.SGD(parameters, lr=1e-5, foreach=True)
        case "adafactor":
            from transformers.optimization import Adafactor

            return Adafactor(parameters, lr=1e-5, scale_parameter=False, relative_step=False)
    import bitsandbytes as bnb

    kind = bnb.optim.AdamW if recipe.optimizer == "paged_adamw" else bnb.optim.AdamW8bit
    with unset_fake_temporarily():  # its tables of 256 values are computed value by value
        return kind(parameters, lr=1e-5, weight_decay=0.0, is_paged=recipe.optimizer.startswith("paged"))


def _add_static(tracker: AllocationTracker, model: Any, optimizer: Any, input_ids: torch.Tensor) -> None:
    """Count everything that is there before the forward pass, by category."""
    has_adapters = hasattr(model, "peft_config")
    for name, parameter in model.named_parameters():
        adapter = has_adapters and parameter.requires_grad
        tracker.add(parameter, "adapters" if adapter else "base_weights", _short(name))
    for name, buffer in model.named_buffers():
        tracker.add(buffer, "buffers", _short(name))
    for name, module in model.named_modules():
        for constant, tensor in quantization_tensors(module).items():
            tracker.add(tensor, "quantization", f"{_short(name)}.{constant}")
    names = {id(p): _short(name) for name, p in model.named_parameters()}
    paged = getattr(optimizer, "is_paged", False)
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, torch.Tensor) and not (paged and _is_paged(key, parameter)):
                tracker.add(value, "optimizer_states", f"{names[id(parameter)]}.{key}")
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            tracker.add(parameter.grad, "gradients", _short(name))
    tracker.add(input_ids, "inputs", "input_ids")


def _is_paged(key: str, parameter: torch.Tensor) -> bool:
    """Whether bitsandbytes keeps this state in managed memory (`get_state_buffer` in its optim/optimizer.py)."""
    return key in ("state1", "state2") and parameter.numel() >= 1e5


def _summary(
    tracker: AllocationTracker, model: Any, recipe: Recipe, model_type: str, batch: int, seq_len: int,
    census: bool, events: bool, start_s: float,
) -> Trace:
    timeline = tracker.timeline
    static = timeline.static_bytes()
    phases = timeline.phase_peaks()
    highest = max(phases, key=lambda p: p.peak_bytes)
    return Trace(
        recipe=recipe, model_type=model_type, batch=batch, seq_len=seq_len,
        base_weights_bytes=static["base_weights"], quantization_bytes=static["quantization"],
        adapters_bytes=static["adapters"], buffers_bytes=static["buffers"], inputs_bytes=static["inputs"],
        optimizer_states_bytes=static["optimizer_states"],
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        phases=phases, census=timeline.census(highest.move) if census else (),
        events=tuple(timeline.events()) if events else (),
        op_counts=tuple(OpCount(phase=phase, op=op, count=n, flop=flop)
                        for (phase, op), (n, flop) in tracker.counts.items()),
        trace_s=time.perf_counter() - start_s,
    )


def _short(name: str) -> str:
    """A module's path without peft's wrappers."""
    return "" if name in ("base_model", "base_model.model") else name.removeprefix("base_model.model.")


@contextlib.contextmanager
def _no_data_dependence() -> Iterator[None]:
    """Replace the two places that look at values, which fake tensors do not have.

    transformers looks for packed sequences in the position ids (there are none), foreach Adam reads its step count.
    """
    from torch.optim import adam as _adam
    from transformers import masking_utils

    adam: Any = _adam
    originals = masking_utils.find_packed_sequence_indices, adam._get_value
    masking_utils.find_packed_sequence_indices = lambda *_: None
    adam._get_value = lambda _: 1.0
    try:
        yield
    finally:
        masking_utils.find_packed_sequence_indices, adam._get_value = originals


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No warnings and no log lines from the libraries."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@click.command()
@click.option("--model", required=True, help="model name, or path of a config.json")
@click.option("--method", default="lora", show_default=True, help="full, lora, dora, qlora or qdora")
@recipe_options
@click.option("--layers", type=click.IntRange(1), help="cut the model to its first layers")
@click.option("--census", is_flag=True, help="list what is alive at the peak")
@click.option("--real", is_flag=True, help="really execute the step: only for tiny models")
@click.option("--json", "as_json", is_flag=True, help="print the trace as JSON")
def main(
    model: str, method: str, layers: int | None, census: bool, real: bool, as_json: bool, **knobs: Any
) -> None:
    """Trace one training step and show its phases and, on demand, what is alive at the peak."""
    torch.set_num_threads(1)
    try:
        recipe, seq_len = recipe_of(method, knobs)
        step = real_step if real else trace_step
        trace = step(config_of(model), recipe, recipe.micro_batch, seq_len, layers=layers, census=census)
    except AdvisorError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from None
    if as_json:
        click.echo(trace.model_dump_json())
    else:
        print_trace(trace)


if __name__ == "__main__":
    main()
