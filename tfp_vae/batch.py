"""Input data: by name, as arrays, or as a data set."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tfp_vae.layers.fold import named_inputs

# Names that a dict of data may have besides "x".
BESIDE_X = ("condition", "mask")


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
    masks = [
        name for name in shapes if name.removesuffix("_mask") in shapes and name.endswith("_mask")
    ]
    for name in (*BESIDE_X, *masks):
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

    These are whole arrays, or the first batch of a `tf.data.Dataset`.

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
    leaves = tf.nest.flatten(data)
    if not are_arrays(data):
        if isinstance(data, Mapping):
            raise TypeError(f"Data by name must be arrays or tensors, received {data!r}.")
        return None
    if len({len(leaf) for leaf in leaves}) > 1:
        raise ValueError(
            f"The arrays differ in length: {[len(leaf) for leaf in leaves]} for {sorted(data)}."
        )
    return tf.nest.map_structure(np.asarray, data)


def is_dataset(x) -> bool:
    """Return whether data are a `tf.data.Dataset`, whose elements are batches."""
    return isinstance(x, tf.data.Dataset)


def num_examples(x) -> int:
    """Return the number of examples of an array or of a dict of arrays."""
    return len(tf.nest.flatten(x)[0])


def cut(values, start: int | None, end: int | None):
    """Return some of the examples of an array or of a dict of arrays; None if given None."""
    return tf.nest.map_structure(lambda part: None if part is None else part[start:end], values)


def are_arrays(x) -> bool:
    """Return whether data are an array or a tensor, or a dict of them."""
    return all(isinstance(leaf, np.ndarray | tf.Tensor) for leaf in tf.nest.flatten(x))


def labels(x, y, sample_weight):
    """Return dummy labels if there are none: without labels Keras ignores sample_weight."""
    return np.zeros(num_examples(x), "int8") if y is None and sample_weight is not None else y
