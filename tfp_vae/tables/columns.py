"""The kinds of columns: each turns the values of a pandas Series into numbers, and back."""

import dataclasses
import math
from typing import Any, ClassVar, Self

import numpy as np

from tfp_vae.tables.series import (
    DAY,
    are_flags,
    are_whole,
    as_dtype,
    days_of,
    decimals_of,
    is_category,
    is_numeric,
    measure,
    nanoseconds_of,
    numbers_of,
    pandas,
    plain,
    told,
    with_gaps,
)

# Most levels of whole numbers that have a probability each.
MOST_LEVELS = 256
# Most categories of a column of texts, unless categories are chosen for it.
MANY_CATEGORIES = 200
# Nanoseconds of the units to which dates are rounded, the largest first.
STEPS = (DAY, DAY // 24, 60_000_000_000, 1_000_000_000, 1_000_000, 1_000, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table, and the part of x that stands for it.

    To add a kind: subclass, implement the methods below, and name the class in `KINDS`.

    Args:
        name: of the column.
        part: name of the part of x: a name such as variables of Python have. Columns of one part
            are its places, in their order.
        dtype: pandas's name of the dtype; for one of categories a dict of them.
        likelihood: name of a class in `tfp_vae.layers`.
    """

    name: Any
    part: str
    dtype: Any
    likelihood: str = ""

    # The likelihoods that suit such columns, the usual one first.
    likelihoods: ClassVar[tuple[str, ...]] = ()
    # The name of the part of several such columns.
    together: ClassVar[str] = ""
    is_constant: ClassVar[bool] = False

    @classmethod
    def suits(cls, values) -> bool:
        """Return whether this is the usual kind of such a pandas Series."""
        return False

    @classmethod
    def takes(cls, values) -> bool:
        """Return whether the kind can be chosen for such a pandas Series."""
        return cls.suits(values)

    @classmethod
    def of(cls, values, measured, **names) -> Self:
        """Return the column of some values, with what must be measured taken from others."""
        return cls(dtype=told(values.dtype), **names)

    def arguments(self, event_shape: tuple = ()) -> dict:
        """Return the arguments of the likelihood besides the event shape."""
        return {}

    @property
    def bias(self) -> float:
        """Where the first parameter of the likelihood begins."""
        return 0.0

    @property
    def log_scale(self) -> float:
        """The logarithm of how many of the column's units are one unit of the part."""
        return 0.0

    def describe(self) -> str:
        """Return in words which values there are."""
        raise NotImplementedError

    def form(self) -> dict:
        """Return what a form must know to ask for a value: `choices`, the names of all there are;
        `decimals`, with how many a number is written; or `seconds`, of which a time is a multiple.
        It is empty if there is nothing to ask.
        """
        return {}

    def within(self, values):
        """Return a pandas Series without the values beyond the range of the training data."""
        return values

    def encode(self, values) -> np.ndarray:
        """Return a pandas Series as float32 `[num_rows]`, NaN where a value is missing."""
        raise NotImplementedError

    def decode(self, numbers: np.ndarray):
        """Return `[num_rows]` numbers as values that pandas can take for a Series, NaN for NaN."""
        raise NotImplementedError

    def series(self, numbers: np.ndarray, index=None):
        """Return `[num_rows]` numbers as a pandas Series of the column's dtype."""
        values = pandas().Series(self.decode(np.asarray(numbers, "float64")), index, name=self.name)
        try:
            return values.astype(as_dtype(self.dtype))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"The column {self.name!r} of type {self.dtype} cannot hold such values: {error}."
            ) from error

    def get_config(self) -> dict:
        return dataclasses.asdict(self)

    def refuse(self, values, bad, expected: str) -> None:
        """Raise a ValueError if some values are bad."""
        if bad.any():
            row = int(np.argmax(bad))
            among = f", first in row {row}, and in {bad.sum():,} of {len(bad):,} rows"
            raise ValueError(
                f"The column {self.name!r} takes {expected}, received {values.iloc[row]!r}"
                f"{among if len(bad) > 1 else ''}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant(Column):
    """A column that has the same value in all rows, or none in any: it is no part of x."""

    value: Any

    is_constant = True

    @classmethod
    def suits(cls, values) -> bool:
        try:
            return values.nunique() < 2
        except TypeError as error:
            raise ValueError(
                f"The column {values.name!r} holds things that are neither numbers nor texts nor "
                f"dates: {error}. Leave it out."
            ) from error

    @classmethod
    def of(cls, values, measured, **names) -> Self:
        found = values.dropna()
        value = found.iloc[0] if len(found) else None
        value = value.item() if isinstance(value, np.generic) else value
        value = value if isinstance(value, int | float | str | None) else str(value)
        return cls(value=value, **{**names, "part": ""}, dtype=told(values.dtype))

    def describe(self) -> str:
        return "no value" if self.value is None else f"always {self.value}"

    def encode(self, values) -> np.ndarray:
        """Check that there is no other value."""
        own = self.series(np.zeros(len(values)), values.index)
        bad = values.notna() & ((values.astype(object) != own.astype(object)) | own.isna())
        self.refuse(values, np.asarray(bad, bool), self.describe())
        return np.zeros(len(values), "float32")

    def decode(self, numbers: np.ndarray) -> list:
        return [self.value] * len(numbers)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flag(Column):
    """True and False."""

    likelihoods = ("IndependentBernoulli",)
    together = "flags"

    @classmethod
    def suits(cls, values) -> bool:
        return pandas().api.types.is_bool_dtype(values.dtype) or are_flags(values)

    @classmethod
    def takes(cls, values) -> bool:
        return cls.suits(values) or (is_numeric(values) and values.dropna().isin([0, 1]).all())

    def describe(self) -> str:
        return "true or false"

    def form(self) -> dict:
        return {"choices": ["False", "True"]}

    def encode(self, values) -> np.ndarray:
        bad = values.notna() & ~values.isin([False, True])
        self.refuse(values, np.asarray(bad, bool), "True and False")
        return numbers_of(values)

    def decode(self, numbers: np.ndarray) -> Any:
        return with_gaps(numbers >= 0.5, numbers)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Category(Column):
    """One of several names, or of other values without an order."""

    categories: list

    likelihoods = ("IndependentCategorical",)
    together = "names"

    @classmethod
    def suits(cls, values) -> bool:
        return (
            is_category(values.dtype)
            or pandas().api.types.infer_dtype(values, skipna=True) == "string"
        )

    @classmethod
    def takes(cls, values) -> bool:
        return cls.suits(values) or is_numeric(values)

    @classmethod
    def of(cls, values, measured, **names) -> Self:
        dtype = told(values.dtype)
        if is_category(values.dtype):
            return cls(categories=dtype["categories"], dtype=dtype, **names)
        found = [plain(value) for value in sorted(values.dropna().unique())]
        if len(found) > MANY_CATEGORIES:
            raise ValueError(
                f"The column {names['name']!r} has {len(found):,} different values in "
                f"{len(values):,} rows, such as {found[0]!r}: too many to learn each. Leave it out, "
                "or make it pandas's type category to take them all; --likelihood "
                "\"Joint(age='auto', job='auto')\" takes only the columns that it names."
            )
        return cls(categories=found, dtype=dtype, **names)

    def arguments(self, event_shape=()):
        return {"num_categories": len(self.categories)}

    def describe(self) -> str:
        shown = ", ".join(map(str, self.categories[:4]))
        return f"{len(self.categories)}: {shown}{', ...' * (len(self.categories) > 4)}"

    def form(self) -> dict:
        return {"choices": [str(category) for category in self.categories]}

    def encode(self, values) -> np.ndarray:
        codes = pandas().Index(self.categories).get_indexer(values.astype(object))
        known = ", ".join(map(repr, self.categories[:6]))
        more = ", ..." if len(self.categories) > 6 else ""
        self.refuse(
            values,
            np.asarray(values.notna()) & (codes < 0),
            f"one of {len(self.categories)} categories, {known}{more}",
        )
        return np.where(codes < 0, np.nan, codes).astype("float32")

    def decode(self, numbers: np.ndarray) -> Any:
        names = np.array([*self.categories, None], dtype=object)
        return names[np.where(np.isnan(numbers), -1, np.nan_to_num(numbers)).astype(int)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole(Column):
    """Whole numbers from the smallest one seen to the largest."""

    low: int
    high: int

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
        numbers = numbers_of(values, "float64")
        return values.where((self.low <= numbers) & (numbers <= self.high))

    def encode(self, values) -> np.ndarray:
        numbers = numbers_of(values, "float64")
        bad = (numbers != np.rint(numbers)) | (numbers < self.low) | (numbers > self.high)
        expected = f"whole numbers from {self.low} to {self.high}, those of the training data"
        self.refuse(values, bad & ~np.isnan(numbers), expected)
        return (numbers - self.low).astype("float32")

    def decode(self, numbers: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(numbers), 0, self.high - self.low) + self.low


@dataclasses.dataclass(frozen=True, kw_only=True)
class Count(Column):
    """Counts without a limit."""

    high: int
    mean: float

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
        return are_whole(values) and values.min() >= 0 and values.max() <= 2**24

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
        bad = (numbers != np.rint(numbers)) | (numbers < 0) | (numbers > 2**24)
        self.refuse(values, bad & ~np.isnan(numbers), "whole numbers from 0 to 2**24")
        return numbers.astype("float32")

    def decode(self, numbers: np.ndarray) -> np.ndarray:
        return np.rint(numbers)


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
        mean, scale = measure(numbers_of(measured, "float64"))
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

    def encode(self, values) -> np.ndarray:
        return ((days_of(values) - self.mean) / self.scale).astype("float32")

    def decode(self, numbers: np.ndarray) -> Any:
        steps = np.rint((self.mean + self.scale * numbers) * (DAY / self.step))
        known = np.isfinite(steps)
        most = np.iinfo("int64").max // self.step
        nanoseconds = np.clip(np.where(known, steps, 0), -most, most).astype("int64") * self.step
        dates = pandas().Series(nanoseconds).astype("datetime64[ns]").where(known)
        zone = getattr(as_dtype(self.dtype), "tz", None)
        if zone is not None:
            dates = dates.dt.tz_localize(zone, ambiguous=True, nonexistent="shift_forward")
        return dates.array


def _toward_zero(number: int) -> float:
    """Return the float next to a whole number that is no larger in size, so that it fits its dtype."""
    rounded = float(number)
    return float(np.nextafter(rounded, 0.0)) if abs(int(rounded)) > abs(number) else rounded


# In the order in which they are asked whether a column is of their kind.
KINDS = (Constant, Flag, Category, Date, Whole, Count, Number)
