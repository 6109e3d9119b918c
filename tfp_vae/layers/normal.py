"""Normal distributions: diagonal, full covariance, and independent ones of any event shape."""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.distribution_lambda import DistributionLayer
from tfp_vae.layers.shapes import as_event_shape, as_event_size, reshape_params, split_params

tfd, tfb = tfp.distributions, tfp.bijectors

# Lower bound of every scale, so that no density is infinite.
MIN_SCALE = 1e-5


@keras.saving.register_keras_serializable(package="tfp_vae")
class MultivariateNormalDiag(DistributionLayer):
    """A normal distribution with diagonal covariance: the usual posterior q(z|x) of a VAE.

    The scale is softplus of its parameter, plus 1e-5.

    Reference: Kingma & Welling, 2014, Auto-Encoding Variational Bayes, arXiv:1312.6114.

    Args:
        event_size: number of dimensions.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., 2 * event_size]`, the location, then the unconstrained scale.

    Output:
        `tfd.MultivariateNormalDiag`, batch shape `[...]`, event shape `[event_size]`.

    Raises:
        ValueError: if `event_size` is not a positive integer, or `params` has another size.

    Example:
    >>> q = MultivariateNormalDiag(2)(tf.zeros([3, MultivariateNormalDiag.params_size(2)]))
    >>> q.batch_shape, q.event_shape, q.stddev()[0, 0].numpy().round(4)
    (TensorShape([3]), TensorShape([2]), np.float32(0.6932))
    """

    def __init__(self, event_size: int, convert_to_tensor_fn="sample", validate_args=False, **kwargs):
        super().__init__(convert_to_tensor_fn, validate_args, **kwargs)
        self.event_size = as_event_size(event_size)

    def make_distribution(self, params) -> tfd.Distribution:
        return self.new(params, self.event_size, self.validate_args)

    def get_config(self) -> dict:
        return {**super().get_config(), "event_size": self.event_size}

    @staticmethod
    def new(params, event_size: int, validate_args=False, name="MultivariateNormalDiag") -> tfd.Distribution:
        """Build the distribution from `params`, `[..., 2 * event_size]`."""
        loc, scale = split_params(params, [event_size, event_size])
        return tfd.MultivariateNormalDiag(loc, _scale(scale), validate_args=validate_args, name=name)

    @staticmethod
    def params_size(event_size: int, name=None) -> int:
        """Give the number of parameters of one distribution."""
        return 2 * as_event_size(event_size)


@keras.saving.register_keras_serializable(package="tfp_vae")
class MultivariateNormalTriL(DistributionLayer):
    """A normal distribution with full covariance, parameterized by its Cholesky factor.

    The factor's diagonal is softplus of its parameter, plus 1e-5, as in tfp.layers.

    Args:
        event_size: number of dimensions.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., event_size + event_size * (event_size + 1) / 2]`, the location, then the factor's entries.

    Output:
        `tfd.MultivariateNormalTriL`, batch shape `[...]`, event shape `[event_size]`.

    Raises:
        ValueError: if `event_size` is not a positive integer, or `params` has another size.

    Example:
    >>> q = MultivariateNormalTriL(2)(tf.zeros([3, MultivariateNormalTriL.params_size(2)]))
    >>> q.covariance()[0].numpy().round(3)
    array([[0.48, 0.  ],
           [0.  , 0.48]], dtype=float32)
    """

    def __init__(self, event_size: int, convert_to_tensor_fn="sample", validate_args=False, **kwargs):
        super().__init__(convert_to_tensor_fn, validate_args, **kwargs)
        self.event_size = as_event_size(event_size)

    def make_distribution(self, params) -> tfd.Distribution:
        return self.new(params, self.event_size, self.validate_args)

    def get_config(self) -> dict:
        return {**super().get_config(), "event_size": self.event_size}

    @staticmethod
    def new(params, event_size: int, validate_args=False, name="MultivariateNormalTriL") -> tfd.Distribution:
        """Build the distribution from `params`, `[..., params_size(event_size)]`."""
        loc, factor = split_params(params, [event_size, event_size * (event_size + 1) // 2])
        factor = tfb.FillTriangular(validate_args=validate_args)(factor)
        # Not tfb.FillScaleTriL: XLA cannot compile its gradient for a batch of unknown size.
        factor = tf.where(tf.eye(event_size, dtype=tf.bool), _scale(factor), factor)
        return tfd.MultivariateNormalTriL(loc, factor, validate_args=validate_args, name=name)

    @staticmethod
    def params_size(event_size: int, name=None) -> int:
        """Give the number of parameters of one distribution."""
        event_size = as_event_size(event_size)
        return event_size + event_size * (event_size + 1) // 2


@keras.saving.register_keras_serializable(package="tfp_vae")
class IndependentNormal(DistributionLayer):
    """Independent normal distributions, one for each value of an event: for real-valued data.

    The scale is softplus of its parameter, plus 1e-5.

    Args:
        event_shape: shape of one example, an int or a tuple; `()` for a scalar.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., 2 * prod(event_shape)]`, all locations, then all unconstrained scales.

    Output:
        `tfd.Independent(tfd.Normal)`, batch shape `[...]`, event shape `event_shape`.

    Raises:
        ValueError: if `event_shape` is not a shape, or `params` has another size.

    Example:
    >>> IndependentNormal([2, 2])(tf.zeros([3, IndependentNormal.params_size([2, 2])])).event_shape
    TensorShape([2, 2])
    """

    def __init__(self, event_shape=(), convert_to_tensor_fn="sample", validate_args=False, **kwargs):
        super().__init__(convert_to_tensor_fn, validate_args, **kwargs)
        self.event_shape = as_event_shape(event_shape)

    def make_distribution(self, params) -> tfd.Distribution:
        return self.new(params, self.event_shape, self.validate_args)

    def get_config(self) -> dict:
        return {**super().get_config(), "event_shape": self.event_shape}

    @staticmethod
    def new(params, event_shape=(), validate_args=False, name="IndependentNormal") -> tfd.Distribution:
        """Build the distribution from `params`, `[..., params_size(event_shape)]`."""
        loc, scale = reshape_params(params, event_shape, 2)
        normal = tfd.Normal(loc, _scale(scale), validate_args=validate_args)
        return tfd.Independent(normal, len(as_event_shape(event_shape)), validate_args=validate_args, name=name)

    @staticmethod
    def params_size(event_shape=(), name=None) -> int:
        """Give the number of parameters of one distribution."""
        return 2 * int(np.prod(as_event_shape(event_shape)))


def _scale(unconstrained: tf.Tensor) -> tf.Tensor:
    return tfb.Softplus(low=np.array(MIN_SCALE, unconstrained.dtype.as_numpy_dtype))(unconstrained)
