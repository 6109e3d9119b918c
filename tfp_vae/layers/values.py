"""The values that a distribution takes, to check data before training, and posterior and prior.

Error messages describe the values in words.
"""

import functools
import math
import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.parts import each_part, innermost, is_joint, parts_of
from tfp_vae.layers.tensor_like import unwrap

tfd = tfp.distributions

# A number beyond this counts as infinite.
LARGE = 1e30
SCALE = "Scale 8-bit images by x / 255"


def _anything(x: np.ndarray) -> bool:
    return True


def _nothing(x: np.ndarray) -> str:
    return ""


class Values(NamedTuple):
    """The values that a distribution takes.

    Attributes:
        words: a description of the values, for messages.
        include: function that tells whether an array, `[num_examples, *event_shape]`, has only
            such values.
        advice: what to do if an array has other values.
        remark: function that gives a warning about an array of such values, or "".
        ends: the least and the largest value.
        interval: the ends, if the values are all real numbers between them; else None.
        is_point: whether it is a single point, which has no density.
        is_code: whether it is a single one of some code vectors.
        num_counted: function from examples to the number of values that count in each, if it differs:
            the tokens of a sequence, without its padding.
        expect_prior: for a posterior, a function that raises a ValueError if the prior is over
            other values of the same kind.
    """

    words: str
    include: Callable[[np.ndarray], bool] = _anything
    advice: str = ""
    remark: Callable[[np.ndarray], str] = _nothing
    ends: tuple[float, float] = (-math.inf, math.inf)
    interval: tuple[float, float] | None = None
    is_point: bool = False
    is_code: bool = False
    num_counted: Callable[[np.ndarray], np.ndarray] | None = None
    expect_prior: Callable[[tfd.Distribution], None] | None = None


REAL = Values("real numbers", interval=(-math.inf, math.inf))
# For a distribution whose values are unknown.
UNKNOWN = Values("values of its own")


def are_whole(x: np.ndarray) -> bool:
    """Return whether all numbers are whole."""
    return bool((x == np.rint(x)).all())


def whole_numbers(words: str, advice: str, low: float = 0.0, high: float = math.inf) -> Values:
    """Return the whole numbers from `low` to `high`."""
    return Values(
        words,
        lambda x: bool(are_whole(x) and low <= x.min() and x.max() <= high),
        advice,
        ends=(low, high),
    )


def interval(low: float, high: float) -> Values:
    """Return the real numbers from `low` to `high`.

    >>> interval(0.0, math.inf).words, interval(0.0, 1.0).words
    ('numbers of at least 0', 'numbers from 0 to 1')
    """
    if (low, high) == REAL.interval:
        return REAL
    words = f"numbers from {low:g} to {high:g}"
    if math.isinf(high):
        words = f"numbers of at least {low:g}"
    if math.isinf(low):
        words = f"numbers of at most {high:g}"
    advice = SCALE if (low, high) == (0.0, 1.0) else "Shift or scale the data"
    return Values(
        words,
        lambda x: bool(low <= x.min() and x.max() <= high),
        advice,
        ends=(low, high),
        interval=(low, high),
    )


@functools.singledispatch
def values_of(distribution: tfd.Distribution) -> Values:
    """Return the values that a distribution takes.

    For a registered class, the function registered next to its layer returns them; for any other,
    TFP defines them: its default bijector of a scalar distribution tells the ends of the values,
    and continuous vectors count as any real numbers. Register a class if this is wrong or TFP has
    no such bijector, as for a discrete class: `@values_of.register(tfd.Poisson)`.

    Args:
        distribution: a plain tfd object that wraps no other, as `innermost` gives it.

    >>> values_of(tfd.Gamma(1., 1.)).words, values_of(tfd.Normal(0., 1.)).words
    ('numbers of at least 0', 'real numbers')
    """
    try:
        bijector = distribution.experimental_default_event_space_bijector()
        if bijector is not None and distribution.event_shape.rank:
            return REAL
        far = tf.reshape([-LARGE, LARGE], [2] + [1] * distribution.batch_shape.rank)
        ends = bijector.forward(tf.cast(far, distribution.dtype)).numpy().reshape(2, -1)
        ends = ends.astype("float64")  # float16 does not hold LARGE
    except (AttributeError, NotImplementedError, TypeError, ValueError, tf.errors.OpError):
        return UNKNOWN
    ends = np.where(np.abs(ends) >= LARGE, np.copysign(math.inf, ends), ends) + 0.0
    low, high = np.sort(ends[:, 0]).tolist()
    # Other ends are parameters, which differ from example to example.
    is_fixed = (ends == ends[:, :1]).all() and {low, high} <= {-math.inf, 0.0, 1.0, math.inf}
    return interval(low, high) if is_fixed else UNKNOWN


def expect_possible(likelihood: tfd.Distribution, x) -> None:
    """Raise if `x` is empty, not finite, of another shape, or impossible under `likelihood`.

    Args:
        likelihood: a distribution p(x|z), batch shape `[1]`.
        x: data, `[num_examples, *event_shape]`; a dict of such under a joint distribution.

    Raises:
        ValueError: with what was received, what was expected and how to fix it.

    Example:
    >>> expect_possible(tfd.Independent(tfd.Bernoulli(logits=[[0.]]), 1), np.array([[255.]]))
    Traceback (most recent call last):
        ...
    ValueError: The likelihood Bernoulli takes zeros and ones, but x lies in [255, 255]. Scale 8-bit images by x / 255 \
and binarize them (datasets.load does both), or choose another likelihood. Row 0 is the first such example.
    """
    if not is_joint(likelihood):
        return _expect_possible(unwrap(likelihood), x)
    parts = parts_of(likelihood)
    if not isinstance(x, Mapping) or x.keys() != parts.keys():
        received = sorted(x) if isinstance(x, Mapping) else "one array"
        raise ValueError(f"x must be a dict of {sorted(parts)}, received {received}.")
    for name, part in parts.items():
        try:
            _expect_possible(part, x[name])
        except ValueError as error:
            raise ValueError(f"Part {name} of x: {error}") from error


def _expect_possible(likelihood: tfd.Distribution, x) -> None:
    if x is None:
        return  # no value of it is observed
    x = np.asarray(x)
    event_shape = _event_shape(likelihood)
    if not x.size:
        raise ValueError(
            f"The data set is empty: x has shape {x.shape}. Expected at least one example."
        )
    if x.shape[1:] != event_shape:
        raise ValueError(
            f"Each example must have shape {event_shape}, received x of shape {x.shape}."
        )
    if x.dtype.kind not in "biuf":
        raise ValueError(
            f"x must be numbers, received {x.dtype}. Number categories, as numpy.unique(x, "
            "return_inverse=True) does."
        )
    if not np.isfinite(x).all():
        raise ValueError(
            f"x holds {np.count_nonzero(~np.isfinite(x))} values that are NaN or infinite, first in "
            f"row {_first(lambda row: np.isfinite(row).all(), x)}. Remove or replace them, or set "
            "what is missing to NaN and make the VAE with missing=True."
        )
    base = innermost(likelihood)
    values = values_of(base)
    if not values.include(x):
        between = "" if are_whole(x) else ", not all whole"
        raise ValueError(
            f"The likelihood {type(base).__name__} takes {values.words}, but x lies in "
            f"[{x.min():g}, {x.max():g}]{between}. {values.advice}, or choose another likelihood. "
            f"Row {_first(values.include, x)} is the first such example."
        )


@functools.lru_cache(maxsize=8)
def _event_shape(likelihood: tfd.Distribution) -> tuple[int, ...]:
    """Return an event shape, kept for the few likelihoods that are asked in each call."""
    return tuple(likelihood.event_shape)


def _first(is_good: Callable, x: np.ndarray) -> int:
    return next(row for row in range(len(x)) if not is_good(x[row : row + 1]))


def check_values(likelihood: tfd.Distribution, x) -> None:
    """Check as `expect_possible` does, and warn about possible values that are rarely intended."""
    expect_possible(likelihood, x)
    for remark in filter(None, tf.nest.flatten(each_part(_remark, likelihood, x))):
        warnings.warn(remark, stacklevel=4)  # the line that called `fit`


def _remark(likelihood: tfd.Distribution, x) -> str:
    return "" if x is None else values_of(innermost(likelihood)).remark(np.asarray(x))


def is_point(distribution: tfd.Distribution) -> bool:
    """Return whether a part of the distribution is a single real point, which has no density.

    >>> is_point(tfd.Independent(tfd.Deterministic([0., 1.]), 1)), is_point(tfd.Normal(0., 1.))
    (True, False)
    """
    return any(values_of(innermost(part)).is_point for part in parts_of(distribution).values())


def check_pair(posterior: tfd.Distribution, prior: tfd.Distribution) -> None:
    """Raise if the posterior has values that the prior does not have, so that the KL divergence is
    not defined.

    Raises:
        ValueError: naming both.

    Example:
    >>> check_pair(tfd.PowerSpherical([0., 1.], 1.), tfd.MultivariateNormalDiag([0., 0.]))
    Traceback (most recent call last):
        ...
    ValueError: The posterior PowerSpherical takes vectors of length 1, the prior MultivariateNormalDiag real numbers: \
their KL divergence is not defined. Choose a prior over vectors of length 1.
    """
    if is_joint(posterior) and is_joint(prior):
        posteriors = parts_of(posterior)
        priors = parts_of(prior)
        for name in posteriors.keys() & priors.keys():
            check_pair(posteriors[name], priors[name])
        return
    q = innermost(posterior)
    p = innermost(prior)
    ours = values_of(q)
    theirs = values_of(p)
    if theirs.is_point or theirs.is_code:
        raise ValueError(
            f"The prior {type(p).__name__} has all its probability on a few points: the KL "
            "divergence to it is infinite. Choose a prior that spreads, such as StandardNormal, or "
            "Codes for quantized vectors."
        )
    if not _has_all_of(theirs, ours):
        raise ValueError(
            f"The posterior {type(q).__name__} takes {ours.words}, the prior {type(p).__name__} "
            f"{theirs.words}: their KL divergence is not defined. Choose a prior over {ours.words}."
        )
    if ours.expect_prior is not None:
        ours.expect_prior(p)


def _has_all_of(theirs: Values, ours: Values) -> bool:
    if UNKNOWN in (theirs, ours) or theirs.words == ours.words:
        return True
    if theirs.interval is None or ours.interval is None:
        return ours.is_point and theirs.interval is not None
    return theirs.interval[0] <= ours.interval[0] and ours.interval[1] <= theirs.interval[1]
