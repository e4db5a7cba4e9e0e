"""Whole steps with Liger's kernels: the formula against transformers' step, patched by Liger's own code, on a CPU.

    python -m benchmarks.against_steps_liger --source FOLDER

FOLDER holds the package liger_kernel as its wheel unpacks; its Triton kernels do nothing. Tiny models, real tensors.
Exits with 1 when a peak is off by more than 2 %. What is off by more than 0.1 %: norms of heads that are not in place,
whose gradient Liger copies where its rotation does not run; DeepSeek's norm of a part of a tensor; gpt-oss in full
with the fused loss, for a reason not found.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Callable
from importlib import import_module
from itertools import product
from typing import Any

import torch
from torch import nn

from advisor.costs.memory import predict_step_memory
from advisor.specs import KernelSet, Method, Workload
from advisor.stacks import stack_for
from benchmarks.kernel_bytes import bare, without_triton
from calibrate.worker import dryrun
from tests.decoders.tiny import config, recipe, spec
from tests.fakes import card

BAR = 0.02
NAMES = (
    "llama",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3-sliding",
    "phi3",
    "olmo2",
    "olmo3",
    "granite",
    "smollm3",
    "exaone4",
    "mistral",
    "qwen2",
    "glm4",
    "nemotron",
    "hunyuan_v1_dense",
    "qwen3_moe",
    "mixtral",
    "deepseek_v3",
    "gpt_oss",
)
SHAPE = 2, 49
METHODS: tuple[Method, ...] = ("full", "lora", "qlora")
SETS: tuple[tuple[KernelSet, ...], ...] = (
    ("liger_norm",),
    ("liger_rope",),
    ("liger_mlp",),
    ("liger_loss",),
    ("liger_norm", "liger_rope", "liger_mlp", "liger_loss"),
)
CASES: list[tuple[tuple[KernelSet, ...], dict[str, Any]]] = [
    *((one, {"kbit_upcast": False}) for one in SETS),
    (SETS[-1], {"gradient_checkpointing": True, "autocast": True}),
    (SETS[-1], {"gradient_checkpointing": True, "reentrant": True, "kbit_upcast": False}),
]
USUAL: dict[str, Any] = {"gradient_checkpointing": False, "autocast": False}
OWN: dict[str, dict[str, Any]] = {name: {"target_modules": ("attention",)} for name in ("qwen3_moe", "mixtral")}
"""Liger's experts fail where peft has wrapped them."""
FLAGS = {
    "liger_norm": ("rms_norm",),
    "liger_rope": ("rope",),
    "liger_mlp": ("swiglu", "geglu", "relu_squared"),
    "liger_loss": ("fused_linear_cross_entropy",),
}
UNDO: list[Callable[[], object]] = []
"""Liger replaces classes and functions of transformers' modules, too: what puts them back."""


def patched_by(apply: Any, kernels: tuple[KernelSet, ...], own: Any) -> Any:
    """`build_model`, and Liger's kernels on what it builds."""

    def build(*args: Any, **kwargs: Any) -> Any:
        model = own(*args, **kwargs)
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        switches = {flag: name in kernels for name, flags in FLAGS.items() for flag in flags}
        if base.config.model_type == "granite":  # gets cross entropy in its place, by default
            switches["cross_entropy"] = switches.pop("fused_linear_cross_entropy")
        if base.config.model_type == "glm4":
            switches["rope"] = False  # raises
        module = sys.modules[type(base).__module__]
        before, entropy = dict(vars(module)), nn.functional.cross_entropy
        apply(model=base, **switches)
        UNDO.append(lambda: (vars(module).update(before), setattr(nn.functional, "cross_entropy", entropy)))
        return model

    return build


def places(chosen: torch.Tensor, experts: int) -> tuple[torch.Tensor, ...]:
    """What Liger's routing kernels, which do nothing here, find for the chosen experts (T, K)."""
    found = [torch.empty(chosen.numel(), dtype=torch.int32) for _ in range(3)]
    none = torch.empty(1, dtype=torch.int32)
    return none, none, *found, none[:0], none[:0]


def main() -> int:
    """Print every case; 1 if a peak is off."""
    parser = ArgumentParser()
    parser.add_argument("--source", required=True, help="folder that holds liger_kernel")
    without_triton()
    bare(parser.parse_args().source, *(f"liger_kernel{part}" for part in ("", ".transformers", ".transformers.model")))
    patches: Any = import_module("liger_kernel.transformers.monkey_patch")
    import_module("liger_kernel.ops.fused_moe").compute_routing_metadata = places  # type: ignore[attr-defined]
    own, worst, wrong = dryrun.build_model, 0.0, 0
    for name, method, (kernels, knobs) in product(NAMES, METHODS, CASES):
        plain = recipe(spec(name), method, **{**USUAL, **knobs, **OWN.get(name, {})})
        dryrun.build_model = patched_by(patches._apply_liger_kernel_to_instance, kernels, own)
        real = dryrun.real_step(config(name), plain, *SHAPE)
        while UNDO:
            UNDO.pop()()
        asked = plain.model_copy(update={"kernels": kernels})
        found = predict_step_memory(spec(name), asked, *SHAPE, "cpu", stack_for(asked, card(24), Workload()))
        error = found.peak_bytes / real.peak_bytes - 1
        after = found.after_forward_bytes / real.after_forward_bytes - 1
        worst, wrong = max(worst, abs(error)), wrong + (abs(error) > BAR)
        how = ",".join(kernels) if len(kernels) == 1 else f"all {knobs}"
        print(f"{name:16} {method:6} {how:80} peak {error:+8.4%}  after forward {after:+8.4%}", flush=True)
    print(f"worst {worst:.4%}, {wrong} beyond {BAR:.0%}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
