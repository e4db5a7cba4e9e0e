"""Units that people write and read: "24GB", "80 GiB", "1.5 h". Parsed and printed here, nowhere else."""

from __future__ import annotations

import math
import re

from advisor.errors import BadValue

MIB = 1024**2
GIB = 1024**3

_SIZE = re.compile(r"\s*(\d{1,12}(?:\.\d{1,6})?)\s*([KMGT]?)(I?)B?\s*", re.IGNORECASE)
_POWER = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def parse_card_size_gb(text: str) -> float | None:
    """The gigabytes that a card is sold with, if `text` is a bare size ("24GB", "24 GiB", "24g"); else None.

    Card makers say GB for what the driver counts in GiB, so both spellings mean the same class of cards.
    Raises BadValue when the size is outside 1 GB .. 10,000 GB.
    """
    match = _SIZE.fullmatch(text)
    if match is None or not match[2]:
        return None
    gigabytes = float(match[1]) * 1024.0 ** (_POWER[match[2].upper()] - 3)
    if not 1 <= gigabytes <= 10_000:
        raise BadValue("GPU memory", text.strip(), "must be from 1GB to 10000GB")
    return gigabytes


_DURATION = re.compile(r"\s*(\d{1,9}(?:\.\d{1,6})?)\s*(s|sec|m|min|h)?\s*", re.IGNORECASE)
_SECONDS = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_seconds(what: str, text: str, low_s: float, high_s: float) -> float:
    """Seconds of "5min", "90s", "1.5h" or a bare "300". Raises BadValue for others, and outside of low_s .. high_s."""
    match = _DURATION.fullmatch(text)
    seconds = float(match[1]) * _SECONDS[(match[2] or "s").lower()] if match else math.nan
    if not low_s <= seconds <= high_s:
        raise BadValue(what, text, f"give a time such as 90s or 5min, from {low_s:g} s to {high_s / 3600:g} h")
    return seconds


def format_gib(size_bytes: float) -> str:
    """Bytes as GiB with a sensible number of digits: '0.42', '13.1', '138'."""
    gib = size_bytes / GIB
    if gib >= 100:
        return f"{gib:,.0f}"
    return f"{gib:.1f}" if gib >= 10 else f"{gib:.2f}"


def format_seconds(seconds: float) -> str:
    """Seconds in the unit a person would say: '12 ms', '3.4 s', '12 min', '1.5 h', '3.2 days', '5.1 years'."""
    for limit, divisor, unit in (
        (1.0, 1e-3, "ms"),
        (90.0, 1.0, "s"),
        (5_400.0, 60.0, "min"),
        (48 * 3_600.0, 3_600.0, "h"),
        (730 * 86_400.0, 86_400.0, "days"),
    ):
        if seconds < limit:
            value = seconds / divisor
            break
    else:
        value, unit = seconds / (365.25 * 86_400.0), "years"
    if value >= 1e5:
        return f"{value:.1e} {unit}"
    digits = 0 if value >= 100 or (unit == "ms" and value >= 10) else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {unit}"


def format_count(count: float) -> str:
    """A count as people say it: '950', '41.9M', '8.03B'."""
    for limit, divisor, unit in ((1e3, 1.0, ""), (1e6, 1e3, "K"), (1e9, 1e6, "M"), (1e12, 1e9, "B")):
        if count < limit:
            break
    else:
        divisor, unit = 1e12, "T"
    value = count / divisor
    if unit == "":
        return f"{value:.0f}"
    return f"{value:.0f}{unit}" if value >= 100 else f"{value:.1f}{unit}" if value >= 10 else f"{value:.2f}{unit}"


def format_learning_rate(rate: float) -> str:
    """A learning rate as configurations have it: '2e-4', '1.5e-5'."""
    digits, _, power = f"{rate:.2e}".partition("e")
    return f"{float(digits):g}e{int(power)}"
