"""Files of tables: CSV and Parquet."""

import contextlib
import csv
import functools
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfp_vae import storage
from tfp_vae.checks import imported
from tfp_vae.files import read_utf8
from tfp_vae.rows import TakenRows, chosen
from tfp_vae.tables.columns import Column
from tfp_vae.tables.series import dates_of, expect_no_gaps, pandas
from tfp_vae.tables.table import Table, expect_different

SUFFIXES = (".csv", ".parquet")
# How many rows of a large table are put together at a time.
ROWS_AT_ONCE = 100_000
# A number, whose decimals stand after a comma, if it has some.
WITH_COMMA = r"[+-]?(\d+|\d*,\d+)([eE][+-]?\d+)?"
# What may be a number with decimals, or one of thousands.
AMBIGUOUS = r"[+-]?[1-9]\d{0,2}[,.]\d{3}"


def is_table_file(source) -> bool:
    """Return whether a data source is a file of a table with named columns, by its suffix."""
    return isinstance(source, (str, os.PathLike)) and Path(source).suffix.lower() in SUFFIXES


def read(path: str | os.PathLike, table: Table | None = None):
    """Return a `.csv` or `.parquet` file as a pandas DataFrame.

    A CSV has the names of its columns in the first line, and commas, semicolons or tabs between
    values; a first column without a name is the index. The numbers of a column may have decimal
    commas. An empty value is missing, as is what pandas takes for nothing, such as NA or null.
    Numbers of which some begin with a zero, such as postcodes, are texts. Columns of texts that all
    are dates or times as ISO 8601 writes them, with hyphens, become dates, in UTC if they have
    different offsets.

    Args:
        path: of the file.
        table: of a model, which knows what its columns are; those of a few rows may seem to be
            something else. All other columns stay as they are: of a CSV texts, as they stand there.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not such a file, not UTF-8, or a name of a column occurs twice.
    """
    path = Path(path)
    _expect_file(path)
    if path.suffix.lower() == ".csv":
        return _read_csv(path, table)
    return ParquetColumns(path, table).read()


def _expect_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")


def columns_without(source: str, left_out: str) -> dict[Any, None]:
    """Return the columns of a table's file, as `Table.of` takes those of choice, without those that
    a text names, with commas between them; a name that has a comma is in quotes.
    """
    path = Path(source)
    if not is_table_file(path):
        raise ValueError(f"--without is about columns of a .csv or .parquet file, not of {source}.")
    _expect_file(path)
    if path.suffix.lower() == ".csv":
        options, has_index = _form_of(path)
        names = [*_guessed(path, {**options, "nrows": 0}).columns][has_index:]
    else:
        names = ParquetColumns(path).columns
    without = _values_of(left_out, ",")
    texts = {str(name).strip(): name for name in names}
    if unknown := [name for name in without if name not in texts]:
        raise ValueError(
            f"There is no column {unknown[0]!r} in {path}, only {names}. Give --without names of "
            "these, with commas between them, and a name with a comma in double quotes."
        )
    return {name: None for text, name in texts.items() if text not in without}


class ParquetColumns:
    """The columns of a Parquet file, each a pandas Series, which is read when it is asked for.

    Args:
        path: of the file.
        table: of a model, or None; see `read`.

    Raises:
        ValueError: if it is not such a file.
    """

    def __init__(self, path: Path, table: Table | None = None):
        self.path = path
        self.table = table
        parquet = imported("pyarrow.parquet", "A file .parquet", "tables")
        with self._naming_the_file(), parquet.ParquetFile(path) as file:
            self._number = file.metadata.num_rows
            self.columns = [*file.schema_arrow.empty_table().to_pandas().columns]
            stored = file.schema_arrow.names  # as texts, the index behind the columns
        expect_different(self.columns, path)
        self._stored = dict(zip(self.columns, stored, strict=False))

    def __len__(self) -> int:
        return self._number

    @property
    def nbytes(self) -> int:
        """The number of bytes of all values in memory, roughly."""
        return 8 * len(self) * len(self.columns)

    def __getitem__(self, name):
        return self._latest(name)

    @functools.cached_property
    def _latest(self) -> Callable:
        """Return a column, and remember the latest one."""
        return functools.lru_cache(maxsize=1)(lambda name: self.read([self._stored[name]])[name])

    def read(self, stored: list[str] | None = None):
        """Return some columns as a DataFrame, by their names in the file, or all."""
        with self._naming_the_file():
            frame = pandas().read_parquet(self.path, columns=stored)
        known = {
            name: column
            for name, column in _known(frame, self.table).items()
            if frame[name].dtype.kind != "M"  # dates already, with a time zone or without one
        }
        return _as_known(_with_dates(frame.copy(deep=False), known), frame, known)

    @contextlib.contextmanager
    def _naming_the_file(self):
        try:
            yield
        except PermissionError:
            raise
        except (OSError, ValueError, NotImplementedError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise ValueError(
                f"{self.path} is not a Parquet table, or a damaged one: {reason}."
            ) from error


def _read_csv(path: Path, table: Table | None):
    options, has_index = _form_of(path)
    frame = _guessed(path, options)
    texts = pandas().read_csv(path, **options, dtype=str)
    known, first = _known(frame, table), frame.columns[0]
    if others := [name for name in frame.columns if name not in known]:
        as_they_stand = pandas().read_csv(path, **options, dtype=str, keep_default_na=False)
        frame[others] = as_they_stand[others]
    if has_index and known.get(first) is None:
        frame = frame.set_index(first).rename_axis(None)
        texts = texts.iloc[:, 1:].set_axis(frame.index)
        known.pop(first, None)
    with_commas = [name for name in known if _have_commas(texts[name], frame[name])]
    if with_commas:
        _expect_clear(frame, texts, known, with_commas, path, options["sep"])
    for name, column in known.items():
        if name in with_commas:
            frame[name] = texts[name].str.replace(",", ".").astype("float64")
        else:
            is_number = column is not None and column.has_decimals is not None
            frame[name] = _whole_or_codes(texts[name], frame[name], is_number=is_number)
    return _as_known(_with_dates(frame, known), texts, known)


def _guessed(path: Path, options: Mapping):
    """Return a CSV as a DataFrame of what pandas takes its values for."""
    library = pandas()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", library.errors.ParserWarning)
            return library.read_csv(path, **options)
    except library.errors.ParserWarning as error:
        raise ValueError(
            f"{path} is not a table in CSV: its rows have more values than there are names in the "
            "first line."
        ) from error
    except ValueError as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise ValueError(f"{path} is not a table in CSV: {reason}.") from error


def _known(frame, table: Table | None) -> dict[Any, Column | None]:
    """Return what is known of each column that may be read as something else than it stands there:
    without a table nothing, of all of them.
    """
    if table is None:
        return dict.fromkeys(frame.columns)
    return {column.name: column for column in table.columns if column.name in frame.columns}


def _as_known(frame, stored, known: Mapping[Any, Column | None]):
    """Return a DataFrame whose columns are what a table knows, instead of what they seem to be.

    Args:
        frame: what they seem to be.
        stored: what stands in the file.
        known: the columns of the table.
    """
    for name, column in known.items():
        if column is not None:
            frame[name] = column.parse(stored[name], frame[name])
    return frame


def _have_commas(texts, guessed) -> bool:
    """Return whether all values of a column are numbers, of which some have decimal commas."""
    known = texts.dropna()
    return (
        guessed.dtype.kind not in "iufb"
        and bool(known.str.fullmatch(WITH_COMMA).all())
        and bool(known.str.contains(",").any())
    )


def _whole_or_codes(texts, guessed, *, is_number: bool):
    """Return a column of a CSV, if all of its values are digits as whole numbers, which keep the
    last one though there are gaps; or as texts, if some begin with a zero.

    Args:
        texts: its values as they are written.
        guessed: what pandas takes them for.
        is_number: whether the column is known to be of numbers.
    """
    known = texts.dropna().str.strip()
    if not len(known) or not known.str.fullmatch(r"[+-]?\d+").all():
        return guessed
    if not is_number and known.str.fullmatch(r"0\d+").any():
        return texts
    if guessed.dtype.kind == "f":
        for dtype in ("Int64", "UInt64"):
            with contextlib.suppress(OverflowError, TypeError, ValueError):
                return texts.str.strip().str.removeprefix("+").astype(dtype)
    return guessed if guessed.dtype.kind in "iu" else texts.astype("float64")


def _expect_clear(
    frame, texts, known: Mapping, with_commas: list, path: Path, separator: str
) -> None:
    """Raise a ValueError if all numbers of a column may have thousands or decimals: one with commas,
    or one with points beside such with decimal commas.
    """
    for name, column in known.items():
        is_in_question = name in with_commas or frame[name].dtype.kind == "f"
        if column is not None and column.has_decimals is None:
            is_in_question = False  # no numbers
        elif column is not None and column.has_decimals and name in with_commas:
            is_in_question = separator == ","  # else the decimals are after the comma
        values = texts[name].dropna()
        if is_in_question and len(values) and values.str.fullmatch(AMBIGUOUS).all():
            beside = f" beside decimal commas in {with_commas}" * (name not in with_commas)
            raise ValueError(
                f"{path}: {values.iloc[0]!r} in the column {name!r} may be thousands or decimals"
                f"{beside}. Write it without a comma or point, or with other decimals."
            )


def _form_of(path: Path) -> tuple[dict[str, Any], bool]:
    """Return how pandas reads a CSV, and whether its first column has no name, after checking its
    encoding and its first line.
    """
    text = read_utf8(path, "in UTF-8")
    first = next(filter(str.strip, text.splitlines()), "")
    if not first.strip() or "\0" in first:
        raise ValueError(
            f"{path} is empty or no text. Expected the names of its columns in the first line."
        )
    separator = max(",;\t", key=lambda mark: len(_values_of(first, mark)))
    names = _values_of(first, separator)
    expect_different(names, path)
    options: dict[str, Any] = {"sep": separator, "encoding": "utf-8-sig"}
    options |= {"skipinitialspace": True, "index_col": False}
    return options, len(names) > 1 and not names[0]


def _values_of(line: str, separator: str) -> list[str]:
    try:
        return [value.strip() for value in next(csv.reader([line], delimiter=separator))]
    except csv.Error:  # so long a value that another separator is meant
        return [line]


def _with_dates(frame, names: Iterable):
    """Return a DataFrame in which those of some columns that are dates, written as texts, are dates."""
    library = pandas()
    for name in names:
        kind = library.api.types.infer_dtype(frame[name], skipna=True)
        if kind not in ("string", "date", "datetime") or frame[name].dtype.kind == "M":
            continue
        if kind == "string" and not frame[name].dropna().str.contains("-").all():
            continue  # such as 1984, which may be a name
        try:
            dates = dates_of(frame[name])
        except (TypeError, ValueError):  # they are no dates
            continue
        if dates.dtype.kind == "M":
            frame[name] = dates
    return frame


def write(frame, path: Path, suffix: str) -> None:
    """Write a DataFrame to a `.csv` or `.parquet` file, without a plain index."""
    has_index = not isinstance(frame.index, pandas().RangeIndex) or frame.index.name is not None
    if suffix == ".csv":
        frame.to_csv(path, index=has_index)
    else:
        imported("pyarrow", "A file .parquet", "tables")
        frame.to_parquet(path, index=has_index)


def expect_no_condition(condition, likelihood) -> None:
    """Raise a ValueError if a table is to have a condition, or a likelihood for all columns."""
    if condition is not None or isinstance(likelihood, str):
        raise ValueError(
            "The columns of a table are learned together, without a condition, each with a "
            f"likelihood of its own; received {condition or likelihood!r}. Leave --condition out, or "
            "choose by column: --likelihood \"Joint(age='auto', job='IndependentCategorical')\"."
        )


def load(
    source,
    cut_rows: Callable,
    likelihood: Mapping | None = None,
    *,
    missing: bool = False,
    table: Table | None = None,
) -> tuple[str, list[dict[str, np.ndarray]], Table]:
    """Return the name of a DataFrame or of its file, its parts of x for training, validation and
    test, and its table.

    Args:
        source: a DataFrame, or the path of a file.
        cut_rows: function from the number of rows to the places of those of the three splits.
        likelihood: see `Table.of`.
        missing: whether values may be missing.
        table: of a model; None makes one, whose means and scales are those of the training rows.
    """
    is_file = is_table_file(source)
    frame = _columns_of(Path(source), table) if is_file else source
    name = Path(source).stem if is_file else "table"
    if table is not None:
        table.expect_names(frame.columns)
    splits = cut_rows(len(frame))
    if table is None:
        table = Table.of_columns(frame, likelihood, lambda values: values.iloc[splits[0]])
    is_large = isinstance(frame, ParquetColumns)
    numbers, gaps = {}, {}
    for column in table.columns:
        values = column.encode(frame[column.name])
        if column.is_constant:
            continue
        gaps[column.name] = int(np.isnan(values).sum())
        numbers[column.name] = storage.temporary_rows([values]) if is_large else values
    if not missing:
        expect_no_gaps(gaps, name)
    x = table.join(numbers, _stacked_rows) if is_large else table.join(numbers)
    cut = [{part: chosen(values, places) for part, values in x.items()} for places in splits]
    return name, cut, table


def _stacked_rows(columns: list[TakenRows]) -> TakenRows:
    """Return columns that are rows of files beside each other, `[num_rows, num_columns]`."""
    number = len(columns[0])
    pieces = np.array_split(np.arange(number), -(-number // ROWS_AT_ONCE))
    return storage.temporary_rows(
        np.stack([column.take(places) for column in columns], -1) for places in pieces
    )


def _columns_of(path: Path, table: Table | None):
    """Return a table as a DataFrame, or the columns of a Parquet file that is too large for one."""
    if path.suffix.lower() == ".parquet" and path.is_file():
        columns = ParquetColumns(path, table)
        return columns if columns.nbytes > storage.MOST_BYTES else columns.read()
    return read(path, table)
