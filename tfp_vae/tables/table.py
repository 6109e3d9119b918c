"""The mapping between the columns of a table and the parts of x."""

import collections
import dataclasses
import functools
import keyword
import re
import sys
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfp_vae import layers, networks
from tfp_vae.batch import BESIDE_X
from tfp_vae.layers.distribution_layer import num_params
from tfp_vae.rows import spread
from tfp_vae.tables.columns import Category, Column, Constant, Flag
from tfp_vae.tables.numeric import Count, Date, Number, Whole
from tfp_vae.tables.series import as_dtype, expect_no_gaps, filled_from, pandas, texts_of

# In the order in which they are asked whether a column is of their kind.
KINDS: tuple[type[Column], ...] = (Constant, Flag, Category, Date, Whole, Count, Number)
# Puts the columns of one part beside each other.
BESIDE = functools.partial(np.stack, axis=-1)
# Names that parts of x cannot have, as models and NumPy's files use them for other things.
TAKEN = {"x", "z", "seed", "row", "file", *BESIDE_X}


def is_frame(data) -> bool:
    """Return whether data are a pandas DataFrame, without importing pandas."""
    library = sys.modules.get("pandas")
    return library is not None and isinstance(data, library.DataFrame)


@keras.saving.register_keras_serializable(package="tfp_vae")
class Table:
    """The columns of a table, and how each becomes numbers and back.

    | column | in x | likelihood | several are |
    |---|---|---|---|
    | of bool | 0 and 1 | IndependentBernoulli | flags |
    | of texts or of categories | their numbers | IndependentCategorical | names |
    | of whole numbers with at most 256 levels | from 0 on | IndependentQuantizedLogistic | levels |
    | of other whole numbers from 0 on | the same | IndependentNegativeBinomial | counts |
    | of other numbers | standardized | IndependentNormalLearnedScale | numbers |
    | of dates | days, standardized | IndependentNormalLearnedScale | numbers |
    | of one value alone, or of none | none: it has this value everywhere | | |

    Several columns of one likelihood, with equal arguments, are one part of x, `[num_rows,
    num_columns]`, so that a table of a hundred columns is learned about as fast as one of five. The
    part of a single column, or of one whose likelihood was chosen, is `[num_rows]`, and called like
    the column, as far as variables of Python can be; so is the first of columns that are all of one
    likelihood. Give the table to the `layers.Joint` at the end of a decoder: it is saved and served with the
    model, whose methods then take DataFrames and return them.

    Args:
        columns: for each column a dict of its `kind` and the arguments of that kind; see `of`.

    Raises:
        ValueError: if fewer than two columns have more than one value, or a name occurs twice.

    Example:
    >>> import pandas
    >>> table = Table.of(pandas.DataFrame({"weight in kg": [61.5, 80.0], "smokes": [True, False]}))
    >>> table.likelihoods
    {'weight_in_kg': 'IndependentNormalLearnedScale', 'smokes': 'IndependentBernoulli'}
    >>> table = Table.of(pandas.DataFrame({"age": [3.5, 4.0], "height": [98.0, 102.5], "likes cake": [True, False]}))
    >>> table.shapes
    {'numbers': (2,), 'likes_cake': ()}
    """

    def __init__(self, columns: Sequence[Mapping]):
        kinds = {kind.__name__.lower(): kind for kind in KINDS}
        self.columns: list[Column] = [
            kinds[column["kind"]](**{key: column[key] for key in column if key != "kind"})
            for column in columns
        ]
        expect_different([column.name for column in self.columns])
        varying = [column for column in self.columns if not column.is_constant]
        if len(varying) < 2:
            raise ValueError(
                "A table needs two columns at least that have more than one value each, received "
                f"{[column.name for column in varying]} of {self.names}, {len(varying)} feature(s)."
            )
        self.parts: dict[str, list[Column]] = {}
        for column in varying:
            self.parts.setdefault(column.part, []).append(column)

    @classmethod
    def of(cls, frame, *, likelihood: Mapping | None = None, measured=None) -> "Table":
        """Return the table of a DataFrame.

        Args:
            frame: a pandas DataFrame. It tells the columns, dtypes, categories and ranges.
            likelihood: the columns to take, and for each the name of a likelihood, or None for the
                usual one; None takes all columns.
            measured: DataFrame by which numbers and dates are standardized, such as the training
                rows of `frame`; None takes `frame`.

        Raises:
            TypeError: if `frame` is no DataFrame.
            ValueError: if it is empty, a name occurs twice, or a column is of no known kind.
        """
        if not is_frame(frame):
            raise TypeError(f"Expected a pandas DataFrame, received a {type(frame).__name__}.")
        measured = frame if measured is None else measured
        return cls.of_columns(frame, likelihood, lambda values: measured[values.name])

    @classmethod
    def of_columns(cls, frame, likelihood: Mapping | None, measured: Callable) -> "Table":
        """Return the table of columns that are read one at a time.

        Args:
            frame: what has `columns`, a length, and each column by its name.
            likelihood: see `of`.
            measured: function from a column to the values by which it is standardized.
        """
        expect_different([*frame.columns])
        if not len(frame) or not len(frame.columns):
            raise ValueError(
                f"The table is empty: {len(frame)} rows of {len(frame.columns)} columns."
            )
        likelihood = dict.fromkeys(frame.columns) if likelihood is None else dict(likelihood)
        if unknown := [name for name in likelihood if name not in frame.columns]:
            raise ValueError(
                f"There is no column {unknown[0]!r} in the table, only {[*frame.columns]}."
            )
        columns = {}
        for name, chosen in likelihood.items():
            values = frame[name]
            kind = _kind_of(values, chosen)
            names = {"name": name, "part": ""}
            if not kind.is_constant:
                names["likelihood"] = chosen or kind.likelihoods[0]
            columns[name] = kind.of(values, measured(values), **names)
        columns |= _in_parts(columns, alone={name for name in columns if likelihood[name]})
        return cls([_config_of(column) for column in columns.values()])

    @property
    def names(self) -> list:
        """The names of all columns."""
        return [column.name for column in self.columns]

    @property
    def shapes(self) -> dict[str, tuple]:
        """The shape of each part of one row."""
        return {
            part: (len(columns),) if len(columns) > 1 else ()
            for part, columns in self.parts.items()
        }

    @property
    def likelihoods(self) -> dict[str, str]:
        """The name of the likelihood of each part."""
        return {part: columns[0].likelihood for part, columns in self.parts.items()}

    @property
    def arguments(self) -> dict[str, dict]:
        """The arguments of the likelihood of each part, besides the event shape."""
        shapes = self.shapes
        return {part: columns[0].arguments(shapes[part]) for part, columns in self.parts.items()}

    def describe(self) -> list[tuple[str, str, str, str]]:
        """Return name, dtype, likelihood and values of each column, in words."""
        return [
            (
                str(column.name),
                str(as_dtype(column.dtype)),
                column.likelihood or "none",
                column.describe(),
            )
            for column in self.columns
        ]

    @property
    def places(self) -> dict[Any, str]:
        """Where the numbers of each column are in x, as Python writes it; "" for a constant one.

        >>> Table([{"kind": "flag", "name": name, "part": "flags", "dtype": "bool"} for name in "ab"]).places
        {'a': 'flags[0]', 'b': 'flags[1]'}
        """
        shapes = self.shapes
        return dict.fromkeys(self.names, "") | {
            column.name: f"{part}[{place}]" if shapes[part] else part
            for part, columns in self.parts.items()
            for place, column in enumerate(columns)
        }

    # From DataFrames to x and back

    def expect(self, frame):
        """Return the columns of a DataFrame that the table knows, in its order.

        Raises:
            TypeError: if it is no DataFrame.
            ValueError: if a column is missing, or a name occurs twice.
        """
        if not is_frame(frame):
            raise TypeError(f"Expected a pandas DataFrame, received a {type(frame).__name__}.")
        self.expect_names(frame.columns)
        return frame[self.names]

    def expect_names(self, names: Sequence) -> None:
        """Raise a ValueError if a column of the table is missing, or a name occurs twice."""
        expect_different([*names])
        if lacking := [name for name in self.names if name not in names]:
            raise ValueError(
                f"The table lacks the column {lacking[0]!r}. Expected {self.names}, received "
                f"{[*names]}."
            )

    def within(self, frame):
        """Return the columns that the table knows, without values that a model cannot know: whole
        numbers beyond those of the training data, and others than the one value of a constant
        column, are then missing.
        """
        frame = self.expect(frame)
        series = [column.within(frame[column.name]) for column in self.columns]
        return pandas().DataFrame(dict(zip(self.names, series, strict=True)), frame.index)

    def encode(self, frame, *, missing: bool = True) -> dict[str, np.ndarray]:
        """Return a DataFrame as the parts of x, float32 `[num_rows]` or `[num_rows, num_columns]`,
        NaN where a value is missing.

        Further columns are left out.

        Args:
            frame: the DataFrame.
            missing: whether values may be missing.

        Raises:
            ValueError: if a column is missing, or has a value that the table does not know, such
                as a new category; the message names the column and the row.
        """
        frame = self.expect(frame)
        numbers = {column.name: column.encode(frame[column.name]) for column in self.columns}
        if not missing:
            gaps = {name: int(np.isnan(values).sum()) for name, values in numbers.items()}
            expect_no_gaps(gaps, "The table")
        return self.join(numbers)

    def join(self, numbers: Mapping[Any, Any], stack: Callable = BESIDE) -> dict[str, Any]:
        """Return the numbers of the columns by their names, `[...]`, as the parts of x.

        Args:
            numbers: of each column that has more than one value; others are left out.
            stack: function from the numbers of the columns of one part to the part.
        """
        return {
            part: stack([numbers[column.name] for column in self.parts[part]])
            if shape
            else numbers[self.parts[part][0].name]
            for part, shape in sorted(self.shapes.items())
        }

    def split(self, x: Mapping[str, np.ndarray]) -> dict[Any, np.ndarray]:
        """Return parts of x as the numbers of the columns by their names, `[..., num_rows]`."""
        return {
            column.name: np.asarray(x[part])[..., place] if shape else np.asarray(x[part])
            for part, shape in self.shapes.items()
            for place, column in enumerate(self.parts[part])
        }

    def decode(self, x: Mapping[str, np.ndarray], index=None):
        """Return parts of x as a DataFrame with the columns and dtypes of the table.

        Means become possible values: whole numbers are rounded, and True is what has a probability
        of at least a half. If x has a leading axis, of draws, the index of the DataFrame has the
        levels draw and row.
        """
        x = {part: np.asarray(x[part]) for part in self.parts}
        numbers = self.split(x)
        first = next(iter(numbers.values()))
        if first.ndim == 2:
            draws = [
                self.decode({part: x[part][draw] for part in self.parts}, index)
                for draw in range(len(first))
            ]
            names = ["row"] if draws[0].index.names == [None] else draws[0].index.names
            return pandas().concat(dict(enumerate(draws)), names=["draw", *names])
        return self._frame(numbers, index)

    def _frame(self, numbers: Mapping[Any, np.ndarray], index=None):
        """Return the numbers of the columns by their names, `[num_rows]`, as a DataFrame."""
        some = next(iter(numbers.values()))  # of as many rows, for constant columns
        series = [column.series(numbers.get(column.name, some), index) for column in self.columns]
        return pandas().DataFrame(dict(zip(self.names, series, strict=True)), index=index)

    def texts(self, x: Mapping[str, np.ndarray]) -> dict[Any, list[str | None]]:
        """Return parts of x as the texts of each column's values, as a form takes them; None where
        a value is missing.
        """
        numbers = self.split(x)
        known = {name: np.isfinite(values) for name, values in numbers.items()}
        # Not every dtype can hold what is missing, so it gets a value first.
        frame = self._frame({name: np.where(known[name], numbers[name], 0.0) for name in numbers})
        return {
            name: texts_of(frame[name], column.form(), known.get(name, frame[name].notna()))
            for name, column in zip(self.names, self.columns, strict=True)
        }

    def fill(self, frame, values):
        """Return a DataFrame with what is missing taken from another one, or from each of its
        draws; what is known stays exactly as it is.
        """
        own = self.expect(frame)
        if values.index.nlevels > own.index.nlevels:
            draws = range(len(values) // len(own))
            each = {
                draw: self.fill(
                    frame, values.iloc[draw * len(own) : (draw + 1) * len(own)].droplevel(0)
                )
                for draw in draws
            }
            return pandas().concat(each, names=values.index.names)
        filled = frame.copy()
        for name in self.names:
            filled[name] = filled_from(own[name], values[name])
        return filled

    def log_units(self, frame) -> np.ndarray:
        """Return what to add to log-densities of the parts of x to have those of the rows of a
        DataFrame in the columns' own units (of dates, days), `[num_rows]`.
        """
        frame = self.expect(frame)
        return -sum(
            column.log_scale * frame[column.name].notna().to_numpy("float32")
            for column in self.columns
        )

    # Networks

    def inputs(
        self, x: Mapping[str, np.ndarray], *, missing: bool = False
    ) -> dict[str, keras.Model]:
        """Return the networks by which an encoder takes the parts: `networks.from_inputs(inputs, ...)`.

        Args:
            x: training data, as `encode` returns them.
            missing: whether values may be missing.
        """
        arguments = self.arguments
        return {
            part: networks.of_part(
                spread(x[part]), part, arguments[part].get("num_categories"), missing=missing
            )
            for part in sorted(self.parts)
        }

    def likelihood(
        self, num_features: int, arguments: Mapping | None = None, **dense
    ) -> layers.Joint:
        """Return the end of a decoder, `[batch, num_features]` to the likelihood of all columns.

        Args:
            num_features: size of the layer before it.
            arguments: further arguments of the likelihoods of some columns, by their names.
            **dense: further arguments of the `keras.layers.Dense` of each part.

        Raises:
            ValueError: if columns of one part have different arguments.
        """
        shapes, own_arguments = self.shapes, self.arguments
        parts = {}
        for part, columns in self.parts.items():
            given = [(arguments or {}).get(column.name, {}) for column in columns]
            if any(own != given[0] for own in given):
                raise ValueError(
                    f"The columns {[column.name for column in columns]} share a likelihood, but "
                    f"received different arguments of it, {given}. Choose the likelihood of such "
                    "a column by its name."
                )
            config = {"event_shape": shapes[part], **own_arguments[part], **given[0]}
            layer = getattr(layers, columns[0].likelihood)
            bias = [column.bias for column in columns]  # the first parameters of all come first
            bias += [0.0] * (num_params(layer, config) - len(bias))
            begin = keras.initializers.Constant(bias)
            outputs = keras.layers.Dense(len(bias), bias_initializer=begin, **dense)
            parts[part] = keras.Sequential([keras.Input((num_features,)), outputs, layer(**config)])
        return layers.Joint(parts, table=self)

    def __eq__(self, other):
        return isinstance(other, Table) and self.get_config() == other.get_config()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Table({', '.join(map(str, self.names))})"

    def get_config(self) -> dict:
        return {"columns": [_config_of(column) for column in self.columns]}

    @classmethod
    def from_config(cls, config: dict):
        return cls(**config)


def _kind_of(values, chosen: str | None) -> type[Column]:
    """Return the kind of a column, or the kind that has the chosen likelihood."""
    if Constant.suits(values):
        return Constant
    if chosen is None:
        found = [kind for kind in KINDS if kind.suits(values)]
    else:
        found = [kind for kind in KINDS if chosen in kind.likelihoods and kind.takes(values)]
    if found:
        return found[0]
    if chosen is not None:
        possible = [name for kind in KINDS if kind.takes(values) for name in kind.likelihoods]
        raise ValueError(
            f"{chosen} does not suit the column {values.name!r} of type {values.dtype}. Choose one "
            f"of {', '.join(possible) or 'none: it suits no likelihood'}."
        )
    what = pandas().api.types.infer_dtype(values, skipna=True)
    raise ValueError(
        f"The column {values.name!r} is of type {values.dtype} ({what}), which no likelihood suits. "
        "Make it numbers, texts, bool or dates, such as by pandas.to_numeric, astype(str) or "
        "pandas.to_datetime, or leave it out."
    )


def expect_different(names: Sequence, where: object = "the table") -> None:
    """Raise a ValueError if the name of a column occurs twice, as a text."""
    for name, number in collections.Counter(map(str, names)).items():
        if number > 1:
            raise ValueError(
                f"The name {name!r} stands above {number} columns of {where}. Rename all but one."
            )


def _config_of(column: Column) -> dict:
    return {"kind": type(column).__name__.lower(), **column.get_config()}


def _in_parts(columns: Mapping[Any, Column], alone: Collection) -> dict[Any, Column]:
    """Return the columns that have more than one value, each with the name of its part: columns
    whose likelihoods are equal share one, except those that are to be alone.
    """
    equal: dict[Any, list[Column]] = {}
    for name, column in columns.items():
        if not column.is_constant:
            likelihood = (column.likelihood, *column.arguments().items())
            key = (True, name) if name in alone else (False, likelihood)
            equal.setdefault(key, []).append(column)
    parts = [*equal.values()]
    if len(parts) == 1 and len(parts[0]) > 1:  # an x of parts has two at least
        parts = [parts[0][:1], parts[0][1:]]
    names = _part_names([of[0].together if len(of) > 1 else of[0].name for of in parts])
    return {
        column.name: dataclasses.replace(column, part=part)
        for part, of in zip(names, parts, strict=True)
        for column in of
    }


def _part_names(names: Sequence) -> list[str]:
    """Return different names that Python's variables may have for some names.

    >>> _part_names(["Größe (cm)", "size", "x", "2nd", "größe cm", "size"])
    ['Grosse_cm', 'size', 'x_', 'c2nd', 'grosse_cm', 'size2']
    """
    parts: list[str] = []
    for name in names:
        plain = unicodedata.normalize("NFKD", str(name).replace("ß", "ss"))
        part = re.sub(r"\W+", "_", plain.encode("ascii", "ignore").decode()).strip("_") or "c"
        part = f"c{part}" if part[0].isdigit() else part
        if part in TAKEN or keyword.iskeyword(part) or part.endswith(networks.OF_MASKS):
            part += "_"
        number = 1
        while part in parts:
            number += 1
            part = f"{part.rstrip('0123456789')}{number}"
        parts.append(part)
    return parts
