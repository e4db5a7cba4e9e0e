"""One row per optimizer: what it keeps, what its step allocates, moves and launches, and what trainers call it.

Everything that differs between optimizers is here; `advisor.costs.optimizer` sums it over the trained tensors.
The dry run builds the optimizers themselves from its own table, because it checks the rows below.

Sources: PyTorch, torch/optim/adamw.py; bitsandbytes 0.50, optim; transformers 5.23, optimization.py (Adafactor) and
training_args.py (OptimizerNames).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from advisor import optimizer_tensors as tensors
from advisor.errors import UnknownName
from advisor.optimizer_tensors import Parameter, Tensors

Optimizer = Literal[
    "adamw",
    "adamw_foreach",
    "adamw_8bit",
    "paged_adamw",
    "paged_adamw_8bit",
    "adamw_torchao_8bit",
    "adamw_torchao_4bit",
    "adafactor",
    "sgd",
    "lion",
    "lion_8bit",
    "paged_lion",
    "paged_lion_8bit",
    "ademamix",
    "ademamix_8bit",
    "paged_ademamix",
    "paged_ademamix_8bit",
    "rmsprop",
    "rmsprop_32bit",
    "rmsprop_8bit",
    "muon",
    "came",
    "galore",
    "apollo",
]

BITSANDBYTES_TENSOR_S = 50e-6
"""CPU time of bitsandbytes' Python loop per parameter tensor (our judgment)."""


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
    flop: Callable[[Parameter], float] | None = None
    """FLOP of its matrix products for one parameter, in 16 bits."""


class OptimizerRow(NamedTuple):
    """The properties of one optimizer."""

    transformers_name: str
    """Its name in `optim` of transformers, TRL and LLaMA-Factory, and in `optimizer` of Axolotl; '' for none."""
    step: StepCost
    states: Tensors = tensors.none
    """Bytes of each state tensor that it keeps for one parameter inside torch's allocator."""
    step_counter_bytes: int = 0
    """Bytes of a tensor on the card that counts the steps of one parameter; 0 where there is none."""
    table_bytes: tuple[int, ...] = ()
    """Tensors that it keeps once."""
    temporaries: Tensors = tensors.none
    """Bytes of each tensor that its step allocates for one parameter and drops again."""
    temporaries_at_once: bool = False
    """Those of all parameters are there at the same time, not of one parameter after the other."""
    needs_bitsandbytes: bool = False
    paged: bool = False
    """Large states are in managed memory, outside torch's allocator, and may spill to the CPU."""
    package: str = ""
    """The package that it is in, besides torch, transformers and bitsandbytes; the dry run does not build it then."""
    axolotl_name: str = ""
    """Its name in Axolotl, where that is another."""
    low_rank: bool = False
    """It works on projections of the gradients, of rank `Recipe.optimizer_rank`."""
    unknown: str = ""
    """What of its step is not known: nothing "fits" for sure with it."""


_TABLES_OF_8_BITS = (1024, 1024)
"""bitsandbytes' quantization maps of the two moments: 256 values in fp32 each."""


def _bitsandbytes(name: str, bits: int, *sizes: int, paged: bool = False, tables: int = 2) -> OptimizerRow:
    """A row of bitsandbytes': its kernel reads parameter and gradient, writes the parameter, and turns each state."""
    return OptimizerRow(
        name,
        StepCost(
            passes=3.0,
            element_bytes=2.0 * sum(sizes) * bits / 8,
            tensor_kernels=1.0,
            tensor_s=BITSANDBYTES_TENSOR_S,
        ),
        states=tensors.bitsandbytes_states(bits, *sizes, paged=paged),
        table_bytes=_TABLES_OF_8_BITS[:tables] if bits == 8 else (),
        needs_bitsandbytes=True,
        paged=paged,
    )


_COMPILED = "what torchao's compiled step works in"
_SOLVER = "what cuSOLVER's singular value decomposition works in, and its time, at every 200th step"

OPTIMIZERS: Mapping[Optimizer, OptimizerRow] = {
    "adamw": OptimizerRow(
        "adamw_torch_fused",
        StepCost(passes=7.0, fused_kernels=1.0),  # read p, g, m, v; write p, m, v
        states=tensors.two_like,
        step_counter_bytes=4,
    ),
    "adamw_foreach": OptimizerRow(
        "adamw_torch",
        StepCost(passes=20.0, fused_kernels=9.0),  # nine multi-tensor operations, one after the other
        states=tensors.two_like,
        step_counter_bytes=4,
        temporaries=tensors.one_like,
        temporaries_at_once=True,
    ),
    "adamw_8bit": _bitsandbytes("adamw_bnb_8bit", 8, 1, 1),
    "paged_adamw": _bitsandbytes("paged_adamw_32bit", 32, 1, 1, paged=True),
    "paged_adamw_8bit": _bitsandbytes("paged_adamw_8bit", 8, 1, 1, paged=True),
    "adamw_torchao_8bit": OptimizerRow(
        "adamw_torch_8bit",
        StepCost(passes=3.0, element_bytes=4.0, tensor_kernels=1.0, tensor_s=BITSANDBYTES_TENSOR_S),
        states=tensors.torchao_states(8),
        package="torchao",
        unknown=_COMPILED,
    ),
    "adamw_torchao_4bit": OptimizerRow(
        "adamw_torch_4bit",
        StepCost(passes=3.0, element_bytes=2.0, tensor_kernels=1.0, tensor_s=BITSANDBYTES_TENSOR_S),
        states=tensors.torchao_states(4),
        package="torchao",
        unknown=_COMPILED,
    ),
    "adafactor": OptimizerRow(
        "adafactor",
        StepCost(passes=3.0, element_bytes=60.0, tensor_kernels=25.0),  # about 25 small kernels a tensor, in fp32
        states=tensors.rows_and_columns,
        step_counter_bytes=4,
        temporaries=tensors.adafactor_update,
    ),
    "sgd": OptimizerRow("sgd", StepCost(passes=3.0, fused_kernels=1.0)),
    "lion": _bitsandbytes("lion_32bit", 32, 1),
    "lion_8bit": _bitsandbytes("lion_8bit", 8, 1, tables=1),
    "paged_lion": _bitsandbytes("paged_lion_32bit", 32, 1, paged=True),
    "paged_lion_8bit": _bitsandbytes("paged_lion_8bit", 8, 1, paged=True, tables=1),
    "ademamix": _bitsandbytes("ademamix", 32, 2, 1),
    "ademamix_8bit": _bitsandbytes("ademamix_8bit", 8, 2, 1),
    "paged_ademamix": _bitsandbytes("paged_ademamix_32bit", 32, 2, 1, paged=True),
    "paged_ademamix_8bit": _bitsandbytes("paged_ademamix_8bit", 8, 2, 1, paged=True),
    "rmsprop": OptimizerRow(
        "rmsprop",
        StepCost(passes=13.0, fused_kernels=5.0),  # torch/optim/rmsprop.py, _multi_tensor_rmsprop: five operations
        states=tensors.one_like,
        step_counter_bytes=4,
        temporaries=tensors.one_like,
        temporaries_at_once=True,
    ),
    "rmsprop_32bit": _bitsandbytes("rmsprop_bnb_32bit", 32, 1),
    "rmsprop_8bit": _bitsandbytes("rmsprop_bnb_8bit", 8, 1, tables=1),
    "muon": OptimizerRow(
        "",
        # Momentum and Nesterov's sum in the parameter's dtype; five steps of some eleven passes in bf16.
        StepCost(passes=8.0, element_bytes=110.0, tensor_kernels=35.0, flop=tensors.muon_flop),
        states=tensors.muon_states,
        temporaries=tensors.muon_update,
        package="llamafactory",
        axolotl_name="muon",
    ),
    "came": OptimizerRow(
        "",
        StepCost(passes=3.0, element_bytes=100.0, tensor_kernels=40.0),  # about 40 small kernels a tensor, in fp32
        states=tensors.came_states,
        temporaries=tensors.came_update,
        package="came-pytorch",
        axolotl_name="came_pytorch",
    ),
    "galore": OptimizerRow(
        "galore_adamw",
        StepCost(passes=7.0, tensor_kernels=14.0, flop=tensors.projection_flop),
        states=tensors.galore_states,
        temporaries=tensors.galore_update,
        package="galore-torch",
        low_rank=True,
        unknown=_SOLVER,
    ),
    "apollo": OptimizerRow(
        "apollo_adamw",
        StepCost(passes=12.0, tensor_kernels=25.0, flop=tensors.projection_flop),
        states=tensors.apollo_states,
        temporaries=tensors.apollo_update,
        package="apollo-torch",
        low_rank=True,
    ),
}
"""All optimizers, by the name that --optimizer takes."""


_ROWS: Mapping[str, OptimizerRow] = dict(OPTIMIZERS.items())


def optimizer_row(name: str) -> OptimizerRow:
    """The row of an optimizer. Raises UnknownName."""
    row = _ROWS.get(name)
    if row is None:
        raise UnknownName("optimizer", name, OPTIMIZERS)
    return row


def named_in_transformers(name: str) -> Optimizer | None:
    """The optimizer that transformers' `optim` calls `name`; None for one that has no row."""
    return next((ours for ours, row in OPTIMIZERS.items() if row.transformers_name == name != ""), None)
