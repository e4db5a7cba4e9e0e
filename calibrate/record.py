"""The base of all records that calibrate writes: immutable, closed. Needs no torch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Base of all records: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
