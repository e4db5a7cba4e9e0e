"""Fits a DeviceProfile to what was measured: kernels timed one by one, and bursts, which are sums of thousands of them.

Every coefficient is a physical rate of the profile and is fitted on a logarithmic scale around its previous value:

    minimize  sum soft_l1(log(predicted / measured) / sigma)     over samples, micro-steps and steps
            + sum (log(coefficient / before) / prior)^2          so that what was not measured keeps its value

Fits that hold out one shape, and fits that hold out one method, show the errors where the profile was not fitted. These
residuals become the interval of `advise` and decide whether the fit is used at all. Needs scipy.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from advisor.costs.device import DeviceProfile
from advisor.costs.micro_step import StepKernels
from advisor.costs.roofline import Roofline
from advisor.errors import SourceUnavailable
from advisor.interval import Interval
from advisor.specs import GpuSpec, ModelSpec, Recipe
from calibrate.child import INSTALL
from calibrate.predict import step_seconds
from calibrate.rates import Timed

SAMPLE_SIGMA, BURST_SIGMA = 0.3, 0.05
"""Relative errors beyond which a residual counts less. They are larger for kernels: a kernel alone differs more from
the same kernel within a step than sums of thousands of kernels do."""

MARGIN = 1e-9
"""The search must begin inside its bounds by this much, in units of the logarithm."""
MOST_EVALUATIONS = 40


class Coefficient(NamedTuple):
    """One number of the profile that the fit may move; `at` where the field is a pair or a triple."""

    field: str
    prior: float  # standard deviation of its logarithm around the previous value
    at: int = -1
    low: float = 1e-12
    high: float = math.inf

    @property
    def name(self) -> str:
        """The name in a table."""
        return self.field if self.at < 0 else f"{self.field}[{self.at}]"

    def of(self, profile: DeviceProfile) -> float:
        """Its value in a profile."""
        value = getattr(profile, self.field)
        return float(value if self.at < 0 else value[self.at])


def each_of(field: str, prior: float, count: int) -> tuple[Coefficient, ...]:
    """The numbers of a field that is a pair or a triple."""
    return tuple(Coefficient(field, prior, index) for index in range(count))


RATES, COSTS = 0.25, 0.35
COEFFICIENTS: tuple[Coefficient, ...] = (
    *(
        Coefficient(field, RATES, high=1.0)
        for field in (
            "matrix_efficiency",
            "vector_efficiency",
            "attention_forward",
            "attention_backward",
            "matmul_bandwidth",
            "elementwise_bandwidth",
            "reduce_bandwidth",
            "gather_bandwidth",
            "strided_bandwidth",
            "optimizer_bandwidth",
            "dequantize_bandwidth",
        )
    ),
    *each_of("cudnn_attention", 1.0, 2),  # known from one card: a wide prior
    Coefficient("batched_fp32", RATES),
    *each_of("padding", 0.5, 3),
    *each_of("vector_padding", 0.5, 3),
    *each_of("attention_padding_flop_per_byte", 0.5, 2),
    Coefficient("cache_bytes", COSTS),
    Coefficient("cache_speedup", RATES, low=1.0),
    *(
        Coefficient(field, COSTS)
        for field in (
            "kernel_s",
            "forward_launch_s",
            "backward_launch_s",
            "hook_s",
            "micro_step_s",
            "optimizer_step_s",
        )
    ),
)


class Observation(NamedTuple):
    """The times of one clean burst and the kernels that ran, according to the tape."""

    label: str
    shape: str  # fits are tested on held-out shapes and methods
    method: str
    model: ModelSpec
    recipe: Recipe
    kernels: StepKernels
    micro_step_s: float
    step_s: float


class Fit(NamedTuple):
    """A fitted profile and its residuals: log(predicted / measured) of each burst's step."""

    profile: DeviceProfile
    residuals: tuple[float, ...]
    samples: tuple[float, ...]


def with_values(
    profile: DeviceProfile, values: Sequence[float], movable: Sequence[Coefficient] = COEFFICIENTS
) -> DeviceProfile:
    """The profile with other values for the coefficients of `movable`, in their order."""
    update: dict[str, Any] = {}
    for one, value in zip(movable, values, strict=True):
        if one.at < 0:
            update[one.field] = float(value)
        else:
            before = update.get(one.field, getattr(profile, one.field))
            update[one.field] = (*before[: one.at], float(value), *before[one.at + 1 :])
    return profile.model_copy(update=update)


def sample_seconds(one: Timed, roofline: Roofline) -> float:
    """What the profile predicts for one operation of the micro-benchmarks."""
    return sum(max(roofline.seconds(kernel)) + roofline.fixed_s for kernel in one.kernels)


def residuals(bursts: Iterable[Observation], card: GpuSpec, profile: DeviceProfile) -> tuple[float, ...]:
    """log(predicted / measured) of the steps."""
    return tuple(math.log(_predicted(one, card, profile)[1] / one.step_s) for one in bursts)


def _predicted(one: Observation, card: GpuSpec, profile: DeviceProfile) -> tuple[float, float]:
    return step_seconds(one.model, one.recipe, one.kernels, card, profile)


def fit(
    start: DeviceProfile,
    card: GpuSpec,
    samples: Sequence[Timed],
    bursts: Sequence[Observation],
    guess: DeviceProfile | None = None,
    movable: Sequence[Coefficient] = COEFFICIENTS,
) -> Fit:
    """The profile nearest to `start` that explains the samples and the bursts; `guess` is where the search begins.

    Only the coefficients of `movable` are fitted.

    Raises SourceUnavailable without scipy.
    """
    try:
        import numpy as np
        from scipy.optimize import least_squares
    except ImportError as error:
        name = str(error.name).partition(".")[0]
        raise SourceUnavailable(f"a fit needs {name}, which is not installed: {INSTALL}") from None

    timed = [one for one in samples if not one.host_bound]
    origin = np.log([one.of(start) for one in movable])
    priors = np.array([one.prior for one in movable])
    lows = np.log([one.low for one in movable])
    highs = np.array([math.log(one.high) if one.high < math.inf else math.inf for one in movable])

    def profile_at(x: Any) -> DeviceProfile:
        return with_values(start, np.exp(np.clip(x, lows, highs)), movable)

    def misfit(x: Any) -> Any:
        profile = profile_at(x)
        roofline = Roofline(card, profile)
        found = [math.log(sample_seconds(one, roofline) / one.seconds) / SAMPLE_SIGMA for one in timed]
        for one in bursts:
            micro_s, step_s = _predicted(one, card, profile)
            found += [math.log(micro_s / one.micro_step_s) / BURST_SIGMA, math.log(step_s / one.step_s) / BURST_SIGMA]
        return np.array([*found, *((x - origin) / priors)])

    begin = origin if guess is None else np.log([one.of(guess) for one in movable])
    begin = np.clip(begin, lows + MARGIN, highs - MARGIN)
    found = least_squares(misfit, begin, loss="soft_l1", bounds=(lows, highs), max_nfev=MOST_EVALUATIONS)
    profile = profile_at(found.x)
    roofline = Roofline(card, profile)
    return Fit(
        profile,
        residuals(bursts, card, profile),
        tuple(math.log(sample_seconds(one, roofline) / one.seconds) for one in timed),
    )


class HeldOut(NamedTuple):
    """Residuals of held-out bursts, by what was held out."""

    shapes: tuple[float, ...]
    methods: tuple[float, ...]


def held_out(
    start: DeviceProfile, card: GpuSpec, samples: Sequence[Timed], bursts: Sequence[Observation], whole: Fit
) -> HeldOut:
    """Fit without each shape, then without each method, and predict what was held out."""

    def without(key: Callable[[Observation], str]) -> tuple[float, ...]:
        found: list[float] = []
        for group in dict.fromkeys(map(key, bursts)):
            seen = [one for one in bursts if key(one) != group]
            unseen = [one for one in bursts if key(one) == group]
            if seen:
                fitted = fit(start, card, samples, seen, whole.profile)
                found += residuals(unseen, card, fitted.profile)
        return tuple(found)

    return HeldOut(without(lambda one: one.shape), without(lambda one: one.method))


def typical(found: Sequence[float]) -> float:
    """The median absolute residual, as a share of the measured value."""
    return statistics.median(abs(math.expm1(one)) for one in found)


def interval_of(found: Sequence[float], least: float = 0.05) -> Interval:
    """The interval of factors around 1 that holds nine of ten residuals; no narrower than `least`."""
    sizes = sorted(map(abs, found))
    size = max(sizes[min(len(sizes) - 1, math.ceil(0.9 * len(sizes)) - 1)], least)
    return Interval(math.exp(-size), 1.0, math.exp(size))
