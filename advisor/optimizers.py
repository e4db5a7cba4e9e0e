"""One row per optimizer: what it keeps, what its step allocates, moves and launches, and what trainers call it.

Everything that differs between optimizers is here; `advisor.costs.optimizer` sums it over the trained tensors.
The dry run builds the optimizers themselves from its own table, because it checks the rows below.

Sources: PyTorch, torch/optim/adamw.py; bitsandbytes 0.50, optim; transformers 5.23, optimization.py (Adafactor) and
training_args.py (OptimizerNames).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, Protocol

from advisor.errors import UnknownName

Optimizer = Literal["adamw", "adamw_foreach", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "adafactor", "sgd"]

BLOCK_ELEMENTS = 256
"""Elements of an 8-bit state that share one fp32 scale."""
MIN_8BIT_ELEMENTS = 4_096
"""bitsandbytes keeps the states of smaller tensors in fp32."""
MIN_PAGED_ELEMENTS = 100_000
"""bitsandbytes pages the states of tensors of this size and more."""
BITSANDBYTES_TENSOR_S = 50e-6
"""CPU time of bitsandbytes' Python loop per parameter tensor (our judgment)."""


class Parameter(Protocol):
    """A kind of trained tensor: a matrix of rows x columns, or a vector with 0 columns, that occurs `times` times."""

    @property
    def rows(self) -> int:
        """Rows, or the elements of a vector."""

    @property
    def columns(self) -> int:
        """Columns, 0 for a vector."""

    @property
    def times(self) -> int:
        """How many there are."""

    @property
    def dtype(self) -> str:
        """The dtype's name in torch."""

    @property
    def elements(self) -> int:
        """Elements of one."""

    @property
    def bytes(self) -> int:
        """Bytes of one."""


class StepCost(NamedTuple):
    """What one optimizer step costs, clipping not included."""

    passes: float
    """Times that a tensor of the parameter's size and dtype is read or written."""
    element_bytes: float = 0.0
    """Bytes moved besides those, for each element."""
    fused_kernels: float = 0.0
    """Kernels that take many tensors at once."""
    tensor_kernels: float = 0.0
    """Kernels for each tensor."""
    tensor_s: float = 0.0
    """CPU time for each tensor, in seconds."""


def _no_states(p: Parameter) -> list[int]:
    return []


class OptimizerRow(NamedTuple):
    """The properties of one optimizer."""

    transformers_name: str
    """Its name in `optim` of transformers, TRL and LLaMA-Factory, and in `optimizer` of Axolotl."""
    step: StepCost
    states: Callable[[Parameter], list[int]] = _no_states
    """Bytes of each state tensor that it keeps for one parameter inside torch's allocator."""
    step_counter_bytes: int = 0
    """Bytes of a tensor on the card that counts the steps of one parameter; 0 where there is none."""
    table_bytes: tuple[int, ...] = ()
    """Tensors that it keeps once."""
    temporaries: Callable[[Parameter], list[int]] = _no_states
    """Bytes of each tensor that its step allocates for one parameter and drops again."""
    temporaries_at_once: bool = False
    """Those of all parameters are there at the same time, not of one parameter after the other."""
    needs_bitsandbytes: bool = False
    paged: bool = False
    """Large states are in managed memory, outside torch's allocator, and may spill to the CPU."""


def _two_moments(p: Parameter) -> list[int]:
    return [p.bytes] * 2


def _rows_and_columns(p: Parameter) -> list[int]:
    """Adafactor's factors in fp32: a row and a column, or the whole second moment of a vector."""
    return [4 * p.rows, 4 * p.columns] if p.columns else [4 * p.rows]


def _paged_moments(p: Parameter) -> list[int]:
    return [] if p.elements >= MIN_PAGED_ELEMENTS else [4 * p.elements] * 2


def _8bit_moments(p: Parameter) -> list[int]:
    """Two moments in uint8 with an fp32 scale for each block; in fp32 for a small tensor."""
    if p.elements < MIN_8BIT_ELEMENTS:
        return [4 * p.elements] * 2
    scales = 4 * -(-p.elements // BLOCK_ELEMENTS)
    return [p.elements, p.elements, scales, scales]


def _paged_8bit_moments(p: Parameter) -> list[int]:
    """As above; for a large tensor only the scales, which are not paged."""
    sizes = _8bit_moments(p)
    return sizes[2:] if p.elements >= MIN_PAGED_ELEMENTS else sizes


def _copy(p: Parameter) -> list[int]:
    """foreach AdamW: the square root of the second moment."""
    return [p.bytes]


def _adafactor_update(p: Parameter) -> list[int]:
    """Its update twice; if the parameter is in 16 bits, also fp32 copies of it and of its gradient."""
    return [4 * p.elements] * (2 if p.dtype == "float32" else 4)


_TABLES_OF_8_BITS = (1024, 1024)
"""bitsandbytes' quantization maps of the two moments: 256 values in fp32 each."""

OPTIMIZERS: Mapping[Optimizer, OptimizerRow] = {
    "adamw": OptimizerRow(
        "adamw_torch_fused",
        StepCost(passes=7.0, fused_kernels=1.0),  # read p, g, m, v; write p, m, v
        states=_two_moments,
        step_counter_bytes=4,
    ),
    "adamw_foreach": OptimizerRow(
        "adamw_torch",
        StepCost(passes=20.0, fused_kernels=9.0),  # nine multi-tensor operations, one after the other
        states=_two_moments,
        step_counter_bytes=4,
        temporaries=_copy,
        temporaries_at_once=True,
    ),
    "adamw_8bit": OptimizerRow(
        "adamw_bnb_8bit",
        # One byte each way per moment.
        StepCost(passes=3.0, element_bytes=4.0, tensor_kernels=1.0, tensor_s=BITSANDBYTES_TENSOR_S),
        states=_8bit_moments,
        table_bytes=_TABLES_OF_8_BITS,
        needs_bitsandbytes=True,
    ),
    "paged_adamw": OptimizerRow(
        "paged_adamw_32bit",
        # Four bytes each way per moment.
        StepCost(passes=3.0, element_bytes=16.0, tensor_kernels=1.0, tensor_s=BITSANDBYTES_TENSOR_S),
        states=_paged_moments,
        needs_bitsandbytes=True,
        paged=True,
    ),
    "paged_adamw_8bit": OptimizerRow(
        "paged_adamw_8bit",
        StepCost(passes=3.0, element_bytes=4.0, tensor_kernels=1.0, tensor_s=BITSANDBYTES_TENSOR_S),
        states=_paged_8bit_moments,
        table_bytes=_TABLES_OF_8_BITS,
        needs_bitsandbytes=True,
        paged=True,
    ),
    "adafactor": OptimizerRow(
        "adafactor",
        StepCost(passes=3.0, element_bytes=60.0, tensor_kernels=25.0),  # about 25 small kernels a tensor, in fp32
        states=_rows_and_columns,
        step_counter_bytes=4,
        temporaries=_adafactor_update,
    ),
    "sgd": OptimizerRow("sgd", StepCost(passes=3.0, fused_kernels=1.0)),
}
"""All optimizers, by the name that --optimizer takes."""


def optimizer_row(name: str) -> OptimizerRow:
    """The row of an optimizer. Raises UnknownName."""
    for known, row in OPTIMIZERS.items():
        if known == name:
            return row
    raise UnknownName("optimizer", name, OPTIMIZERS)


def named_in_transformers(name: str) -> Optimizer | None:
    """The optimizer that transformers' `optim` calls `name`; None for one that has no row."""
    return next((ours for ours, row in OPTIMIZERS.items() if row.transformers_name == name), None)
