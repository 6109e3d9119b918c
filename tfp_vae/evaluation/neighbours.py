"""The training examples that are nearest to others, as a test for memorized data."""

from typing import Any

import numpy as np

from tfp_vae.batch import batches_of

__all__ = ["nearest"]

# Number of examples that are compared at once.
EXAMPLES_AT_ONCE = 1_000


def nearest(x: np.ndarray, among: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of `among` that are nearest to each example, and their distances.

    The distance is the root of the mean squared difference of the values, that is, the Euclidean
    one over the root of the number of values. A missing value, NaN in `among`, does not count.

    Args:
        x: `[num_examples, *event_shape]`.
        among: `[num_others, *event_shape]`, or a `tf.data.Dataset` of batches of such, of which a
            few are in memory at once.

    Returns:
        Two arrays `[num_examples]`: whole numbers and distances.

    >>> rows, distances = nearest(np.array([[0.0, 1.0]]), np.array([[3.0, 5.0], [0.0, 1.0]]))
    >>> int(rows[0]), float(distances[0])
    (1, 0.0)
    """
    x = np.reshape(x, [len(x), -1]).astype("float64")
    rows, least = np.zeros(len(x), "int64"), np.full(len(x), np.inf)
    chosen = np.full(x.shape, np.nan)
    start = 0
    for batch in batches_of(among, EXAMPLES_AT_ONCE):
        others = np.reshape(batch, [len(batch), -1])
        squares = _mean_squares(x, others)
        places = squares.argmin(axis=1)
        found = squares[np.arange(len(x)), places]
        nearer = (found < least) | (start == 0)
        least[nearer], rows[nearer] = found[nearer], start + places[nearer]
        chosen[nearer] = others[places[nearer]]
        start += len(batch)
    # Anew, as the squares are differences of large numbers.
    return rows, np.sqrt(np.nanmean((x - chosen) ** 2, axis=1))


def _mean_squares(x: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the mean squared difference of each x to each other, `[num_examples, num_others]`."""
    others = others.astype("float64")
    seen = np.isfinite(others)
    known = np.where(seen, others, 0.0)
    total = x**2 @ seen.T - 2.0 * x @ known.T + (known**2).sum(axis=1)
    # One without any value is nearest to nothing.
    return np.where(seen.any(axis=1), total / np.maximum(seen.sum(axis=1), 1), np.inf)
