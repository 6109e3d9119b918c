"""Estimates with their standard errors."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """A number that was estimated from data.

    Attributes:
        value: the estimate.
        error: its standard error over other examples, as far as these vary it: what was fitted
            before (a VAE, a classifier) is taken as given. NaN where none is known.

    >>> print(Estimate(0.9312, 0.0071))
    0.931 +- 0.007
    """

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.3f} +- {self.error:.3f}"


def mean_of(values: np.ndarray) -> Estimate:
    """Return the mean of independent values, one for each example.

    >>> print(mean_of(np.array([0.0, 1.0, 1.0, 1.0])))
    0.750 +- 0.250
    """
    values = np.asarray(values, "float64")
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return Estimate(float(values.mean()), float(error))


def bootstrapped(
    function: Callable[..., float], *samples: tuple, num_resamples: int = 50, seed: int = 0
) -> Estimate:
    """Return a function of samples, and the standard deviation of its values on resamples.

    Reference: Efron & Tibshirani, 1993, An introduction to the bootstrap.

    Args:
        function: of all arrays of all samples, in this order.
        *samples: each one a tuple of arrays whose rows belong together; rows are drawn with
            replacement, as many as there are, in each sample by itself.
        num_resamples: the error's own relative error is about one over the square root of twice
            this number.
        seed: of the resamples.

    >>> x = np.random.default_rng(0).normal(size=400)
    >>> round(bootstrapped(lambda x: float(np.mean(x)), (x,)).error, 2)  # 1 / sqrt(400)
    0.05
    """
    random = np.random.default_rng(seed)
    resampled = []
    for _ in range(num_resamples):
        rows = [random.integers(len(sample[0]), size=len(sample[0])) for sample in samples]
        resampled.append(
            function(
                *(array[own] for sample, own in zip(samples, rows, strict=True) for array in sample)
            )
        )
    value = function(*(array for sample in samples for array in sample))
    return Estimate(value, float(np.std(resampled, ddof=1)))
