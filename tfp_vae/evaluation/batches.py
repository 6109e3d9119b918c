"""Functions of data too large for one call, applied batch by batch."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from tfp_vae.batch import num_examples
from tfp_vae.checks import as_count


def over_batches(
    function: Callable, x: np.ndarray | dict | tuple, batch_size: int, verbose: int = 0
) -> dict[str, np.ndarray]:
    """Apply a function to all rows, batch by batch; it takes a batch and the number of its first
    row.

    The last batch is padded, so that only one shape is compiled.
    """
    number = num_examples(x)
    if not number:
        raise ValueError("The data set is empty. Expected at least one example.")
    batch_size = min(as_count(batch_size, "batch_size"), number)
    progress = keras.utils.Progbar(number, verbose=verbose, unit_name="example")
    results = []
    for start in range(0, number, batch_size):
        rows = min(batch_size, number - start)
        batch = tf.nest.map_structure(
            lambda values, start=start: _rows(values, start, batch_size), x
        )
        results.append(
            {
                name: np.asarray(value[:rows])
                for name, value in function(batch, tf.constant(start)).items()
            }
        )
        progress.add(rows)
    return {name: np.concatenate([result[name] for result in results]) for name in results[0]}


def _rows(values: np.ndarray, start: int, batch_size: int) -> tf.Tensor:
    """Return a full batch; at the end of the data, the last rows are repeated."""
    rows = np.asarray(values[start : start + batch_size])
    filled = np.resize(rows, (batch_size, *rows.shape[1:]))
    return tf.constant(filled)
