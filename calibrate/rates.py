"""Micro-benchmarks as data: which kernels are timed on a device, and the results. Needs no torch.

A sample is a kernel as on the tape (kind, dtype, FLOP, bytes moved, shape of a product) and the seconds it took, so
that the formula of `advisor.costs.steptime` can predict exactly the same kernel. `attention_rates` has the samples of
attention.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple, Protocol

from pydantic import AfterValidator, Field

from advisor.blocks import ITEM_BYTES
from advisor.costs.attention_rates import ATTENTION
from advisor.tape.graph import BATCHED, MATMUL, Device
from advisor.tape.program import Kernel
from calibrate.attention_rates import AttentionCase, AttentionSample, Dtype, taped_kernels
from calibrate.burst_record import DeviceFacts
from calibrate.record import Date, Record, Seconds, Text

RATES_SCHEMA: Literal[2] = 2
"""Of `Rates`; the first one had no attention by kernel."""

Op = Literal[
    "product",
    "batched product",
    "sum",
    "activation",
    "cast",
    "strided sum",
    "norm",
    "softmax",
    "rows",
    "dequantize",
    "attention",
    "attention backward",
    "adamw",
]


KERNEL_KINDS = frozenset(
    (MATMUL, BATCHED, *ATTENTION, "elementwise", "reduce", "gather", "strided", "optimizer", "dequantize")
)
KERNEL_DTYPES = frozenset(("float32", "bfloat16", "float16", "int8"))
MOST_WORK = 1e24
"""FLOP or bytes of one kernel."""


def _check_kernel(kernel: Kernel) -> Kernel:
    """Refuse a kernel whose time `advisor.costs.roofline` cannot predict."""
    kind, dtype, flop, moved, shape = kernel
    if kind not in KERNEL_KINDS or dtype not in KERNEL_DTYPES:
        raise ValueError(f"no kernel is called {kind[:40]!r} in {dtype[:40]!r}")
    if not (0 <= flop <= MOST_WORK and 0 <= moved <= MOST_WORK):
        raise ValueError(f"a kernel of {flop:g} FLOP that moves {moved:g} bytes")
    least = 1 if kind in (MATMUL, BATCHED) else 0
    if not all(least <= extent <= MOST_WORK for extent in shape):
        raise ValueError("a kernel of an impossible shape")
    return kernel


class Case(NamedTuple):
    """One kernel to time. The meaning of `size` depends on the operation.

    product (m, n, k); batched product (number, m, n, k); attention (batch, heads, length, head size); rows (rows
    picked, width, rows in the table); all others (rows, columns).
    """

    op: Op
    dtype: Dtype
    size: tuple[int, ...]


class Timed(Protocol):
    """What a fit needs of an operation that was timed."""

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The kernels it launches, as on the tape."""

    @property
    def seconds(self) -> float:
        """Of one call on the device."""

    @property
    def host_bound(self) -> bool:
        """Whether the host was the slower side."""


class Sample(Record):
    """One operation and the time of a call on the device."""

    op: Op
    kernels: tuple[Annotated[Kernel, AfterValidator(_check_kernel)], ...] = Field(
        min_length=1, description="the kernels it launches, as on the tape"
    )
    seconds: Seconds = Field(description="lower quartile of the repetitions")
    host_bound: bool = Field(default=False, description="the host was busy launching for most of that time")


class Rates(Record):
    """The micro-benchmarks of a device with one set of versions."""

    schema_version: Literal[1, 2] = RATES_SCHEMA
    device: DeviceFacts
    versions: dict[Text, Text] = Field(description="of the libraries, the driver and CUDA")
    measured_at: Date
    samples: tuple[Sample, ...] = Field(min_length=1)
    attention: tuple[AttentionSample, ...] = Field(default=(), max_length=1000)


class Benchmarks(NamedTuple):
    """The micro-benchmarks of a device; `attention` is empty where time did not suffice, or an older version wrote."""

    samples: tuple[Sample, ...] = ()
    attention: tuple[AttentionSample, ...] = ()


def kernels_of(case: Case, device: Device) -> tuple[Kernel, ...]:
    """The kernels that a call launches on 'cpu' or 'cuda', by the conventions of `worker.kernels` and of the tape."""
    item = ITEM_BYTES[case.dtype]
    none = (0, 0, 0)
    if case.op == "product":
        m, n, k = case.size
        return ((MATMUL, case.dtype, 2 * m * n * k, item * (m * k + k * n + m * n), (m, n, k)),)
    if case.op == "batched product":
        count, m, n, k = case.size
        moved = item * count * (m * k + k * n + m * n)
        return ((BATCHED, case.dtype, 2 * count * m * n * k, moved, (m, n, k)),)
    if case.op in ("attention", "attention backward"):
        batch, heads, length, width = case.size
        call = AttentionCase("flash", False, case.dtype, (batch, heads, length, width))
        return taped_kernels(call, device, "")[case.op == "attention backward"]
    if case.op == "rows":
        picked, width, _ = case.size
        return (("gather", case.dtype, 0, 2 * picked * width * item + 8 * picked, none),)
    rows, columns = case.size
    count = rows * columns
    kind, moved = {
        "sum": ("elementwise", 3 * count * item),
        "activation": ("elementwise", 2 * count * item),
        "cast": ("elementwise", 2 * count + 4 * count),
        "strided sum": ("strided", 10 * count),
        "norm": ("reduce", count * item + rows * item),
        "softmax": ("reduce", 2 * count * item),
        "adamw": ("optimizer", 7 * count * item),
        "dequantize": ("dequantize", count // 2 + 4 * (count // 64) + 2 * count),
    }[case.op]
    return ((kind, case.dtype, 0, moved, none),)


CPU_PRODUCTS = (
    (64, 576, 576),
    (256, 576, 576),
    (256, 1536, 576),
    (256, 576, 1536),
    (64, 2048, 2048),
    (256, 2048, 2048),
    (64, 8192, 2048),
    (64, 2048, 8192),
    (256, 8192, 2048),
    (256, 16, 2048),
    (256, 2048, 16),
    (64, 16, 576),
    (64, 576, 16),
    (2048, 2048, 64),
    (2048, 2048, 16),
    (2048, 16, 2048),
    (16, 2048, 256),
    (64, 16384, 576),
)
CUDA_PRODUCTS = (
    (256, 2048, 2048),
    (512, 4096, 4096),
    (512, 14336, 4096),
    (512, 4096, 14336),
    (1024, 2048, 2048),
    (1024, 8192, 2048),
    (1024, 2048, 8192),
    (2048, 4096, 4096),
    (4096, 4096, 4096),
    (4096, 14336, 4096),
    (4096, 4096, 14336),
    (4096, 1024, 4096),
    (512, 128256, 4096),
    (1024, 16, 4096),
    (1024, 4096, 16),
    (4096, 16, 4096),
    (4096, 4096, 16),
    (4096, 64, 4096),
    (16, 4096, 4096),
    (4096, 4096, 1024),
    (8192, 8192, 8192),
)
BATCHED_PRODUCTS = {
    "cpu": ((8, 128, 128, 64), (8, 128, 64, 128), (4, 512, 512, 64)),
    "cuda": (
        (32, 1024, 1024, 64),
        (32, 1024, 64, 1024),
        (32, 1024, 1024, 128),
        (32, 1024, 128, 1024),
        (32, 2048, 2048, 128),
        (32, 2048, 128, 2048),
        (8, 2048, 2048, 256),
        (8, 2048, 256, 2048),
    ),
}
"""Scores, and weights times values, of fp32 attention in separate operations."""
CUDA_VECTOR_PRODUCTS = ((4096, 16, 4096), (4096, 4096, 16), (2048, 16, 2048), (8192, 2048, 16), (1024, 4096, 4096))
ROW = 1024


def cases(kind: Device, half: Dtype, quantizes: bool) -> Iterator[Case]:
    """What to time on a device, each kind in order of size; `half` is its 16-bit dtype."""
    large = 2**27 if kind == "cuda" else 2**24
    for size in CUDA_PRODUCTS if kind == "cuda" else CPU_PRODUCTS:
        yield Case("product", half, size)
    for size in CUDA_VECTOR_PRODUCTS if kind == "cuda" else CPU_PRODUCTS:
        yield Case("product", "float32", size)
    for batched in BATCHED_PRODUCTS[kind]:
        yield Case("batched product", "float32", batched)
    count = 2**12
    while count <= large:
        yield Case("sum", "float32", (count // ROW, ROW))
        yield Case("activation", half, (count // ROW, ROW))
        yield Case("cast", half, (count // ROW, ROW))
        count *= 8
    for count in (2**20, large // 4):
        yield Case("adamw", "float32", (count // ROW, ROW))
    for count in (2**16, 2**20, large):
        yield Case("norm", "float32", (count // ROW, ROW))
        yield Case("softmax", "float32", (count // ROW, ROW))
    for side in (512, 2048, 4096) if kind == "cpu" else (2048, 4096, 8192):
        yield Case("strided sum", "float32", (side, side))
        if quantizes:
            yield Case("dequantize", half, (side, side))
    for picked in (256, 4096):
        yield Case("rows", half, (picked, 2048, 16384))
    for length in (128, 512, 2048) if kind == "cpu" else (512, 2048, 8192):
        heads = (1, 8, length, 64) if kind == "cpu" else (1, 32, length, 128)
        yield Case("attention", half, heads)
        yield Case("attention backward", half, heads)
