"""A recorded step as a program: sizes as polynomials in batch, length and rank, evaluated for any shape.

While the tape records, batch, length and rank are BATCH, LENGTH and RANK: powers of two so far apart that products
and sums of sizes keep their coefficients in separate digits of one integer. `polynomial` reads them off. Running a
recorded program costs a tenth of recording it, and a search evaluates one program at many shapes.

Sizes have batch and rank to the power 0 or 1, length up to 2. Between these twelve products are digits that no size
may touch: a product or quotient of two sizes that is not one of the twelve ends up there and is refused, as is the
large coefficient that a division with a remainder leaves behind.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from itertools import accumulate
from operator import mul
from typing import Any, NamedTuple

from advisor.blocks import BLOCK_BYTES
from advisor.tape.graph import CATEGORY_NAMES, Numbered, RawKernel

DIGIT_BITS = 64
COEFFICIENT_BITS = 48
"""Coefficients are smaller than this power of two (the largest of the catalog takes 37 bits); BATCH // n leaves one of
2 ** DIGIT_BITS / n, which is refused for every n up to 65,536."""

_BATCH_AT, _LENGTH_AT, _RANK_AT = 1, 4, 20
BATCH = 1 << _BATCH_AT * DIGIT_BITS
LENGTH = 1 << _LENGTH_AT * DIGIT_BITS
RANK = 1 << _RANK_AT * DIGIT_BITS
_MASK = (1 << DIGIT_BITS) - 1
_SIGN = 1 << (DIGIT_BITS - 1)
_LARGEST = (1 << COEFFICIENT_BITS) - 1

_POWERS = [(b, s, r) for r in range(2) for s in range(3) for b in range(2)]
"""The powers of batch, length and rank in a term, by the term's digit in a Polynomial."""


def _position(batch: int, length: int, rank: int) -> int:
    """Where the product of these powers of BATCH, LENGTH and RANK has its digit."""
    return batch * _BATCH_AT + length * _LENGTH_AT + rank * _RANK_AT


_SHARE_AT = 100
SHARE = 1 << _SHARE_AT * DIGIT_BITS
"""Rows of one expert: its share of the tokens, which need not be a whole number. Alone or times rank."""

_CHUNKS_AT = 66
CHUNKS = 1 << _CHUNKS_AT * DIGIT_BITS
"""Chunks that a row is cut into, the last one filled up. Alone or squared, in one row or in all of the batch."""
_CHUNK_POWERS = [(b, c) for c in (1, 2) for b in range(2)]

_DIGITS = {_position(*powers): digit for digit, powers in enumerate(_POWERS)}
_DIGITS |= {_SHARE_AT: len(_POWERS), _SHARE_AT + _RANK_AT: len(_POWERS) + 1}
_DIGITS |= {b * _BATCH_AT + c * _CHUNKS_AT: len(_POWERS) + 2 + at for at, (b, c) in enumerate(_CHUNK_POWERS)}

Polynomial = tuple[tuple[int, int], ...]
"""(coefficient, digit) terms; digit = batch power + 2 * length power + 6 * rank power, then SHARE's, then CHUNKS'."""

Kernel = tuple[str, str, float, float, tuple[int, int, int]]
"""(kind, dtype, FLOP, bytes read and written, (m, n, k) of a matrix product or zeros)."""

Bytes = list[int]
"""Bytes by category, in the order of graph.CATEGORY_NAMES."""


def plus(*parts: Bytes) -> Bytes:
    """The sum, by category."""
    return [sum(one) for one in zip(*parts, strict=True)]


def minus(a: Bytes, b: Bytes) -> Bytes:
    """The difference, by category."""
    return [x - y for x, y in zip(a, b, strict=True)]


def times(a: Bytes, count: int) -> Bytes:
    """So many of it."""
    return [x * count for x in a]


Net = list[tuple[int, int, int]]
"""(slot, category, how many more were allocated than released)."""


@lru_cache(maxsize=4096)
def polynomial(number: int) -> Polynomial:
    """The terms of a size that was computed from BATCH, LENGTH and RANK; coefficients may be negative.

    Raises AssertionError (a bug in the decoder that made the size) if the number has a power of them that is not among
    a Polynomial's digits, or a coefficient that only a division with a remainder can have left.
    """
    terms = []
    position = 0
    while number:
        zeros = ((number & -number).bit_length() - 1) // DIGIT_BITS
        number >>= zeros * DIGIT_BITS
        position += zeros
        coefficient = number & _MASK
        if coefficient >= _SIGN:
            coefficient -= 1 << DIGIT_BITS
        digit = _DIGITS.get(position)
        if digit is None or not -_LARGEST <= coefficient <= _LARGEST:
            raise AssertionError(_refusal(coefficient, position))
        terms.append((coefficient, digit))
        number = (number - coefficient) >> DIGIT_BITS
        position += 1
    return tuple(terms)


def _refusal(coefficient: int, position: int) -> str:
    """Why a number with this digit is not a size, naming what has its digit there."""
    near = [(b, s, r) for b in range(-1, 4) for s in range(-2, 5) for r in range(-1, 3)]
    power = " or ".join(_named(*powers) for powers in near if _position(*powers) == position) or f"digit {position}"
    if abs(coefficient) > _LARGEST:
        return f"{coefficient:,} for {power} in a recorded size: a division of the power above left a remainder"
    return f"{coefficient:,} {power} in a recorded size: only batch^0..1, length^0..2 and rank^0..1 are evaluated"


def _named(batch: int, length: int, rank: int) -> str:
    powers = (("batch", batch), ("length", length), ("rank", rank))
    return " ".join(f"{name}^{exponent}" for name, exponent in powers if exponent) or "the constant"


def basis(batch: int, length: int, rank: int, share: Any = 0, chunks: int = 0) -> list[Any]:
    """The value of each digit's monomial: whole numbers, unless `share`, that of SHARE, is none."""
    plain = (batch**b * length**s * rank**r for b, s, r in _POWERS)
    return [*plain, share, share * rank, *(batch**b * chunks**c for b, c in _CHUNK_POWERS)]


class Polynomials:
    """Many polynomials, laid out so that all of them are evaluated at once."""

    __slots__ = ("_coefficients", "_digits", "_further", "terms")

    def __init__(self, polynomials: Iterable[Polynomial]) -> None:
        self.terms = found = tuple(polynomials)
        self._coefficients = [terms[0][0] if terms else 0 for terms in found]
        self._digits = [terms[0][1] if terms else 0 for terms in found]
        self._further = [(index, *term) for index, terms in enumerate(found) for term in terms[1:]]

    def at(self, values: list[Any]) -> list[Any]:
        """The value of each, where its monomials have these."""
        out = list(map(mul, self._coefficients, map(values.__getitem__, self._digits)))
        for index, coefficient, digit in self._further:
            out[index] += coefficient * values[digit]
        return out


def net_of(events: list[int]) -> Net:
    """What a run of events leaves behind."""
    counts = Counter(events)
    codes = {event & -2 for event in counts}
    nets = ((code, counts[code] - counts[code + 1]) for code in codes)
    return [(code >> 3, code >> 1 & 3, net) for code, net in nets if net]


def net_bytes(net: Net, sizes: list[int]) -> Bytes:
    """The bytes of a net, by category."""
    out = [0] * len(CATEGORY_NAMES)
    for slot, category, count in net:
        out[category] += sizes[slot] * count
    return out


class Launches(NamedTuple):
    """Kernels by who launches them: the model's Python code, or autograd's engine.

    `hooked` of the former are launched under checkpointing's hooks on saved tensors.
    """

    python: int
    engine: int
    hooked: int


class PartKernels(NamedTuple):
    """The kernels of a part at one shape, each with how often it runs; `copies` layers are like it.

    `recomputed_flop` is the part of one layer's FLOP that checkpointing does a second time.
    """

    copies: int
    kernels: list[tuple[Kernel, int]]
    launches: Launches
    recomputed_flop: float
    place: int = 0
    phase: str = "forward"


RecordedKernel = tuple[str, str, int, int, int, int, int]
"""(kind, dtype, FLOP, bytes, m, n, k), the figures as numbers of the program's polynomials."""

Run = tuple[int, int, str]
"""(number of a recorded kernel, how often a part launches it, place)."""


class Part:
    """One part of the program: the embedding, one layer, or the head, forward or backward."""

    __slots__ = (
        "copies",
        "dropped",
        "end",
        "hooked",
        "hosted_bytes",
        "kernels",
        "launches",
        "net",
        "phase",
        "place",
        "recomputed",
        "recomputed_flop",
        "recomputed_slot",
        "start",
    )

    def __init__(self, phase: str, place: int, copies: int, start: int) -> None:
        """Begin at the event of index `start`; `copies` is how many layers it stands for."""
        self.phase = phase
        self.place = place
        self.copies = copies
        self.start = start
        self.end = start
        self.net: Net = []
        self.dropped: Net = []
        self.recomputed = self.hooked = 0  # kernels that ran a second time, and that ran under checkpointing's hooks
        self.recomputed_flop = self.recomputed_slot = 0
        self.hosted_bytes = 0  # copied to the host
        self.launches = Launches(0, 0, 0)
        self.kernels: list[Run] = []


class PartMemory(NamedTuple):
    """The memory of a part at one shape: live bytes before and after, its peak, and what autocast's end drops."""

    phase: str
    place: int
    copies: int
    before: Bytes
    after: Bytes
    dropped: Bytes
    peak_bytes: int
    peak_event: int


class Program:
    """A recorded step. Sizes are evaluated together; segments and kernels are read off for one shape."""

    def __init__(self, events: list[int], slots: dict[int, int], labels: list[tuple[int, str]]) -> None:
        self.events = events
        self.labels = labels
        self.sizes = Polynomials(map(polynomial, slots))
        self.parts: list[Part] = []
        self._before: Net = []
        self._figures = Numbered[int]()
        self._amounts: Polynomials | None = None  # the figures, once all are added
        self._slots: tuple[tuple[int, int, int], list[int]] = ((0, 0, 0), [])  # of the shape that was asked for last
        self._nets: dict[int, Net] = {}  # what is alive at an event: most shapes have their peak at the same one
        self._kernels = Numbered[RecordedKernel]()  # each kind once
        self.choices = (0, 1)
        """Experts that a token picks, and experts that share the tokens."""
        self.chunk = 0
        """Tokens of a chunk, where rows are cut into some."""

    def _values(self, batch: int, length: int, rank: int, whole: bool) -> list[Any]:
        """`whole`: an expert has whole rows, as its kernels do; the mean of all that are alike is what they hold."""
        picked, experts = self.choices
        rows, rest = divmod(batch * length * picked, experts)
        share = rows if not rest else rows + 1 if whole else rows + rest / experts
        return basis(batch, length, rank, share, -(-length // self.chunk) if self.chunk else 0)

    def add(self, part: Part, kernels: list[RawKernel]) -> None:
        """Append a finished part with its kernels, equal ones counted together."""
        if not self.parts:
            self._before = net_of(self.events[: part.start])
        part.net = net_of(self.events[part.start : part.end])
        at, numbers = self._figures, self._kernels
        python = len(kernels) if part.phase == "forward" else part.recomputed
        part.launches = Launches(python, len(kernels) - python, part.hooked)
        part.recomputed_slot = at[part.recomputed_flop]
        part.kernels = [
            (numbers[kind, dtype, at[flop], at[moved], at[m], at[n], at[k]], times, place)
            for (kind, dtype, flop, moved, m, n, k, place), times in Counter(kernels).items()
        ]
        self.parts.append(part)

    def slot_bytes(self, batch: int, length: int, rank: int) -> list[int]:
        """Bytes of each size slot, rounded up to the allocator's blocks."""
        shape = batch, length, rank
        if self._slots[0] != shape:  # a peak's parts are asked for after the peak
            block, sizes = BLOCK_BYTES, self.sizes.at(self._values(*shape, whole=False))
            self._slots = shape, [int(-(-n // block)) * block for n in sizes]
        return self._slots[1]

    def memory(self, batch: int, length: int, rank: int) -> list[PartMemory]:
        """The memory of every part at one shape."""
        sizes = self.slot_bytes(batch, length, rank)
        deltas: list[int] = []
        for size in sizes:
            deltas += (size, -size) * 4
        running = list(accumulate(map(deltas.__getitem__, self.events), initial=0))
        live = net_bytes(self._before, sizes)
        out = []
        for s in self.parts:
            peak = max(running[s.start : s.end + 1])
            left = net_bytes(s.net, sizes)
            after = [a + b for a, b in zip(live, left, strict=True)]
            dropped = net_bytes(s.dropped, sizes)
            event = running.index(peak, s.start, s.end + 1)
            out.append(PartMemory(s.phase, s.place, s.copies, live, after, dropped, peak, event))
            live = after
        return out

    def live_at(self, event: int, batch: int, length: int, rank: int) -> Bytes:
        """Live bytes by category just before the event of that index."""
        net = self._nets.get(event)
        if net is None:
            net = self._nets[event] = net_of(self.events[:event])
        return net_bytes(net, self.slot_bytes(batch, length, rank))

    def label_at(self, event: int) -> str:
        """The part of the model that ran when the event of that index happened."""
        index = bisect_right(self.labels, (event - 1, "\uffff")) - 1
        return self.labels[index][1] if index >= 0 else ""

    def kernels(self, batch: int, length: int, rank: int) -> list[PartKernels]:
        """What every part runs, in order; equal kernels are one object."""
        if self._amounts is None:
            self._amounts = Polynomials(map(polynomial, self._figures))
        values = self._amounts.at(self._values(batch, length, rank, whole=True))
        amounts = list(map(float, values))
        found: list[Kernel] = [
            (kind, dtype, amounts[flop], amounts[moved], (values[m], values[n], values[k]))
            for kind, dtype, flop, moved, m, n, k in self._kernels
        ]
        return [
            PartKernels(
                s.copies,
                [(found[number], times) for number, times, _ in s.kernels],
                s.launches,
                amounts[s.recomputed_slot],
                s.place,
                s.phase,
            )
            for s in self.parts
        ]

    def hosted(self, batch: int, length: int, rank: int) -> list[tuple[int, int]]:
        """(bytes that one layer moved to the host, layers) of each part that moved any, at the end of forward."""
        hosted = [(polynomial(s.hosted_bytes), s.copies) for s in self.parts if s.hosted_bytes]
        values = Polynomials(terms for terms, _ in hosted).at(basis(batch, length, rank))
        return [(size, copies) for size, (_, copies) in zip(values, hosted, strict=True)]

    def kernel_places(self) -> list[list[str]]:
        """The part of the model in which each kernel of `kernels` runs, or '' where the tape did not note it."""
        return [[place for _, _, place in s.kernels] for s in self.parts]
