"""Is this data possible under this likelihood? Asked before training, answered in words."""

import warnings

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.tensor_like import unwrap

tfd = tfp.distributions

SCALE = "Scale 8-bit images by x / 255"
COUNTS = ("whole numbers of at least 0", "Round the data")
# What a likelihood takes, and what helps where the data are something else.
TAKES = {
    tfd.Bernoulli: ("zeros and ones", f"{SCALE} and binarize them (datasets.load does both)"),
    tfd.Binomial: ("whole numbers from 0 to total_count", "Raise total_count to the largest count, or round the data"),
    tfd.Poisson: COUNTS,
    tfd.NegativeBinomial: COUNTS,
    tfd.Inflated: COUNTS,
    tfd.ContinuousBernoulli: ("values from 0 to 1", SCALE),
    tfd.Categorical: ("whole numbers from 0 to the number of categories - 1", "Number the categories from 0"),
    tfd.OneHotCategorical: ("vectors of one 1 and zeros", "Use keras.ops.one_hot"),
}


def examples_of(data) -> np.ndarray | None:
    """Give the examples that can be looked at before training: an array whole, a `tf.data.Dataset`'s first batch.

    None where that is impossible, as of a generator.

    Raises:
        TypeError: if the data are nothing that a VAE can be trained on.
        ValueError: if a data set has no batch.
    """
    if data is None or isinstance(data, (str, bytes, dict, list, tuple)):
        raise TypeError(
            "x must be one array or tensor [num_examples, *event_shape], a tf.data.Dataset or a keras PyDataset, "
            f"received a {type(data).__name__}."
        )
    if isinstance(data, tf.data.Dataset):
        data = next(iter(data.take(1)), None)
        if data is None:
            raise ValueError("The data set is empty. Expected at least one batch.")
        data = data[0] if isinstance(data, tuple) else data
    return np.asarray(data) if isinstance(data, (np.ndarray, tf.Tensor)) else None


def check_support(likelihood: tfd.Distribution, x: np.ndarray) -> None:
    """Raise if `x` is empty, not finite, of another shape, or impossible under `likelihood`.

    The range is judged by the rows that hold the smallest, the largest and the least whole value, by TFP's own
    argument checks.

    Args:
        likelihood: a distribution p(x|z), batch shape `[1]`.
        x: data, `[num_examples, *event_shape]`.

    Raises:
        ValueError: with what was received, what was expected and how to mend it.

    Example:
    >>> check_support(tfd.Independent(tfd.Bernoulli(logits=[[0.]]), 1), np.array([[255.]]))
    Traceback (most recent call last):
        ...
    ValueError: The likelihood Bernoulli takes zeros and ones, but x lies in [255, 255]. Scale 8-bit images by x / 255 \
and binarize them (datasets.load does both), or choose another likelihood.
    """
    x, likelihood = np.asarray(x), unwrap(likelihood)
    event_shape = tuple(likelihood.event_shape)
    if not x.size:
        raise ValueError(f"The data set is empty: x has shape {x.shape}. Expected at least one example.")
    if x.shape[1:] != event_shape:
        raise ValueError(f"Each example must have shape {event_shape}, received x of shape {x.shape}.")
    if not np.isfinite(x).all():
        raise ValueError(
            f"x holds {np.count_nonzero(~np.isfinite(x))} values that are NaN or infinite. Remove or replace them."
        )
    base = likelihood
    while isinstance(base, (tfd.Independent, tfd.BatchReshape)):
        base = base.distribution
    rows = _telling_rows(x)
    if isinstance(base, tfd.Bernoulli) and rows.min() >= 0 and rows.max() <= 1:
        if (rows % 1).any():
            warnings.warn(
                "x holds values strictly between 0 and 1. The Bernoulli log_prob of such a value is a cross-entropy, "
                "not a log-likelihood. Binarize x, or use a likelihood of continuous values.",
                stacklevel=4,  # the line that called `fit`
            )
        return
    try:
        _validating(likelihood).log_prob(tf.convert_to_tensor(rows, likelihood.dtype))
    except tf.errors.InvalidArgumentError as error:
        known = (text for kind, text in TAKES.items() if isinstance(base, kind))
        takes, advice = next(known, ("other values", "Transform the data"))
        between = ", not all whole" if (rows % 1).any() else ""
        raise ValueError(
            f"The likelihood {type(base).__name__} takes {takes}, but x lies in [{x.min():g}, {x.max():g}]{between}. "
            f"{advice}, or choose another likelihood."
        ) from error


def _telling_rows(x: np.ndarray) -> np.ndarray:
    """Pick the examples with the smallest value, the largest and the one farthest from a whole number."""
    flat = x.reshape(len(x), -1).astype("float64", copy=False)
    lowest, highest, least_whole = flat.min(1), flat.max(1), (flat % 1).max(1)
    return x[[lowest.argmin(), highest.argmax(), least_whole.argmax()]]


def _validating(distribution: tfd.Distribution) -> tfd.Distribution:
    """Copy a distribution so that it checks its arguments, also inside `Independent`."""
    if isinstance(distribution, tfd.Independent):
        return tfd.Independent(_validating(distribution.distribution), distribution.reinterpreted_batch_ndims)
    return distribution.copy(validate_args=True)
