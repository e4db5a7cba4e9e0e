"""Apple's cut cross entropy against its mirror on the tape, to the byte.

    python -m benchmarks.against_kernels_cce --source FOLDER

FOLDER holds the package cut_cross_entropy as its wheel unpacks. What it compiles runs uncompiled. Exits with 1 when a
case differs.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from importlib import import_module
from itertools import product
from typing import Any

import torch

from advisor.decoders.linear import Linear
from advisor.specs import LinearShape, Recipe
from advisor.stacks.cut_cross_entropy import cut_loss
from advisor.tape.graph import Tensor
from advisor.tape.tape import Tape
from benchmarks.kernel_bytes import bare, compared, real, without, without_triton
from benchmarks.tape_bytes import mirrored

BATCH, LENGTH, WIDTH = 2, 96, 128


def case(cce: Any, vocabulary: int, trains: bool) -> bool:
    """Whether both sides agree."""
    x = torch.zeros((BATCH, LENGTH, WIDTH), dtype=torch.bfloat16, requires_grad=True)
    w = torch.zeros((vocabulary, WIDTH), dtype=torch.bfloat16, requires_grad=trains)
    labels = torch.zeros((BATCH, LENGTH), dtype=torch.int64)

    def of_package(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = cce.cce_linear_cross_entropy(x, w, labels, shift=True)
        return found

    t = Tape("cpu")
    inputs = [t.empty((BATCH, LENGTH, WIDTH), "bfloat16"), t.empty((vocabulary, WIDTH), "bfloat16")]
    inputs[0].needs_grad, inputs[1].needs_grad = True, trains
    shape = LinearShape(name="head", in_features=WIDTH, out_features=vocabulary)
    head = Linear(shape, Recipe(method="full"), 0, "none", "bfloat16")

    def mirror(t: Tape, x: Tensor, w: Tensor) -> Tensor:
        head.weight = w
        return cut_loss(t, x, head)

    package = real(of_package, (x, w), frozen=(labels,))
    return compared(f"V={vocabulary} trained={trains}", package, mirrored(mirror, inputs, t))


def main() -> int:
    """Print every case; 1 if one differs."""
    parser = ArgumentParser()
    parser.add_argument("--source", required=True, help="folder that holds cut_cross_entropy")
    source = parser.parse_args().source
    without_triton()
    torch.compile = lambda *_, **__: lambda function: function  # type: ignore[assignment]
    bare(source, "cut_cross_entropy")
    without("cut_cross_entropy.tl_autotune")
    cce = import_module("cut_cross_entropy.cce")
    cases = list(product((1000, 4096), (False, True)))
    different = sum(not case(cce, *one) for one in cases)
    print(f"{len(cases)} cases, {different} different")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
