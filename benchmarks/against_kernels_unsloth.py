"""Unsloth's autograd functions and loss on a CPU, their kernels replaced by nothing, against the tape's.

    pip download --no-deps unsloth==2026.10.9 unsloth_zoo==2026.10.9 -d wheels   # unzip both into one folder
    python -m benchmarks.against_kernels_unsloth --source FOLDER

Compares, to the byte, what each function holds when forward returns and when backward does, and the peaks of both.
What decodes a 4-bit weight is replaced by a tensor of its size, or by the buffer that is always there; products of the
loss write into what is there, as cuBLAS does. Exits with 1 where bytes differ.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from itertools import product
from pathlib import Path
from random import Random
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import torch

from advisor.decoders.linear import Linear
from advisor.specs import LinearShape, Recipe
from advisor.stacks.unsloth_layers import norm_apart, norm_in_place, normed_and_rotated, rotated_apart, rotated_in_place
from advisor.stacks.unsloth_lora import lora_many, lora_mlp, lora_one
from advisor.stacks.unsloth_loss import LossForm, chunk_rows, fixed_form, fixed_loss
from advisor.tape.graph import Tensor
from advisor.tape.tape import Tape
from benchmarks.kernel_bytes import Kernel, compared, picked, real
from benchmarks.tape_bytes import Measured, mirrored


def functions(source: Path) -> dict[str, Any]:
    """The autograd functions with their kernels replaced."""

    def decoded(w: Any, quant_state: Any = None, use_global_buffer: bool = False, dtype: Any = None, **_: Any) -> Any:
        return w if quant_state is None or use_global_buffer else torch.empty(w.shape, dtype=w.dtype)

    kernels = source / "unsloth" / "kernels"
    around = {
        "torch": torch,
        "torch_matmul": torch.matmul,
        "fast_dequantize": decoded,
        "Float8Tensor": (),
        "Int4QuantState": type,
        "_is_packed_state": lambda state: False,
        "_HAS_ADDMM_OP": False,
        "torch_amp_custom_fwd": lambda function: function,
        "torch_amp_custom_bwd": lambda function: function,
        "_rms_layernorm": SimpleNamespace(_SAVE_OUTPUT=False),
        "_is_compiling": lambda: False,
        "torch_gpu_device": lambda device: nullcontext(),
        "_eager_kernel": lambda kernel: kernel,
        "_qk_norm_rope_forward": Kernel(),
        "_qk_norm_rope_backward": Kernel(),
        "_SAVE_OUTPUT": False,
        "_rms_forward": lambda x, w, *rest: (torch.empty_like(x), torch.empty(x.shape[0])),
        "_rms_backward": lambda *rest, **more: None,
        "_rope_launch": lambda *rest: None,
        "_rope_qk": lambda *rest: None,
        # native_dropout and its backward: one kernel each on CUDA
        "_dropout_forward": lambda x, p: (torch.empty_like(x), torch.empty(x.shape, dtype=torch.bool)),
        "_dropout_replay": lambda x, *rest: torch.empty_like(x),
    }
    around |= picked(kernels / "utils.py", {"matmul_lora", "addmm_"}, around)
    inner = {"_matmul_lora_ext", "_add_lora_dX", "_lora_bias_grad"}
    around |= picked(kernels / "fast_lora.py", {"LoRA_QKV", "LoRA_W", "LoRA_MLP", *inner}, around)
    around |= picked(kernels / "rms_layernorm.py", {"Fast_RMS_Layernorm"}, around)
    rope = {"_bshd_buffer", "Fast_RoPE_Embedding_QK_Positions", "Fast_RoPE_Embedding_QK"}
    around |= picked(kernels / "rope_embedding.py", rope, around)
    both = {"_block_h", "_num_warps", "_launch_forward", "_launch_backward", "Fast_QK_Norm_RoPE"}
    return around | picked(kernels / "qk_norm_rope.py", both, around)


class Sizes(NamedTuple):
    """A layer and a micro-batch."""

    rows: int = 2
    tokens: int = 96
    hidden: int = 128
    inner: int = 352
    keys: int = 64
    rank: int = 8


def layer_of(ins: int, outs: int, sizes: Sizes, quant: str, dropout: float) -> Linear:
    """A layer with LoRA as the tape sees it."""
    knobs: dict[str, Any] = {"method": "qlora" if quant != "none" else "lora", "quant": quant, "dropout": dropout}
    recipe = Recipe(rank=sizes.rank, **knobs)
    return Linear(LinearShape(name="x", in_features=ins, out_features=outs), recipe, sizes.rank, quant, "bfloat16")


def weights(ins: int, outs: int, sizes: Sizes, quant: str) -> list[Any]:
    """W, its state, A, B and their scale, as the functions take them."""
    w = torch.empty((outs, ins), dtype=torch.bfloat16)
    a, b = (torch.empty(shape, requires_grad=True) for shape in ((sizes.rank, ins), (outs, sizes.rank)))
    return [w, True if quant != "none" else None, a, b, 2.0]


class Case(NamedTuple):
    """One function at one shape: what its own code does, from the loaded functions, and what the tape does."""

    name: str
    theirs: Callable[[dict[str, Any]], Measured]
    ours: Callable[[], Measured]


def leaf(shape: tuple[int, ...]) -> torch.Tensor:
    """An input that gets a gradient."""
    return torch.empty(shape, dtype=torch.bfloat16, requires_grad=True)


def taped(run: Callable[..., Any], *shapes: tuple[int, ...]) -> Measured:
    """What the tape does from inputs of these shapes that get gradients."""
    t = Tape("cuda", "bfloat16")
    inputs = [t.empty(shape, "bfloat16") for shape in shapes]
    for one in inputs:
        one.needs_grad = True
    return mirrored(run, inputs, t)


def lora_cases(s: Sizes = Sizes()) -> Iterator[Case]:  # noqa: B008 - immutable
    """The LoRA functions, on a 16-bit and on a 4-bit base, without and with dropout."""
    shape, h, i = (s.rows, s.tokens, s.hidden), s.hidden, s.inner
    qkv, mlp = [(h, outs) for outs in (h, s.keys, s.keys)], [(h, i), (h, i), (i, h)]
    kernels = (lambda e, g: torch.empty_like(e), lambda dw, e, g: (dw, e, g))
    for quant, dropout in product(("none", "nf4"), (0.0, 0.1)):
        knobs, three = (quant, dropout), (dropout,) * 3 if dropout else None
        name = f"{quant}{', dropout' if dropout else ''}"

        def theirs(name: str, ends: list[tuple[int, int]], *more: Any, quant: str = quant) -> Any:
            flat = [one for size in ends for one in weights(*size, s, quant)]
            trained = [one for one in flat if isinstance(one, torch.Tensor) and one.requires_grad]
            frozen = [one for one in flat if isinstance(one, torch.Tensor) and not one.requires_grad]

            def run(found: dict[str, Any]) -> Measured:
                return real(lambda x, *_: found[name].apply(x, *flat, *more), (leaf(shape), *trained), frozen=frozen)

            return run

        def ours(run: Callable[..., Any], ends: list[tuple[int, int]], knobs: tuple[str, float] = knobs) -> Any:
            layers = [layer_of(*size, s, *knobs) for size in ends]
            return lambda: taped(lambda t, x: run(t, x, layers), shape)

        yield Case(
            f"LoRA_QKV {name}",
            theirs("LoRA_QKV", qkv, True, three),
            ours(lambda t, x, layers: tuple(lora_many(t, x, layers)), qkv),
        )
        yield Case(
            f"LoRA_W {name}",
            theirs("LoRA_W", qkv[:1], dropout or None),
            ours(lambda t, x, layers: lora_one(t, x, *layers), qkv[:1]),
        )
        yield Case(
            f"LoRA_MLP {name}",
            theirs("LoRA_MLP", mlp, *kernels, True, three),
            ours(lambda t, x, layers: lora_mlp(t, x, *layers), mlp),
        )


def norm_cases(s: Sizes = Sizes()) -> Iterator[Case]:  # noqa: B008 - immutable
    """RMSNorms, whose weight is frozen."""
    shape = (s.rows, s.tokens, s.hidden)
    weight, frozen = torch.empty((s.hidden,), dtype=torch.bfloat16), Tensor((s.hidden,), "bfloat16")
    for name, gemma, norm in (("RMSNorm", False, norm_in_place), ("RMSNorm of Gemma", True, norm_apart)):

        def theirs(found: dict[str, Any], gemma: bool = gemma) -> Measured:
            function = found["Fast_RMS_Layernorm"]
            return real(lambda x: function.apply(x, weight, 1e-6, gemma, False, True), (leaf(shape),), frozen=(weight,))

        def ours(norm: Callable[..., Tensor] = norm) -> Measured:
            return taped(lambda t, x: norm(t, x, frozen), shape)

        yield Case(name, theirs, ours)


def rotation_cases(s: Sizes = Sizes()) -> Iterator[Case]:  # noqa: B008 - immutable
    """RoPE of queries and keys, with norms of heads and without."""
    width = 16
    table, vector = (torch.empty(size, dtype=torch.bfloat16) for size in ((s.tokens, width), (width,)))
    heads, keys = (s.rows, s.tokens, s.hidden // width, width), (s.rows, s.tokens, s.keys // width, width)
    for name, function, before, after, turn in (
        ("RoPE in place", "Fast_RoPE_Embedding_QK_Positions", (), (), rotated_in_place),
        ("RoPE apart", "Fast_RoPE_Embedding_QK", (), (None,), rotated_apart),
        (
            "norms of heads and RoPE",
            "Fast_QK_Norm_RoPE",
            (vector, vector),
            (None, 1e-6, 1e-6, False),
            normed_and_rotated,
        ),
    ):

        def theirs(found: dict[str, Any], of: Any = (function, before, after)) -> Measured:
            function, before, after = of

            def run(q: torch.Tensor, k: torch.Tensor) -> Any:
                pair = (q, k) if before else (q.transpose(1, 2), k.transpose(1, 2))
                return found[function].apply(*pair, *before, table, table, *after)

            return real(run, (leaf(heads), leaf(keys)), frozen=(table, vector))

        yield Case(name, theirs, lambda turn=turn: taped(turn, heads, keys))  # type: ignore[misc]


class Loss(torch.autograd.Function):
    """unsloth_zoo's loss as its custom op runs it."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, head: torch.Tensor, module: Any) -> torch.Tensor:
        """The loss, which keeps the gradients."""
        targets, one = torch.zeros(hidden.shape[0], dtype=torch.int64), torch.ones(())
        targets[-1] = -100
        ctx.module, ctx.need = module, (True, head.requires_grad, False)
        rest = (-100, 0.0, 0.0, 0.0, 0.0, None, torch.bfloat16, *ctx.need, False, 0)
        loss, *gradients = module._ce_impl(hidden, head, None, targets, one, one, *rest)
        ctx.save_for_backward(*gradients, one)
        return loss  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        """The gradients, scaled."""
        return (*ctx.module._ce_backward(ctx, *grads)[:2], None)


@cache  # its custom ops can be registered once
def loss_module(source: Path) -> ModuleType:
    """unsloth_zoo's fused_linear.py as on a card: fp32 logits, kernels that do nothing, products into what is there."""
    path = source / "unsloth_zoo" / "fused_losses" / "fused_linear.py"
    spec = spec_from_file_location("unsloth_fused_linear", path)
    assert spec is not None and spec.loader is not None
    module: Any = module_from_spec(spec)
    spec.loader.exec_module(module)

    names = ("forward", "partial", "combine", "backward", "flash_p", "flash_u", "scale")
    for name in names:
        setattr(module, f"_fl_{name}_kernel", Kernel())
    module.triton = SimpleNamespace(next_power_of_2=lambda n: 1 << (n - 1).bit_length(), cdiv=lambda a, b: -(-a // b))
    module._use_triton = lambda device: True
    module._launch = lambda device, run: run()
    module._logits_mode = lambda device, dtype=None: (True, False)
    module._flash_ce_ok = lambda device: True
    module._budget_bytes = lambda device: 2 * 1024**3

    def multiplied(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        return torch.empty((a.shape[0], b.shape[1])) if out is None else out

    module._mm_fp32 = multiplied
    module._addmm_fp32 = lambda acc, a, b: None
    return module  # type: ignore[no-any-return]


LOSSES = (
    (700, 64, 40_000, False, False),
    (1025, 64, 40_000, True, False),
    (3073, 64, 40_000, True, False),
    (700, 128, 40_000, False, True),
    (3 * 4096 + 1, 256, 40_000, False, False),
)
"""(tokens, hidden width, vocabulary, whether the head is trained, whether the card is small)"""


def loss_cases(source: Path = Path()) -> Iterator[Case]:
    """The loss; its gradients are what it keeps."""
    for tokens, width, vocabulary, trained, small in LOSSES:
        form = fixed_form(tokens - 1, width, vocabulary, not trained, small, ampere=True)
        yield Case(
            f"loss {tokens} x {width} x {vocabulary}, {form.kind}",
            lambda found, at=(tokens, width, vocabulary, trained, small): measured_loss(source, *at),  # type: ignore[misc]
            lambda at=(tokens, width, vocabulary, trained, form): taped_loss(*at),  # type: ignore[misc]
        )


def measured_loss(source: Path, tokens: int, width: int, vocabulary: int, trained: bool, small: bool) -> Measured:
    """What unsloth_zoo's function does."""
    module: Any = loss_module(source)
    module._flash_min_rows = lambda device: 0 if small else 4096
    head = torch.empty((vocabulary, width), dtype=torch.bfloat16, requires_grad=trained)
    return real(lambda hidden, head: Loss.apply(hidden, head, module), (leaf((tokens, width)), head))


def taped_loss(tokens: int, width: int, vocabulary: int, trained: bool, form: LossForm) -> Measured:
    """The same on the tape."""
    weight = Tensor((vocabulary, width), "bfloat16", needs_grad=trained)

    def run(t: Tape, hidden: Tensor) -> Tensor:
        given: Any = SimpleNamespace(hidden=hidden, head=SimpleNamespace(weight=weight))
        return fixed_loss(t, given, form)

    return taped(run, (1, tokens, width))


def all_cases(source: Path = Path()) -> list[Case]:
    """Every comparison."""
    return [*lora_cases(), *norm_cases(), *rotation_cases(), *loss_cases(source)]


def rows_apart(source: Path, shapes: int = 10_000) -> int:
    """At how many random shapes the rows of a chunk differ from those of unsloth_zoo's function."""
    module, rng, apart = loss_module(source), Random(0), 0
    for _ in range(shapes):
        shape = rng.randint(1, 200_000), rng.choice((576, 1024, 2048, 4096, 8192)), rng.randint(1000, 300_000)
        apart += module.fused_linear_rows(*shape, 4) != chunk_rows(*shape, 4)
    return apart


def main() -> int:
    """Print every comparison; returns 1 where one differs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", type=Path, required=True, help="folder with unsloth and unsloth_zoo")
    source = parser.parse_args().source
    apart = rows_apart(source)
    print(f"rows of a chunk, at random shapes: {apart:,} of 10,000 differ")
    found, cases = functions(source), all_cases(source)
    different = sum(not compared(case.name, case.theirs(found), case.ours()) for case in cases)
    print(f"{len(cases)} cases, {different} different")
    return 1 if different or apart else 0


if __name__ == "__main__":
    sys.exit(main())
