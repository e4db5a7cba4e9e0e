"""From records to a profile that `advise` uses: which bursts are fitted, whether to trust the fit, where to store it.

A profile that its own residuals do not support is refused, with the reason: too few clean bursts, or held-out errors
that are larger than LIMIT or larger than without a fit. Needs no torch.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from advisor.catalog.gpus import reported_card
from advisor.costs.device import DeviceProfile, profile_for
from advisor.costs.measured import BadDevice, MeasuredDevice, device_slug, device_text, read_device
from advisor.decoders.step import step_program
from advisor.errors import InputError
from advisor.files.written import replace_text
from advisor.interval import Interval
from advisor.specs import GpuSpec
from advisor.units import GIB
from calibrate.attention_fit import OF_OTHERS, Judged, fit_with_attention, judged, with_attention
from calibrate.attention_rates import AttentionSample
from calibrate.burst_record import DeviceFacts
from calibrate.checks import is_clean
from calibrate.cpu_profile import CPU_PROFILE
from calibrate.cut import spec_of
from calibrate.fit import (
    COEFFICIENTS,
    Fit,
    HeldOut,
    Observation,
    fit,
    held_out,
    interval_of,
    residuals,
    typical,
)
from calibrate.measurement import Comparison, Environment, Figures
from calibrate.predict import Speed, predict
from calibrate.rates import Benchmarks, Sample
from calibrate.residuals import latest
from calibrate.store import Store

FEWEST_BURSTS, FEWEST_SHAPES, MOST_BURSTS = 6, 2, 200
LIMIT = 0.25
"""Median held-out error above which a profile is refused."""
HEADROOM = 2.0
"""A CPU's rates are set to this multiple of the best ones measured, so that the fit can find its own fractions."""
LARGE_BYTES = 2**24
ONE_METHOD_SPREAD = 0.2
"""Least spread of a profile fitted to one method only: the errors of other methods may be larger."""
FRAGMENTATION_RANGE = (0.2, 3.0)
"""Above this, something other than fragmentation was measured."""


class NotFitted(InputError):
    """Why the records of a device do not make a profile."""


class Tuned(NamedTuple):
    """A fitted device with how it got there; errors are log(predicted / measured) of the steps."""

    device: MeasuredDevice
    fit: Fit
    left_out: HeldOut
    before: Speed
    errors_before: tuple[float, ...]
    attention: Judged = Judged()

    def table(self) -> list[tuple[str, float, float]]:
        """(coefficient, its value before, its value now)."""
        moved = (*COEFFICIENTS, *(OF_OTHERS if self.attention.others else ()))
        return [(one.name, one.of(self.before.profile), one.of(self.device.profile)) for one in moved]


def devices_folder(store: Store) -> Path:
    """The folder of the profiles that belong to a store: next to the user's own bursts, or in the folder of --out."""
    return (Store().folder.parent if store.folder == Store().folder else store.folder) / "devices"


def card_of(device: DeviceFacts, samples: Sequence[Sample]) -> GpuSpec:
    """A device with its peak rates: the data sheet's or, without a data sheet, the measured ones.

    Its speed is unknown when there are neither.
    """
    if device.kind == "cuda":
        card = reported_card(device.name, device.memory_bytes, device.compute_capability)
        return card if card.speed_known or not samples else card.model_copy(update=_peaks(samples))
    name = f"{device.name}, {device.threads} thread{'s' if device.threads > 1 else ''}"
    marketed = float(max(1, round(device.memory_bytes / GIB)))
    card = GpuSpec(name=name, generation="", memory_bytes=device.memory_bytes, marketed_gb=marketed)
    return card.model_copy(update=_peaks(samples)) if samples else card


def _peaks(samples: Sequence[Sample]) -> dict[str, float]:
    """HEADROOM times the best products of each width, and the fastest of the larger sums, casts and optimizer steps."""

    def product(dtypes: tuple[str, ...]) -> float:
        found = [
            one.kernels[0][2] / one.seconds for one in samples if one.op == "product" and one.kernels[0][1] in dtypes
        ]
        return HEADROOM * max(found, default=0.0)

    speeds = [
        one.kernels[0][3] / one.seconds
        for one in samples
        if one.op in ("sum", "cast", "adamw") and one.kernels[0][3] >= LARGE_BYTES
    ]
    return {
        "memory_bytes_per_s": HEADROOM * max(speeds, default=0.0),
        "bf16_flop_per_s": product(("bfloat16",)),
        "fp16_flop_per_s": product(("bfloat16", "float16")),
        "fp32_flop_per_s": product(("float32",)),
    }


def first_speed(
    device: DeviceFacts, samples: Sequence[Sample], attention: Sequence[AttentionSample] = ()
) -> Speed | None:
    """A device's speed from its micro-benchmarks only; without them, a card gets the default of its generation."""
    return _first_speed(device, samples, attention)[0]


def _first_speed(
    device: DeviceFacts, samples: Sequence[Sample], attention: Sequence[AttentionSample]
) -> tuple[Speed | None, Judged]:
    """`first_speed`, and which times of attention it trusts."""
    card = card_of(device, samples)
    if not card.speed_known:
        return None, Judged()
    default = _default(device, card)
    if not samples:
        return Speed(card, default, "default profile"), Judged()
    profile = fit(default, card, samples, ()).profile
    trusted = judged(profile, card, attention, device)
    if trusted.flash:
        profile = fit(default, card, (*samples, *trusted.flash), (), profile).profile
    return Speed(card, with_attention(profile, card, trusted), "micro-benchmarks"), trusted


def _default(device: DeviceFacts, card: GpuSpec) -> DeviceProfile:
    return CPU_PROFILE if device.kind == "cpu" else profile_for(card)


def speed_of(device: DeviceFacts, environment: Environment, found: Benchmarks, folder: Path) -> Speed | None:
    """The best available speed: a fitted profile of these versions, else `first_speed`."""
    path = folder / f"{device_slug(card_of(device, found.samples))}.json"
    try:
        stored = read_device(path) if path.is_file() else None
    except BadDevice:
        stored = None
    if stored is not None and stored.versions == environment.versions:
        return Speed(stored.card, stored.profile, f"profile fitted on {stored.fitted_at}")
    return first_speed(device, *found)


def tune(
    records: Iterable[Comparison],
    samples: Sequence[Sample],
    device: DeviceFacts,
    environment: Environment,
    attention: Sequence[AttentionSample] = (),
) -> Tuned:
    """The profile that explains the clean bursts of this device and these versions. Raises NotFitted."""
    before, trusted = _first_speed(device, samples, attention)
    if before is None:
        raise NotFitted(f"not fitted: the rates of {device.name} are not known; `calibrate` measures them")
    chosen = suitable(records, device, environment)
    bursts = observed(chosen)
    shapes = len({one.shape for one in bursts})
    if len(bursts) < FEWEST_BURSTS or shapes < FEWEST_SHAPES:
        raise NotFitted(
            f"not fitted: {len(bursts)} clean bursts at {shapes} shape{'s' if shapes != 1 else ''} are too few; "
            f"need {FEWEST_BURSTS} at {FEWEST_SHAPES}: use a longer --budget or a less busy machine"
        )
    default = _default(device, before.card)
    others = {one.field: getattr(before.profile, one.field) for one in OF_OTHERS}
    start = default.model_copy(update=others)  # bursts run these kernels, too
    whole = fit_with_attention(start, before.card, samples, bursts, before.profile, trusted)
    left_out = held_out(start, before.card, (*samples, *trusted.flash), bursts, whole)
    errors_before = residuals(bursts, before.card, before.profile)
    _check(whole, left_out, errors_before)
    spread = _spread(left_out)
    update: dict[str, Any] = {"device_spread": spread, "launch_spread": spread, "name": before.card.name}
    weighed = [one for one in chosen if is_clean(one, "memory")]
    if context := context_bytes(weighed):
        update["context_bytes"] = context
    update["fragmentation"] = fragmentation(weighed, device, Speed(before.card, default, ""))
    off = (typical(left_out.shapes), typical(left_out.methods) if left_out.methods else 0.0)
    measured = MeasuredDevice(
        card=before.card,
        profile=whole.profile.model_copy(update=update),
        versions=environment.versions,
        fitted_at=today(),
        bursts=len(bursts),
        held_out=off,
        attention=trusted.errors,
    )
    evidence = f"profile measured on {before.card.name} on {measured.fitted_at}, {len(bursts)} bursts"
    measured = measured._replace(profile=measured.profile.model_copy(update={"evidence": evidence}))
    return Tuned(measured, whole, left_out, before, errors_before, trusted)


def keep(tuned: Tuned, folder: Path) -> Path:
    """Put a profile where `advise` finds it. Raises SourceUnavailable."""
    path = folder / f"{device_slug(tuned.device.card)}.json"
    replace_text(path, device_text(tuned.device))
    return path


def suitable(records: Iterable[Comparison], device: DeviceFacts, environment: Environment) -> list[Comparison]:
    """The newest clean record of each burst on such a device with these versions."""
    return [
        one
        for one in latest(records)
        if one.environment.device is not None
        and one.environment.device.signature == device.signature
        and one.environment.versions == environment.versions
        and is_clean(one, "time")
    ][-MOST_BURSTS:]


def observed(records: Iterable[Comparison]) -> list[Observation]:
    """What the fit compares: records of models that the formula knows, with their kernels."""
    found = []
    for one in records:
        assert one.burst is not None and one.measured is not None
        model = spec_of(one.model, one.burst.config)
        micro_s, step_s = one.measured.micro_step_s, one.measured.step_s
        if model is None or not micro_s or not step_s:
            continue
        recipe = one.recipe
        place: Literal["cpu", "cuda"] = "cuda" if one.source == "cuda" else "cpu"
        device = one.environment.device
        capability = "" if device is None else device.compute_capability
        program = step_program(model, recipe, one.batch, one.seq_len, place, capability=capability)
        kernels = program.kernels(one.batch, one.seq_len, recipe.rank)
        shape = f"{one.batch}x{one.seq_len}{' c' if recipe.gradient_checkpointing else ''}"
        found.append(
            Observation(f"{one.model} {one.method} {shape}", shape, one.method, model, recipe, kernels, micro_s, step_s)
        )
    return found


def context_bytes(records: Iterable[Comparison]) -> Interval | None:
    """Bytes that the driver showed for a process beyond PyTorch's reserved bytes; None without records.

    The likely value is the median, the ends are the extremes. Ignores what the process of another model also loads.
    """
    sizes = sorted(
        float(one.measured.device_bytes - one.measured.peak_reserved_bytes)
        for one in records
        if one.measured is not None and one.measured.device_bytes and one.measured.peak_reserved_bytes
    )
    if not sizes or sizes[0] <= 0:
        return None
    return Interval(sizes[0], sizes[len(sizes) // 2], sizes[-1])


def fragmentation(records: Iterable[Comparison], device: DeviceFacts, default: Speed) -> float:
    """Bytes reserved beyond the allocated peak, over those of a simulated allocator; 1 with too few records.

    The median. It says nothing about a full card, so what must fit is left unchanged. The record's own prediction may
    use an earlier fit, so each is predicted again with the `default`.
    """
    found = []
    for one in records:
        model = spec_of(one.model, one.burst.config) if one.burst is not None else None
        measured = _gap(one.measured)
        if model is None or measured is None:
            continue
        predicted = _gap(predict(model, one.recipe, one.seq_len, device, 0, default).figures)
        if predicted:
            found.append(measured / predicted)
    if len(found) < FEWEST_BURSTS:
        return 1.0
    low, high = FRAGMENTATION_RANGE
    return min(max(statistics.median(found), low), high)


def _gap(figures: Figures | None) -> int | None:
    if figures is None or figures.peak_reserved_bytes is None:
        return None
    return figures.peak_reserved_bytes - figures.peak_allocated_bytes


def _check(whole: Fit, left_out: HeldOut, before: Sequence[float]) -> None:
    for name, found in (("shapes", left_out.shapes), ("methods", left_out.methods)):
        if found and typical(found) > LIMIT:
            raise NotFitted(
                f"not fitted: the median error on held-out {name} is {typical(found):.0%},"
                f" more than {LIMIT:.0%}; `calibrate show` lists the bursts"
            )
    both = (*left_out.shapes, *left_out.methods)
    if typical(both) > typical(before):
        raise NotFitted(
            f"profile not saved: its held-out error ({typical(both):.1%}) exceeds the default profile's"
            f" ({typical(before):.1%})"
        )


def _spread(left_out: HeldOut) -> Interval:
    if left_out.methods:
        return interval_of((*left_out.shapes, *left_out.methods))
    return interval_of(left_out.shapes, math.log1p(ONE_METHOD_SPREAD))


def today() -> str:
    """The date in UTC."""
    return datetime.now(UTC).date().isoformat()
