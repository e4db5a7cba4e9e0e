"""A card's measured profile: what `calibrate` found on that very card, in place of the default for its generation.

One JSON file per card: {"schema_version", "checksum", "profile"}, written by `calibrate.tuning` and read here without
any library of the training stack. The user's own file takes precedence over those shipped in profiles/devices. A
profile is used only for a card of the same name and memory, and only while the installed libraries are those that it
was measured with; otherwise the default is used, and the answer says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from advisor.costs.device import DeviceProfile
from advisor.costs.steptime import FORMULA_VERSION
from advisor.errors import BadConfig, InputError
from advisor.files.checked import LIBRARIES, data_folder, file_text, installed_version, read_file
from advisor.specs import GpuSpec

SCHEMA_VERSION = 1
MAX_FILE_BYTES = 2**20
AGAIN = "`calibrate` on the card renews it"


class BadDevice(BadConfig):
    """A measured profile that cannot be used."""


class MeasuredDevice(NamedTuple):
    """A card with the rates of its data sheet, and the profile that was measured on it."""

    card: GpuSpec
    profile: DeviceProfile
    versions: Mapping[str, str]  # of the libraries, the driver and CUDA
    fitted_at: str  # a date
    bursts: int
    held_out: tuple[float, float]  # median error of a step's time, on shapes and on methods the fit did not see
    attention: Mapping[str, float] = {}  # median error of each kernel that was fitted, on widths of heads not seen


def device_slug(card: GpuSpec) -> str:
    """The name of a card's file: 'nvidia-geforce-rtx-4090-24gb'. Drivers differ in how much memory they report."""
    words = "".join(c if c.isalnum() and c.isascii() else " " for c in card.name.lower()).split()
    return f"{'-'.join(words)[:80]}-{card.marketed_gb:g}gb"


def device_folder() -> Path:
    """The folder of the user's own measured profiles."""
    return data_folder() / "devices"


def device_text(device: MeasuredDevice) -> str:
    """The file's text."""
    fields = device._asdict() | {
        "card": device.card.model_dump(mode="json"),
        "profile": device.profile.model_dump(mode="json"),
        "versions": dict(device.versions),
        "attention": dict(device.attention),
        "formula": FORMULA_VERSION,
    }
    return file_text(SCHEMA_VERSION, fields)


def read_device(path: Path) -> MeasuredDevice:
    """The profile in a file. Raises BadDevice, in one line that says what to do."""
    what = "the measured profile of a card"
    _, found = read_file(path, SCHEMA_VERSION, MAX_FILE_BYTES, what, AGAIN, BadDevice)
    if found.get("formula") != FORMULA_VERSION:
        raise BadDevice(f"{path}: {what} was fitted to another version of the formula; {AGAIN}")
    return _device_of(found, str(path))


def _device_of(found: Mapping[str, Any], where: str) -> MeasuredDevice:
    try:
        shapes, methods = found["held_out"]
        return MeasuredDevice(
            card=GpuSpec.model_validate(found["card"]),
            profile=DeviceProfile.model_validate(found["profile"]),
            versions={str(name): str(version) for name, version in found["versions"].items()},
            fitted_at=str(found["fitted_at"]),
            bursts=int(found["bursts"]),
            held_out=(float(shapes), float(methods)),
            attention={str(kernel): float(error) for kernel, error in found.get("attention", {}).items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
        raise BadDevice(
            f"{where}: the measured profile of a card lacks or has a bad {str(error).splitlines()[0][:80]}; {AGAIN}"
        ) from None


def measured_device(card: GpuSpec) -> tuple[MeasuredDevice | None, str]:
    """(the profile that was measured on this card, or None; a remark when one is there and cannot be used)."""
    slug = device_slug(card)
    own = device_folder() / f"{slug}.json"
    try:
        if own.is_file():
            device = read_device(own)
        else:
            shipped = resources.files("profiles") / "devices" / f"{slug}.json"
            if not shipped.is_file():
                return None, ""
            with resources.as_file(shipped) as path:
                device = read_device(path)
    except BadDevice as error:
        return None, f"{error}; the default profile is used"
    except OSError as error:
        return None, f"{own}: cannot be read ({error.strerror}); the default profile is used"
    changed = changed_versions(device.versions)
    if changed:
        return None, (
            f"The profile measured on this card on {device.fitted_at} is not used, because it was measured with "
            f"{changed}; {AGAIN}. The default profile is used"
        )
    return device, ""


def evidence_of(device: MeasuredDevice) -> str:
    """One sentence on what the profile's numbers are based on."""
    shapes, methods = device.held_out
    torch = _plain(device.versions.get("torch", "unknown"))
    kernels = ", ".join(f"{name} {error:.0%}" for name, error in device.attention.items())
    return (
        f"profile measured on this card on {device.fitted_at} ({device.bursts} bursts, torch {torch}): median "
        f"step-time error {shapes:.0%} on shapes and {methods:.0%} on methods held out of the fit"
        + (f"; attention kernels, on widths of heads held out: {kernels}" if kernels else "")
    )


def changed_versions(measured: Mapping[str, str]) -> str:
    """'torch 2.13.0 (now 2.14.1)' for each library that is installed in another version; '' when none is."""
    changed = []
    for name in LIBRARIES:
        now = installed_version(name)
        if now is not None and name in measured and _plain(now) != _plain(measured[name]):
            changed.append(f"{name} {_plain(measured[name])} (now {_plain(now)})")
    return ", ".join(changed)


def _plain(version: str) -> str:
    """'2.13.0' of '2.13.0+cu128': the build differs between machines."""
    return version.partition("+")[0]
