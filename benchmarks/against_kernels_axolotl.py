"""axolotl's LoRA functions against their mirror on the tape, to the byte.

    python -m benchmarks.against_kernels_axolotl --source FOLDER

FOLDER holds the package axolotl as its wheel unpacks. The activation kernels, which ask for CUDA, are replaced by their
tensors alone; the base is in 16 bits, since its 4-bit kernels need CUDA. DoRA's norms are cached before it is measured.
Exits with 1 when a case differs.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import product
from types import ModuleType
from typing import Any

import torch

from advisor.decoders.linear import Linear
from advisor.specs import LinearShape, Method, Recipe
from advisor.stacks.fused_lora_tape import gated_mlp, projections
from advisor.tape.graph import Tensor
from advisor.tape.ops import add
from advisor.tape.tape import Tape
from benchmarks.kernel_bytes import bare, compared, real, without_triton
from benchmarks.tape_bytes import Measured, mirrored

BATCH, LENGTH, WIDTH, INNER, RANK = 2, 96, 128, 352, 8
Case = tuple[str, Measured, Measured]


class _Layer:
    """The tensors of a linear layer with its adapter, as axolotl's functions take them."""

    def __init__(self, inner: int, outer: int, dora: bool) -> None:
        self.shape = (inner, outer)
        self.weight = torch.zeros((outer, inner), dtype=torch.bfloat16)
        self.a = torch.zeros((RANK, inner), requires_grad=True)
        self.b = torch.zeros((outer, RANK), requires_grad=True)
        self.magnitude = torch.ones(outer, requires_grad=True) if dora else None

    @property
    def trained(self) -> list[torch.Tensor]:
        """Adapters and magnitudes."""
        return [one for one in (self.a, self.b, self.magnitude) if one is not None]

    @property
    def arguments(self) -> tuple[Any, ...]:
        """weight, bias, quantization, A, B, scale, LoRA's bias, magnitude."""
        return (self.weight, None, None, self.a, self.b, 2.0, None, self.magnitude)

    def mirror(self, recipe: Recipe) -> Linear:
        """The same on the tape."""
        shape = LinearShape(name="linear", in_features=self.shape[0], out_features=self.shape[1])
        return Linear(shape, recipe, RANK, "none", "bfloat16")


def _without_kernels(source: str) -> Any:
    """axolotl's module of LoRA functions."""
    without_triton()
    bare(source, "axolotl", "axolotl.kernels")
    for name in ("swiglu", "geglu"):
        module: Any = ModuleType(name)
        setattr(module, f"{name}_forward", lambda gate, up: torch.empty_like(gate))
        setattr(module, f"{name}_backward", lambda g, gate, up: (g, gate, up))
        sys.modules[f"axolotl.kernels.{name}"] = module
    return import_module("axolotl.kernels.lora")


def _measured(
    function: Callable[..., torch.Tensor],
    mirror: Callable[..., Tensor],
    layers: list[_Layer],
    dropout: float,
) -> tuple[Measured, Measured]:
    """Both sides of one function of x (B, S, H), and its layers."""
    dora = layers[0].magnitude is not None
    method: Method = "dora" if dora else "lora"
    recipe = Recipe(method=method, rank=RANK, dropout=dropout, adapter_dtype="float32")
    x = torch.zeros((BATCH, LENGTH, WIDTH), dtype=torch.bfloat16, requires_grad=True)
    inputs = [x, *(one for layer in layers for one in layer.trained)]
    if dora:
        function(*inputs)  # fills the cache of norms
    t = Tape("cpu")
    t.rerunning = dora
    on_tape = t.empty(tuple(x.shape), "bfloat16")
    on_tape.needs_grad = True
    linears = [layer.mirror(recipe) for layer in layers]
    frozen = [layer.weight for layer in layers]
    return real(function, inputs, frozen=frozen), mirrored(lambda t, x: mirror(t, x, linears), [on_tape], t)


def cases(lora: Any) -> Iterator[Case]:
    """q, k and v; o; the MLP: with and without dropout and DoRA."""
    for dora, dropout in product((False, True), (0.0, 0.1)):
        drop = torch.nn.Dropout(dropout) if dropout else None
        of = f"DoRA={dora} dropout={dropout}"

        qkv = [_Layer(WIDTH, WIDTH, dora) for _ in range(3)]

        def together(x: torch.Tensor, *_: torch.Tensor, layers: list[_Layer] = qkv, drop: Any = drop) -> torch.Tensor:
            arguments = [one for layer in layers for one in layer.arguments]
            q, k, v = lora.LoRA_QKV.apply(x, drop(x) if drop else None, *arguments, True)
            summed: torch.Tensor = (q + k) + v
            return summed

        def all_three(t: Tape, x: Tensor, layers: list[Linear]) -> Tensor:
            q, k, v = projections(t, x, layers)
            return add(t, add(t, q, k), v)

        yield f"LoRA_QKV {of}", *_measured(together, all_three, qkv, dropout)

        alone = [_Layer(WIDTH, WIDTH, dora)]

        def output(x: torch.Tensor, *_: torch.Tensor, layers: list[_Layer] = alone, drop: Any = drop) -> torch.Tensor:
            found: torch.Tensor = lora.LoRA_O.apply(x, drop(x) if drop else None, *layers[0].arguments)
            return found

        yield (
            f"LoRA_O {of}",
            *_measured(output, lambda t, x, layers: projections(t, x, layers)[0], alone, dropout),
        )

        mlp = [_Layer(WIDTH, INNER, dora), _Layer(WIDTH, INNER, dora), _Layer(INNER, WIDTH, dora)]

        def gated(x: torch.Tensor, *_: torch.Tensor, layers: list[_Layer] = mlp, drop: Any = drop) -> torch.Tensor:
            arguments = [one for layer in layers for one in layer.arguments]
            found: torch.Tensor = lora.LoRA_MLP.apply(
                x, drop(x) if drop else None, *arguments, lora.swiglu_forward, lora.swiglu_backward, True
            )
            return found

        yield f"LoRA_MLP {of}", *_measured(gated, gated_mlp, mlp, dropout)


def main() -> int:
    """Print every case; 1 if one differs."""
    parser = ArgumentParser()
    parser.add_argument("--source", required=True, help="folder that holds axolotl")
    found = list(cases(_without_kernels(parser.parse_args().source)))
    different = sum(not compared(*case) for case in found)
    print(f"{len(found)} cases, {different} different")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
