"""The kinds of columns of numbers and of dates."""

import dataclasses
import math
from typing import Any, Self

import numpy as np

from tfp_vae.tables.columns import Column
from tfp_vae.tables.series import (
    DAY,
    EXACT,
    are_whole,
    as_dtype,
    days_of,
    decimals_of,
    in_zone,
    is_numeric,
    largest_of,
    levels_of,
    measure,
    nanoseconds_of,
    numbers_of,
    pandas,
    told,
    with_gaps,
    zone_of,
)

# Most levels of whole numbers that have a probability each.
MOST_LEVELS = 256
# Up to which all whole numbers are float32.
LARGEST_COUNT = 2**24
# Nanoseconds of the units to which dates are rounded, the largest first.
STEPS = (DAY, DAY // 24, 60_000_000_000, 1_000_000_000, 1_000_000, 1_000, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole(Column):
    """Whole numbers from the smallest one seen to the largest."""

    low: int
    high: int

    has_decimals = False

    likelihoods = ("IndependentQuantizedLogistic", "IndependentBinomial")
    together = "levels"

    @classmethod
    def suits(cls, values) -> bool:
        return are_whole(values) and int(values.max()) - int(values.min()) < MOST_LEVELS

    @classmethod
    def of(cls, values, measured, **names) -> Self:
        return cls(low=int(values.min()), high=int(values.max()), dtype=told(values.dtype), **names)

    def arguments(self, event_shape=()):
        span = self.high - self.low
        if self.likelihood == "IndependentBinomial":
            return {"total_count": span}
        return {"num_levels": span + 1}

    def describe(self) -> str:
        return f"whole, {self.low} to {self.high}"

    def form(self) -> dict:
        return {"decimals": 0}

    def within(self, values):
        levels = levels_of(values, self.low)
        if values.dtype.kind in "iu":  # floats have not all of them
            values = values.convert_dtypes()
        return values.where((levels >= 0) & (levels <= self.high - self.low))

    def encode(self, values) -> np.ndarray:
        levels = levels_of(values, self.low)
        bad = (levels != np.rint(levels)) | (levels < 0) | (levels > self.high - self.low)
        expected = f"whole numbers from {self.low} to {self.high}, those of the training data"
        self.refuse(values, bad & ~np.isnan(levels), expected)
        return levels.astype("float32")

    def decode(self, numbers: np.ndarray) -> np.ndarray:
        levels = np.clip(np.rint(numbers), 0, self.high - self.low)
        if abs(self.low) <= EXACT:
            return levels + self.low
        whole = [self.low + int(level) for level in np.nan_to_num(levels)]
        return with_gaps(np.array(whole, object), levels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Count(Column):
    """Counts without a limit."""

    high: int
    mean: float

    has_decimals = False

    likelihoods = (
        "IndependentNegativeBinomial",
        "IndependentPoisson",
        "IndependentZeroInflatedNegativeBinomial",
    )
    together = "counts"

    @classmethod
    def suits(cls, values) -> bool:
        return cls.takes(values) and values.min() == 0

    @classmethod
    def takes(cls, values) -> bool:
        return are_whole(values) and values.min() >= 0 and values.max() <= LARGEST_COUNT

    @classmethod
    def of(cls, values, measured, **names) -> Self:
        mean = measure(numbers_of(measured, "float64"))[0]
        return cls(high=int(values.max()), mean=mean, dtype=told(values.dtype), **names)

    @property
    def bias(self) -> float:
        """The logarithm of the mean, which would take long to learn."""
        return float(np.log(max(self.mean, 0.1)))

    def describe(self) -> str:
        return f"counts, mean {self.mean:.4g}, up to {self.high:,}"

    def form(self) -> dict:
        return {"decimals": 0}

    def encode(self, values) -> np.ndarray:
        numbers = numbers_of(values, "float64")
        bad = (numbers != np.rint(numbers)) | (numbers < 0) | (numbers > LARGEST_COUNT)
        self.refuse(values, bad & ~np.isnan(numbers), "whole numbers from 0 to 2**24")
        return numbers.astype("float32")

    def decode(self, numbers: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(numbers), 0, min(LARGEST_COUNT, largest_of(as_dtype(self.dtype))))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standardized(Column):
    """Values that become numbers of mean 0 and standard deviation 1 over the training data."""

    mean: float
    scale: float

    likelihoods = (
        "IndependentNormalLearnedScale",
        "IndependentNormal",
        "IndependentNormalOptimalScale",
    )
    together = "numbers"

    def arguments(self, event_shape=()):
        has_scales = self.likelihood == "IndependentNormalLearnedScale"
        return {"scale_shape": event_shape} if has_scales and event_shape else {}

    @property
    def log_scale(self) -> float:
        return float(np.log(self.scale))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Number(Standardized):
    """Real numbers, or whole ones of a wide range, standardized; they keep their decimals."""

    decimals: int | None  # to which values are rounded
    ends: list | None  # of whole numbers

    @property
    def has_decimals(self) -> bool:
        return self.decimals != 0

    @classmethod
    def suits(cls, values) -> bool:
        return is_numeric(values)

    @classmethod
    def of(cls, values, measured, **names) -> Self:
        known = numbers_of(values, "float64")
        bad = np.isinf(known)
        if bad.any():
            raise ValueError(
                f"The column {names['name']!r} holds {bad.sum():,} infinite values, first in row "
                f"{np.argmax(bad)}. Remove or replace them."
            )
        decimals = decimals_of(known)
        ends = None if decimals != 0 else [int(values.min()), int(values.max())]
        with np.errstate(over="ignore"):
            mean, scale = measure(numbers_of(measured, "float64"))
        if not math.isfinite(scale):
            raise ValueError(
                f"The column {names['name']!r} has numbers up to {np.nanmax(np.abs(known)):.3g}, "
                "too large to standardize. Divide them, or leave the column out."
            )
        told_by: dict = {"mean": mean, "scale": scale, "decimals": decimals, "ends": ends}
        return cls(dtype=told(values.dtype), **told_by, **names)

    def describe(self) -> str:
        what = "real" if self.ends is None else "whole"
        return f"{what}, mean {self.mean:.4g}, sd {self.scale:.4g}"

    def form(self) -> dict:
        if self.decimals is not None:
            return {"decimals": self.decimals}
        return {"decimals": max(0, 3 - math.floor(math.log10(self.scale)))}  # sd / 1,000 is seen

    def encode(self, values) -> np.ndarray:
        numbers = numbers_of(values, "float64")
        self.refuse(values, np.isinf(numbers), "finite numbers")
        return ((numbers - self.mean) / self.scale).astype("float32")

    def decode(self, numbers: np.ndarray) -> np.ndarray:
        values = self.mean + self.scale * numbers
        if self.decimals is not None:
            values = np.round(values, self.decimals)
        if self.ends is None:
            return values
        low, high = map(_toward_zero, self.ends)
        return np.clip(values, low, high)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Date(Standardized):
    """Dates and times, as days, standardized; the values become multiples of a step."""

    step: int  # in nanoseconds

    @classmethod
    def suits(cls, values) -> bool:
        return pandas().api.types.is_datetime64_any_dtype(values.dtype)

    @classmethod
    def of(cls, values, measured, **names) -> Self:
        nanoseconds = nanoseconds_of(values.dropna())
        step = next(step for step in STEPS if not (nanoseconds % step).any())
        mean, scale = measure(days_of(measured))
        return cls(mean=mean, scale=scale, step=step, dtype=told(values.dtype), **names)

    def describe(self) -> str:
        mean = pandas().Timestamp(int(self.mean * DAY)).date()
        return f"dates, mean {mean}, sd {self.scale:.4g} days"

    def form(self) -> dict:
        return {"seconds": self.step / 1e9}

    @property
    def zone(self):
        """The time zone, by whose clock the dates become numbers, or None."""
        return zone_of(as_dtype(self.dtype))

    def parse(self, texts, guessed):
        return in_zone(guessed, self.zone)

    def encode(self, values) -> np.ndarray:
        zone, own = self.zone, zone_of(values.dtype)
        if values.dtype.kind == "M" and values.notna().any() and (zone is None) != (own is None):
            raise ValueError(
                f"The column {self.name!r} takes dates {'with' if zone else 'without'} a time zone, "
                f"those of the training data being {as_dtype(self.dtype)}, received {values.dtype}. "
                f"Convert them by .dt.tz_localize({zone and str(zone)!r})."
            )
        if own is not None:
            values = values.dt.tz_convert(zone)
        return ((days_of(values) - self.mean) / self.scale).astype("float32")

    def decode(self, numbers: np.ndarray) -> Any:
        steps = np.rint((self.mean + self.scale * numbers) * (DAY / self.step))
        known = np.isfinite(steps)
        most = (np.iinfo("int64").max - DAY) // self.step  # a zone's clock may be behind
        nanoseconds = np.clip(np.where(known, steps, 0), -most, most).astype("int64") * self.step
        dates = pandas().Series(nanoseconds).astype("datetime64[ns]").where(known)
        return in_zone(dates, self.zone).array


def _toward_zero(number: int) -> float:
    """Return the float next to a whole number that is no larger in size, so that it fits its dtype."""
    rounded = float(number)
    return float(np.nextafter(rounded, 0.0)) if abs(int(rounded)) > abs(number) else rounded
