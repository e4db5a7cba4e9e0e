"""The base of all records that calibrate writes, and the ranges of their figures. Needs no torch.

Records are read back from disk and come from strangers, so every figure has a range: what no machine can have measured
is refused, and what reads the records (tables, plots, fits) can rely on it. The ranges are far wider than any machine.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

LONGEST_TEXT = 500


class Record(BaseModel):
    """Base of all records: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def printable(text: str) -> str:
    """A text that a terminal shows as one line and does not obey, cut where it is too long."""
    cut = text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 3] + "..."
    return cut if cut.isprintable() else "".join(c if c.isprintable() else "?" for c in cut)


def _date(text: str) -> str:
    date.fromisoformat(text)
    return text


def _moment(text: str) -> str:
    datetime.fromisoformat(text)
    return text


Text = Annotated[str, AfterValidator(printable)]
Date = Annotated[str, AfterValidator(_date)]
Moment = Annotated[str, AfterValidator(_moment)]
Count = Annotated[int, Field(ge=0, le=10**30)]
Bytes = Annotated[int, Field(ge=0, le=10**30)]
"""Of a prediction, too, which may be for a shape that no machine holds."""
PeakBytes = Annotated[int, Field(ge=1, le=10**30)]
LARGEST_DEVICE_BYTES = 2**50
"""A pebibyte: no device has more memory, so none was measured to use more."""
Seconds = Annotated[float, Field(ge=1e-9, le=1e9)]
"""From a nanosecond to thirty years."""
HostSeconds = Annotated[float, Field(ge=0, le=1e9)]
"""Of work that may be too short for the clock."""
Hertz = Annotated[float, Field(ge=0, le=1e12)]
Watt = Annotated[float, Field(ge=0, le=1e6)]
Celsius = Annotated[float, Field(ge=-273.15, le=1e4)]
Cores = Annotated[int, Field(ge=1, le=1_000_000)]
Load = Annotated[float, Field(ge=0, le=1e6)]
"""Of processors: a number of them, or a share of their time."""
