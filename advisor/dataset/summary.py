"""What a data file says about the job: its form, its rows, how long they are, and what the job does with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil
from typing import NamedTuple

from advisor.answer import DataFile, DataSummary
from advisor.costs.micro_batches import average
from advisor.dataset.counting import Counter as TokenCounter
from advisor.dataset.forms import COLUMNS, Example, Form, recognized
from advisor.dataset.lengths import PERCENTILES, Lengths
from advisor.dataset.reading import Source, rows_of
from advisor.dataset.rows import BadRow, Progress
from advisor.errors import BadValue, InputError
from advisor.interval import Interval
from advisor.specs import Recipe, Workload

BATCH_ROWS, BATCH_CHARACTERS = 256, 500_000
FIRST_BAD_LINES = 5
ROWS_TO_RECOGNIZE = 100
"""So many rows may be unlike any form that is known before the file is given up."""
MICRO_BATCHES = (1, 2, 4, 8, 16, 32)

_PLAIN_TEXT = Form("text", (), lambda row: Example(str(row["text"])))


class Measured(NamedTuple):
    """The rows of a file and their lengths in tokens."""

    file: DataFile
    lengths: Lengths  # the likely ones
    mean_tokens: Interval
    longest_tokens: Interval
    counted_by: str
    bad_lines: int = 0
    first_bad_lines: tuple[int, ...] = ()


class _Tally:
    """What is kept while rows go by: counts of lengths, sums and extremes; and of bad rows the first lines."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        self.low = self.likely = self.high = 0.0
        self.longest = Interval.exact(0.0)
        self.bad = 0
        self.first_bad: list[int] = []
        self.why = ""

    def add(self, tokens: Interval) -> None:
        self.counts[max(1, round(tokens[1]))] += 1
        self.low += tokens[0]
        self.likely += tokens[1]
        self.high += tokens[2]
        if tokens[2] > self.longest[2] or tokens[1] > self.longest[1] or tokens[0] > self.longest[0]:
            self.longest = Interval(*map(max, self.longest, tokens))

    def add_bad(self, line: int, why: BadRow) -> None:
        self.bad += 1
        if len(self.first_bad) < FIRST_BAD_LINES:
            self.first_bad.append(line)
            self.why = self.why or str(why)


def measure(
    path: str,
    counter: TokenCounter,
    *,
    skip_bad_lines: bool = False,
    renamed: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Measured:
    """Read the file once: its rows, and the tokens of what training reads of them.

    `renamed` gives the file's names of columns that are known here by another. Rows that training could not read are
    counted, and an error unless `skip_bad_lines`.
    Raises BadValue and InputError for a file that cannot be used, SourceUnavailable for one that cannot be read.
    """
    source = Source.of(path)
    renamed = renamed or {}
    tally = _Tally()
    form = _PLAIN_TEXT if source.format == "text" else None
    strange: InputError | None = None
    batch: list[tuple[int, Example]] = []
    characters = 0
    for line, row in rows_of(source, (*COLUMNS, *renamed.values()), progress):
        if isinstance(row, BadRow) or not isinstance(row, Mapping):
            tally.add_bad(line, row if isinstance(row, BadRow) else BadRow("not an object"))
            continue
        try:
            form = form or recognized(row, renamed, path)
            example = form.read(row)
        except BadRow as why:
            tally.add_bad(line, why)
            continue
        except InputError as error:
            strange = strange or error
            tally.add_bad(line, BadRow("no columns that training reads"))
            if tally.bad >= ROWS_TO_RECOGNIZE:
                raise strange from None
            continue
        batch.append((line, example))
        characters += len(example.text) + sum(len(turn.content) for turn in example.turns)
        if len(batch) >= BATCH_ROWS or characters >= BATCH_CHARACTERS:
            _count(counter, batch, tally)
            batch, characters = [], 0
    _count(counter, batch, tally)
    if form is None and strange is not None:
        raise strange
    _refuse(path, tally, skip_bad_lines)
    return _measured(source, form or _PLAIN_TEXT, tally, counter.name)


def _count(counter: TokenCounter, batch: Sequence[tuple[int, Example]], tally: _Tally) -> None:
    lengths = counter.lengths([example for _, example in batch])
    for (line, _), tokens in zip(batch, lengths, strict=True):
        if isinstance(tokens, BadRow):
            tally.add_bad(line, tokens)
        else:
            tally.add(tokens)


def _refuse(path: str, tally: _Tally, skip_bad_lines: bool) -> None:
    """Refuse a file without rows, and bad rows that are not to be skipped."""
    good = sum(tally.counts.values())
    if not tally.bad and not good:
        raise BadValue("--data", path, "the file has no rows; give --examples N instead")
    if not tally.bad or (skip_bad_lines and good):
        return
    lines = ", ".join(f"{line:,}" for line in tally.first_bad)
    more = ", ..." if tally.bad > len(tally.first_bad) else ""
    which = "line" if tally.bad == 1 else "lines"
    what_next = "correct them, or go on without them by --skip-bad-lines" if good else "none can be read"
    raise BadValue(
        "--data",
        path,
        f"{tally.bad:,} of {tally.bad + good:,} rows cannot be read, at {which} {lines}{more} "
        f"(the first: {tally.why}); {what_next}",
    )


def _measured(source: Source, form: Form, tally: _Tally, counted_by: str) -> Measured:
    lengths = Lengths(tally.counts)
    low, high = tally.low / tally.likely, tally.high / tally.likely
    mean = lengths.tokens / lengths.rows
    return Measured(
        file=DataFile(path=source.path, format=source.format, form=form.name, columns=form.columns),
        lengths=lengths,
        mean_tokens=Interval(mean * low, mean, mean * high),
        longest_tokens=Interval(*(float(max(1, round(tokens))) for tokens in tally.longest)),
        counted_by=counted_by,
        bad_lines=tally.bad,
        first_bad_lines=tuple(tally.first_bad),
    )


def summary_of(measured: Measured, workload: Workload, micro_batch: int) -> DataSummary:
    """The file's lengths, and what the job makes of its rows: cut, padded in micro-batches or packed, and stepped over.

    The table of padding is what is expected of micro-batches drawn at random and padded to their longest row. Steps
    and padded tokens are those of `workload`, packed best-fit if it packs.
    """
    lengths, limit = measured.lengths, workload.seq_len
    kept = lengths.cut_at(limit)
    packed = lengths.packed(limit)
    sizes = sorted({*MICRO_BATCHES, micro_batch})
    padded = packed.rows * limit if workload.packing else round(_padded_row(kept, workload, micro_batch) * kept.rows)
    share = workload.examples / lengths.rows  # --examples may say another number of rows
    rows = packed.rows if workload.packing else lengths.rows
    edges, counts = lengths.histogram()
    return DataSummary(
        rows=lengths.rows,
        bad_lines=measured.bad_lines,
        first_bad_lines=measured.first_bad_lines,
        counted_by=measured.counted_by,
        mean_tokens=measured.mean_tokens,
        longest_tokens=measured.longest_tokens,
        percentiles=tuple((percent, lengths.percentile(percent)) for percent in PERCENTILES),
        histogram_edges=edges,
        histogram_rows=counts,
        seq_len=limit,
        rows_cut=lengths.rows_beyond(limit),
        tokens_cut=1 - kept.tokens / lengths.tokens,
        micro_batch=micro_batch,
        padding=tuple((size, kept.padding(size)) for size in sizes),
        packed_rows=packed.rows,
        packed_padding=1 - packed.tokens / (packed.rows * limit),
        real_tokens=round(kept.tokens * share),
        padded_tokens=max(round(padded * share), round(kept.tokens * share)),
        steps=max(1, ceil(rows * share * workload.epochs / workload.batch_size)),
    )


def _padded_row(kept: Lengths, workload: Workload, micro_batch: int) -> float:
    """Expected tokens of a row in micro-batches as `workload` makes them; exact where they are drawn at random."""
    if workload.padding == "longest" and not workload.group_by_length and workload.pad_to_multiple_of == 1:
        return kept.expected_longest(micro_batch)
    repeats = max(1, workload.batch_size // micro_batch)
    one = average(workload, Recipe(method="full", micro_batch=micro_batch, gradient_accumulation=repeats))
    return one.rows * one.tokens / micro_batch
