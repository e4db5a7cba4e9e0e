"""What an optimizer keeps for one parameter and what its step allocates beside it, in bytes, tensor by tensor.

Sources: PyTorch 2.13, torch/optim; bitsandbytes 0.50, optim; transformers 5.23, optimization.py; torchao 0.18, optim;
llamafactory 0.9.5, third_party/muon (axolotl-contribs-mit 0.0.6 has the same); came-pytorch 0.1.3, galore-torch 1.0 and
apollo-torch 1.0.3. benchmarks/against_optimizers.py runs the packages' own classes and compares.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

BLOCK_ELEMENTS = 256
"""Elements of an 8-bit state that share one fp32 scale; transformers asks torchao for the same, of 4 bits as well."""
MIN_8BIT_ELEMENTS = 4_096
"""bitsandbytes and torchao keep the states of smaller tensors whole."""
MIN_PAGED_ELEMENTS = 100_000
"""bitsandbytes pages the states of tensors of this size and more."""
NEWTON_SCHULZ_STEPS = 5


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

    @property
    def inner(self) -> bool:
        """Whether it is the matrix of a linear layer inside a decoder layer, or of its adapter."""

    @property
    def projection(self) -> int:
        """The rank that a low-rank optimizer projects its gradient to; 0 where it does not."""


Tensors = Callable[[Parameter], list[int]]


def none(p: Parameter) -> list[int]:
    """Nothing."""
    return []


def one_like(p: Parameter) -> list[int]:
    """One tensor of its shape and dtype: RMSprop's average, and the square root that foreach code makes of it."""
    return [p.bytes]


def two_like(p: Parameter) -> list[int]:
    """Two of its shape and dtype."""
    return [p.bytes] * 2


def rows_and_columns(p: Parameter) -> list[int]:
    """Adafactor's factors in fp32: a row and a column, or the whole second moment of a vector."""
    return [4 * p.rows, 4 * p.columns] if p.columns else [4 * p.rows]


def adafactor_update(p: Parameter) -> list[int]:
    """Its update twice; if the parameter is in 16 bits, also fp32 copies of it and of its gradient."""
    return [4 * p.elements] * (2 if p.dtype == "float32" else 4)


def bitsandbytes_states(bits: int, *sizes: int, paged: bool = False) -> Tensors:
    """States of one element or more for each of the parameter's, as bitsandbytes stores them.

    In fp32, or of 8 bits with an fp32 scale for each block unless the tensor is small. Paged ones of a large tensor
    are outside torch's allocator, but their scales are not. Source: bitsandbytes 0.50, optim/optimizer.py, init_state
    and get_state_buffer; optim/ademamix.py for a state of two elements.
    """

    def states(p: Parameter) -> list[int]:
        small = bits == 32 or p.elements < MIN_8BIT_ELEMENTS
        stored = [(4 if small else 1) * size * p.elements for size in sizes]
        scales = [] if small else [4 * size * -(-p.elements // BLOCK_ELEMENTS) for size in sizes]
        return scales if paged and p.elements >= MIN_PAGED_ELEMENTS else stored + scales

    return states


def torchao_states(bits: int) -> Tensors:
    """Two moments of 4 or 8 bits, each with a scale for each block and a table of its own; whole for odd tensors.

    Source: torchao 0.18, optim/adam.py, _new_buffer; subclass_4bit.py and subclass_8bit.py, zeros.
    """

    def states(p: Parameter) -> list[int]:
        if p.elements < MIN_8BIT_ELEMENTS or p.elements % BLOCK_ELEMENTS:
            return two_like(p)
        return [p.elements * bits // 8, 4 * p.elements // BLOCK_ELEMENTS, 4 * 2**bits] * 2

    return states


def muon_states(p: Parameter) -> list[int]:
    """A momentum for a matrix inside a decoder layer, AdamW's two moments for all else."""
    return [p.bytes] * (1 if p.inner else 2)


def muon_update(p: Parameter) -> list[int]:
    """Of a matrix, at the end of a Newton-Schulz step in bf16: X, its three further terms, A and B, and Nesterov's sum.

    Of all else, AdamW's square root and the quotient. Source: third_party/muon/muon.py, zeropower_via_newtonschulz5.
    """
    if not p.inner:
        return two_like(p)
    side = min(p.rows, p.columns)
    return [p.bytes, *[2 * p.elements] * 4, *[2 * side * side] * 2]


def muon_flop(p: Parameter) -> float:
    """Five Newton-Schulz steps on the short side: X X', A A and B X."""
    if not p.inner:
        return 0.0
    side, long = min(p.rows, p.columns), max(p.rows, p.columns)
    return float(NEWTON_SCHULZ_STEPS * (4 * side * side * long + 2 * side**3))


def came_states(p: Parameter) -> list[int]:
    """In fp32 a momentum and two pairs of factors, or of a vector the second moment; and the parameter's own RMS."""
    factors = [4 * p.rows, 4 * p.columns] * 2 if p.columns else [4 * p.elements]
    return [4 * p.elements, *factors, p.bytes // p.elements]


def came_update(p: Parameter) -> list[int]:
    """In fp32 the update, its instability and their product, the factors; in 16 bits a copy of the gradient, too.

    Source: came-pytorch 0.1.3, CAME.py, step.
    """
    copies = 3 if p.dtype == "float32" else 4
    return [*[4 * p.elements] * copies, *([4 * p.rows, 4 * p.columns] if p.columns else [])]


def _sides(p: Parameter) -> tuple[int, int, int, int]:
    """(short side, long side, rank of the projection, bytes of an element)."""
    short, long = sorted((p.rows, p.columns))
    return short, long, min(p.projection, short), p.bytes // p.elements


def galore_states(p: Parameter) -> list[int]:
    """AdamW's two moments of the projected gradient and the projection, which in fp32 holds all singular vectors.

    Source: galore-torch 1.0, galore_projector.py, get_orthogonal_matrix: of an fp32 gradient it keeps a slice.
    """
    if not p.projection:
        return two_like(p)
    short, long, rank, item = _sides(p)
    kept = short if p.dtype == "float32" else rank
    return [item * rank * long] * 2 + [item * kept * short]


def galore_update(p: Parameter) -> list[int]:
    """The larger of a new projection by singular values, in fp32, and of the update projected back.

    Source: galore-torch 1.0, galore_projector.py and adamw.py, step. Ignores: what cuSOLVER works in.
    """
    if not p.projection:
        return two_like(p)
    short, long, rank, item = _sides(p)
    copies = [] if p.dtype == "float32" else [4 * p.elements, item * rank * short]
    new = [*copies, 4 * long * short, 4 * short, 4 * short * short, 4 * rank * long]
    back = [*[item * rank * long] * 3, *[p.bytes] * 2]
    return max(new, back, key=sum)


def apollo_states(p: Parameter) -> list[int]:
    """AdamW's two moments of the projected gradient, the random projection, and a norm."""
    if not p.projection:
        return two_like(p)
    short, long, rank, item = _sides(p)
    return [item * rank * long] * 2 + [item * rank * short, item]


def apollo_update(p: Parameter) -> list[int]:
    """The scaled gradient before and after its limit, three projected tensors, and the scales of its channels.

    Source: apollo-torch 1.0.3, apollo.py, step.
    """
    if not p.projection:
        return two_like(p)
    short, long, rank, item = _sides(p)
    limited = [*[item * rank * long] * 3, *[p.bytes] * 2, item * long, item]
    new = [] if p.dtype == "float32" else [4 * p.elements, *[4 * rank * short] * 2]
    return max(limited, new, key=sum)


def projection_flop(p: Parameter) -> float:
    """The gradient projected, and projected back."""
    return 4.0 * p.elements * p.projection
