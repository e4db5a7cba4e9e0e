"""The caching allocator of `costs.allocator` as plain functions over one array, for jobs of millions of requests.

The rules are those of `CachingAllocator`, and a test holds the two together. What is left out: with expandable
segments, nothing is ever given back to the driver, so there is no capacity.

With numba (the [simulate] extra) the functions are compiled to machine code, and the array is numpy's; without it the
same functions run as they are on a list, some fifty times slower. The answer is the same. All that is compiled stays
in this file: numba keeps machine code until the file of a function changes, whatever becomes of what it calls. The
array holds counters, a register for each allocation of the job, the free blocks of both pools in the order of size and
address, and the blocks. A block is the index at which its record begins.
"""

from __future__ import annotations

from typing import Any

from advisor.blocks import BLOCK_BYTES
from advisor.costs.allocator import (
    ADDRESS_SPACE,
    LARGE_REQUEST_BYTES,
    LARGE_SEGMENT_BYTES,
    ROUNDING_BYTES,
    SMALL_BYTES,
    SMALL_SEGMENT_BYTES,
)
from advisor.costs.machine_code import COMPILED, jitted, zeros

# Where the counters are.
ALLOCATED, PEAK_ALLOCATED, RESERVED, PEAK_RESERVED, RELEASES, CAPACITY = range(6)
_EXPANDABLE, _ADDRESS, _SPARE, _UNUSED = range(6, 10)
LARGE_ONLY = 10
"""Set to 1: requests of the small pool are no longer served. It is a small part of a job's memory, a third of its
requests, and soon as large as it gets."""
_COUNT, _LIST, _TAIL = 11, 13, 15
"""Of the small pool; those of the large one follow: number of free blocks, where their list begins, and the last block
of the expandable segment or 0."""
_REGISTERS = 17
"""The block behind each of the job's allocations, or 0."""

# A block's record. The first word of a spare one is the next spare one.
_SIZE, _PLACE, _BEFORE, _AFTER, _FREE, _WORDS = range(6)


def allocator(blocks: int, registers: int, expandable_segments: bool = False, capacity_bytes: int = 0) -> Any:
    """An empty allocator for at most `blocks` blocks at a time.

    `capacity_bytes` is what the driver can give (0: no limit; with expandable segments there is none).
    """
    begin = _REGISTERS + registers
    words = begin + (2 + _WORDS) * blocks
    s = zeros(words)
    s[CAPACITY], s[_EXPANDABLE] = capacity_bytes, int(expandable_segments)
    s[_LIST], s[_LIST + 1], s[_UNUSED] = begin, begin + blocks, begin + 2 * blocks
    return s


@jitted
def _index(s: Any, pool: int, size: int, address: int) -> int:
    """Where the list of free blocks has the first one that is not below (size, address)."""
    low: int = s[_LIST + pool]
    high = low + s[_COUNT + pool]
    while low < high:
        middle = (low + high) // 2
        block = s[middle]
        if s[block] < size or (s[block] == size and s[block + _PLACE] < address):
            low = middle + 1
        else:
            high = middle
    return low


@jitted
def _put(s: Any, pool: int, block: int) -> None:
    """List a block as free."""
    index = _index(s, pool, s[block], s[block + _PLACE])
    for at in range(s[_LIST + pool] + s[_COUNT + pool], index, -1):
        s[at] = s[at - 1]
    s[index] = block
    s[_COUNT + pool] += 1
    s[block + _FREE] = 1


@jitted
def _remove(s: Any, pool: int, index: int) -> None:
    """Take what the list has there out of it."""
    s[s[index] + _FREE] = 0
    s[_COUNT + pool] -= 1
    for at in range(index, s[_LIST + pool] + s[_COUNT + pool]):
        s[at] = s[at + 1]


@jitted
def _block(s: Any, address: int, size: int) -> int:
    """A new block without neighbors."""
    block: int = s[_SPARE]
    if block:
        s[_SPARE] = s[block]
    else:
        block = s[_UNUSED]
        s[_UNUSED] += _WORDS
    s[block] = size
    s[block + _PLACE] = address
    s[block + _BEFORE] = 0
    s[block + _AFTER] = 0
    return block


@jitted
def _drop(s: Any, block: int) -> None:
    """Let the record of a block be used again."""
    s[block] = s[_SPARE]
    s[_SPARE] = block


@jitted
def _join(s: Any, pool: int, block: int, behind: int) -> None:
    """Grow a block over its neighbor behind it."""
    s[block] += s[behind]
    after = s[behind + _AFTER]
    s[block + _AFTER] = after
    if after:
        s[after + _BEFORE] = block
    if s[_TAIL + pool] == behind:
        s[_TAIL + pool] = block
    _drop(s, behind)


@jitted
def _best_fit(s: Any, pool: int, size: int) -> int:
    """The place of the smallest block of at least `size`, or 0; that which could grow comes last."""
    index = _index(s, pool, size, 0)
    end = s[_LIST + pool] + s[_COUNT + pool]
    if index == end:
        return 0
    return index + 1 if s[index] == s[_TAIL + pool] and index + 1 < end else index


@jitted
def _shrink(s: Any, pool: int, index: int, rest: int) -> None:
    """Let a smaller free block take the place in the list of one that is cut."""
    low, size, address = s[_LIST + pool], s[rest], s[rest + _PLACE]
    while index > low:
        near = s[index - 1]
        if s[near] < size or (s[near] == size and s[near + _PLACE] < address):
            break
        s[index] = near
        index -= 1
    s[index] = rest
    s[rest + _FREE] = 1


@jitted
def _grow(s: Any, pool: int, index: int, block: int) -> None:
    """Let a larger free block take the place in the list of one that it holds."""
    end, size, address = s[_LIST + pool] + s[_COUNT + pool] - 1, s[block], s[block + _PLACE]
    while index < end:
        behind = s[index + 1]
        if s[behind] > size or (s[behind] == size and s[behind + _PLACE] > address):
            break
        s[index] = behind
        index += 1
    s[index] = block
    s[block + _FREE] = 1


@jitted
def empty_cache(s: Any) -> None:
    """Give back every segment that is wholly free."""
    for pool in range(2):
        at = s[_LIST + pool]
        while at < s[_LIST + pool] + s[_COUNT + pool]:
            block = s[at]
            if s[block + _BEFORE] == 0 and s[block + _AFTER] == 0:
                _remove(s, pool, at)
                s[RESERVED] -= s[block]
                _drop(s, block)
            else:
                at += 1


@jitted
def _segment(s: Any, pool: int, size: int) -> int:
    """A new free segment for a request, or 0 when the memory has run out."""
    if pool == 0:
        wanted = SMALL_SEGMENT_BYTES
    elif size < LARGE_REQUEST_BYTES:
        wanted = LARGE_SEGMENT_BYTES
    else:
        wanted = (size + ROUNDING_BYTES - 1) // ROUNDING_BYTES * ROUNDING_BYTES
    if s[CAPACITY] and s[RESERVED] + wanted > s[CAPACITY]:
        return 0
    s[RESERVED] += wanted
    s[PEAK_RESERVED] = max(s[PEAK_RESERVED], s[RESERVED])
    block = _block(s, s[_ADDRESS], wanted)
    s[_ADDRESS] += wanted + ROUNDING_BYTES  # segments never touch
    _put(s, pool, block)
    return block


@jitted
def _grown(s: Any, pool: int, size: int) -> int:
    """The last block of an expandable segment, grown to at least `size`."""
    page = SMALL_SEGMENT_BYTES if pool == 0 else LARGE_SEGMENT_BYTES
    last = int(s[_TAIL + pool])
    whole = last != 0 and s[last + _FREE] == 1
    missing = size - (s[last] if whole else 0)
    wanted = (missing + page - 1) // page * page
    s[RESERVED] += wanted
    s[PEAK_RESERVED] = max(s[PEAK_RESERVED], s[RESERVED])
    if whole:
        index = _index(s, pool, s[last], s[last + _PLACE])
        s[last] += wanted
        _grow(s, pool, index, last)
        return last
    block = _block(s, s[last + _PLACE] + s[last] if last else ADDRESS_SPACE * (1 + pool), wanted)
    if last:
        s[last + _AFTER] = block
        s[block + _BEFORE] = last
    s[_TAIL + pool] = block
    _put(s, pool, block)
    return block


@jitted
def _allocate(s: Any, register: int, asked: int) -> bool:
    """Serve a request; False when the memory has run out, the cache emptied."""
    size = max(BLOCK_BYTES, (asked + BLOCK_BYTES - 1) // BLOCK_BYTES * BLOCK_BYTES)
    pool = 0 if size <= SMALL_BYTES else 1
    index = _best_fit(s, pool, size)
    if index == 0:
        new = _grown(s, pool, size) if s[_EXPANDABLE] else _segment(s, pool, size)
        if new == 0:
            empty_cache(s)
            s[RELEASES] += 1
            new = _segment(s, pool, size)
            if new == 0:
                return False
        index = _index(s, pool, s[new], s[new + _PLACE])
    block = s[index]
    left = s[block] - size
    if left > SMALL_BYTES or (left >= BLOCK_BYTES and (pool == 0 or s[_EXPANDABLE])):
        _shrink(s, pool, index, _split(s, pool, block, size))
    else:
        _remove(s, pool, index)
    s[block + _FREE] = 0
    s[_REGISTERS + register] = block
    s[ALLOCATED] += s[block]
    s[PEAK_ALLOCATED] = max(s[PEAK_ALLOCATED], s[ALLOCATED])
    return True


@jitted
def _split(s: Any, pool: int, block: int, size: int) -> int:
    """Cut a block to `size`: the rest, as a block of its own."""
    rest = _block(s, s[block + _PLACE] + size, s[block] - size)
    after = s[block + _AFTER]
    s[block] = size
    s[block + _AFTER] = rest
    s[rest + _BEFORE] = block
    s[rest + _AFTER] = after
    if after:
        s[after + _BEFORE] = rest
    if s[_TAIL + pool] == block:
        s[_TAIL + pool] = rest
    return int(rest)


@jitted
def _release(s: Any, register: int) -> None:
    """Free the block behind a register, if there is one; its free neighbors become one block with it."""
    block = s[_REGISTERS + register]
    if block == 0:
        return
    s[_REGISTERS + register] = 0
    pool = 0 if s[block] <= SMALL_BYTES else 1
    s[ALLOCATED] -= s[block]
    index, behind, near = 0, s[block + _AFTER], s[block + _BEFORE]
    if near and s[near + _FREE]:
        index = _index(s, pool, s[near], s[near + _PLACE])
    if behind and s[behind + _FREE]:
        at = _index(s, pool, s[behind], s[behind + _PLACE])
        if index:
            _remove(s, pool, at)
            index -= at < index
        else:
            index = at
        _join(s, pool, block, behind)
    if near and s[near + _FREE]:
        _join(s, pool, near, block)
        block = near
    if index:
        _grow(s, pool, index, block)
    else:
        _put(s, pool, block)


@jitted
def release(s: Any, registers: Any) -> None:
    """Free the blocks behind registers."""
    for register in registers:
        _release(s, register)


def living(s: Any, registers: Any, base: int) -> Any:
    """Those of the registers, `base` added to each, that a block is behind."""
    if not COMPILED:
        return [base + register for register in registers if s[_REGISTERS + base + register]]
    found = registers + base
    return found[s[_REGISTERS + found] != 0]


@jitted
def play(s: Any, codes: Any, slots: Any, sizes: Any, base: int) -> bool:
    """Serve requests: 2 * register allocates the size of its slot, 2 * register + 1 releases it.

    `base` is added to each register. False when the memory has run out: the requests after that are not served.
    """
    least = SMALL_BYTES if s[LARGE_ONLY] else 0
    for at in range(len(codes)):
        register = (codes[at] >> 1) + base
        if codes[at] & 1:
            _release(s, register)
        elif sizes[slots[at]] > least and not _allocate(s, register, sizes[slots[at]]):
            return False
    return True
