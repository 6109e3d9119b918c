"""The mapping between the columns of a table and the parts of x."""

import collections
import keyword
import re
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfp_vae import layers, networks
from tfp_vae.batch import BESIDE_X
from tfp_vae.layers.distribution_layer import num_params
from tfp_vae.rows import spread
from tfp_vae.tables.columns import KINDS, Column
from tfp_vae.tables.series import as_dtype, pandas

# Names that parts of x cannot have, as models use them for other things.
TAKEN = {"x", "z", "seed", "row", *BESIDE_X}


def is_frame(data) -> bool:
    """Return whether data are a pandas DataFrame, without importing pandas."""
    library = sys.modules.get("pandas")
    return library is not None and isinstance(data, library.DataFrame)


@keras.saving.register_keras_serializable(package="tfp_vae")
class Table:
    """The columns of a table, and how each becomes numbers and back.

    | column | part of x | likelihood |
    |---|---|---|
    | of bool | 0 and 1 | IndependentBernoulli |
    | of texts or of categories | their numbers | IndependentCategorical |
    | of whole numbers, at most 256 from the smallest to the largest | from 0 on | IndependentQuantizedLogistic |
    | of other whole numbers from 0 on | the same | IndependentNegativeBinomial |
    | of other numbers | standardized | IndependentNormalLearnedScale |
    | of dates | days, standardized | IndependentNormalLearnedScale |
    | of one value alone, or of none | none: it has this value everywhere | |

    The part of a column is called like the column, as far as variables of Python can be.
    Give the table to the `layers.Joint` at the end of a decoder: it is saved and served with the
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
    """

    def __init__(self, columns: Sequence[Mapping]):
        kinds = {kind.__name__.lower(): kind for kind in KINDS}
        self.columns: list[Column] = [
            kinds[column["kind"]](**{key: column[key] for key in column if key != "kind"})
            for column in columns
        ]
        expect_different([column.name for column in self.columns])
        self.parts = {column.part: column for column in self.columns if not column.is_constant}
        if len(self.parts) < 2:
            raise ValueError(
                "A table needs two columns at least that have more than one value each, received "
                f"{[column.name for column in self.parts.values()]} of "
                f"{[column.name for column in self.columns]}, {len(self.parts)} feature(s)."
            )

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
        parts = _part_names(likelihood)
        columns = []
        for name, chosen in likelihood.items():
            values = frame[name]
            kind = _kind_of(values, chosen)
            names = {"name": name, "part": parts[name]}
            if not kind.is_constant:
                names["likelihood"] = chosen or kind.likelihoods[0]
            column = kind.of(values, measured(values), **names)
            columns.append({"kind": kind.__name__.lower(), **column.get_config()})
        return cls(columns)

    @property
    def names(self) -> list:
        """The names of all columns."""
        return [column.name for column in self.columns]

    @property
    def likelihoods(self) -> dict[str, str]:
        """The name of the likelihood of each part."""
        return {part: column.likelihood for part, column in self.parts.items()}

    @property
    def arguments(self) -> dict[str, dict]:
        """The arguments of the likelihood of each part, besides the event shape."""
        return {part: column.arguments for part, column in self.parts.items()}

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
        numbers beyond those of the training data are then missing.
        """
        frame = self.expect(frame)
        series = [column.within(frame[column.name]) for column in self.columns]
        return pandas().DataFrame(dict(zip(self.names, series, strict=True)), frame.index)

    def encode(self, frame) -> dict[str, np.ndarray]:
        """Return a DataFrame as the parts of x, float32 `[num_rows]`, NaN where a value is missing.

        Further columns are left out.

        Raises:
            ValueError: if a column is missing, or has a value that the table does not know, such
                as a new category; the message names the column and the row.
        """
        frame = self.expect(frame)
        numbers = {column.part: column.encode(frame[column.name]) for column in self.columns}
        return {part: numbers[part] for part in sorted(self.parts)}

    def decode(self, x: Mapping[str, np.ndarray], index=None):
        """Return parts of x, `[num_rows]`, as a DataFrame with the columns and dtypes of the table.

        Means become possible values: whole numbers are rounded, and True is what has a probability
        of at least a half. With a leading axis, `[num_draws, num_rows]`, the index of the DataFrame
        has the levels draw and row.
        """
        x = {part: np.asarray(x[part]) for part in self.parts}
        first = next(iter(x.values()))
        if first.ndim == 2:
            draws = [
                self.decode({part: values[draw] for part, values in x.items()}, index)
                for draw in range(len(first))
            ]
            names = ["row"] if draws[0].index.names == [None] else draws[0].index.names
            return pandas().concat(dict(enumerate(draws)), names=["draw", *names])
        series = [column.series(x.get(column.part, first), index) for column in self.columns]
        return pandas().DataFrame(dict(zip(self.names, series, strict=True)), index=index)

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
            filled[name] = own[name].where(own[name].notna(), values[name])
        return filled

    def log_units(self, frame) -> np.ndarray:
        """Return what to add to log-densities of the parts of x to have those of the rows of a
        DataFrame in the columns' own units (of dates, days), `[num_rows]`.
        """
        frame = self.expect(frame)
        return -sum(
            column.log_scale * frame[column.name].notna().to_numpy("float32")
            for column in self.parts.values()
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
        return {
            part: networks.of_part(
                spread(x[part]), part, self.arguments[part].get("num_categories"), missing=missing
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
        """
        parts = {}
        for part, column in self.parts.items():
            config = {
                "event_shape": (),
                **column.arguments,
                **(arguments or {}).get(column.name, {}),
            }
            layer = getattr(layers, column.likelihood)
            bias = [column.bias] + [0.0] * (num_params(layer, config) - 1)
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
        return {
            "columns": [
                {"kind": type(column).__name__.lower(), **column.get_config()}
                for column in self.columns
            ]
        }

    @classmethod
    def from_config(cls, config: dict):
        return cls(**config)


def _kind_of(values, chosen: str | None) -> type[Column]:
    """Return the kind of a column, or the kind that has the chosen likelihood."""
    if KINDS[0].suits(values):
        return KINDS[0]
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
    """Raise a ValueError if a name of a column occurs twice."""
    twice = [name for name, number in collections.Counter(names).items() if number > 1]
    if twice:
        raise ValueError(
            f"The name {twice[0]!r} stands above {names.count(twice[0])} columns of {where}. Rename "
            "all but one."
        )


def _part_names(names) -> dict[Any, str]:
    """Return a name that Python's variables may have for each name of a column.

    >>> _part_names(["Größe (cm)", "size", "x", "2nd", "größe cm"])
    {'Größe (cm)': 'Grosse_cm', 'size': 'size', 'x': 'x_', '2nd': 'c2nd', 'größe cm': 'grosse_cm'}
    """
    parts: dict[Any, str] = {}
    for name in names:
        plain = unicodedata.normalize("NFKD", str(name).replace("ß", "ss"))
        part = re.sub(r"\W+", "_", plain.encode("ascii", "ignore").decode()).strip("_") or "c"
        part = f"c{part}" if part[0].isdigit() else part
        if part in TAKEN or keyword.iskeyword(part) or part.endswith("_mask"):
            part += "_"
        number = 1
        while part in parts.values():
            number += 1
            part = f"{part.rstrip('0123456789')}{number}"
        parts[name] = part
    return parts
