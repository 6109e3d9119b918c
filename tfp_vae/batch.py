"""Input data: by name, as arrays, as rows of files, or as a data set."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfp_vae.checks import as_count
from tfp_vae.layers.fold import named_inputs
from tfp_vae.networks import mask_name
from tfp_vae.rows import Rows

# Keras's default.
BATCH_SIZE = 32
# Names that a dict of data may have besides "x".
BESIDE_X = ("condition", "mask")
# Number of the first rows of files that are checked before training and evaluation.
CHECKED = 1000


class Examples(NamedTuple):
    """Examples with their labels and weights, in Keras's order."""

    x: Any
    y: Any = None
    weight: np.ndarray | None = None

    def cut(self, start: int | None, end: int | None) -> "Examples":
        """Return some of them; x, y and weight are arrays."""
        return Examples(*(cut(part, start, end) for part in self))

    def as_dataset(self, batch_size: int | None, *, shuffle: bool = False) -> "Examples":
        """Return rows of files as a data set of batches with their weights."""
        return Examples(as_dataset(self.x, batch_size, shuffle=shuffle, sample_weight=self.weight))


def by_name(data) -> dict:
    """Return data as a dict with "x"; a dict that has it already stays as it is.

    A dict without "x" is an x of several parts.

    Raises:
        ValueError: if a name besides "x" is not known.

    >>> by_name(3.0), by_name({"x": 3.0, "condition": 1.0})
    ({'x': 3.0}, {'x': 3.0, 'condition': 1.0})
    """
    names = set(data) if isinstance(data, Mapping) else set()
    if "x" not in names:
        if names & set(BESIDE_X):
            raise ValueError(f"Data by name must have an 'x', received {sorted(names)}.")
        return {"x": data}
    if unknown := sorted(names - {"x", *BESIDE_X}):
        raise ValueError(
            f"Data by name are a dict of 'x' and {', '.join(map(repr, BESIDE_X))}, received "
            f"{unknown} too."
        )
    return dict(data)


def input_shape_of(encoder) -> dict | None:
    """Return the shapes of the encoder's inputs x, including the batch axis, by name.

    The result is None if they are not known yet.
    """
    shapes = {name: (None, *tensor.shape[1:]) for name, tensor in named_inputs(encoder).items()}
    if not shapes:
        return None
    for name in (*BESIDE_X, *map(mask_name, shapes)):
        shapes.pop(name, None)
    return {"x": shapes if len(shapes) > 1 else next(iter(shapes.values()))}


def expect_no_labels(data, y=None) -> None:
    """Raise a ValueError if a conditional model is given labels y, or a tuple, whose second part
    would be labels.
    """
    if is_dataset(data) and isinstance(data.element_spec, tuple):
        # In a tuple of three, the last part is a sample weight; the y before it is only a
        # placeholder.
        pair = len(data.element_spec) == 2
    else:
        pair = isinstance(data, tuple) and len(data) > 1
    if y is not None or pair:
        raise ValueError(
            f"{'y' if y is not None else 'A tuple (x, y)'} was given to a conditional model, which "
            "would ignore y. "
            'Pass the condition by name: fit({"x": x, "condition": y}), or a tf.data.Dataset of such dicts.'
        )


def examples_of(data):
    """Return the examples that can be checked before training.

    These are whole arrays, the first rows of files, or the first batch of a `tf.data.Dataset`.

    The result is None where no check is possible, as for a generator. Data by name are a dict of
    arrays, which may be nested.

    Raises:
        TypeError: if a VAE cannot be trained on data of this type.
        ValueError: if a data set has no batch, or arrays by name differ in length.
    """
    if data is None or isinstance(data, (str, bytes, list, tuple)):
        raise TypeError(
            "x must be one array or tensor [num_examples, *event_shape], a dict of such by name, a "
            f"tf.data.Dataset or a keras PyDataset, received a {type(data).__name__}."
        )
    if is_dataset(data):
        data = next(iter(data.take(1)), None)
        if data is None:
            raise ValueError("The data set is empty. Expected at least one batch.")
        data = data[0] if isinstance(data, tuple) else data
    elif has_rows(data):
        data = cut(data, 0, CHECKED)
    leaves = tf.nest.flatten(data)
    if not are_arrays(data):
        if isinstance(data, Mapping):
            raise TypeError(f"Data by name must be arrays or tensors, received {data!r}.")
        return None
    if not any(map(len, leaves)):
        raise ValueError("The data set is empty. Expected at least one example.")
    if len({len(leaf) for leaf in leaves}) > 1:
        raise ValueError(
            f"The arrays differ in length: {[len(leaf) for leaf in leaves]} for {sorted(data)}."
        )
    return tf.nest.map_structure(np.asarray, data)


def is_dataset(x) -> bool:
    """Return whether data are a `tf.data.Dataset`, whose elements are batches."""
    return isinstance(x, tf.data.Dataset)


def has_rows(x) -> bool:
    """Return whether data are rows of files, or a dict with some."""
    return any(isinstance(leaf, Rows) for leaf in tf.nest.flatten(x))


def num_examples(x) -> int:
    """Return the number of examples of an array or of a dict of arrays."""
    return len(tf.nest.flatten(x)[0])


def cut(values, start: int | None, end: int | None):
    """Return some of the examples of an array or of a dict of arrays; None if given None."""
    return tf.nest.map_structure(lambda part: None if part is None else part[start:end], values)


def batches_of(data, batch_size: int | None) -> Iterator:
    """Yield all examples in their order, in batches of arrays of which the last one may be smaller.

    Data in any form pass here on their way to a computation over all examples: arrays, rows of
    files, dicts of these, and a `tf.data.Dataset` as `fit` takes it, whose own batches may be of any
    size. No more than a few batches are in memory at once.

    Args:
        data: in any form.
        batch_size: number of examples; None leaves the batches of a data set as they are.

    Raises:
        ValueError: if the data set has no end, or sample weights.

    >>> data = tf.data.Dataset.range(5).batch(4)
    >>> [batch.tolist() for batch in batches_of(data, 2)]
    [[0, 1], [2, 3], [4]]
    """
    size = CHECKED if batch_size is None else as_count(batch_size, "batch_size")
    if has_rows(data):
        data, batch_size = as_dataset(data, size), None  # which are read ahead
    if is_dataset(data):
        examples = _examples_alone(data)
        if batch_size is not None:
            examples = examples.rebatch(size)
        yield from examples.as_numpy_iterator()
        return
    for start in range(0, num_examples(data), size):
        yield cut(data, start, start + size)


def _examples_alone(data: tf.data.Dataset) -> tf.data.Dataset:
    """Return a data set without the labels beside the examples."""
    if data.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            "The data set never ends, so that no number over all its examples is defined. Say how "
            "many batches to take: data.take(100)."
        )
    if not isinstance(data.element_spec, tuple):
        return data
    if len(data.element_spec) > 2:
        raise ValueError(
            "The data set has sample weights, which only fit and VAE.evaluate take: here all "
            "examples count the same. Leave the weights out: data.map(lambda x, y, w: x)."
        )
    return data.map(lambda x, *y: x)


def first(data, number: int):
    """Return the first examples of data in any form, at most a number of them, as arrays."""
    if not is_dataset(data):
        return tf.nest.map_structure(np.asarray, cut(data, None, number))
    return next(batches_of(data, number), None)


def whole(data):
    """Return all examples of data in any form as arrays in memory."""
    if not is_dataset(data):
        return tf.nest.map_structure(np.asarray, data)
    batches = [*batches_of(data, CHECKED)]
    if not batches:
        raise ValueError("The data set is empty. Expected at least one batch.")
    return tf.nest.map_structure(lambda *parts: np.concatenate(parts), *batches)


def as_weights(sample_weight) -> np.ndarray | None:
    """Return weights of examples as an array, also those of a list; None if there are none."""
    return None if sample_weight is None else np.asarray(sample_weight)


def as_dataset(data, batch_size: int | None = None, *, shuffle: bool = False, sample_weight=None):
    """Return rows of files as a `tf.data.Dataset` of batches, as Keras takes them; other data as
    they are.

    Args:
        data: in any form.
        batch_size: number of examples in a batch; None takes Keras's default.
        shuffle: whether their order is drawn anew in each epoch.
        sample_weight: weights of rows of files, `[num_examples]`, which go along with them.
    """
    if not has_rows(data):
        return data
    number = num_examples(data)
    if sample_weight is not None:
        if len(sample_weight) != number:
            raise ValueError(f"x has {number} rows, sample_weight {len(sample_weight)}.")
        data = (data, np.zeros(number, "int8"), sample_weight)
    size = BATCH_SIZE if batch_size is None else as_count(batch_size, "batch_size")
    places = _shuffled(number, size) if shuffle else tf.data.Dataset.range(number).batch(size)

    def gather(places):
        return tf.nest.map_structure(lambda values: gather_rows(values, places), data)

    return places.map(gather, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _shuffled(number: int, batch_size: int) -> tf.data.Dataset:
    """Return batches of the numbers below `number`, in an order that is computed, not kept, and is
    another one in each epoch.
    """
    seeds = tf.data.Dataset.random(rerandomize_each_iteration=True).batch(2).take(1)

    def epoch(seed):
        seed = tf.cast(tf.ensure_shape(seed, [2]), tf.uint32)
        last = tf.constant(number - 1, tf.int64)
        return (
            tf.data.Dataset.range(number)
            .batch(batch_size)
            .map(lambda places: tf.random.experimental.index_shuffle(places, seed, last))
        )

    batches = tf.data.experimental.assert_cardinality(-(-number // batch_size))
    return seeds.flat_map(epoch).apply(batches)


def gather_rows(values, places: tf.Tensor) -> tf.Tensor:
    """Return the rows of an array, or of files, at places, `[batch]`, in a graph."""
    return (
        values.gather(tf.cast(places, tf.int64)) if has_rows(values) else tf.gather(values, places)
    )


def are_arrays(x) -> bool:
    """Return whether data are an array or a tensor, or a dict of them."""
    return all(isinstance(leaf, np.ndarray | tf.Tensor) for leaf in tf.nest.flatten(x))


def labels(x, y, sample_weight):
    """Return dummy labels if there are none: without labels Keras ignores sample_weight."""
    return np.zeros(num_examples(x), "int8") if y is None and sample_weight is not None else y
