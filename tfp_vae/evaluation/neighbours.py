"""The training examples that are nearest to others, as a test for memorized data."""

import numpy as np

__all__ = ["nearest"]

# Number of examples that are compared at once.
EXAMPLES_AT_ONCE = 10_000


def nearest(x: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of `among` that are nearest to each example, and their distances.

    The distance is the root of the mean squared difference of the values, that is, the Euclidean
    one over the root of the number of values. A missing value, NaN in `among`, does not count.

    Args:
        x: `[num_examples, *event_shape]`.
        among: `[num_others, *event_shape]`.

    Returns:
        Two arrays `[num_examples]`: whole numbers and distances.

    >>> rows, distances = nearest(np.array([[0.0, 1.0]]), np.array([[3.0, 5.0], [0.0, 1.0]]))
    >>> int(rows[0]), float(distances[0])
    (1, 0.0)
    """
    x = np.reshape(x, [len(x), -1]).astype("float64")
    squares = np.concatenate(
        [
            _mean_squares(x, np.reshape(among[start : start + EXAMPLES_AT_ONCE], [-1, x.shape[1]]))
            for start in range(0, len(among), EXAMPLES_AT_ONCE)
        ],
        axis=1,
    )
    rows = squares.argmin(axis=1)
    # Anew, as the squares are differences of large numbers.
    chosen = np.reshape(among[rows], x.shape).astype("float64")
    return rows, np.sqrt(np.nanmean((x - chosen) ** 2, axis=1))


def _mean_squares(x: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the mean squared difference of each x to each other, `[num_examples, num_others]`."""
    others = others.astype("float64")
    seen = np.isfinite(others)
    known = np.where(seen, others, 0.0)
    total = x**2 @ seen.T - 2.0 * x @ known.T + (known**2).sum(axis=1)
    # One without any value is nearest to nothing.
    return np.where(seen.any(axis=1), total / np.maximum(seen.sum(axis=1), 1), np.inf)
