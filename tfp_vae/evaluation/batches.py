"""Functions of data too large for one call, applied batch by batch."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.batch import batches_of, is_dataset, num_examples
from tfp_vae.evaluation.errors import Estimate


def each_batch(
    function: Callable, x: Any, batch_size: int, verbose: int = 0
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the values of a function for the rows of each batch; it takes a batch and the number of
    its first row.

    The last batch is padded, so that only one shape is compiled.

    Args:
        function: from tensors, `[batch, ...]`, and a scalar to a dict of tensors `[batch, ...]`.
        x: data in any form that `batch.batches_of` takes.
        batch_size: examples in memory at once.
        verbose: 1 shows a progress bar.

    Raises:
        ValueError: if there are no examples, or a data set has no end.
    """
    known = None if is_dataset(x) else num_examples(x)
    progress = keras.utils.Progbar(known, verbose=verbose, unit_name="example")
    start = size = 0
    for batch in batches_of(x, batch_size):
        rows = num_examples(batch)
        size = max(size, rows)
        filled = tf.nest.map_structure(lambda values, size=size: _filled(values, size), batch)
        yield {
            name: np.asarray(value[:rows])
            for name, value in function(filled, tf.constant(start)).items()
        }
        start += rows
        progress.add(rows)
    if not start:
        raise ValueError("The data set is empty. Expected at least one example.")
    if known is None:
        progress.update(start, finalize=True)


def over_batches(
    function: Callable, x: Any, batch_size: int, verbose: int = 0
) -> dict[str, np.ndarray]:
    """Return the values of a function for all rows, `[num_examples, ...]`, see `each_batch`."""
    results = [*each_batch(function, x, batch_size, verbose)]
    return {name: np.concatenate([result[name] for result in results]) for name in results[0]}


def moments_over(
    function: Callable, x: Any, batch_size: int, verbose: int = 0
) -> dict[str, "Moments"]:
    """Return mean and variance over all rows of the values of a function, see `each_batch`; memory
    does not grow with the number of rows.
    """
    moments: dict[str, Moments] = {}
    for result in each_batch(function, x, batch_size, verbose):
        for name, values in result.items():
            moments.setdefault(name, Moments()).add(values)
    return moments


class Moments:
    """Mean and variance of rows, updated batch by batch in float64.

    >>> moments = Moments()
    >>> moments.add(np.array([1.0, 2.0]))
    >>> moments.add(np.array([6.0]))
    >>> moments.number, float(moments.mean), round(float(moments.variance), 3)
    (3, 3.0, 4.667)
    """

    def __init__(self) -> None:
        self._running: Any = None

    def add(self, values: np.ndarray) -> None:
        """Take more rows into account, `[batch, ...]`."""
        if self._running is None:
            self._running = tfp.experimental.stats.RunningVariance.from_shape(
                values.shape[1:], tf.float64
            )
        self._running = self._running.update(tf.cast(values, tf.float64), axis=0)

    @property
    def number(self) -> int:
        """The number of rows."""
        return 0 if self._running is None else int(self._running.num_samples)

    @property
    def mean(self) -> np.ndarray:
        """The mean over the rows, `[...]`."""
        return np.asarray(self._running.mean)

    @property
    def variance(self) -> np.ndarray:
        """The mean of the squared differences from the mean, `[...]`."""
        return np.asarray(self._running.variance())

    @property
    def estimate(self) -> Estimate:
        """The mean of values of independent examples, and its standard error; see
        `errors.mean_of`.
        """
        error = np.sqrt(self._running.variance(ddof=1) / self.number) if self.number > 1 else np.nan
        return Estimate(float(self.mean), float(error))


def _filled(values: np.ndarray, size: int) -> tf.Tensor:
    """Return a full batch; at the end of the data, the last rows are repeated."""
    rows = np.asarray(values)
    return tf.constant(rows if len(rows) == size else np.resize(rows, (size, *rows.shape[1:])))
