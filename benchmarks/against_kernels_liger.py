"""Liger's functions against their mirror on the tape, to the byte.

    python -m benchmarks.against_kernels_liger --source FOLDER

FOLDER holds the package liger_kernel as its wheel unpacks. Exits with 1 when a case differs.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from itertools import product
from typing import Any

import torch

from advisor.catalog.config_json import model_from_config
from advisor.decoders.linear import Linear
from advisor.decoders.rope import Rope
from advisor.specs import LinearShape, Recipe
from advisor.stacks.liger_experts import fused_experts
from advisor.stacks.liger_tape import (
    chunk_rows,
    cross_entropy,
    fused_linear_loss,
    gated,
    relu_squared,
    rms_norm,
    rotated,
)
from advisor.tape.graph import Tensor
from advisor.tape.ops import add
from advisor.tape.tape import Tape
from benchmarks.against_steps_liger import places
from benchmarks.kernel_bytes import bare, compared, real, without_triton
from benchmarks.tape_bytes import Measured, mirrored

BATCH, LENGTH, WIDTH, HEADS, HEAD_DIM = 2, 96, 128, 4, 32
INNER = 352
DTYPES = ("bfloat16", "float32")
Case = tuple[str, Measured, Measured]


def made(shape: tuple[int, ...], dtype: str, needs_grad: bool = True) -> torch.Tensor:
    """A tensor of the package's side."""
    return torch.zeros(shape, dtype=getattr(torch, dtype), requires_grad=needs_grad)


def on_tape(t: Tape, *like: torch.Tensor) -> list[Tensor]:
    """The same tensors as leaves with memory on the tape."""
    found = []
    for one in like:
        x = t.empty(tuple(one.shape), str(one.dtype).removeprefix("torch."))
        x.needs_grad = one.requires_grad
        found.append(x)
    return found


def norms(ops: Any) -> Iterator[Case]:
    """RMSNorm, in place and not, its weight trained and not."""
    for dtype, in_place, trains in product(DTYPES, (True, False), (True, False)):
        x, w = made((BATCH, LENGTH, WIDTH), dtype), made((WIDTH,), dtype, trains)
        function = ops("rms_norm").LigerRMSNormFunction
        t = Tape("cpu")
        yield (
            f"rms_norm {dtype} in_place={in_place} trained={trains}",
            real(lambda x, w, i=in_place, f=function: f.apply(x, w, 1e-6, 0.0, "llama", i), (x, w)),
            mirrored(partial(rms_norm, in_place=in_place), on_tape(t, x, w), t),
        )


def activations(ops: Any) -> Iterator[Case]:
    """SwiGLU, GeGLU and the squared ReLU."""
    for dtype in DTYPES:
        a, b = made((BATCH, LENGTH, INNER), dtype), made((BATCH, LENGTH, INNER), dtype)
        for name, function in (
            ("swiglu", ops("swiglu").LigerSiLUMulFunction),
            ("geglu", ops("geglu").LigerGELUMulFunction),
        ):
            t = Tape("cpu")
            yield f"{name} {dtype}", real(function.apply, (a, b)), mirrored(gated, on_tape(t, a, b), t)
        t, function = Tape("cpu"), ops("relu_squared").LigerReLUSquaredFunction
        yield f"relu_squared {dtype}", real(function.apply, (a,)), mirrored(relu_squared, on_tape(t, a), t)


def rotations(ops: Any) -> Iterator[Case]:
    """RoPE of whole projections, and of parts of one."""
    function = ops("rope").LigerRopeFunction
    for dtype, whole in product(DTYPES, (True, False)):
        shape = (BATCH, LENGTH, HEADS, HEAD_DIM)
        if whole:
            q, k = (made(shape, dtype, False).transpose(1, 2).requires_grad_() for _ in range(2))
        else:
            joined = made((BATCH, LENGTH, 2 * HEADS, HEAD_DIM), dtype, False)
            q, k = (part.transpose(1, 2).requires_grad_() for part in joined.split(HEADS, dim=2))
        cos = made((1, LENGTH, HEAD_DIM), dtype, False)
        t = Tape("cpu")
        rope = Rope.__new__(Rope)
        rope.width = HEAD_DIM
        rope.cos, rope.sin = on_tape(t, cos, cos)

        def turned(t: Tape, q: Tensor, k: Tensor, rope: Rope = rope, whole: bool = whole) -> Tensor:
            return add(t, *rotated(t, q, k, rope, whole))

        def of_package(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor = cos) -> torch.Tensor:
            turned_q, turned_k = function.apply(q, k, cos, cos)
            return turned_q + turned_k

        yield f"rope {dtype} whole={whole}", real(of_package, (q, k)), mirrored(turned, on_tape(t, q, k), t)


def losses(ops: Any, loss_utils: Any) -> Iterator[Case]:
    """The fused loss by vocabulary, dtypes, trained head and autocast; cross entropy alone."""
    function = loss_utils.LigerForCausalLMLoss
    cases = (
        ("bfloat16", "bfloat16", False),
        ("float32", "float32", False),
        ("float32", "float32", True),
        ("bfloat16", "bfloat16", True),
        ("bfloat16", "float32", True),
    )
    for vocabulary, (dtype, head_dtype, autocast), trains in product((100, 1000, 4096), cases, (False, True)):
        x, w = made((BATCH, LENGTH, WIDTH), dtype), made((vocabulary, WIDTH), head_dtype, trains)
        labels = torch.zeros((BATCH, LENGTH), dtype=torch.int64)
        rows = chunk_rows(BATCH * LENGTH, vocabulary, WIDTH)
        t = Tape("cpu", "bfloat16" if autocast else "")

        def mirror(t: Tape, x: Tensor, w: Tensor, rows: int = rows) -> Tensor:
            head = Linear(
                LinearShape(name="head", in_features=w.shape[1], out_features=w.shape[0]), RECIPE, 0, "none", w.dtype
            )
            head.weight = w
            return fused_linear_loss(t, x, head, rows)

        def of_package(x: torch.Tensor, w: torch.Tensor, labels: torch.Tensor = labels) -> torch.Tensor:
            return function(x, w, labels, WIDTH, num_items_in_batch=BATCH * LENGTH)

        yield (
            f"fused loss V={vocabulary} {dtype}, head {head_dtype} trained={trains} autocast={autocast}",
            real(of_package, (x, w), autocast),
            mirrored(mirror, on_tape(t, x, w), t),
        )


RECIPE = Recipe(method="full")
MIXTURE: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": 1,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
}


def cross_entropies(functional: Any) -> Iterator[Case]:
    """Cross entropy alone, where transformers' loss function calls it."""
    from torch import nn
    from transformers.loss.loss_utils import ForCausalLMLoss

    own, vocabulary = nn.functional.cross_entropy, 1000
    labels = torch.zeros((BATCH, LENGTH), dtype=torch.int64)
    for dtype in DTYPES:
        logits, t = made((BATCH, LENGTH, vocabulary), dtype), Tape("cpu")

        def of_package(x: torch.Tensor) -> torch.Tensor:
            loss: torch.Tensor = ForCausalLMLoss(x, labels, vocabulary)
            return loss

        nn.functional.cross_entropy = functional.liger_cross_entropy
        try:
            measured = real(of_package, (logits,))
        finally:
            nn.functional.cross_entropy = own
        yield f"cross entropy {dtype}", measured, mirrored(cross_entropy, on_tape(t, logits), t)


def experts(module: Any) -> Iterator[Case]:
    """The fused experts, trained and frozen; the places that its routing kernels find are made here."""
    tokens, top_k, number, inner = BATCH * LENGTH, 2, 4, 48

    module.compute_routing_metadata = places
    m = model_from_config({"model_type": "qwen3_moe", **MIXTURE}, "mixture", "mixture")
    for dtype, trains in product(DTYPES, (True, False)):
        x, scores = made((tokens, WIDTH), dtype), made((tokens, top_k), dtype)
        up = made((number, 2 * inner, WIDTH), dtype, trains)
        down = made((number, WIDTH, inner), dtype, trains)
        picked = torch.zeros((tokens, top_k), dtype=torch.int64)

        def of_package(
            x: torch.Tensor, scores: torch.Tensor, *weights: torch.Tensor, picked: torch.Tensor = picked
        ) -> torch.Tensor:
            chosen = picked.to(torch.int32)
            found: torch.Tensor = module.LigerFusedMoEFunction.apply(x, *weights, chosen, scores)
            return found

        def mirror(t: Tape, x: Tensor, scores: Tensor, up: Tensor, down: Tensor) -> Tensor:
            return fused_experts(t, x, scores, m, top_k, {"gate_up": up, "down": down}.__getitem__)

        t = Tape("cpu")
        inputs = (x, scores, up, down)
        yield (
            f"experts {dtype} trained={trains}",
            real(of_package, inputs, frozen=(picked,)),
            mirrored(mirror, on_tape(t, *inputs), t),
        )


def main() -> int:
    """Print every case; 1 if one differs."""
    parser = ArgumentParser()
    parser.add_argument("--source", required=True, help="folder that holds liger_kernel")
    source = parser.parse_args().source
    without_triton()
    bare(source, *(f"liger_kernel{part}" for part in ("", ".transformers", ".transformers.model")))

    def ops(name: str) -> Any:
        return import_module(f"liger_kernel.ops.{name}")

    loss_utils = import_module("liger_kernel.transformers.model.loss_utils")
    cases = [*norms(ops), *activations(ops), *rotations(ops), *losses(ops, loss_utils)]
    cases += experts(ops("fused_moe"))
    cases += cross_entropies(import_module("liger_kernel.transformers.functional"))
    different = sum(not compared(*case) for case in cases)
    print(f"{len(cases)} cases, {different} different")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
