"""Normal distributions whose scale does not depend on the features.

The scale is trained, or computed in closed form from the data.
"""

from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import replicas
from tfp_vae.layers.distribution_layer import DistributionLayer
from tfp_vae.layers.independent import PerValue, independent_of
from tfp_vae.layers.normal import MIN_SCALE, UNIT_SCALE
from tfp_vae.layers.shapes import as_event_shape, as_positive, softplus_above, split_params
from tfp_vae.layers.tensor_like import TensorLike

__all__ = ["IndependentNormalLearnedScale", "IndependentNormalOptimalScale"]

tfd = tfp.distributions

# Least spread of data that the scale starts from.
LEAST_SPREAD = 1e-4
# Share of the stored variance that a training step keeps: low, because one batch has many errors,
# and they fall fast.
MOMENTUM = 0.9


@keras.saving.register_keras_serializable(package="tfp_vae")
class IndependentNormalLearnedScale(DistributionLayer):
    """Independent normal distributions whose scale is a weight: it is the same for all z, so it
    cannot collapse for one of them.

    When to use: values are real, and one noise for all examples is enough, which is robust.

    The scale is softplus of `rate` times the weight, plus 1e-5. It is 1 at first; `VAE.fit` sets
    it to the spread of the data, or of the first batch of a `tf.data.Dataset`. If a whole event
    shares it, its optimum is the root mean squared error, and the log-likelihood there balances
    errors against the KL divergence without a beta to choose.

    Reference: Rybkin et al., 2021, Simple and effective VAE training with calibrated decoders,
        arXiv:2006.13202.

    Args:
        event_shape: shape of one example, an int or a tuple; `()` for a scalar.
        scale_shape: shape of the scale, which broadcasts to `event_shape`: `()` for one scale,
            `event_shape` for one per value, `(1, 1, 3)` for one per channel of an image.
        rate: how many times faster than other weights the scale moves. With a rate of 1, an
            optimizer whose steps are some thousandths would take a thousand steps from the spread
            of images to the error of their reconstructions.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., prod(event_shape)]`, the locations.

    Output:
        `tfd.Independent(tfd.Normal)`, batch shape `[...]`, event shape `event_shape`.

    Raises:
        ValueError: if `event_shape` is not a shape, `scale_shape` does not broadcast to it, or
            `params` has another size, or `rate` is not positive.

    Example:
    >>> layer = IndependentNormalLearnedScale((8, 8, 3), scale_shape=(1, 1, 3))
    >>> p = layer(tf.zeros([5, layer.params_size((8, 8, 3))]))
    >>> p.event_shape, float(p.stddev()[0, 0, 0, 0]), layer.raw_scale.numpy().size
    (TensorShape([8, 8, 3]), 1.0, 3)
    """

    roles = ("likelihood",)
    pixels = "unit"

    def __init__(
        self,
        event_shape=(),
        scale_shape=(),
        convert_to_tensor_fn="sample",
        validate_args=False,
        *,
        rate: float = 10.0,
        **kwargs,
    ):
        arguments = {
            "event_shape": as_event_shape(event_shape),
            "scale_shape": as_event_shape(scale_shape),
            "rate": as_positive(rate, "rate"),
        }
        super().__init__(arguments, convert_to_tensor_fn, validate_args, **kwargs)
        _expect_broadcast(self.scale_shape, self.event_shape)
        self.raw_scale = self.add_weight(
            name="raw_scale",
            shape=self.scale_shape,
            initializer=keras.initializers.Constant(UNIT_SCALE / self.rate),
            autocast=False,
        )

    @classmethod
    def from_config(cls, config: dict):
        return super().from_config({"rate": 1.0, **config})  # older files have no rate

    def begin_at(self, examples: Mapping[str, np.ndarray]) -> None:
        """Start at the spread of the examples about their mean, unless the scale has changed
        already.
        """
        if "x" not in examples or not self._is_new():
            return
        x = np.asarray(examples["x"], "float64")
        variance = np.nanmean((x - np.nanmean(x, 0)) ** 2, 0)
        padded = (1,) * (len(self.event_shape) - len(self.scale_shape)) + self.scale_shape
        shared = tuple(axis for axis, size in enumerate(padded) if size == 1)
        spread = np.sqrt(np.mean(variance, axis=shared)).reshape(self.scale_shape)
        # Constant values tell nothing about their scale.
        spread = np.where(spread > LEAST_SPREAD, spread, 1.0)
        self.raw_scale.assign(
            (spread + np.log(-np.expm1(MIN_SCALE - spread)) - MIN_SCALE) / self.rate
        )

    def _is_new(self) -> bool:
        return np.allclose(tf.convert_to_tensor(self.raw_scale), UNIT_SCALE / self.rate, rtol=1e-6)

    def distribution(self, params) -> tfd.Distribution:
        scale = softplus_above(MIN_SCALE, self.rate * tf.convert_to_tensor(self.raw_scale))
        return self.new(params, self.event_shape, scale, self.validate_args)

    @staticmethod
    def new(params, event_shape=(), scale=1.0, validate_args=False, name=None) -> tfd.Distribution:
        """Build the distribution from `params`, `[..., params_size(event_shape)]`, and the scale."""
        event_shape = as_event_shape(event_shape)
        (loc,) = split_params(params, [event_shape])
        # Never a scalar: a SavedModel holds a scalar as a constant.
        scale = tf.broadcast_to(tf.cast(scale, loc.dtype), event_shape or tf.shape(loc))
        return independent_of(
            tfd.Normal(loc, scale, validate_args=validate_args), len(event_shape), name
        )

    @staticmethod
    def params_size(event_shape=(), name=None) -> int:
        """Return the number of parameters of one distribution."""
        return int(np.prod(as_event_shape(event_shape)))


@keras.saving.register_keras_serializable(package="tfp_vae")
class IndependentNormalOptimalScale(PerValue):
    """Independent normal distributions that share one scale, always the optimal one: the
    sigma-VAE's likelihood.

    When to use: values are real, as of images, and beta or the noise would have to be searched
    for.

    In training, `log_prob` uses the root mean squared error of its batch (all draws and examples,
    of all replicas) as the scale. This scale has the largest likelihood, so the value is -D/2 (1 + log(2 pi MSE)) on
    average. The likelihood does not change with the scale there, so no gradient passes through it.
    Outside of training, the scale comes from a stored weight, the running mean of those squared
    errors, so that no example depends on its batch.

    Reference: Rybkin et al., 2021, Simple and effective VAE training with calibrated decoders,
        arXiv:2006.13202.

    Args:
        event_shape: shape of one example, an int or a tuple; `()` for a scalar.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., prod(event_shape)]`, the locations.
        training: whether `log_prob` fits the scale to its outcomes; `fit` sets it.

    Output:
        `tfd.Independent(tfd.Normal)`, batch shape `[...]`, event shape `event_shape`.

    Raises:
        ValueError: if `event_shape` is not a shape, or `params` has another size.

    Example:
    >>> layer = IndependentNormalOptimalScale(2)
    >>> layer(tf.zeros([3, 2]), training=True).log_prob(0.1 * tf.ones([3, 2])).numpy().round(3)
    array([1.767, 1.767, 1.767], dtype=float32)
    >>> layer(tf.zeros([1, 2])).stddev().numpy().round(3)
    array([[0.1, 0.1]], dtype=float32)
    """

    roles = ("likelihood",)
    pixels = "unit"

    def __init__(
        self, event_shape=(), convert_to_tensor_fn="sample", validate_args=False, **kwargs
    ):
        super().__init__(event_shape, convert_to_tensor_fn, validate_args, **kwargs)
        weight = {"shape": (), "trainable": False, "autocast": False, "aggregation": "mean"}
        self.variance = self.add_weight(name="variance", initializer="ones", **weight)
        self.num_updates = self.add_weight(name="num_updates", initializer="zeros", **weight)

    def call(self, params, training=False):
        distribution = self.distribution(self.in_variable_dtype(params))
        if training:
            distribution = FittedToTheBatch(
                distribution.distribution, distribution.reinterpreted_batch_ndims, self.update
            )
        return TensorLike(distribution, self.convert_to_tensor_fn)

    def distribution(self, params) -> tfd.Distribution:
        scale = tf.sqrt(tf.convert_to_tensor(self.variance))
        return self.new(params, self.event_shape, scale, self.validate_args)

    def expect_missing(self) -> None:
        raise ValueError(
            "The scale of IndependentNormalOptimalScale is that of whole examples, but "
            "missing=True. Choose IndependentNormalLearnedScale."
        )

    def update(self, mean_squared_error: tf.Tensor) -> None:
        """Update the stored variance.

        It is the plain mean at first, which needs no initial value, and then a running mean.
        """
        self.num_updates.assign(self.num_updates + 1.0)
        rate = tf.maximum(1.0 / tf.convert_to_tensor(self.num_updates), 1.0 - MOMENTUM)
        self.variance.assign(self.variance + rate * (mean_squared_error - self.variance))

    @staticmethod
    def new(params, event_shape=(), scale=1.0, validate_args=False, name=None) -> tfd.Distribution:
        """Build the distribution from `params`, `[..., params_size(event_shape)]`, and the scale."""
        return IndependentNormalLearnedScale.new(params, event_shape, scale, validate_args, name)


class FittedToTheBatch(tfd.Independent):
    """Independent normal distributions that take their scale from the outcomes given to
    `log_prob`.

    Args:
        distribution: normal distributions; their scale serves for everything else.
        reinterpreted_batch_ndims: number of axes of the event.
        observe: function of the mean squared error, called in each `log_prob`.
    """

    def __init__(
        self,
        distribution: tfd.Normal,
        reinterpreted_batch_ndims,
        observe: Callable[[tf.Tensor], None],
    ):
        super().__init__(distribution, reinterpreted_batch_ndims, name="FittedToTheBatch")
        self._observe = observe
        self._parameters = {
            "distribution": distribution,
            "reinterpreted_batch_ndims": reinterpreted_batch_ndims,
            "observe": observe,
        }

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return tfd.Independent.parameter_properties(dtype, num_classes)

    def _log_prob(self, x, **kwargs):
        loc = self.distribution.loc
        mean_squared_error = tf.stop_gradient(replicas.mean(tf.math.squared_difference(x, loc)))
        mean_squared_error = tf.maximum(mean_squared_error, MIN_SCALE**2)
        self._observe(mean_squared_error)
        fitted = tfd.Normal(loc, tf.sqrt(mean_squared_error))
        return tfd.Independent(fitted, self.reinterpreted_batch_ndims).log_prob(x, **kwargs)


def _expect_broadcast(scale_shape: tuple[int, ...], event_shape: tuple[int, ...]) -> None:
    try:
        fits = np.broadcast_shapes(scale_shape, event_shape) == event_shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"scale_shape must broadcast to event_shape={event_shape}, received {scale_shape}. Give "
            "() for one scale, event_shape for one per value, or 1 along the axes that share "
            "a scale."
        )
