"""`calibrate show`, `report`, `export` and `import`: commands on stored records. Needs no torch."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from advisor.errors import InputError
from advisor.files.guarded import named_path
from advisor.files.written import is_stream, write_text
from calibrate.attention_show import AttentionTable, attention_table, print_attention
from calibrate.checks import is_clean
from calibrate.measurement import Comparison
from calibrate.rates import Benchmarks, Rates
from calibrate.rates_store import BadRates, keep_rates, rates_in
from calibrate.records_show import print_records
from calibrate.residuals import latest
from calibrate.store import Shared, Store, parse_file, write_file
from calibrate.tuning import devices_folder, speed_of

OUT = click.option("--out", metavar="DIR", help="folder with the records [default: the user's data folder]")
FORCE = click.option("--force", is_flag=True, help="replace FILE where it exists")
NONE_YET = "there are no records yet; run `calibrate --method all` to measure some"


def store_at(out: str | None) -> Store:
    """The store of --out, or the user's own."""
    return Store(None if out is None else named_path(out))


def results_of(store: Store) -> tuple[Comparison, ...]:
    """Every result, with a remark on stderr about skipped lines."""
    contents = store.read()
    if contents.remark:
        click.echo(f"{store.path}: {contents.remark}", err=True)
    return contents.results


@click.command()
@OUT
@click.option("--all", "every", is_flag=True, help="include repeated bursts, not only the newest of each")
@click.option("--json", "as_json", is_flag=True, help="one JSON object per line")
def show(out: str | None, every: bool, as_json: bool) -> None:
    """Show measured bursts: predicted against measured, and marks; then attention by kernel."""
    store = store_at(out)
    results = results_of(store)
    records = results if every else latest(results)
    if as_json:
        for record in records:
            click.echo(record.model_dump_json())
    elif records:
        print_records(records)
        for table in _attention_of(records, devices_folder(store)):
            print_attention(table, sys.stdout)
    else:
        click.echo(NONE_YET)


@click.command()
@OUT
@click.option("--html", "file", required=True, metavar="FILE", help="the self-contained file to write")
@FORCE
def report(out: str | None, file: str, force: bool) -> None:
    """Plot predicted against measured in one HTML file."""
    from calibrate.report import report_html

    store, path = store_at(out), named_path(file)
    records = latest(results_of(store))
    page = report_html(records, _attention_of(records, devices_folder(store)))
    write_text(path, page, "--html", force, _kept(store))
    _say_written(path, f"{file}: {len(records)} bursts" if records else f"{file}: {NONE_YET}")


@click.command("export")
@click.argument("file")
@OUT
@click.option("--clean", "only_clean", is_flag=True, help="leave out records whose marks keep them from being fitted")
@FORCE
def export_records(file: str, out: str | None, only_clean: bool, force: bool) -> None:
    """Write the newest result of every burst, and the micro-benchmarks, to FILE for sharing."""
    store, path = store_at(out), named_path(file)
    records = latest(results_of(store))
    if only_clean:
        records = tuple(one for one in records if is_clean(one, "time") and is_clean(one, "memory"))
    if not records:
        raise InputError(f"nothing to export: {NONE_YET}")
    rates = _rates_of(records, devices_folder(store))
    write_file(path, Shared(records, rates), force, _kept(store))
    _say_written(path, f"{len(records)} records{_with(rates)} of {_devices(records)} in {file}")


@click.command("import")
@click.argument("file")
@OUT
def import_records(file: str, out: str | None) -> None:
    """Add the records in FILE to the store; every line must be valid."""
    records, rates = parse_file(named_path(file))
    store = store_at(out)
    folder = devices_folder(store)
    rates = tuple(one for one in rates if rates_in(one.device, one.versions, folder) is None)  # keep our own
    for one in rates:
        keep_rates(one, folder)
    known = {one.burst.id for one in store.read().results if one.burst is not None}
    fresh = [one for one in records if one.burst is not None and one.burst.id not in known]
    if fresh:
        store.append(*fresh)
    known_already = f", {len(records) - len(fresh)} already there" if len(fresh) < len(records) else ""
    click.echo(f"{len(fresh)} records{_with(rates)} of {_devices(records)} added to {store.path}{known_already}")


def _kept(store: Store) -> tuple[Path, ...]:
    """What a command may not write over, whatever the flags: the store's own files."""
    return (*store.own_files, devices_folder(store))


def _say_written(path: Path, text: str) -> None:
    """Say what was written, but not into it."""
    click.echo(text, err=is_stream(path))


def _rates_of(records: Iterable[Comparison], folder: Path) -> tuple[Rates, ...]:
    """The micro-benchmarks of the devices and versions of some records, once each."""
    found: dict[str, Rates] = {}
    for one in records:
        device = one.environment.device
        rates = None if device is None else rates_in(device, one.environment.versions, folder)
        if rates is not None:
            found[rates.model_dump_json()] = rates
    return tuple(found.values())


def _attention_of(records: Sequence[Comparison], folder: Path) -> list[AttentionTable]:
    """The attention of the devices of some records; a file that cannot be read is reported on stderr."""
    found = []
    devices = {one.environment.device.signature: one.environment for one in records if one.environment.device}
    for environment in devices.values():
        assert environment.device is not None
        try:
            rates = rates_in(environment.device, environment.versions, folder)
        except BadRates as error:
            click.echo(f"{error}", err=True)
            continue
        if rates is None or not rates.attention:
            continue
        speed = speed_of(environment.device, environment, Benchmarks(rates.samples, rates.attention), folder)
        if speed is not None:
            found.append(attention_table(rates.attention, environment.device, speed))
    return found


def _with(rates: Sequence[Rates]) -> str:
    return " and the micro-benchmarks" if rates else ""


def _devices(records: tuple[Comparison, ...]) -> str:
    """The devices that the records belong to."""
    names = dict.fromkeys(one.environment.device.signature if one.environment.device else "?" for one in records)
    return "; ".join(names)
