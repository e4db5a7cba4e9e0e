"""The caching allocator of `costs.allocator` as plain functions over arrays, for jobs of millions of requests.

The rules are those of `CachingAllocator`, and a test holds the two together. What is left out: with expandable
segments, nothing is ever given back to the driver, so there is no capacity.

With numba (the [simulate] extra) the functions are compiled to machine code, and the arrays are numpy's; without it the
same functions run as they are on lists, some fifty times slower. Either way the answer is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, ParamSpec, TypeVar

from advisor.blocks import BLOCK_BYTES
from advisor.costs.allocator import (
    ADDRESS_SPACE,
    LARGE_REQUEST_BYTES,
    LARGE_SEGMENT_BYTES,
    ROUNDING_BYTES,
    SMALL_BYTES,
    SMALL_SEGMENT_BYTES,
)

P = ParamSpec("P")
R = TypeVar("R")

try:
    import numba
    import numpy
except ImportError:
    COMPILED = False
else:
    COMPILED = True


def jitted(function: Callable[P, R]) -> Callable[P, R]:
    """The function, compiled where numba is there; the machine code is kept on disk."""
    if not COMPILED:
        return function
    compiled: Callable[P, R] = numba.njit(cache=True)(function)
    return compiled


def array(values: Sequence[int]) -> Any:
    """The integers as the functions take them."""
    return numpy.array(values, dtype=numpy.int64) if COMPILED else list(values)


# Indices of `counters`.
ALLOCATED, PEAK_ALLOCATED, RESERVED, PEAK_RESERVED, RELEASES, CAPACITY = range(6)
_EXPANDABLE, _RAISES, _ADDRESS, _USED, _SPARE = range(6, 11)
_FREE = 11
"""Number of free blocks of the small pool; that of the large one follows."""
_TAIL = 13
"""Last block of the small pool's expandable segment, or -1; that of the large one follows."""
_COUNTERS = 15


class Arrays(NamedTuple):
    """The allocator's state: blocks by number, and the free ones of each pool in the order of size and address."""

    counters: Any
    size: Any
    address: Any
    before: Any  # its neighbors in its segment, or -1
    after: Any
    free: Any
    spare: Any  # numbers of blocks that no longer exist
    small_size: Any
    small_address: Any
    small_block: Any
    large_size: Any
    large_address: Any
    large_block: Any
    registers: Any  # the block behind each of the job's allocations


def arrays(blocks: int, registers: int, expandable_segments: bool, capacity_bytes: int, raises: bool) -> Arrays:
    """An empty allocator for at most `blocks` blocks at a time.

    `capacity_bytes` is what the driver can give (0: no limit). Where it does not suffice, it grows if `raises` is set;
    if not, `play` stops.
    """
    counters = [0] * _COUNTERS
    counters[CAPACITY], counters[_EXPANDABLE], counters[_RAISES] = capacity_bytes, expandable_segments, raises
    counters[_TAIL] = counters[_TAIL + 1] = -1
    lists = [[0] * blocks for _ in range(12)]
    return Arrays(array(counters), *map(array, lists), array([-1] * registers))


@jitted
def _index(sizes: Any, addresses: Any, count: int, size: int, address: int) -> int:
    """Of the first free block that is not below (size, address)."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if sizes[middle] < size or (sizes[middle] == size and addresses[middle] < address):
            low = middle + 1
        else:
            high = middle
    return low


@jitted
def _put(a: Arrays, pool: int, block: int) -> None:
    """List a block as free."""
    if pool == 0:
        sizes, addresses, blocks = a.small_size, a.small_address, a.small_block
    else:
        sizes, addresses, blocks = a.large_size, a.large_address, a.large_block
    count = a.counters[_FREE + pool]
    index = _index(sizes, addresses, count, a.size[block], a.address[block])
    for at in range(count, index, -1):
        sizes[at] = sizes[at - 1]
        addresses[at] = addresses[at - 1]
        blocks[at] = blocks[at - 1]
    sizes[index] = a.size[block]
    addresses[index] = a.address[block]
    blocks[index] = block
    a.counters[_FREE + pool] = count + 1
    a.free[block] = 1


@jitted
def _take(a: Arrays, pool: int, block: int) -> None:
    """List a free block no longer."""
    if pool == 0:
        sizes, addresses, blocks = a.small_size, a.small_address, a.small_block
    else:
        sizes, addresses, blocks = a.large_size, a.large_address, a.large_block
    count = a.counters[_FREE + pool] - 1
    for at in range(_index(sizes, addresses, count + 1, a.size[block], a.address[block]), count):
        sizes[at] = sizes[at + 1]
        addresses[at] = addresses[at + 1]
        blocks[at] = blocks[at + 1]
    a.counters[_FREE + pool] = count
    a.free[block] = 0


@jitted
def _block(a: Arrays, address: int, size: int) -> int:
    """The number of a new block without neighbors."""
    if a.counters[_SPARE]:
        a.counters[_SPARE] -= 1
        block = a.spare[a.counters[_SPARE]]
    else:
        block = a.counters[_USED]
        a.counters[_USED] += 1
    a.address[block] = address
    a.size[block] = size
    a.before[block] = -1
    a.after[block] = -1
    return block


@jitted
def _drop(a: Arrays, block: int) -> None:
    """Let the number of a block be used again."""
    a.spare[a.counters[_SPARE]] = block
    a.counters[_SPARE] += 1


@jitted
def _join(a: Arrays, pool: int, block: int, behind: int) -> None:
    """Grow a block over its neighbor behind it."""
    a.size[block] += a.size[behind]
    a.after[block] = a.after[behind]
    if a.after[behind] >= 0:
        a.before[a.after[behind]] = block
    if a.counters[_TAIL + pool] == behind:
        a.counters[_TAIL + pool] = block
    _drop(a, behind)


@jitted
def _best_fit(a: Arrays, pool: int, size: int) -> int:
    """The smallest free block of at least `size`, or -1; the last of an expandable segment could grow: it comes last."""
    if pool == 0:
        sizes, addresses, blocks = a.small_size, a.small_address, a.small_block
    else:
        sizes, addresses, blocks = a.large_size, a.large_address, a.large_block
    count = a.counters[_FREE + pool]
    index = _index(sizes, addresses, count, size, 0)
    if index == count:
        return -1
    if blocks[index] == a.counters[_TAIL + pool] and index + 1 < count:
        return blocks[index + 1]
    return blocks[index]


@jitted
def _empty_cache(a: Arrays) -> None:
    """Give back every segment that is wholly free."""
    for pool in range(2):
        at = 0
        while at < a.counters[_FREE + pool]:
            block = a.small_block[at] if pool == 0 else a.large_block[at]
            if a.before[block] < 0 and a.after[block] < 0:
                _take(a, pool, block)
                a.counters[RESERVED] -= a.size[block]
                _drop(a, block)
            else:
                at += 1


@jitted
def _segment(a: Arrays, pool: int, size: int) -> int:
    """A new free segment for a request, or -1 when the memory has run out."""
    if pool == 0:
        wanted = SMALL_SEGMENT_BYTES
    elif size < LARGE_REQUEST_BYTES:
        wanted = LARGE_SEGMENT_BYTES
    else:
        wanted = -(-size // ROUNDING_BYTES) * ROUNDING_BYTES
    c = a.counters
    if c[CAPACITY] and c[RESERVED] + wanted > c[CAPACITY]:
        return -1
    c[RESERVED] += wanted
    c[PEAK_RESERVED] = max(c[PEAK_RESERVED], c[RESERVED])
    block = _block(a, c[_ADDRESS], wanted)
    c[_ADDRESS] += wanted + ROUNDING_BYTES  # segments never touch
    _put(a, pool, block)
    return block


@jitted
def _grown(a: Arrays, pool: int, size: int) -> int:
    """The last block of an expandable segment, grown to at least `size`."""
    c = a.counters
    page = SMALL_SEGMENT_BYTES if pool == 0 else LARGE_SEGMENT_BYTES
    last = c[_TAIL + pool]
    whole = last >= 0 and a.free[last] == 1
    wanted = -(-(size - (a.size[last] if whole else 0)) // page) * page
    c[RESERVED] += wanted
    c[PEAK_RESERVED] = max(c[PEAK_RESERVED], c[RESERVED])
    if whole:
        _take(a, pool, last)
        a.size[last] += wanted
    else:
        block = _block(a, ADDRESS_SPACE * (1 + pool) if last < 0 else a.address[last] + a.size[last], wanted)
        if last >= 0:
            a.after[last] = block
            a.before[block] = last
        c[_TAIL + pool] = block
        last = block
    _put(a, pool, last)
    return last


@jitted
def _allocate(a: Arrays, register: int, asked: int) -> bool:
    """Serve a request; False when the memory has run out, the cache emptied."""
    size = max(BLOCK_BYTES, -(-asked // BLOCK_BYTES) * BLOCK_BYTES)
    pool = 0 if size <= SMALL_BYTES else 1
    c = a.counters
    block = _best_fit(a, pool, size)
    if block < 0:
        block = _grown(a, pool, size) if c[_EXPANDABLE] else _segment(a, pool, size)
    if block < 0:
        _empty_cache(a)
        c[RELEASES] += 1
        block = _segment(a, pool, size)
        if block < 0:
            if not c[_RAISES]:
                return False
            capacity, c[CAPACITY] = c[CAPACITY], 0
            block = _segment(a, pool, size)
            c[CAPACITY] = max(capacity, c[RESERVED])
    _take(a, pool, block)
    left = a.size[block] - size
    if left > SMALL_BYTES or (left >= BLOCK_BYTES and (pool == 0 or c[_EXPANDABLE])):
        rest = _block(a, a.address[block] + size, left)
        a.size[block] = size
        a.before[rest] = block
        a.after[rest] = a.after[block]
        if a.after[rest] >= 0:
            a.before[a.after[rest]] = rest
        a.after[block] = rest
        if c[_TAIL + pool] == block:
            c[_TAIL + pool] = rest
        _put(a, pool, rest)
    a.registers[register] = block
    c[ALLOCATED] += a.size[block]
    c[PEAK_ALLOCATED] = max(c[PEAK_ALLOCATED], c[ALLOCATED])
    return True


@jitted
def _release(a: Arrays, register: int) -> None:
    """Free what a register stands for; its free neighbors become one block with it."""
    block = a.registers[register]
    a.registers[register] = -1
    pool = 0 if a.size[block] <= SMALL_BYTES else 1
    a.counters[ALLOCATED] -= a.size[block]
    behind = a.after[block]
    if behind >= 0 and a.free[behind]:
        _take(a, pool, behind)
        _join(a, pool, block, behind)
    near = a.before[block]
    if near >= 0 and a.free[near]:
        _take(a, pool, near)
        _join(a, pool, near, block)
        block = near
    _put(a, pool, block)


@jitted
def play(a: Arrays, requests: Any, slots: Any, sizes: Any, base: int) -> bool:
    """Serve requests: 2 * register allocates the size of its slot, 2 * register + 1 releases it.

    `base` is added to each register. False when the memory has run out: the requests after that are not served.
    """
    for at in range(len(requests)):
        register = requests[at] // 2 + base
        if requests[at] % 2 == 1:
            if a.registers[register] >= 0:
                _release(a, register)
        elif sizes[slots[at]] > 0 and not _allocate(a, register, sizes[slots[at]]):
            return False
    return True
