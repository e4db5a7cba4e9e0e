"""Where the micro-benchmarks of a device are kept: one file beside its profile. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from advisor.costs.measured import BadDevice, device_slug
from advisor.files.checked import file_text, read_file
from advisor.files.written import replace_text
from calibrate.burst_record import DeviceFacts
from calibrate.measurement import Environment
from calibrate.rates import Benchmarks, Rates
from calibrate.tuning import card_of, today

FILE_SCHEMA = 1
"""Of the file around the rates, which have a schema of their own."""
RATES_LIMIT_BYTES = 2**22
AGAIN = "`calibrate --again` measures them again"


class BadRates(BadDevice):
    """A file of micro-benchmarks that cannot be used."""


def rates_path(device: DeviceFacts, folder: Path) -> Path:
    """The file of a device's micro-benchmarks."""
    return folder / f"{device_slug(card_of(device, ()))}.rates.json"


def rates_in(device: DeviceFacts, versions: Mapping[str, str], folder: Path) -> Rates | None:
    """The micro-benchmarks of a device with these versions; None when there are none.

    Raises BadRates for a file that cannot be read.
    """
    path = rates_path(device, folder)
    if not path.is_file():
        return None
    _, found = read_file(path, FILE_SCHEMA, RATES_LIMIT_BYTES, "the file of micro-benchmarks", AGAIN, BadRates)
    try:
        rates = Rates.model_validate(found)
    except ValidationError as error:
        raise BadRates(f"{path}: {error.errors()[0]['msg']}; {AGAIN}") from None
    return rates if rates.versions == versions else None


def stored_rates(device: DeviceFacts, environment: Environment, folder: Path) -> Benchmarks:
    """What `rates_in` finds; empty when there are none. Raises BadRates."""
    rates = rates_in(device, environment.versions, folder)
    return Benchmarks() if rates is None else Benchmarks(rates.samples, rates.attention)


def store_rates(device: DeviceFacts, environment: Environment, found: Benchmarks, folder: Path) -> None:
    """Save micro-benchmarks. Raises SourceUnavailable."""
    rates = Rates(device=device, versions=environment.versions, measured_at=today(), **found._asdict())
    keep_rates(rates, folder)


def keep_rates(rates: Rates, folder: Path) -> None:
    """Save micro-benchmarks measured here or elsewhere, replacing older ones. Raises SourceUnavailable."""
    replace_text(rates_path(rates.device, folder), file_text(FILE_SCHEMA, rates.model_dump(mode="json")))
