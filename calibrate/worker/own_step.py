"""Traces one step of a model that a script already holds, on fake CPU tensors: the user's model stays as it is.

The model is copied without its tensors: each becomes one on meta of the same shape and dtype, and then a fake one. So
nothing is allocated, and it may be on any device, on meta, or fake itself. Adapters that are still to be made are made
on the copy, checkpointing is switched on as Trainer does, and trl's loss takes the place of the model's own for an
SFTConfig. Its tiles do nothing (`patches.silent_tiles`), and every token is taken as trained.

Not traced: what callbacks, a custom loss function or gradient clipping hold.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from advisor.costs.memory import StepMemory
from advisor.costs.micro_batches import MicroBatch
from advisor.errors import BadValue, InputError
from advisor.specs import Recipe
from advisor.terms import TermName
from calibrate.measurement import Trace
from calibrate.timeline import STATIC
from calibrate.worker.dryrun import steady, summary, tracked
from calibrate.worker.fused_head import EveryToken, with_fused_head
from calibrate.worker.older import enable_checkpointing
from calibrate.worker.own_training import is_sft, unwrapped
from calibrate.worker.patches import no_data_dependence, quiet, readable_4bit, silent_tiles
from calibrate.worker.quantized import META, materialize

MADE_BY = {"gradients": TermName.GRADIENTS, "forward": TermName.SAVED_ACTIVATIONS}
"""Terms of what is alive at a peak beside what stands; all else is temporary."""


def own_step(model: Any, adapter: Any, args: Any, recipe: Recipe, batch: MicroBatch) -> Trace:
    """The trace of a step of `model` with peft's config `adapter` (None: what the model has) by `args` and `recipe`.

    Raises InputError for a model that cannot be copied, and in one line for one whose step cannot be run.
    """
    sft = is_sft(args)
    with quiet(), silent_tiles(sft):
        made = _copied(unwrapped(model))
        _without_flash(made)
        try:
            if adapter is not None:
                made = _with_adapters(made, adapter, recipe, sft)
            _as_trained(made, recipe, args if sft else None)
            packed = batch.kind == "packed"
            with (
                FakeTensorMode(allow_non_fake_inputs=True),
                readable_4bit(),
                no_data_dependence(packed),
                EveryToken(any_shape=True),
            ):
                materialize(made)
                optimizer = steady(made, recipe)
                tracker = tracked(made, optimizer, recipe, batch.rows, batch.tokens, True, rows=batch.kind)
        except BadValue:
            raise
        except Exception as error:  # what a model's own code raises where it reads values, or by a bad config
            said = " ".join(str(error).split())[:200]
            raise InputError(
                f"a step of {type(unwrapped(model)).__name__} cannot be traced ({type(error).__name__}: {said}):"
                " leave out by='trace', or measure it with calibrate"
            ) from None
        kind = str(getattr(made.config, "model_type", "model"))
        return summary(tracker, made, recipe, kind, batch.rows, batch.tokens, batch.kind, True, False, 0.0)


def keeps_masks(model: Any) -> bool:
    """Whether the model has dropout of its own, whose masks a CPU keeps."""
    config: Any = getattr(unwrapped(model), "config", None)
    rates = (getattr(config, name, 0.0) for name in ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob"))
    return any(rates) or any(isinstance(one, nn.Dropout) and one.p > 0 for one in model.modules())


def step_memory_of(trace: Trace) -> StepMemory:
    """What a trace says, as the memory of a step."""
    names = {
        "base_weights": trace.base_weights_bytes,
        "quantization": trace.quantization_bytes,
        "adapters": trace.adapters_bytes,
        "buffers": trace.buffers_bytes,
        "inputs": trace.inputs_bytes,
        "optimizer_states": trace.optimizer_states_bytes,
    }
    static = {STATIC[name]: size for name, size in names.items() if size}
    moving: dict[TermName, int] = {}
    for row in trace.census:
        if row.category not in STATIC:
            term = MADE_BY.get(row.category, TermName.TEMPORARIES)
            moving[term] = moving.get(term, 0) + row.bytes
    return StepMemory(
        peak_bytes=trace.peak_bytes,
        peak_at=trace.peak_at,
        static=static,
        static_blocks=static,
        moving=moving,
        after_forward_bytes=trace.after_forward_bytes,
        after_backward_bytes=trace.phase("backward").end_bytes,
        phase_peaks={one.phase: one.peak_bytes for one in trace.phases},
        part_peaks=(trace.peak_bytes, trace.peak_bytes),  # a trace does not say where the head begins
    )


def _copied(model: Any) -> Any:
    """The model with tensors on meta in place of its own, tied where they were; the model itself is only read."""
    known: dict[int, Any] = {}
    for module in model.modules():
        for held in (module._parameters, module._buffers, vars(module)):
            for tensor in held.values():
                if isinstance(tensor, torch.Tensor):
                    known[id(tensor)] = _on_meta(tensor)
    states = {name: state for name, module in model.named_modules() if (state := _quantized_state(module)) is not None}
    for state in states.values():
        _note_tensors(state, known)
    try:
        made = copy.deepcopy(model, known)
    except Exception as error:
        raise InputError(f"{type(model).__name__} cannot be copied: {' '.join(str(error).split())[:200]}") from None
    for name, state in states.items():
        module = made.get_submodule(name)
        if hasattr(state, "absmax"):
            module.quant_state = copy.deepcopy(state, known)
        else:
            module.state.SCB = known[id(state)] if isinstance(state, torch.Tensor) else state
    return made


def _on_meta(tensor: torch.Tensor) -> torch.Tensor:
    """The same shape and dtype without storage; 4-bit and 8-bit weights become plain ones with what peft reads."""
    made = torch.empty(tensor.shape, dtype=tensor.dtype, device=META)
    if not isinstance(tensor, nn.Parameter):
        return made
    found: Any = nn.Parameter(made, requires_grad=tensor.requires_grad)
    for name in ("quant_type", "compress_statistics"):
        if hasattr(tensor, name):
            setattr(found, name, getattr(tensor, name))
    return found  # type: ignore[no-any-return]


def _quantized_state(module: Any) -> Any:
    """What bitsandbytes keeps beside a weight: the state of 4 bits, or the scales of 8."""
    weight = getattr(module, "weight", None)
    if type(module).__name__ == "Linear8bitLt" and hasattr(module, "state"):  # peft's own is called so, too
        return module.state.SCB if module.state.SCB is not None else getattr(weight, "SCB", None)
    return getattr(weight, "quant_state", None) or getattr(module, "quant_state", None)


def _note_tensors(state: Any, known: dict[int, Any]) -> None:
    """Put the tensors of a quantization state, and of the one inside it, on meta."""
    if isinstance(state, torch.Tensor):
        known[id(state)] = _on_meta(state)
        return
    for owner in (state, getattr(state, "state2", None)):
        for name in ("absmax", "code", "offset"):
            if isinstance(tensor := getattr(owner, name, None), torch.Tensor):
                known[id(tensor)] = _on_meta(tensor)


def _without_flash(model: Any) -> None:
    """flash-attn's kernels need a card; sdpa keeps the same tensors."""
    for module in model.modules():
        config: Any = getattr(module, "config", None)
        if "flash" in str(getattr(config, "_attn_implementation", "")):
            config._attn_implementation = "sdpa"


def _with_adapters(model: Any, adapter: Any, recipe: Recipe, sft: bool) -> Any:
    """The copy with adapters on meta, in the dtypes that the trainer gives them."""
    from peft import get_peft_model

    with readable_4bit():
        made = get_peft_model(model, copy.deepcopy(adapter), low_cpu_mem_usage=True)
    if sft and recipe.is_quantized:  # trl 1.16.0, trainer/sft_trainer.py, SFTTrainer.__init__
        for name, parameter in made.named_parameters():
            if parameter.requires_grad and "lora_magnitude_vector" not in name:
                parameter.data = parameter.data.to(torch.bfloat16)
    return made


def _as_trained(model: Any, recipe: Recipe, sft: Any) -> None:
    """What Trainer switches on and, with its arguments, SFTTrainer."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    base.config.use_cache = False
    if recipe.gradient_checkpointing:
        enable_checkpointing(model, recipe)
    if sft is not None:
        with_fused_head(base, getattr(sft, "router_aux_loss_coef", None))
    model.train()
