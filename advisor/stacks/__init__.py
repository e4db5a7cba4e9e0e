"""Training stacks: one file per stack whose code differs from the mirrored one, and the choice of a stack.

A stack is a subclass of `decoders.stack.Stack`. An estimate calls `stack_for` and passes the result to the step;
nothing else asks which stack runs. Kernels that a trainer switches on are subclasses, too, laid over the trainer's own
code: `stack_for` makes one class of them, whose `super()` leads from the uppermost down to `Stack`. A file is loaded
when a recipe asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module

from advisor.decoders.stack import THIS_STACK, Stack
from advisor.libraries import libraries_of
from advisor.specs import GpuSpec, Recipe, Workload

CODE: dict[str, str] = {
    "unsloth": "advisor.stacks.unsloth:Unsloth",
    "torchtune": "advisor.stacks.torchtune:Torchtune",
    "litgpt": "advisor.stacks.litgpt_today:LitGpt",
    "llamafactory": "advisor.stacks.llamafactory:LlamaFactory",
    "ms-swift": "advisor.stacks.ms_swift:MsSwift",
    "nemo-automodel": "advisor.stacks.nemo_automodel:NemoAutomodel",
}
"""Where a trainer's own code is mirrored: 'module:class' by the name in `libraries.CODE`."""

KERNELS: dict[str, str] = {
    "liger_norm": "advisor.stacks.liger:LigerNorm",
    "liger_rope": "advisor.stacks.liger:LigerRope",
    "liger_mlp": "advisor.stacks.liger:LigerMlp",
    "liger_loss": "advisor.stacks.liger:LigerLoss",
    "cce": "advisor.stacks.cut_cross_entropy:CutCrossEntropy",
    "fused_lora": "advisor.stacks.fused_lora:FusedLora",
    "activations": "advisor.stacks.offloading:OffloadedActivations",
}
"""Where kernels are mirrored, by the name in a recipe's `kernels` or `offload`; later ones lie over earlier ones."""


def stack_for(recipe: Recipe, gpu: GpuSpec, workload: Workload) -> Stack:
    """The stack whose code a recipe runs, as it runs on that card and those rows.

    Those of published measurements, which run in loops of their own, are passed to the step by `advisor.validation`.
    """
    if not (recipe.stack or recipe.kernels or recipe.offload != "none"):
        return THIS_STACK
    return _stack(recipe.stack, frozenset((*recipe.kernels, recipe.offload))).placed(gpu, workload)


def named_stack(names: tuple[str, ...]) -> Stack:
    """The stack of these names, whatever it runs on; () for the mirrored one."""
    return _stack(names, frozenset()) if names else THIS_STACK


def library_stack(recipe: Recipe) -> Stack:
    """The recipe's versions of the libraries in transformers' Trainer: what `calibrate` traces and measures."""
    return Stack(libraries=libraries_of(recipe.stack)) if recipe.stack else THIS_STACK


@cache
def _stack(names: tuple[str, ...], kernels: frozenset[str]) -> Stack:
    libraries = libraries_of(names)
    code = _class(CODE[libraries.code]) if libraries.code else Stack
    found = dict.fromkeys(where for name, where in KERNELS.items() if name in kernels - code.own_kernels)
    parts = [*(_class(where) for where in reversed(found)), code]
    made = parts[0]
    if len(parts) > 1:  # a dataclass of its own, whose fields are those of all parts
        made = dataclass(frozen=True)(type("Stack", tuple(parts), {}))
    return made(libraries=libraries)


def _class(where: str) -> type[Stack]:
    module, _, name = where.partition(":")
    found: type[Stack] = getattr(import_module(module), name)
    return found
