"""A data file for people: its lengths, what a limit cuts, padding and packing, in at most 80 columns."""

from __future__ import annotations

from typing import TextIO

from advisor.answer import DataFile, DataSummary
from advisor.render.console import console_for, say
from advisor.rules.wording import cut_text, tokens_text

_BAR_COLUMNS = 40
_PERCENTILES_A_LINE = 5


def render_data(named: DataFile, data: DataSummary, file: TextIO) -> None:
    """Print what is in the file: rows, lengths with a histogram, and what a job makes of the rows."""
    console = console_for(file)
    columns = f", columns {', '.join(named.columns)}" if named.columns else ""
    say(
        console, f"{_count(data.rows, 'row')} of {named.form.replace('_', '/')} ({named.format}{columns})", style="bold"
    )
    if data.bad_lines:
        lines = ", ".join(f"{line:,}" for line in data.first_bad_lines)
        more = ", ..." if data.bad_lines > len(data.first_bad_lines) else ""
        say(console, f"{_count(data.bad_lines, 'bad line')} skipped: {lines}{more}")
    say(console, f"tokens: mean {tokens_text(data.mean_tokens)}, longest {tokens_text(data.longest_tokens)}")
    say(console, f"  {data.counted_by}", style="dim", indent=2)
    for start in range(0, len(data.percentiles), _PERCENTILES_A_LINE):
        some = data.percentiles[start : start + _PERCENTILES_A_LINE]
        say(console, "  ".join(f"{percent:g} %: {tokens:,}" for percent, tokens in some), indent=2)
    for line in _bars(data):
        console.print(line, soft_wrap=True)
    say(console, f"{cut_text(data)}; {_count(data.steps, 'step')}", indent=2)
    shares = ", ".join(f"{share:.0%} at {size:,}" for size, share in data.padding if size > 1)
    say(console, f"padding by micro-batch: {shares}", indent=2)
    say(console, f"packed: {_count(data.packed_rows, 'row')}, {data.packed_padding:.1%} padding", indent=2)
    with_padding = f"{data.padded_tokens:,} with the padding of this job"
    say(console, f"an epoch: {data.real_tokens:,} tokens, {with_padding}", indent=2)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _bars(data: DataSummary) -> list[str]:
    """One line for each step of lengths; the longest bar has full width."""
    most = max(data.histogram_rows)
    edges = zip(data.histogram_edges, data.histogram_edges[1:], strict=False)
    names = [f"{low:,} to {next_low - 1:,}" for low, next_low in edges]
    width = max(map(len, names))
    numbers = max(len(f"{rows:,}") for rows in data.histogram_rows)
    return [
        f"{name:>{width}}  {rows:>{numbers},}  {'#' * -(-rows * _BAR_COLUMNS // most)}".rstrip()
        for name, rows in zip(names, data.histogram_rows, strict=True)
    ]
