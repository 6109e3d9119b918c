"""Estimates with their standard errors."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """A number estimated from examples, such as a mean over them.

    Attributes:
        value: the estimate.
        error: its standard error over other examples (of scores of groups of examples: over other
            groups), with all that was fitted before as it is; NaN for one example.

    >>> print(Estimate(0.9312, 0.0071), float(Estimate(0.9312, 0.0071)), -Estimate(1.0, 0.5))
    0.931 ± 0.007 0.9312 -1.000 ± 0.500
    """

    value: float
    error: float

    def __float__(self) -> float:
        return self.value

    def __neg__(self) -> "Estimate":
        return Estimate(-self.value, self.error)

    def __str__(self) -> str:
        error = "" if np.isnan(self.error) else f" ± {self.error:.3f}"
        return f"{self.value:.3f}{error}"


def mean_of(values: np.ndarray) -> Estimate:
    """Return the mean of values of independent examples, and its standard error.

    >>> mean_of(np.array([1., 3.])), mean_of(np.array([1.]))
    (Estimate(value=2.0, error=1.0), Estimate(value=1.0, error=nan))
    """
    values = np.asarray(values, "float64")
    if len(values) < 2:
        return Estimate(float(values.mean()), np.nan)
    return Estimate(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))


def flat(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return numbers as a file holds them: of an estimate its value, and its error beside it.

    >>> flat({"knn_of_label": Estimate(0.5, 0.1), "sap": 0.25})
    {'knn_of_label': 0.5, 'knn_of_label_error': 0.1, 'sap': 0.25}
    """
    values: dict[str, Any] = {}
    for name, number in numbers.items():
        if isinstance(number, Estimate):
            values |= {name: number.value, f"{name}_error": number.error}
        else:
            values[name] = number
    return values


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
