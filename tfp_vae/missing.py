"""Examples with missing values: the observed values, their likelihood, and imputation of the
others.
"""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import sampling
from tfp_vae.layers.parts import each_part, innermost, map_joint, map_parts
from tfp_vae.layers.tensor_like import is_a

tfd = tfp.distributions


def split(x, mask=None) -> tuple:
    """Return x with 0 where a value is missing, and a mask that is True where one is observed.

    Args:
        x: float tensor, NaN where a value is missing; or a dict of such tensors, one for each part.
        mask: True (or 1) where a value is observed, of x's shape; None if NaN alone marks missing
            values.

    Example:
    >>> x, mask = split(tf.constant([1.0, np.nan]))
    >>> x.numpy(), mask.numpy()
    (array([1., 0.], dtype=float32), array([ True, False]))
    """
    finite = map_parts(lambda part: tf.logical_not(tf.math.is_nan(part)), x)
    mask = finite if mask is None else tf.nest.map_structure(tf.logical_and, finite, mask)
    return tf.nest.map_structure(lambda part, seen: tf.where(seen, part, 0.0), x, mask), mask


def observed(likelihood: tfd.Distribution, mask) -> tfd.Distribution:
    """Return the likelihood of the observed values alone.

    Missing values add nothing to its `log_prob`.

    Reference: Mattei & Frellsen, 2019, MIWAE: deep generative modelling and imputation of
    incomplete data, arXiv:1812.02633.

    Args:
        likelihood: distribution in which the values of x are independent, or a joint distribution
            of several of these.
        mask: True where a value is observed, `[batch, *event_shape]`; a dict of masks for a joint
            distribution.

    Raises:
        ValueError: if the values of the likelihood are not independent of each other.

    Example:
    >>> likelihood = tfd.Independent(tfd.Normal([[0., 0.]], 1.), 1)
    >>> float(observed(likelihood, [[True, False]]).log_prob([[0., 9.]])[0]) == float(tfd.Normal(0., 1.).log_prob(0.))
    True
    """
    return map_joint(_observed, likelihood, mask)


def _observed(likelihood: tfd.Distribution, mask) -> tfd.Distribution:
    if not is_a(likelihood, tfd.Independent) or likelihood.distribution.event_shape.rank != 0:
        raise ValueError(
            "missing=True needs a likelihood whose values are independent, but "
            f"{type(likelihood).__name__} says nothing of a part of x alone. End the decoder in a "
            "layer such as IndependentNormal."
        )
    masked = tfd.Masked(likelihood.distribution, mask, safe_sample_fn=_safe_value)
    return tfd.Independent(masked, likelihood.reinterpreted_batch_ndims)


def _safe_value(distribution: tfd.Distribution) -> tf.Tensor:
    """Return a placeholder for missing values; the density at it is not used.

    For counts and labels it may be 0.
    """
    if distribution.reparameterization_type == tfd.NOT_REPARAMETERIZED:
        return tf.zeros(distribution.batch_shape_tensor(), keras.config.floatx())
    return distribution.sample(seed=[0, 0])


def fill(model, data: dict, num_samples: int, num_draws: int | None, seed: tf.Tensor, first_row=0):
    """Return values for all of x by importance sampling, separately for each example; see
    `VAE.impute`.

    Args:
        model: a VAE with `missing=True`.
        data: result of the VAE's `as_batch`.
        num_samples: draws of z for each example.
        num_draws: None for means, `[batch, *event_shape]`; else draws, `[num_draws, batch,
            *event_shape]`.
        seed: int32 `[2]`. Means use the same draws for each example; draws use different ones.
        first_row: number of the first example, which makes the draws of each.
    """
    lead = [] if num_draws is None else [num_draws]
    spec = map_parts(lambda shape: tf.TensorSpec([*lead, *shape], model.x.dtype), model.x.shape)

    @tf.autograph.experimental.do_not_convert
    def fill_row(row_and_example):
        row, example = row_and_example
        return _fill(
            model,
            example,
            num_samples,
            num_draws,
            seed if num_draws is None else tf.random.fold_in(seed, row),
        )

    rows = tf.range(tf.shape(tf.nest.flatten(data["x"])[0])[0])
    filled = tf.map_fn(fill_row, (first_row + rows, data), fn_output_signature=spec)
    return filled if num_draws is None else map_parts(_swap_first_axes, filled)


def _fill(model, example: dict, num_samples: int, num_draws: int | None, seed: tf.Tensor):
    one_pass = model.one_pass(tf.nest.map_structure(lambda part: part[tf.newaxis], example), seed)
    z = one_pass.sample(num_samples)
    condition = example.get("condition")
    log_likelihood, log_prior, log_posterior = one_pass.log_densities(z)
    log_weights = _comparable((log_likelihood + log_prior - log_posterior)[:, 0])
    z = tf.nest.map_structure(lambda part: part[:, 0], z)
    if num_draws is None:
        weights = tf.nn.softmax(log_weights)
        values = each_part(lambda part: _weighted_point(part, weights), model.decode(z, condition))
    else:
        rows = tf.random.stateless_categorical(
            log_weights[tf.newaxis], num_draws, tf.random.fold_in(seed, 1), tf.int32
        )[0]
        z = tf.nest.map_structure(lambda part: tf.gather(part, rows), z)
        values = sampling.sample(model.decode(z, condition), [], tf.random.fold_in(seed, 2))
    return map_parts(lambda part: tf.cast(part, model.x.dtype), values)


def _comparable(log_weights: tf.Tensor) -> tf.Tensor:
    """Return weights that are not all 0.

    If all are 0, because x is very unlikely, they become equal.
    """
    known = tf.where(tf.math.is_nan(log_weights), -np.inf, log_weights)
    return tf.where(tf.reduce_all(tf.math.is_inf(known)), tf.zeros_like(known), known)


def _weighted_point(likelihood: tfd.Distribution, weights: tf.Tensor):
    """Return one value to represent a mixture of likelihoods: its mean, or its most probable
    category.
    """
    inner = innermost(likelihood)
    if isinstance(inner, tfd.Categorical):
        return tf.argmax(tf.tensordot(weights, inner.probs_parameter(), 1), -1, tf.int32)
    return tf.tensordot(weights, tf.cast(sampling.point(likelihood), weights.dtype), 1)


def _swap_first_axes(tensor: tf.Tensor) -> tf.Tensor:
    return tf.transpose(tensor, [1, 0, *range(2, tensor.shape.rank)])


def replace(x, mask, values):
    """Return x where it is observed, and the values elsewhere, as arrays in x's dtype."""
    return tf.nest.map_structure(
        lambda part, seen, value: np.asarray(tf.where(seen, part, tf.cast(value, part.dtype))),
        x,
        mask,
        values,
    )


def observed_examples(x, mask):
    """Return examples with each missing value replaced by an observed value of the same part, to
    check their range.

    A part without observed values is None.
    """
    finite = map_parts(lambda part: ~np.isnan(part), x)
    seen = (
        finite
        if mask is None
        else tf.nest.map_structure(lambda a, b: a & np.asarray(b, bool), finite, mask)
    )
    return tf.nest.map_structure(_observed_examples, x, seen)


def _observed_examples(x: np.ndarray, seen: np.ndarray) -> np.ndarray | None:
    if not seen.any():
        return None
    return np.where(seen, x, x[seen][0])
