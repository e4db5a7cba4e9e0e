"""The micro-batches that a trainer makes of rows: the worst decides memory, their mean time, their order fragmentation.

padded       every row as long as the longest of its micro-batch (`longest`), or as the limit (`max_length`); rows of
             different lengths then come with a padding mask
not padded   rows one after the other in a single row, which needs attention that knows where each begins
packed       full rows: plain causal (`wrapped`), or examples kept apart by the kernel (`varlen`), or by their position
             ids, of which flash attention makes bounds and every other kernel a mask over the whole micro-batch

Sources: transformers 5.23, data/data_collator.py (DataCollatorForSeq2Seq), trainer_pt_utils.py
(get_length_grouped_indices), masking_utils.py (find_packed_sequence_indices); trl 1.16, trainer/sft_trainer.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from math import fsum
from typing import NamedTuple

from advisor.specs import Recipe, RowKind, Workload

MEGA_BATCHES = 50
"""Batches whose rows are sorted together under group_by_length."""
CURVED_TOKENS = 16_384
"""About the length at which the square of attention takes as long as all that grows with the length itself."""
NEGLECTED = 0.02
"""A share of the time, below which it is not worth a second length that lengths differ."""


class MicroBatch(NamedTuple):
    """Rows of one forward pass; `padded`: attention gets a mask; `packed`: it is made of position ids."""

    rows: int
    tokens: int  # of each row
    padded: bool = False
    packed: bool = False

    @property
    def kind(self) -> RowKind:
        """What its rows are."""
        return "packed" if self.packed else "padded" if self.padded else "full"


def worst(workload: Workload, recipe: Recipe) -> MicroBatch:
    """The micro-batch that needs the most memory: it holds a longest row, beside shorter ones where lengths differ.

    Rows that are not padded are taken as all longest: a bound.
    """
    rows = recipe.micro_batch
    if workload.packing:
        return _packed(workload, recipe)
    if workload.padding == "none":
        return _flattened(workload, recipe, rows, workload.seq_len)
    tokens = _rounded(workload, workload.seq_len)
    shorter = workload.padding == "max_length" and workload.lengths.ends[0] < tokens
    return MicroBatch(rows, tokens, _differs(workload, rows) or shorter or tokens > workload.seq_len)


def evaluating(recipe: Recipe) -> Recipe:
    """The recipe whose micro-batches are those of evaluation."""
    changes = {"micro_batch": recipe.eval_batch, "gradient_accumulation": 1, "expandable_segments": False}
    return recipe.model_copy(update=changes)


@lru_cache(maxsize=256)
def expected(workload: Workload, recipe: Recipe) -> tuple[tuple[MicroBatch, float], ...]:
    """(micro-batch, its share) pairs whose mean time is that of all micro-batches.

    Two lengths with the mean and the spread of the true ones: exact for a time that grows with the square of the
    length. One of mean length where the square is a small part.
    Ignores: the waiting of several cards for the longest of their micro-batches.
    """
    rows = recipe.micro_batch
    if workload.packing:
        return _expected_packed(workload, recipe)
    lengths, most = workload.lengths, _rounded(workload, workload.seq_len)
    if workload.padding == "max_length":
        return ((worst(workload, recipe), 1.0),)
    if lengths.alike:
        return ((collated(workload, recipe, [lengths.ends[1]] * rows), 1.0),)
    alone = rows == 1 or workload.padding == "none"  # each row has its own length
    mean = lengths.longest_of(1 if alone else rows)
    spread = lengths.spread_of(1 if alone else rows)
    if workload.group_by_length and not alone:
        mean, spread = min(mean, _grouped_mean(workload, recipe)), lengths.spread_of(1)
    more = 0.0 if workload.padding == "none" else (workload.pad_to_multiple_of - 1) / 2  # of rounding up, on average
    padded = _differs(workload, rows)

    def batch(tokens: float) -> MicroBatch:
        length = max(1, min(most, round(tokens + more)))
        return (
            _flattened(workload, recipe, rows, length)
            if workload.padding == "none"
            else MicroBatch(rows, length, padded)
        )

    if (spread / mean) ** 2 * mean / CURVED_TOKENS < NEGLECTED:
        return ((batch(mean), 1.0),)
    short = max(mean - spread, mean / 4)
    long = mean + spread**2 / (mean - short)
    share = (mean - short) / (long - short)
    return (batch(short), 1 - share), (batch(long), share)


def average(workload: Workload, recipe: Recipe) -> MicroBatch:
    """The micro-batch of mean length, padding included."""
    batches = expected(workload, recipe)
    return batches[0][0]._replace(tokens=round(fsum(batch.tokens * share for batch, share in batches)))


def alike(workload: Workload) -> bool:
    """Whether all micro-batches have one length."""
    return workload.packing or workload.padding == "max_length" or workload.lengths.alike


def length_count(workload: Workload) -> int:
    """How many lengths micro-batches in random order can have; 1 under group_by_length, which goes from long to short.

    Ignores: lengths between the shortest and the longest that no row has.
    """
    if alike(workload) or workload.group_by_length:
        return 1
    shortest, longest = (_rounded(workload, end) for end in workload.lengths.ends)
    return 1 + (longest - shortest) // workload.pad_to_multiple_of


def drawn(workload: Workload, recipe: Recipe, seed: int) -> Iterator[MicroBatch]:
    """Micro-batches in the order of a job with random rows, without end; the same for the same seed."""
    from random import Random  # only a replay asks for an order

    rng, rows = Random(seed), recipe.micro_batch
    if workload.packing:
        while True:
            yield _packed(workload, recipe)
    if not workload.group_by_length or workload.padding != "longest":
        while True:
            yield collated(workload, recipe, workload.lengths.sample(rng, rows))
    first = True
    while True:
        sorted_rows = sorted(workload.lengths.sample(rng, _sorted_together(workload, recipe)), reverse=True)
        if first:
            sorted_rows[0], first = workload.lengths.ends[1], False
        remaining = iter(sorted_rows)
        while some := list(islice(remaining, rows)):
            yield collated(workload, recipe, some)


def collated(workload: Workload, recipe: Recipe, lengths: list[int]) -> MicroBatch:
    """What the collator makes of these rows."""
    rows, longest = len(lengths), max(lengths)
    if workload.padding == "none":
        return _flattened(workload, recipe, rows, round(sum(lengths) / rows))
    tokens = _rounded(workload, workload.seq_len if workload.padding == "max_length" else longest)
    return MicroBatch(rows, tokens, min(lengths) < tokens)


def _rounded(workload: Workload, tokens: int) -> int:
    """A length as the collator rounds it up."""
    unit = workload.pad_to_multiple_of
    return -(-tokens // unit) * unit


def _differs(workload: Workload, rows: int) -> bool:
    """Whether micro-batches hold padding because rows differ."""
    alone = rows == 1 and workload.pad_to_multiple_of == 1
    return not (workload.lengths.alike or alone)


def _sorted_together(workload: Workload, recipe: Recipe) -> int:
    """Rows that group_by_length sorts at once: 50 batches, fewer where there would be fewer than four such groups."""
    batch = recipe.micro_batch * recipe.gradient_accumulation
    return batch * max(1, min(workload.examples // (batch * 4), MEGA_BATCHES))


def _grouped_mean(workload: Workload, recipe: Recipe) -> float:
    """Mean length of the longest of neighbors among the rows that are sorted together.

    n sorted rows are on average at the shares 1 / (n + 1), 2 / (n + 1) ... of the law: the longest of a micro-batch
    is (rows - 1) / 2 of these steps above the micro-batch's mean.
    """
    lengths = workload.lengths
    shortest, longest = lengths.ends
    step = (longest - shortest) / (_sorted_together(workload, recipe) + 1)
    return lengths.longest_of(1) + step * (recipe.micro_batch - 1) / 2


def _packed(workload: Workload, recipe: Recipe) -> MicroBatch:
    """Full rows."""
    rows, tokens = recipe.micro_batch, workload.seq_len
    if workload.packing_strategy == "position_ids":
        return _flattened(workload, recipe, rows, tokens, alone=1)
    return MicroBatch(rows, tokens)


def _flattened(workload: Workload, recipe: Recipe, rows: int, tokens: int, alone: int = 2) -> MicroBatch:
    """Rows one after the other in one row, with position ids: of fewer than `alone` rows nothing has to be kept apart.

    Flash attention keeps them apart by their bounds, as any kernel does under `varlen`, and so works as on rows of
    their own.
    """
    if recipe.attention == "flash" or workload.packing_strategy == "varlen" or rows < alone:
        return MicroBatch(rows, tokens)
    return MicroBatch(1, rows * tokens, padded=True, packed=True)


def _expected_packed(workload: Workload, recipe: Recipe) -> tuple[tuple[MicroBatch, float], ...]:
    """The same tokens in rows as long as the example that an average token is in, where kernels keep examples apart."""
    packed = _packed(workload, recipe)
    if workload.packing_strategy == "wrapped" or packed.padded:
        return ((packed, 1.0),)
    lengths, tokens = workload.lengths, packed.rows * packed.tokens
    mean = lengths.longest_of(1)
    of_a_token = mean + lengths.spread_of(1) ** 2 / mean
    rows = max(packed.rows, round(tokens / of_a_token))
    return ((MicroBatch(rows, round(tokens / rows)), 1.0),)
