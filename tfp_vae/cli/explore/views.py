"""How the page sees the parts of an example: as pictures, texts, columns and numbers; and how it sends
them.
"""

import abc
import base64
import binascii
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfp_vae.quantity import Quantity
from tfp_vae.tables import Table
from tfp_vae.tables.series import dates_of, pandas
from tfp_vae.text import Vocabulary

# Numbers that have a field each; more of them are shown as a curve, which cannot be edited.
MOST_FIELDS = 64
# Fewest pixels of a picture each way, most times that it is as high as wide, and as wide as high.
LEAST_SIDE, TALLEST, WIDEST = 4, 4, 16
LARGEST = float(np.finfo("float32").max)


class View(abc.ABC):
    """Base of the ways to show parts of an x.

    Args:
        names: the parts.
        shapes: of all parts of x, by name.
        examples: values of all parts, `[num_examples, *shape]`, by name.

    Attributes:
        kind: what the page calls it.
    """

    kind: str

    def __init__(self, names: list[str], shapes: Mapping[str, tuple], examples: Mapping):
        self.names = names
        self.shapes = {name: shapes[name] for name in names}
        self.examples = {name: np.asarray(examples[name]) for name in names}

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what the page must know of the view besides its kind."""

    @abc.abstractmethod
    def to_page(self, parts: Mapping[str, np.ndarray]) -> list:
        """Return what is sent of each row of the parts."""

    @abc.abstractmethod
    def from_page(self, sent) -> dict[str, np.ndarray]:
        """Return the parts of one example, `[*shape]`.

        Raises:
            ValueError: if the page cannot have sent this.
        """


class Picture(View):
    """An image, whose values are sent as bytes from 0 to 255, with the places of those that are
    missing.
    """

    kind = "picture"

    def __init__(self, names, shapes, examples, *, missing: bool):
        super().__init__(names, shapes, examples)
        self.missing = missing

    @functools.cached_property
    def limits(self) -> tuple[float, float]:
        """The values that are shown black and white."""
        (values,) = self.examples.values()
        known = values[np.isfinite(values)]
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
        return low, high if high > low else low + 1.0

    @property
    def is_whole(self) -> bool:
        """Whether the values are whole numbers, so that a drawing is rounded to such."""
        (values,) = self.examples.values()
        return _are_whole(values)

    def describe(self):
        ((name, shape),) = self.shapes.items()
        return {"name": name, "height": shape[0], "width": shape[1], "channels": self.channels}

    @property
    def channels(self) -> int:
        """1 or 3."""
        (shape,) = self.shapes.values()
        return shape[2] if len(shape) == 3 else 1

    def to_page(self, parts):
        low, high = self.limits
        values = np.asarray(parts[self.names[0]], "float64").reshape(-1, self._size)
        holes = np.isnan(values)
        scaled = np.clip((np.where(holes, low, values) - low) / (high - low), 0.0, 1.0)
        pixels = np.round(255.0 * scaled).astype("uint8")
        return [
            {
                "pixels": base64.b64encode(row.tobytes()).decode(),
                "holes": np.flatnonzero(hole).tolist(),
            }
            for row, hole in zip(pixels, holes, strict=True)
        ]

    def from_page(self, sent):
        try:
            pixels = np.frombuffer(base64.b64decode(sent["pixels"], validate=True), "uint8")
        except (TypeError, KeyError, binascii.Error, ValueError) as error:
            raise ValueError('A picture must be {"pixels": bytes in base64}.') from error
        if pixels.size != self._size:
            raise ValueError(f"A picture has {self._size} values, received {pixels.size}.")
        low, high = self.limits
        values = low + (high - low) * pixels / 255.0
        values = np.round(values) if self.is_whole else values
        values[self._holes(sent)] = math.nan
        ((name, shape),) = self.shapes.items()
        return {name: values.reshape(shape).astype("float32")}

    def _holes(self, sent: Mapping) -> list[int]:
        """Return the places of the missing values of a picture that the page has sent."""
        holes = sent.get("holes", [])
        if not isinstance(holes, list) or not all(
            type(hole) is int and 0 <= hole < self._size for hole in holes
        ):
            raise ValueError(f"A picture's holes must be a list of places below {self._size}.")
        if holes and not self.missing:
            raise ValueError("A picture of this model has no missing values.")
        return holes

    @property
    def _size(self) -> int:
        (shape,) = self.shapes.values()
        return math.prod(shape)


class Text(View):
    """A sequence of tokens that have names."""

    kind = "text"

    def __init__(self, names, shapes, examples, vocabulary: Vocabulary):
        super().__init__(names, shapes, examples)
        self.vocabulary = vocabulary

    def describe(self):
        ((name, (length,)),) = self.shapes.items()
        return {"name": name, "length": length, "split": self.vocabulary.split}

    def to_page(self, parts):
        return self.vocabulary.decode(parts[self.names[0]])

    def from_page(self, sent):
        ((name, (length,)),) = self.shapes.items()
        if not isinstance(sent, str) or not sent.strip() or "\n" in sent:
            raise ValueError("Write one line of text, not an empty one.")
        return {name: self.vocabulary.encode([sent], length)[0].astype("float32")}


class Columns(View):
    """The columns of a table, each value as a text in the column's own unit; None where missing."""

    kind = "columns"

    def __init__(self, names, shapes, examples, table: Table, *, missing: bool):
        super().__init__(names, shapes, examples)
        self.table = table
        self.missing = missing
        self.forms = [column.form() for column in table.columns]

    def describe(self):
        fields = [
            {"title": str(column.name), "values": column.describe(), **form}
            for column, form in zip(self.table.columns, self.forms, strict=True)
        ]
        return {"fields": fields, "missing": self.missing}

    def to_page(self, parts):
        return [list(row) for row in zip(*self.table.texts(parts).values(), strict=True)]

    def from_page(self, sent):
        texts = list_of(sent, "x", len(self.forms))
        return self.table.join(
            {
                column.name: self._number(column, form, text)
                for column, form, text in zip(self.table.columns, self.forms, texts, strict=True)
                if not column.is_constant
            }
        )

    def _number(self, column, form: dict, text) -> np.ndarray:
        """Return the part of x for a value that the page has sent."""
        if text is None and self.missing:
            return np.array(math.nan, "float32")
        if not isinstance(text, str) or text not in form.get("choices", [text]):
            raise ValueError(
                f"{text!r} is no value of the column {column.name!r} ({column.describe()})."
            )
        if "choices" in form:
            return np.array(form["choices"].index(text), "float32")
        values = texts = pandas().Series([text], name=column.name)
        if "seconds" in form:
            try:
                values = column.parse(texts, dates_of(texts))
            except ValueError as error:
                raise ValueError(
                    f"The column {column.name!r} takes dates such as 2001-12-31, received {text!r}."
                ) from error
        with np.errstate(over="ignore"):  # what is too large is refused by the model
            return column.encode(values)[0]


class Numbers(View):
    """Parts that are nothing of the above, as one list of numbers; None where missing."""

    kind = "numbers"

    def __init__(self, names, shapes, examples, *, missing: bool):
        super().__init__(names, shapes, examples)
        self.missing = missing
        self.sizes = {name: math.prod(shape) for name, shape in self.shapes.items()}
        self.size = sum(self.sizes.values())

    def describe(self):
        titles = [
            f"{name} {place}" if size > 1 else name
            for name, size in self.sizes.items()
            for place in range(size)
        ]
        fields = [
            {"title": title, **_range(column)}
            for title, column in zip(titles, self._flat(self.examples).T, strict=True)
        ]
        is_curve = self.size > MOST_FIELDS
        return {
            "fields": fields,
            "is_curve": is_curve,
            "curves": self._num_curves,
            "missing": self.missing,
        }

    def to_page(self, parts):
        return [[number(value) for value in row] for row in self._flat(parts)]

    def from_page(self, sent):
        values = numbers_of(sent, "x", self.size, missing=self.missing)
        pieces = np.split(values, np.cumsum([*self.sizes.values()])[:-1])
        return {
            name: piece.reshape(shape)
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }

    @property
    def _num_curves(self) -> int:
        """How many series stand side by side, if there is only one part, of columns."""
        shape = [*self.shapes.values()][-1]
        are_columns = len(self.shapes) == 1 and len(shape) == 2 and shape[1] <= shape[0]
        return shape[1] if are_columns else 1

    def _flat(self, parts: Mapping) -> np.ndarray:
        rows = [np.asarray(parts[name]) for name in self.names]
        return np.concatenate([part.reshape(len(part), -1) for part in rows], axis=1)


def views_of(
    x: Quantity,
    vocabulary: Vocabulary | None,
    examples: Mapping,
    *,
    missing: bool,
    table: Table | None = None,
) -> list[View]:
    """Return the views that show all parts of x.

    >>> x = Quantity("x", {"age": (), "face": (8, 8, 1)}, "float32")
    >>> examples = {"age": np.zeros([2]), "face": np.zeros([2, 8, 8, 1])}
    >>> [(view.kind, view.names) for view in views_of(x, None, examples, missing=False)]
    [('picture', ['face']), ('numbers', ['age'])]
    """
    shapes = x.shapes
    if vocabulary is not None:
        return [Text([*shapes], shapes, examples, vocabulary)]
    if table is not None:
        return [Columns([*shapes], shapes, examples, table, missing=missing)]
    pictures = [name for name, shape in shapes.items() if _is_picture(shape)]
    views: list[View] = [Picture([name], shapes, examples, missing=missing) for name in pictures]
    others = [name for name in shapes if name not in pictures]
    curves = [name for name in others if math.prod(shapes[name]) > MOST_FIELDS]
    if few := [name for name in others if name not in curves]:
        views.append(Numbers(few, shapes, examples, missing=missing))
    return views + [Numbers([name], shapes, examples, missing=missing) for name in curves]


def number(value) -> float | None:
    """Return a number as it is sent, with as many digits as its type tells apart, as it may be sent
    back; None if it is missing or infinite, which JSON cannot hold.

    >>> number(np.float32(0.1)), number(float("nan"))
    (0.1, None)
    """
    return float(str(value)) if np.isfinite(value) else None


def list_of(sent, name: str, *sizes: int) -> list:
    """Return a list that the page has sent.

    Raises:
        ValueError: if it is no list of one of the sizes.

    >>> list_of([1, 2.5], "z", 2)
    [1, 2.5]
    """
    if not isinstance(sent, list) or len(sent) not in sizes:
        several = f"{sizes[0]} to {sizes[-1]} values" if len(sizes) > 1 else f"{sizes[0]} values"
        raise ValueError(f"{name} must be a list of {several}.")
    return sent


def numbers_of(sent, name: str, size: int, *, missing: bool = False) -> np.ndarray:
    """Return numbers that the page has sent, float32 `[size]`, with NaN where one may be missing.

    Raises:
        ValueError: if they are not so many finite numbers.

    >>> numbers_of([1, 2.5], "z", 2)
    array([1. , 2.5], dtype=float32)
    """
    kinds = {int, float, type(None)} if missing else {int, float}
    sent = list_of(sent, name, size)
    if not {type(one) for one in sent} <= kinds or not all(
        one is None or -LARGEST <= one <= LARGEST for one in sent
    ):
        raise ValueError(f"{name} must be a list of {size} finite number{'s' * (size != 1)}.")
    return np.array([math.nan if one is None else one for one in sent], "float32")


def _is_picture(shape: tuple) -> bool:
    """Return whether a shape is one of pictures; several series, or one in a column, are none.

    >>> [_is_picture(shape) for shape in [(8, 8), (32, 256, 3), (100, 1), (50, 3), (100, 20), (9,)]]
    [True, True, False, False, False, False]
    """
    if len(shape) != 2 and (len(shape) != 3 or shape[2] not in (1, 3)):
        return False
    height, width = shape[:2]
    is_long = height > TALLEST * width or width > WIDEST * height
    return min(height, width) >= LEAST_SIDE and not is_long


def _are_whole(values: np.ndarray) -> bool:
    known = values[np.isfinite(values)]
    return bool((known == np.round(known)).all())


def _range(column: np.ndarray) -> dict:
    """Return the least and the largest value of a column, and whether its values are whole."""
    known = column[np.isfinite(column)]
    ends = (known.min(), known.max()) if known.size else (0.0, 0.0)
    return {"low": number(ends[0]), "high": number(ends[1]), "whole": _are_whole(column)}


__all__ = ["View", "list_of", "number", "numbers_of", "views_of"]
