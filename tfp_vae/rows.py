"""Examples outside of memory: rows of files, read when they are asked for.

`Rows` look like an array: they have a shape and a dtype, and a slice of them is an array. What is
read depends on the places of the rows alone, so batches can be computed from a seed, an epoch and a
step, whatever was read before.
"""

import abc
import functools
import math
import os
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfp_vae.layers.internals import without_retracing_warnings

# Number of rows in a piece, where all rows are looked at one piece after the other.
PIECE = 1000
# Number of examples, and of their bytes, that are looked at to learn what kind of values they are.
MOST_SAMPLED = 5000
MOST_BYTES_SAMPLED = 2**26


class Rows(abc.ABC):
    """Examples that stay where they are, `[num_examples, *event_shape]`, as an array of them.

    `len(rows)`, `rows.shape` and `rows.dtype` are known at once; `rows[3:7]` and `rows[[5, 1]]` read
    an array, and `numpy.asarray(rows)` reads them all. Functions of `tfp_vae.evaluation` and the
    methods of a VAE take them wherever they take arrays.

    To add a format, implement `gather`.

    Args:
        shape: `[num_examples, *event_shape]`.
        dtype: of NumPy.
    """

    def __init__(self, shape: Sequence[int], dtype):
        self.shape = tuple(map(int, shape))
        self.dtype = np.dtype(dtype)

    @abc.abstractmethod
    def gather(self, places: tf.Tensor) -> tf.Tensor:
        """Return the rows at some places, int64 `[batch]` -> `[batch, *event_shape]`.

        It is called in graphs, such as that of `tf.data.Dataset.map`.
        """

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of values in all examples."""
        return int(np.prod(self.shape, dtype="int64"))

    @property
    def nbytes(self) -> int:
        """The number of bytes of an array of all examples."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places) -> np.ndarray:
        """Return the rows at places: a slice, whole numbers, or a mask.

        Raises:
            IndexError: if there is no such row, or the places are something else.
        """
        if isinstance(places, slice):
            return self._rows_at(np.arange(*places.indices(len(self))))
        chosen = np.asarray(None if isinstance(places, tuple) else places)
        is_mask = chosen.dtype == bool and chosen.shape == (len(self),)
        if not is_mask and chosen.dtype.kind not in "iu" and chosen.size:
            raise IndexError(
                "Rows are read by a slice, whole numbers, or a mask of "
                f"{len(self)} values, received {places!r}. numpy.asarray(rows) reads them all."
            )
        chosen = np.flatnonzero(chosen) if is_mask else chosen.astype("int64")
        chosen = np.where(chosen < 0, chosen + len(self), chosen)
        if chosen.size and not 0 <= chosen.min() <= chosen.max() < len(self):
            raise IndexError(f"There are {len(self)} rows, received {places}.")
        return self._rows_at(chosen.ravel()).reshape([*chosen.shape, *self.shape[1:]])

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape}, dtype={self.dtype})"

    @functools.cached_property
    def _read(self) -> Callable:
        return without_retracing_warnings(
            tf.function(
                self.gather, input_signature=[tf.TensorSpec([None], tf.int64)], autograph=False
            )
        )

    def _rows_at(self, places: np.ndarray) -> np.ndarray:
        return self._read(places).numpy()

    def _of_shape(self, rows: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(rows, [*places.shape, *self.shape[1:]])


class TakenRows(Rows):
    """Rows that NumPy takes."""

    @abc.abstractmethod
    def take(self, places: np.ndarray) -> np.ndarray:
        """Return the rows at places, int64 `[batch]` -> `[batch, *event_shape]`."""

    def gather(self, places: tf.Tensor) -> tf.Tensor:
        return self._of_shape(
            tf.numpy_function(self.take, [places], tf.as_dtype(self.dtype), stateful=False), places
        )


class FileRows(TakenRows):
    """The rows of an array in a file, one after the other, as `.npy` files have them.

    They are read by their positions. A mapping of the file into memory would be as fast, but its
    pages count as memory of the process, and a file that is cut short would end the process.

    Args:
        path: of the file.
        shape: of the array.
        dtype: of its values.
        start: position of the first byte.
    """

    def __init__(self, path: Path, shape: Sequence[int], dtype, start: int):
        self._stored = np.dtype(dtype)  # perhaps with the bytes in the order of other machines
        super().__init__(shape, self._stored.newbyteorder("="))
        self.path = path
        self.start = start
        self._file = opened(path, self)
        if (missing := start + self.nbytes - path.stat().st_size) > 0:
            raise ValueError(f"{path} is cut short: {missing:,} bytes are missing. Write it anew.")

    def take(self, places: np.ndarray) -> np.ndarray:
        """Return the rows at places, `[batch]`; rows that follow each other are read at once."""
        rows = np.empty([len(places), *self.shape[1:]], self._stored)
        ends = np.flatnonzero(np.diff(places) != 1) + 1
        bounds = zip([0, *ends.tolist()], [*ends.tolist(), len(places)], strict=True)
        size = rows[:1].nbytes
        for first, end in bounds:
            wanted = rows[first:end].reshape(-1).view("uint8").data
            position = self.start + int(places[first]) * size if first < end else 0
            while len(wanted):
                number = os.preadv(self._file, [wanted], position)
                if not number:
                    raise OSError(f"{self.path} ended while it was read. Write it anew.")
                position, wanted = position + number, wanted[number:]
        return rows.astype(self.dtype, copy=False)


class ArrayRows(TakenRows):
    """The rows of an array that NumPy maps from a file: fast for small rows, but only for files that
    nobody shortens, as that would end the process.

    Args:
        array: `[num_examples, *event_shape]`.
    """

    def __init__(self, array: np.memmap):
        super().__init__(array.shape, array.dtype)
        self.array = array

    def take(self, places: np.ndarray) -> np.ndarray:
        return np.asarray(self.array[places])


class DecodedRows(Rows):
    """Rows that TensorFlow decodes from bytes, one by one.

    Args:
        shape: `[num_examples, *event_shape]`.
        dtype: of the values.
        read: function from places, int64 `[batch]`, to their bytes, an object array `[batch]`.
        decode: function from a scalar string to one row.
        name_of: function from a place to what an error calls its row.
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype,
        read: Callable,
        decode: Callable,
        name_of: Callable[[int], str],
    ):
        super().__init__(shape, dtype)
        self.read = read
        self.decode = decode
        self.name_of = name_of

    def gather(self, places: tf.Tensor) -> tf.Tensor:
        strings = tf.numpy_function(self.read, [places], tf.string, stateful=False)
        row = tf.TensorSpec(self.shape[1:], tf.as_dtype(self.dtype))
        return self._of_shape(tf.map_fn(self.decode, strings, fn_output_signature=row), places)

    def _rows_at(self, places: np.ndarray) -> np.ndarray:
        try:
            return super()._rows_at(places)
        except tf.errors.InvalidArgumentError:
            for place in places:
                self._expect_decodable(int(place))
            raise

    def _expect_decodable(self, place: int) -> None:
        try:
            self.decode(self.read(np.array([place]))[0])
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(
                f"Replace or remove {self.name_of(place)}, it cannot be decoded: {error.message}"
            ) from error


class ChosenRows(Rows):
    """Some rows of others, in a certain order.

    Args:
        rows: the others.
        places: whole numbers, `[num_examples]`; four bytes each stay in memory.
    """

    def __init__(self, rows: Rows, places: np.ndarray):
        super().__init__([len(places), *rows.shape[1:]], rows.dtype)
        self.rows = rows
        self.places = places.astype("uint32" if len(rows) < 2**32 else "int64")

    def gather(self, places: tf.Tensor) -> tf.Tensor:
        def look_up(places):
            return self.places[places].astype("int64")

        own = tf.numpy_function(look_up, [places], tf.int64, stateful=False)
        return self.rows.gather(tf.ensure_shape(own, places.shape))


class MappedRows(Rows):
    """A function of each row, computed when it is asked for.

    Args:
        rows: what the function is of.
        function: from rows `[batch, *event_shape]` and their places, int64 `[batch]`, to as many
            rows of this shape; of TensorFlow.
        dtype: of its values.
    """

    def __init__(self, rows: Rows, function: Callable, dtype="float32"):
        super().__init__(rows.shape, dtype)
        self.rows = rows
        self.function = function

    def gather(self, places: tf.Tensor) -> tf.Tensor:
        return self._of_shape(self.function(self.rows.gather(places), places), places)


def opened(path: Path, owner: object) -> int:
    """Return the descriptor of a file, which is open for reading as long as its owner lives."""
    file = os.open(path, os.O_RDONLY)
    weakref.finalize(owner, os.close, file)
    return file


@functools.singledispatch
def chosen(values, places: np.ndarray):
    """Return some rows of an array, or of `Rows`, which stay where they are.

    >>> chosen(np.array([[1.0], [2.0], [3.0]]), np.array([2, 0])).ravel()
    array([3., 1.])
    """
    return values[places]


@chosen.register
def _(values: Rows, places: np.ndarray):
    return ChosenRows(values, places)


def pieces(values):
    """Yield all rows of an array, or of `Rows`, some at a time.

    >>> [piece.shape for piece in pieces(np.zeros([1500, 2]))]
    [(1000, 2), (500, 2)]
    """
    for start in range(0, len(values), PIECE):
        yield values[start : start + PIECE]


def limits(values) -> tuple[float, float]:
    """Return the least and the largest value of an array, or of `Rows`; NaN does not count.

    >>> limits(np.array([[3.0, np.nan], [1.0, 2.0]]))
    (1.0, 3.0)
    """
    low, high = math.inf, -math.inf
    for piece in pieces(values):
        low, high = min(low, np.fmin.reduce(piece, None)), max(high, np.fmax.reduce(piece, None))
    return float(low), float(high)


@functools.singledispatch
def spread(values):
    """Return an array as it is; of rows of files, some that are spread over all."""
    return values


@spread.register
def _(values: Rows):
    number = max(1, min(MOST_SAMPLED, MOST_BYTES_SAMPLED // max(1, values.nbytes // len(values))))
    return values[:: 1 + len(values) // number]


@functools.singledispatch
def some_of(values):
    """Return what `spread` does and, except of images, rows with the least and the largest of all
    values.
    """
    return values


@some_of.register
def _(values: Rows):
    some = spread(values)
    if values.dtype == np.uint8 and values.ndim > 2:
        return some
    edges = [np.full(values.shape[1:], edge, values.dtype) for edge in limits(values)]
    return np.concatenate([some, edges])


@functools.singledispatch
def mapped(values, function: Callable):
    """Return a function of each value of an array, or of rows of files, where it is computed when
    they are read.
    """
    return function(values)


@mapped.register
def _(values: Rows, function: Callable):
    dtype = function(np.zeros(1, values.dtype)).dtype
    return MappedRows(values, lambda rows, places: function(tf.cast(rows, dtype)), dtype)


@functools.singledispatch
def final(values, draw: Callable | None, seed: tf.Tensor | None):
    """Return final values, float32, of an array, or of rows of files, where each row has draws of
    its own.
    """
    return np.asarray(values if draw is None else draw(values, seed), "float32")


@final.register
def _(values: Rows, draw: Callable | None, seed: tf.Tensor | None):
    if draw is None:
        return MappedRows(values, lambda rows, places: tf.cast(rows, tf.float32))

    def draw_each(rows: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(
            lambda row: draw(row[0], tf.random.fold_in(seed, tf.cast(row[1], tf.int32))),
            (rows, places),
            fn_output_signature=tf.float32,
        )

    return MappedRows(values, draw_each)


__all__ = ["Rows", "chosen", "final", "limits", "mapped", "opened", "pieces", "some_of", "spread"]
