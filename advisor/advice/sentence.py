"""The answer in one sentence, for a terminal, a page and a notebook."""

from __future__ import annotations

from advisor.answer import Advice, Candidate
from advisor.parameters.replacing import title_of
from advisor.rules.wording import DISPLAY, fits_text
from advisor.specs import TimeEstimate
from advisor.units import format_count, format_gib, format_seconds


def verdict_line(advice: Advice) -> str:
    """The answer in one sentence."""
    size = format_count(advice.parameters)
    job = f"{advice.model.name} ({size} parameters{_tower_text(advice)}) on {gpu_text(advice)}"
    if advice.recommendation is None:
        return f"Nothing fits: {job}."
    row = advice.candidate(advice.recommendation.method)
    needed = row.memory.needed_bytes
    rank = f" r={advice.recommendation.rank}" if advice.recommendation.rank else ""
    in_place = f" as {title_of(row.recipe)}" if row.recipe.replaces_lora else ""
    fits = fits_text(row, advice.gpu.memory_bytes)
    text = (
        f"Use {DISPLAY[row.method]}{in_place}{rank}: {job} {fits} with {format_gib(needed.low)} to "
        f"{format_gib(needed.high)} of {format_gib(advice.gpu.memory_bytes)} GiB"
    )
    return text + _time_text(advice, row) + _cost_text(row) + "."


def _tower_text(advice: Advice) -> str:
    """', on rows of text; 1.3 GiB of weights are its idle vision tower', or how many tokens of a row are images."""
    if advice.tower is None:
        return ""
    size = f"{format_gib(advice.tower.weight_bytes)} GiB of weights"
    if not advice.tower.image_tokens:
        return f", on rows of text: {size} are its idle vision tower"
    count = advice.workload.images
    each = advice.tower.image_tokens // count
    images = f"{count:,} image{'s' * (count > 1)} of {each:,} token{'s' * (each > 1)}"
    return f", with {images} a row: {size} are its vision tower"


def _time_text(advice: Advice, row: Candidate) -> str:
    """' and takes 1.2 h to 1.9 h for 3,000 examples'; of several cards the time of three."""
    if row.time is None:
        return ""
    work = f"{advice.workload.examples:,} examples"
    work += f" x {advice.workload.epochs:g} epochs" if advice.workload.epochs != 1 else ""
    if not row.card_times:
        return f" and takes {_span(row.time)} for {work}"
    known = row.card_times[0].card in advice.gpu.cards  # or others stand in for a card of unknown speed
    words = ("on the fastest card ({})", "on the middle one ({})", "on the slowest ({})")
    words = words if known else ("if it is as fast as {}", "if as fast as {}", "if as fast as {}")
    chosen = words if len(row.card_times) > 2 else (words[0], words[-1])
    *first, last = (
        f"{format_seconds(one.total_s.likely)} {word.format(one.card)}"
        for word, one in zip(chosen, row.card_times, strict=True)
    )
    return f"; {work} take {', '.join(first)} and {last}"


def _cost_text(row: Candidate) -> str:
    if row.cost is None:
        return ""
    return f"; likely cost {row.cost.likely:,.2f} ({row.cost.low:,.2f} to {row.cost.high:,.2f})"


def gpu_text(advice: Advice) -> str:
    """'a 24GB card', 'NVIDIA L4', '8 x 80GB cards'."""
    cards, gpus, asked = advice.gpu.cards, advice.gpu.gpus, advice.gpu.asked
    name = cards[0] if len(cards) == 1 else f"{asked} card"
    if gpus > 1:
        return f"{gpus} x {name}{'s' if len(cards) > 1 else ''}"
    article = "an" if asked.startswith(("8", "11GB", "18GB")) else "a"
    return name if len(cards) == 1 else f"{article} {name}"


def _span(time: TimeEstimate) -> str:
    """'1.2 h to 1.9 h', or one value where both ends read the same."""
    low, high = format_seconds(time.total_s.low), format_seconds(time.total_s.high)
    return low if low == high else f"{low} to {high}"
