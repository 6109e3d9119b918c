"""What a pandas Series holds, as numbers and in words."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfp_vae.checks import imported

# Nanoseconds of a day.
DAY = 86_400_000_000_000
# Years beyond which nanoseconds since 1970 do not fit 64 bits.
EARLIEST, LATEST = 1677, 2262
# Units in which numpy writes a time, and their seconds, the largest first.
UNITS = {"D": 86_400, "m": 60, "s": 1, "ms": 1e-3}
# A time with the offset of its zone, at the end of a text.
OFFSET = r"\d\d:\d\d.*(Z|[+-]\d\d(?::?\d\d)?)$"
# Whole numbers up to this size are floats without an error.
EXACT = 2**53
# The rounding error of floats near 1.
EPSILON = float(np.finfo("float64").eps)
# Most decimals to which values are rounded.
MOST_DECIMALS = 4


def pandas() -> Any:
    """Return the library pandas."""
    return imported("pandas", "A table", "tables")


def told(dtype) -> Any:
    """Return a dtype of pandas in a form that json can hold; `as_dtype` is the inverse."""
    if not is_category(dtype):
        return str(dtype)
    categories = [plain(value) for value in dtype.categories]
    return {"categories": categories, "ordered": bool(dtype.ordered)}


def is_category(dtype) -> bool:
    """Return whether a dtype of pandas is one of categories."""
    return isinstance(dtype, pandas().CategoricalDtype)


def as_dtype(dtype) -> Any:
    """Return the dtype that `told` has told."""
    if isinstance(dtype, dict):
        return pandas().CategoricalDtype(**dtype)
    return pandas().api.types.pandas_dtype(dtype)


def plain(value) -> Any:
    """Return a category as Python's own text or number."""
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, str | int | float):
        raise ValueError(
            f"Categories must be texts or numbers, received {value!r} of type "
            f"{type(value).__name__}. Convert them, as in frame['column'].astype(str)."
        )
    return value


def largest_of(dtype) -> float:
    """Return the largest number of a dtype of pandas, infinity if it is not of NumPy's numbers."""
    dtype = getattr(dtype, "numpy_dtype", dtype)
    limits = {"i": np.iinfo, "u": np.iinfo, "f": np.finfo}.get(dtype.kind)
    return np.inf if limits is None else float(limits(dtype).max)


def is_numeric(values) -> bool:
    """Return whether a Series holds numbers, other than True and False."""
    types = pandas().api.types
    return types.is_numeric_dtype(values.dtype) and not (
        types.is_bool_dtype(values.dtype) or types.is_complex_dtype(values.dtype)
    )


def are_whole(values) -> bool:
    """Return whether a Series holds whole numbers and gaps alone, of whatever dtype.

    A column of whole numbers with gaps has become one of floats in most tables.
    """
    if not is_numeric(values):
        return False
    known = values.dropna().to_numpy("float64")
    return bool(np.isfinite(known).all() and (known == np.rint(known)).all())


def are_flags(values) -> bool:
    """Return whether an object column holds True, False and gaps."""
    return values.dtype == object and pandas().api.types.infer_dtype(values) == "boolean"


def numbers_of(values, dtype: str = "float32") -> np.ndarray:
    """Return a Series as floats, NaN where a value is missing.

    Raises:
        ValueError: if it has other things than numbers; the message names the column.
    """
    if is_numeric(values):
        return values.to_numpy(dtype, na_value=np.nan)
    try:
        return values.astype(object).where(values.notna(), np.nan).to_numpy().astype(dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The column {values.name!r} takes numbers, received type {values.dtype}: {error}."
        ) from error


def levels_of(values, low: int) -> np.ndarray:
    """Return a Series as floats from `low` on, NaN where a value is missing, exact if they are close
    to it, however large it is.
    """
    numbers = numbers_of(values, "float64")
    if abs(low) <= EXACT or not pandas().api.types.is_integer_dtype(values.dtype):
        return numbers - low
    known = np.isfinite(numbers)
    numbers[known] = [int(value) - low for value in values[known]]
    return numbers


def dates_of(texts):
    """Return texts that are dates as ISO 8601 writes them as dates, in UTC if they have different
    offsets.

    Raises:
        TypeError, ValueError: if some are no such dates.
    """
    offsets = texts.dropna().astype(str).str.extract(OFFSET, expand=False)
    differ = offsets.notna().all() and offsets.nunique() > 1
    return pandas().to_datetime(texts, format="ISO8601", utc=bool(differ))


def zone_of(dtype):
    """Return the time zone of a dtype of dates, None of all others."""
    return getattr(getattr(dtype, "pyarrow_dtype", dtype), "tz", None)


def in_zone(values, zone):
    """Return dates without a time zone as those that its clock shows, of an hour that it shows twice
    the first; all other values stay.
    """
    if zone is None or values.dtype.kind != "M" or zone_of(values.dtype) is not None:
        return values
    return values.dt.tz_localize(zone, ambiguous=True, nonexistent="shift_forward")


def decimals_of(numbers: np.ndarray) -> int | None:
    """Return with how many decimals all numbers are written, if these are few.

    >>> decimals_of(np.array([1.5, 2.25, np.nan])), decimals_of(np.array([1.0])), decimals_of(np.array([1 / 3]))
    (2, 0, None)
    """
    known = numbers[~np.isnan(numbers)]
    found = (count for count in range(MOST_DECIMALS + 1) if (known == known.round(count)).all())
    return next(found, None)


def measure(numbers: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation of what is known; of constant numbers 1 instead of 0, or of
    what is within its rounding error.
    """
    known = numbers[np.isfinite(numbers)]
    if not known.size:
        return 0.0, 1.0
    mean, scale = float(known.mean()), float(known.std())
    # The bound by which scikit-learn's StandardScaler decides, of sums in any order.
    return mean, scale if scale > known.size * EPSILON * abs(mean) else 1.0


def nanoseconds_of(dates) -> np.ndarray:
    """Return dates as nanoseconds since 1970, as the clock shows them, whatever the time zone."""
    if dates.isna().all():  # of whatever dtype
        return np.zeros(len(dates), "int64")
    if not pandas().api.types.is_datetime64_any_dtype(dates.dtype):
        raise ValueError(
            f"The column {dates.name!r} takes dates, received type {dates.dtype}. Convert it by "
            "pandas.to_datetime."
        )
    local = dates if zone_of(dates.dtype) is None else dates.dt.tz_localize(None)
    years = local.dt.year
    far = local[(years <= EARLIEST) | (years >= LATEST)]
    if len(far):
        raise ValueError(
            f"The column {dates.name!r} has the date {far.iloc[0]} in row {far.index[0]}. Expected "
            f"years between {EARLIEST} and {LATEST}: leave empty what stands for no date."
        )
    return local.to_numpy("datetime64[ns]").astype("int64")


def days_of(dates) -> np.ndarray:
    """Return dates as days since 1970, NaN where one is missing."""
    return np.where(dates.isna(), np.nan, nanoseconds_of(dates) / DAY)


def with_gaps(values: np.ndarray, numbers: np.ndarray):
    """Return values, in an object array with None where the numbers are NaN, if some are."""
    missing = np.isnan(numbers)
    return np.where(missing, np.array(None), values) if missing.any() else values


def filled_from(values, others):
    """Return a Series with what is missing taken from another one; dates stay in their zone."""
    known = values.notna()
    if known.all():
        return values
    if not known.any():
        return others
    if zone_of(values.dtype) is not None:
        others = others.astype(values.dtype)
    try:
        return values.where(known, others)
    except TypeError:  # such as whole numbers, of a column of decimals
        return values.astype(others.dtype).where(known, others)


def expect_no_gaps(gaps: Mapping[Any, int], what: str) -> None:
    """Raise a ValueError if some columns have gaps, whose numbers are given."""
    if found := {name: number for name, number in gaps.items() if number}:
        told = ", ".join(f"{name} ({number:,})" for name, number in found.items())
        raise ValueError(
            f"{what} lacks values in {len(found)} of its columns: {told}. Train with missing=True, "
            "or --missing, and the model can fill them in."
        )


def texts_of(values, form: Mapping, known: np.ndarray) -> list[str | None]:
    """Return a Series as the texts in which a form takes its values, see `Column.form`; None where
    one is not known.
    """
    if "seconds" in form:
        unit = next((name for name in UNITS if form["seconds"] % UNITS[name] == 0), "ms")
        times = values.dt.tz_localize(None).to_numpy(f"datetime64[{unit}]")
        texts = times.astype(str).tolist()
    elif "decimals" in form:
        # No zero is negative.
        texts = [f"{value + 0.0:.{form['decimals']}f}" for value in values.astype(float)]
    else:
        texts = [str(value) for value in values]
    return [text if is_known else None for text, is_known in zip(texts, known, strict=True)]
