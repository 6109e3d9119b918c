"""Examples with missing values: what of them is observed, how likely it is, and what the rest may be."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import batch, sampling
from tfp_vae.layers.support import innermost

tfd = tfp.distributions

# The class of a `tfd.Independent`: the second where what is inside is no composite tensor.
INDEPENDENT = tfd.Independent, tfd.Independent.__base__


def split(x, mask=None) -> tuple:
    """Give x with 0 where a value is missing, and a mask that is True where one is observed.

    Args:
        x: floating tensor, NaN where a value is missing; or a dict of such by part.
        mask: True (or 1) where a value is observed, of x's shape; None says that NaN alone tells.

    Example:
    >>> x, mask = split(tf.constant([1.0, np.nan]))
    >>> x.numpy(), mask.numpy()
    (array([1., 0.], dtype=float32), array([ True, False]))
    """
    finite = batch.map_parts(lambda part: tf.logical_not(tf.math.is_nan(part)), x)
    mask = finite if mask is None else tf.nest.map_structure(tf.logical_and, finite, mask)
    return tf.nest.map_structure(lambda part, seen: tf.where(seen, part, 0.0), x, mask), mask


def observed(likelihood: tfd.Distribution, mask) -> tfd.Distribution:
    """Give the likelihood of the observed values alone: those that are missing add nothing to its `log_prob`.

    Reference: Mattei & Frellsen, 2019, MIWAE: deep generative modelling and imputation of incomplete data,
    arXiv:1812.02633.

    Args:
        likelihood: independent distributions of each value of x, or a joint distribution of such.
        mask: True where a value is observed, `[batch, *event_shape]`; a dict of such under a joint distribution.

    Raises:
        ValueError: if the values of the likelihood are not independent of each other.

    Example:
    >>> likelihood = tfd.Independent(tfd.Normal([[0., 0.]], 1.), 1)
    >>> float(observed(likelihood, [[True, False]]).log_prob([[0., 9.]])[0]) == float(tfd.Normal(0., 1.).log_prob(0.))
    True
    """
    if isinstance(likelihood, tfd.JointDistributionNamed):
        return tfd.JointDistributionNamed({n: observed(part, mask[n]) for n, part in likelihood.model.items()})
    if type(likelihood) not in INDEPENDENT or likelihood.distribution.event_shape.rank != 0:
        raise ValueError(
            f"missing=True needs a likelihood whose values are independent, but {type(likelihood).__name__} says "
            "nothing of a part of x alone. End the decoder in a layer such as IndependentNormal."
        )
    return tfd.Independent(tfd.Masked(likelihood.distribution, mask), likelihood.reinterpreted_batch_ndims)


def weighted_point(likelihood: tfd.Distribution, weights: tf.Tensor):
    """Give one value that stands for a mixture of likelihoods: its mean, or its most probable category.

    Args:
        likelihood: batch shape `[num_samples, ...]`.
        weights: of each draw, `[num_samples]`, that sum to 1.
    """
    if isinstance(likelihood, tfd.JointDistributionNamed):
        return {name: weighted_point(part, weights) for name, part in likelihood.model.items()}
    inner = innermost(likelihood)
    if isinstance(inner, tfd.Categorical):
        return tf.argmax(tf.tensordot(weights, inner.probs_parameter(), 1), -1, tf.int32)
    return tf.tensordot(weights, tf.cast(sampling.point(likelihood), weights.dtype), 1)


def rows(number: int, log_weights: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draw a number of rows with probabilities proportional to their weights, with replacement.

    >>> rows(3, tf.constant([0.0, -np.inf]), tf.constant([0, 1])).numpy()
    array([0, 0, 0], dtype=int32)
    """
    return tf.random.stateless_categorical(log_weights[tf.newaxis], number, seed, tf.int32)[0]


def replace(x, mask, values):
    """Give x where it is observed, and the values elsewhere, as arrays in x's dtype."""
    return tf.nest.map_structure(
        lambda part, seen, value: np.asarray(tf.where(seen, part, tf.cast(value, part.dtype))), x, mask, values
    )


def observed_examples(x, mask=None):
    """Give examples whose missing values are replaced by an observed one of the same part, to look at their range.

    Raises:
        ValueError: if no value of a part is observed.
    """
    if isinstance(x, dict):
        return {name: observed_examples(part, None if mask is None else mask[name]) for name, part in x.items()}
    seen = ~np.isnan(x) & (True if mask is None else np.asarray(mask, bool))
    if not seen.any():
        raise ValueError("All values of x are missing. Expected at least one that is observed.")
    return np.where(seen, x, x[seen][0])
