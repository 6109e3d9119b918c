"""Means over examples, with their standard errors."""

from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """A mean over examples.

    Attributes:
        mean: the mean.
        error: its standard error over examples; 0 for one example.
    """

    mean: float
    error: float


def mean_of(values: np.ndarray) -> Estimate:
    """Return the mean of values of independent examples, and its standard error.

    >>> mean_of(np.array([1., 3.]))
    Estimate(mean=2.0, error=1.0)
    """
    values = np.asarray(values, "float64")
    if len(values) < 2:
        return Estimate(float(values.mean()), 0.0)
    return Estimate(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))
