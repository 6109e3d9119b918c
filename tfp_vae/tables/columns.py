"""What columns are: each kind turns the values of a pandas Series into numbers, and back."""

import dataclasses
from typing import Any, ClassVar, Self

import numpy as np

from tfp_vae.tables.series import (
    are_flags,
    as_dtype,
    in_zone,
    is_category,
    is_numeric,
    numbers_of,
    pandas,
    plain,
    told,
    with_gaps,
    zone_of,
)

# Most categories of a column of texts, unless categories are chosen for it.
MANY_CATEGORIES = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table, and the part of x that stands for it.

    To add a kind: subclass, implement the methods below, and name the class in `table.KINDS`.

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
    def has_decimals(self) -> bool | None:
        """Whether values may have decimals; None if they are no numbers."""
        return None

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

    def parse(self, texts, guessed):
        """Return the values of a file: a pandas Series as the column takes it.

        Args:
            texts: the values as they stand there, in a CSV texts alone.
            guessed: the same as what they seem to be, if there were no such column.
        """
        return guessed

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

    def parse(self, texts, guessed):
        dtype = as_dtype(self.dtype)
        if isinstance(self.value, str) and dtype.kind != "M":
            return texts
        return in_zone(guessed, zone_of(dtype))

    def within(self, values):
        return values.where(~self._others(values))

    def encode(self, values) -> np.ndarray:
        """Check that there is no other value."""
        self.refuse(values, self._others(values), self.describe())
        return np.zeros(len(values), "float32")

    def _others(self, values) -> np.ndarray:
        """Return where there is another value."""
        own = self.series(np.zeros(len(values)), values.index)
        others = values.notna() & ((values.astype(object) != own.astype(object)) | own.isna())
        return np.asarray(others, bool)

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
        # As its values are written: a column of numbers has 0 and 1.
        return {"choices": [str(value) for value in self.series(np.arange(2))]}

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
                f"as --without {str(names['name'])!r} does, or make it pandas's type category to take "
                "them all."
            )
        return cls(categories=found, dtype=dtype, **names)

    def arguments(self, event_shape=()):
        return {"num_categories": len(self.categories)}

    def describe(self) -> str:
        shown = ", ".join(map(str, self.categories[:4]))
        return f"{len(self.categories)}: {shown}{', ...' * (len(self.categories) > 4)}"

    def form(self) -> dict:
        return {"choices": [str(category) for category in self.categories]}

    def parse(self, texts, guessed):
        return texts if any(isinstance(name, str) for name in self.categories) else guessed

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
