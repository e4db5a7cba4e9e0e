"""PyTorch's CUDA caching allocator, replayed: what a stream of allocations makes it reserve from the driver.

The allocator takes memory from the driver in segments and never gives them back by itself. A request takes the
smallest free block that is large enough, and the rest of the block is split off if it is worth keeping. So the
reserved bytes exceed the allocated ones by the free space that no request fitted into.

Mirrors c10/cuda/CUDACachingAllocator.cpp of PyTorch 2.13 with its default settings: `round_size`,
`get_allocation_size`, `get_free_block`, `should_split`, `try_merge_blocks`, `release_cached_blocks`, and for
`expandable_segments:True` `find_expandable_block` and `map_block`. One stream: training uses one.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import NamedTuple

from advisor.blocks import BLOCK_BYTES, block_bytes
from advisor.units import MIB

SMALL_BYTES = MIB
"""Requests up to this size live in the small pool."""
SMALL_SEGMENT_BYTES = 2 * MIB
LARGE_SEGMENT_BYTES = 20 * MIB
"""What a request of the large pool below LARGE_REQUEST_BYTES takes from the driver."""
LARGE_REQUEST_BYTES = 10 * MIB
ROUNDING_BYTES = 2 * MIB
"""Larger requests take their own size, rounded up to this."""
ADDRESS_SPACE = LARGE_SEGMENT_BYTES * 2**30
"""Bytes that an expandable segment could grow to: more than any card has."""


class OutOfMemory(Exception):
    """A request that the card's memory cannot serve, even after the cached segments were given back."""


class Replay(NamedTuple):
    """What the allocator held over a stream of events, in bytes."""

    peak_allocated_bytes: int  # blocks in use, as torch.cuda.max_memory_allocated counts
    peak_reserved_bytes: int  # segments, as torch.cuda.max_memory_reserved counts
    end_reserved_bytes: int
    segments: int  # at the end
    releases: int  # times the cache was emptied because the memory had run out

    @property
    def fragmentation(self) -> float:
        """Reserved over allocated peak, minus 1."""
        return self.peak_reserved_bytes / self.peak_allocated_bytes - 1 if self.peak_allocated_bytes else 0.0


class _Block:
    """A range of a segment: in use, free, or (of an expandable segment) not mapped to memory."""

    __slots__ = ("address", "after", "before", "free", "mapped", "size")

    def __init__(self, address: int, size: int, mapped: bool = True) -> None:
        self.address = address
        self.size = size
        self.mapped = mapped
        self.free = True
        self.before: _Block | None = None
        self.after: _Block | None = None

    @property
    def room(self) -> int:
        """Its size plus that of an unmapped block right after it."""
        return self.size + (self.after.size if self.after is not None and not self.after.mapped else 0)


class _Pool:
    """Small or large blocks: the free ones by size and address, and the expandable segment if there is one."""

    def __init__(self, small: bool) -> None:
        self.small = small
        self.free: list[tuple[int, int]] = []
        self.at: dict[int, _Block] = {}
        self.first: _Block | None = None  # of the expandable segment

    def put(self, block: _Block) -> None:
        block.free = True
        insort(self.free, (block.size, block.address))
        self.at[block.address] = block

    def take(self, block: _Block) -> None:
        del self.free[bisect_left(self.free, (block.size, block.address))]
        del self.at[block.address]
        block.free = False

    def best_fit(self, size: int) -> _Block | None:
        """The smallest free block of at least `size`; one that can still grow counts at its largest possible size."""
        index = bisect_left(self.free, (size, 0))
        if index == len(self.free):
            return None
        found = self.at[self.free[index][1]]
        for _, address in self.free[index + 1 :] if found.room > found.size else ():
            other = self.at[address]
            if other.room >= found.room:
                break
            found = other
        return found


def rounded_request(size_bytes: int) -> int:
    """Bytes of the block that serves a request: a multiple of 512."""
    return max(BLOCK_BYTES, block_bytes(size_bytes))


def segment_bytes(size_bytes: int) -> int:
    """Bytes that a (rounded) request takes from the driver when no free block serves it."""
    if size_bytes <= SMALL_BYTES:
        return SMALL_SEGMENT_BYTES
    if size_bytes < LARGE_REQUEST_BYTES:
        return LARGE_SEGMENT_BYTES
    return -(-size_bytes // ROUNDING_BYTES) * ROUNDING_BYTES


class CachingAllocator:
    """The allocator of one process on one card. `capacity_bytes` is what the driver can give it; 0: no limit."""

    def __init__(self, expandable_segments: bool = False, capacity_bytes: int = 0) -> None:
        self.expandable_segments = expandable_segments
        self.capacity_bytes = capacity_bytes
        self.allocated_bytes = self.reserved_bytes = 0
        self.peak_allocated_bytes = self.peak_reserved_bytes = 0
        self.releases = 0
        self._pools = _Pool(True), _Pool(False)
        self._in_use: dict[int, tuple[_Block, _Pool]] = {}
        self._next_address = 0
        self._segments: dict[int, int] = {}  # size of each segment by its address

    def allocate(self, key: int, size_bytes: int) -> None:
        """Serve a request and remember it as `key`. Raises OutOfMemory."""
        size = rounded_request(size_bytes)
        pool = self._pools[0 if size <= SMALL_BYTES else 1]
        block = pool.best_fit(size) or self._grown(pool, size)
        if block is None:
            self.empty_cache()
            self.releases += 1
            block = pool.best_fit(size) or self._grown(pool, size)
        if block is None:
            raise OutOfMemory(f"{size} bytes")
        pool.take(block)
        left = block.size - size
        if left >= BLOCK_BYTES if pool.small or self.expandable_segments else left > SMALL_BYTES:
            pool.put(_split(block, size))
        self._in_use[key] = block, pool
        self.allocated_bytes += block.size
        self.peak_allocated_bytes = max(self.peak_allocated_bytes, self.allocated_bytes)

    def release(self, key: int) -> None:
        """Free what `allocate` gave for `key`; its free neighbors become one block with it."""
        block, pool = self._in_use.pop(key)
        self.allocated_bytes -= block.size
        for near in (block.before, block.after):
            if near is not None and near.free and near.mapped:
                pool.take(near)
                block = _joined(*((near, block) if near is block.before else (block, near)))
        pool.put(block)

    @property
    def summary(self) -> Replay:
        """The counters now."""
        return Replay(
            self.peak_allocated_bytes, self.peak_reserved_bytes, self.reserved_bytes, len(self._segments), self.releases
        )

    def empty_cache(self) -> None:
        """Give back every segment that is wholly free, and every free page of the expandable ones."""
        for pool in self._pools:
            for _, address in list(pool.free):
                block = pool.at[address]
                if self._segments.get(address) == block.size:
                    pool.take(block)
                    del self._segments[address]
                    self.reserved_bytes -= block.size
                elif self.expandable_segments:
                    self._unmap(pool, block)

    def _reserve(self, size: int) -> bool:
        if self.capacity_bytes and self.reserved_bytes + size > self.capacity_bytes:
            return False
        self.reserved_bytes += size
        self.peak_reserved_bytes = max(self.peak_reserved_bytes, self.reserved_bytes)
        return True

    def _grown(self, pool: _Pool, size: int) -> _Block | None:
        """A new free block of at least `size` bytes, None when the memory has run out."""
        if self.expandable_segments:
            return self._mapped(pool, size)
        segment = segment_bytes(size)
        if not self._reserve(segment):
            return None
        block = _Block(self._next_address, segment)
        self._next_address += segment + ROUNDING_BYTES  # segments never touch
        self._segments[block.address] = segment
        pool.put(block)
        return block

    def _mapped(self, pool: _Pool, size: int) -> _Block | None:
        """A free block of at least `size` bytes in the expandable segment, with pages mapped behind it."""
        if pool.first is None:
            pool.first = _Block(ADDRESS_SPACE * (1 if pool.small else 2), ADDRESS_SPACE, mapped=False)
        page = SMALL_SEGMENT_BYTES if pool.small else LARGE_SEGMENT_BYTES
        found = _first_room(pool.first, size)
        block = found if found.mapped else self._mapped_pages(pool, found, -(-size // page) * page)
        while block is not None and block.size < size:
            behind = block.after
            assert behind is not None
            if behind.mapped:
                more: _Block | None = behind
            else:
                more = self._mapped_pages(pool, behind, -(-(size - block.size) // page) * page)
            if more is None:
                return None
            pool.take(block)
            pool.take(more)
            pool.put(_joined(block, more))
        return block

    def _mapped_pages(self, pool: _Pool, block: _Block, wanted: int) -> _Block | None:
        """Back the start of an unmapped block with memory: a free block of `wanted` bytes or what there is."""
        size = min(wanted, block.size)
        if not self._reserve(size):
            return None
        if size < block.size:
            _split(block, size).mapped = False
        block.mapped = True
        pool.put(block)
        return block

    def _unmap(self, pool: _Pool, block: _Block) -> None:
        """Give back the whole pages inside a free block."""
        page = SMALL_SEGMENT_BYTES if pool.small else LARGE_SEGMENT_BYTES
        first, last = -(-block.address // page) * page, (block.address + block.size) // page * page
        if last <= first:
            return
        pool.take(block)
        if block.address + block.size > last:
            pool.put(_split(block, last - block.address))
        if first > block.address:
            rest = _split(block, first - block.address)
            pool.put(block)
            block = rest
        block.mapped, block.free = False, True
        self.reserved_bytes -= block.size
        while block.after is not None and not block.after.mapped:
            _joined(block, block.after)
        if block.before is not None and not block.before.mapped:
            _joined(block.before, block)


def _split(block: _Block, size: int) -> _Block:
    """Cut a block to `size` bytes; the rest is a new block behind it."""
    rest = _Block(block.address + size, block.size - size)
    block.size = size
    rest.before, rest.after = block, block.after
    if rest.after is not None:
        rest.after.before = rest
    block.after = rest
    return rest


def _joined(block: _Block, behind: _Block) -> _Block:
    """The first of two neighbors, grown over the second."""
    block.size += behind.size
    block.after = behind.after
    if block.after is not None:
        block.after.before = block
    return block


def _first_room(first: _Block, size: int) -> _Block:
    """Start of the first run of adjacent free and unmapped blocks, one of them unmapped, of `size` bytes or more."""
    block: _Block | None = first
    while block is not None:
        if not block.mapped:
            start = block.before if block.before is not None and block.before.mapped and block.before.free else block
            room = 0
            at: _Block | None = start
            while at is not None and at.free and room < size:
                room += at.size
                at = at.after
            if room >= size:
                return start
        block = block.after
    raise OutOfMemory("the address space of an expandable segment")


def replay(events: Iterable[tuple[int, int]], expandable_segments: bool = False, capacity_bytes: int = 0) -> Replay:
    """Serve a stream of (key, bytes): positive bytes allocate, 0 releases what the key stands for.

    Raises OutOfMemory when `capacity_bytes` (0: no limit) does not suffice.
    """
    allocator = CachingAllocator(expandable_segments, capacity_bytes)
    for key, size in events:
        if size:
            allocator.allocate(key, size)
        else:
            allocator.release(key)
    return allocator.summary
