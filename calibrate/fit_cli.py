"""`calibrate fit`, and the fit that ends a session: what it found, and where `advise` finds it. Needs no torch."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import click
from rich.text import Text

from advisor.errors import AdvisorError, InputError, SourceUnavailable
from advisor.files.checked import FOLDER_VARIABLE
from advisor.render.console import console_for, new_table, print_table, say
from calibrate.attention_rates import AttentionSample
from calibrate.attention_show import attention_table, print_attention
from calibrate.burst_record import DeviceFacts
from calibrate.fit import typical
from calibrate.measurement import Comparison, Environment
from calibrate.predict import Speed
from calibrate.rates import Benchmarks
from calibrate.rates_store import BadRates, store_rates, stored_rates
from calibrate.records_cli import NONE_YET, OUT, results_of, store_at
from calibrate.residuals import latest
from calibrate.runner import BurstRunner, Machine
from calibrate.store import Store
from calibrate.tuning import NotFitted, Tuned, devices_folder, keep, speed_of, tune

RATES_LIMIT_S = {"cpu": 30.0, "cuda": 90.0}
ATTENTION_LIMIT_S = {"cpu": 5.0, "cuda": 60.0}


def rates_of(runner: BurstRunner, machine: Machine, store: Store, again: bool, limit_s: float) -> Benchmarks:
    """The micro-benchmarks of a machine: those in the store, or measured now within `limit_s`. Reports to stderr.

    Without them bursts still run, but their times are predicted from defaults or, on a CPU, not at all. A store of an
    older version has none of attention: those are added.
    """
    folder, kind, end_s = devices_folder(store), machine.device.kind, time.monotonic() + limit_s
    try:
        found = Benchmarks() if again else stored_rates(machine.device, machine.environment, folder)
    except BadRates as error:
        click.echo(f"{error}", err=True)
        found = Benchmarks()
    if found.samples and found.attention:
        return found
    try:
        keeps = True  # the few samples of a short session are used by that session only
        if not found.samples:
            click.echo(f"measuring the rates of {machine.device.name}", err=True)
            keeps = limit_s >= RATES_LIMIT_S[kind]
            found = Benchmarks(runner.rates(machine, min(limit_s, RATES_LIMIT_S[kind])))
        if not found.samples:
            return found
        left_s = end_s - time.monotonic()
        attention = _attention_of(runner, machine, min(left_s, ATTENTION_LIMIT_S[kind]))
        found = Benchmarks(found.samples, attention)
        if keeps:
            complete = left_s >= ATTENTION_LIMIT_S[kind]
            kept = found if complete else Benchmarks(found.samples)
            store_rates(machine.device, machine.environment, kept, folder)
    except SourceUnavailable as error:
        click.echo(f"the rates were not saved: {error}", err=True)
    except AdvisorError as error:
        click.echo(f"the rates of this device were not measured: {error}", err=True)
    return found


def _attention_of(runner: BurstRunner, machine: Machine, limit_s: float) -> tuple[AttentionSample, ...]:
    """Attention by kernel; () where there is no time or the process that timed it died. Raises SourceUnavailable."""
    if limit_s <= 0:
        return ()
    click.echo("measuring attention by kernel", err=True)
    try:
        return runner.attention(machine, limit_s)
    except SourceUnavailable:
        raise
    except AdvisorError as error:
        click.echo(f"attention was not measured: {error}", err=True)
        return ()


def speed_for(machine: Machine, found: Benchmarks, store: Store) -> Speed | None:
    """The rates that times are predicted from."""
    return speed_of(machine.device, machine.environment, found, devices_folder(store))


def conclude(store: Store, records: Iterable[Comparison], found: Benchmarks, machine: Machine) -> None:
    """Fit what is in the store for this machine, save it, and report it on stderr."""
    device, environment = machine.device, machine.environment
    try:
        tuned = tune(records, found.samples, device, environment, found.attention)
        path = keep(tuned, devices_folder(store))
        lines = summary(tuned, path, store)
    except (NotFitted, SourceUnavailable) as error:
        lines = [str(error)]
    speed = speed_for(machine, found, store) if found.attention else None
    if speed is not None:
        print_attention(attention_table(found.attention, device, speed), sys.stderr)
    for line in lines:
        click.echo(line, err=True)


def summary(tuned: Tuned, path: Path, store: Store) -> list[str]:
    """The fit in a few lines: errors before, after and on held-out bursts, the file, and when it is used."""
    left_out = tuned.left_out
    methods = f", {typical(left_out.methods):.1%} on held-out methods" if left_out.methods else ""
    lines = [
        f"step time of {len(tuned.fit.residuals)} clean bursts, median error: {typical(tuned.errors_before):.1%} with "
        f"{tuned.before.source}; {typical(tuned.fit.residuals):.1%} fitted, "
        f"{typical(left_out.shapes):.1%} on held-out shapes{methods}",
        *tuned.attention.remarks,
        f"profile saved in {path}",
    ]
    if tuned.device.attention:
        kernels = ", ".join(f"{name} {error:.1%}" for name, error in tuned.device.attention.items())
        lines.insert(1, f"attention kernels, median error on held-out widths of heads: {kernels}")
    card = tuned.device.card
    if card.generation:
        elsewhere = f"{FOLDER_VARIABLE}={store.folder} " if path.parent != _own_folder() else ""
        lines.append(f"`{elsewhere}advise --gpu '{card.name}'` uses it from now on")
    return lines


def _own_folder() -> Path:
    return devices_folder(Store())


@click.command("fit")
@OUT
@click.option("--json", "as_json", is_flag=True, help="one line of JSON per device")
def fit_records(out: str | None, as_json: bool) -> None:
    """Fit each device's profile to its records and save it."""
    store = store_at(out)
    records = results_of(store)
    devices = _devices(latest(records))
    if not devices:
        raise InputError(f"nothing to fit: {NONE_YET}")
    fitted = 0
    for device, environment in devices:
        try:
            found = stored_rates(device, environment, devices_folder(store))
            tuned = tune(records, found.samples, device, environment, found.attention)
        except NotFitted as error:
            refused = NotFitted(f"{device.signature}: {error}")
            if len(devices) == 1:
                raise refused from None
            click.echo(str(refused), err=True)
            continue
        fitted += 1
        path = keep(tuned, devices_folder(store))
        if as_json:
            click.echo(json.dumps(_as_json(tuned)))
        else:
            print_tuned(tuned)
        for line in summary(tuned, path, store):
            click.echo(line, err=as_json)
    if not fitted:
        raise InputError(f"none of the {len(devices)} devices could be fitted")


def _devices(records: Iterable[Comparison]) -> list[tuple[DeviceFacts, Environment]]:
    """Each device, with the versions of its newest record."""
    found: dict[str, tuple[DeviceFacts, Environment]] = {}
    for one in records:
        if one.environment.device is not None:
            found[one.environment.device.signature] = (one.environment.device, one.environment)
    return list(found.values())


def _as_json(tuned: Tuned) -> dict[str, object]:
    device = tuned.device
    return {
        "card": device.card.name,
        "versions": dict(device.versions),
        "fitted_at": device.fitted_at,
        "bursts": device.bursts,
        "error_before": typical(tuned.errors_before),
        "error_fitted": typical(tuned.fit.residuals),
        "error_shapes_left_out": device.held_out[0],
        "error_methods_left_out": device.held_out[1] if tuned.left_out.methods else None,
        "attention_error_widths_left_out": dict(device.attention),
        "coefficients": {name: {"before": before, "fitted": after} for name, before, after in tuned.table()},
    }


def print_tuned(tuned: Tuned) -> None:
    """The coefficients before and after."""
    console = console_for(sys.stdout)
    say(console, f"{tuned.device.card.name}", style="bold")
    table = new_table()
    for name in ("coefficient", f"with {tuned.before.source}", "fitted"):
        table.add_column(name, justify="left" if name == "coefficient" else "right")
    for name, before, after in tuned.table():
        table.add_row(Text(name), f"{before:.3g}", f"{after:.3g}")
    low, _, high = tuned.device.profile.device_spread
    table.add_section()
    table.add_row(Text("interval of times"), "", f"{low:.2f} to {high:.2f}")
    print_table(sys.stdout, table)
