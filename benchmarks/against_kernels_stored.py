"""Layers of stored bases as their libraries run them on the CPU, against the formula: bytes stored, peaks, bytes kept.

    python -m benchmarks.against_kernels_stored --source FOLDER

FOLDER holds hqq's source (the folder that holds the package `hqq`); FP8 is transformers' own. Every tensor that a
forward and a backward allocate is recorded. Replaced: FP8's product, which has no kernel for a CPU, and the packages
that color hqq's messages. Exits with 1 where a figure differs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import torch

from advisor.blocks import block_bytes
from advisor.decoders.base_linear import base_linear
from advisor.decoders.linear import Linear
from advisor.parameters.storage import store_bytes
from advisor.recipes import build_recipe
from advisor.specs import LinearShape, Recipe
from advisor.tape.engine import run_backward
from advisor.tape.tape import Tape
from calibrate.worker.tracker import AllocationTracker

SHAPES = ((512, 256, 64), (1024, 512, 96))
"""(outputs, inputs, rows)."""
BITS = (8, 4, 2)
GROUP = 64


class Figures(NamedTuple):
    """Bytes: the store, the peaks of forward and backward, what forward leaves beside its input."""

    stored: int
    forward_peak: int
    kept: int
    backward_peak: int


def real(layer: Callable[[torch.Tensor], torch.Tensor], stored: int, inputs: int, rows: int) -> Figures:
    """Of a library's layer."""
    x = torch.randn(1, rows, inputs, dtype=torch.bfloat16, requires_grad=True)
    tracker = AllocationTracker({}, name_modules=False)
    with tracker:
        tracker.add(x, "input", "")
        tracker.mark("forward")
        out = layer(x)
        tracker.mark("backward")
        out.backward(torch.ones_like(out))
    forward, backward = tracker.timeline.phase_peaks()[-2:]
    before = block_bytes(x.numel() * x.element_size())
    return Figures(stored, forward.peak_bytes - before, forward.end_bytes - before, backward.peak_bytes - before)


def formula(recipe: Recipe, outputs: int, inputs: int, rows: int) -> Figures:
    """Of the tape's layer."""
    t = Tape("cpu")
    layer = Linear(
        LinearShape(name="up", in_features=inputs, out_features=outputs), recipe, 0, recipe.quant, "bfloat16"
    )
    x = t.empty((1, rows, inputs), "bfloat16")
    x.needs_grad = True
    out = base_linear(t, x, layer)
    middle = len(t.events)
    ones = t.empty(out.shape, out.dtype)
    run_backward(t, out, ones)
    heights = _heights(t)
    before = block_bytes(x.bytes)
    packed, constants = store_bytes(inputs, outputs, recipe)
    return Figures(
        packed + sum(constants),
        max(heights[:middle]) - before,
        heights[middle - 1] - before,
        max(heights[middle:]) - before,
    )


def _heights(t: Tape) -> list[int]:
    """Bytes alive after each event, in blocks."""
    sizes = {slot: block_bytes(size) for size, slot in t.slots.items()}
    heights, live = [], 0
    for event in t.events:
        live += sizes[event >> 3] * (1 - 2 * (event & 1))
        heights.append(live)
    return heights


def hqq_layer(folder: str, outputs: int, inputs: int, bits: int) -> tuple[Any, int]:
    """hqq's linear layer of random weights, and the bytes of its store."""
    sys.path.insert(0, folder)
    for name, what in (("termcolor", "colored"), ("tqdm", "tqdm")):
        if name not in sys.modules:
            sys.modules[name] = ModuleType(name)
            setattr(sys.modules[name], what, lambda text, *_: text)
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    config = BaseQuantizeConfig(nbits=bits, group_size=GROUP, axis=1)
    config["weight_quant_params"]["optimize"] = False
    plain = torch.nn.Linear(inputs, outputs, bias=False, dtype=torch.bfloat16)
    layer = HQQLinear(plain, config, compute_dtype=torch.bfloat16, device="cpu")
    constants = [layer.meta["scale"].to(torch.bfloat16), layer.meta["zero"].to(torch.bfloat16)]
    layer.meta["scale"], layer.meta["zero"] = constants
    return layer, sum(one.numel() * one.element_size() for one in (layer.W_q, *constants))


def fp8_layer(outputs: int, inputs: int) -> tuple[Any, int]:
    """transformers' FP8 layer, whose product leaves what DeepGEMM's does, and the bytes of its store."""
    from transformers.integrations import finegrained_fp8

    def product(x: torch.Tensor, weight: torch.Tensor, *_: Any) -> torch.Tensor:
        rows = x.numel() // x.shape[-1]
        scratch = torch.empty(rows, inputs, dtype=torch.int8), torch.empty(rows, -(-inputs // 128))
        out = torch.empty(*x.shape[:-1], outputs, dtype=x.dtype)
        del scratch
        return out

    finegrained_fp8.fp8_linear = product
    layer = finegrained_fp8.FP8Linear(inputs, outputs, block_size=(128, 128))
    layer.requires_grad_(False)
    return layer, sum(p.numel() * p.element_size() for p in layer.parameters() if p.numel() > 0 and p.dim() == 2)


def main() -> int:
    """Print each figure of both; returns 1 where one differs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", required=True, help="folder that holds the package hqq")
    folder = parser.parse_args().source
    wrong = 0
    for outputs, inputs, rows in SHAPES:
        # transformers looks for hqq when it is imported: FP8 comes first
        cases = [("fp8", {"quant_group": 128}, *fp8_layer(outputs, inputs))]
        for bits in BITS:
            knobs = {"quant_bits": bits, "quant_group": GROUP}
            cases.append((f"hqq {bits} bits", knobs, *hqq_layer(folder, outputs, inputs, bits)))
        for name, knobs, layer, stored in cases:
            found = real(layer, stored, inputs, rows)
            said = formula(build_recipe("qlora", {"quant": name.split()[0], **knobs}), outputs, inputs, rows)
            wrong += found != said
            print(f"{name:10} {outputs} x {inputs}: {'equal' if found == said else 'DIFFERS'} {found} {said}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
