"""Normal distributions: diagonal, full covariance, and independent ones of any event shape."""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.checks import as_count
from tfp_vae.layers import light
from tfp_vae.layers.distribution_layer import DistributionLayer
from tfp_vae.layers.independent import OfOneClass, independent
from tfp_vae.layers.shapes import (
    as_event_size,
    as_positive,
    softplus_above,
    split_params,
)

__all__ = [
    "IndependentNormal",
    "MultivariateNormalDiag",
    "MultivariateNormalDiagPlusLowRank",
    "MultivariateNormalTriL",
]

tfd = tfp.distributions
tfb = tfp.bijectors

# Lower bound of the scales of vectors, as in tfp.layers, so that no density is infinite.
MIN_SCALE = 1e-5
# The number whose softplus, plus MIN_SCALE, is 1.
UNIT_SCALE = float(np.log(np.expm1(1.0 - MIN_SCALE)))


@keras.saving.register_keras_serializable(package="tfp_vae")
class MultivariateNormalDiag(DistributionLayer):
    """A normal distribution with diagonal covariance: the usual posterior q(z|x) of a VAE.

    When to use: first. Others are worth their time where -ELBO is far above the NLL.

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

    roles = ("posterior",)
    covers_space = True

    def __init__(
        self, event_size: int, convert_to_tensor_fn="sample", validate_args=False, **kwargs
    ):
        super().__init__(
            {"event_size": as_event_size(event_size)}, convert_to_tensor_fn, validate_args, **kwargs
        )

    @staticmethod
    def new(params, event_size: int, validate_args=False, name=None) -> tfd.Distribution:
        """Build the distribution from `params`, `[..., 2 * event_size]`."""
        return independent(
            light.MultivariateNormalDiag,
            params,
            event_size,
            lowest={"scale_diag": MIN_SCALE},
            validate_args=validate_args,
            name=name,
        )

    @staticmethod
    def params_size(event_size: int, name=None) -> int:
        """Return the number of parameters of one distribution."""
        return 2 * as_event_size(event_size)


@keras.saving.register_keras_serializable(package="tfp_vae")
class MultivariateNormalTriL(DistributionLayer):
    """A normal distribution with full covariance, parameterized by its Cholesky factor.

    When to use: up to some tens of latents depend on each other given x.

    The factor's diagonal is softplus of its parameter, plus 1e-5, as in tfp.layers.

    As the posterior of a VAE, it learns as fast as `MultivariateNormalDiag` if `off_diagonal_scale`
    is about 1 / event_size. Otherwise the entries below the diagonal, which outnumber those on it,
    start as noise.

    Args:
        event_size: number of dimensions.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        off_diagonal_scale: factor of the parameters below the diagonal; the default, 1, is that of
            tfp.layers.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., event_size + event_size * (event_size + 1) / 2]`, the location, then the
            factor's entries.

    Output:
        `tfd.MultivariateNormalTriL`, batch shape `[...]`, event shape `[event_size]`.

    Raises:
        ValueError: if `event_size` is not a positive integer, `off_diagonal_scale` not a positive
            number, or `params` has another size.

    Example:
    >>> q = MultivariateNormalTriL(2)(tf.zeros([3, MultivariateNormalTriL.params_size(2)]))
    >>> q.covariance()[0].numpy().round(3)
    array([[0.48, 0.  ],
           [0.  , 0.48]], dtype=float32)
    """

    roles = ("posterior",)
    covers_space = True

    def __init__(
        self,
        event_size: int,
        convert_to_tensor_fn="sample",
        validate_args=False,
        off_diagonal_scale: float = 1.0,
        **kwargs,
    ):
        arguments = {
            "event_size": as_event_size(event_size),
            "off_diagonal_scale": as_positive(off_diagonal_scale, "off_diagonal_scale"),
        }
        super().__init__(arguments, convert_to_tensor_fn, validate_args, **kwargs)

    def distribution(self, params) -> tfd.Distribution:
        """Call `new`, whose arguments come in the order of tfp.layers."""
        return self.new(
            params, self.event_size, self.validate_args, off_diagonal_scale=self.off_diagonal_scale
        )

    @staticmethod
    def new(
        params, event_size: int, validate_args=False, name=None, off_diagonal_scale: float = 1.0
    ) -> tfd.Distribution:
        """Build the distribution from `params`, `[..., params_size(event_size)]`."""
        loc, factor = split_params(params, [[event_size], [event_size * (event_size + 1) // 2]])
        factor = tfb.FillTriangular(validate_args=validate_args)(factor)
        # Not tfb.FillScaleTriL: XLA cannot compile its gradient for a batch of unknown size.
        diagonal = softplus_above(MIN_SCALE, factor)
        below = off_diagonal_scale * factor
        factor = tf.where(tf.eye(event_size, dtype=tf.bool), diagonal, below)
        return tfd.MultivariateNormalTriL(
            loc, factor, validate_args=validate_args, name=name or "MultivariateNormalTriL"
        )

    @staticmethod
    def params_size(event_size: int, name=None) -> int:
        """Return the number of parameters of one distribution."""
        event_size = as_event_size(event_size)
        return event_size + event_size * (event_size + 1) // 2


@keras.saving.register_keras_serializable(package="tfp_vae")
class MultivariateNormalDiagPlusLowRank(DistributionLayer):
    """A normal distribution with correlations along a few directions: between diagonal and full
    covariance.

    When to use: latents depend on each other given x, and are too many for a full covariance.

    The scale matrix is diag(d) + U U^T, where d is softplus of its parameter, plus 1e-5, and U has
    `rank` columns; the covariance is the square of this matrix. XLA cannot compile its density.

    Reference: Rezende et al., 2014, Stochastic Backpropagation, arXiv:1401.4082, section 4.3.

    Args:
        event_size: number of dimensions.
        rank: number of columns of U.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., (2 + rank) * event_size]`, the location, then the unconstrained d, then U by
            rows.

    Output:
        `tfd.MultivariateNormalDiagPlusLowRank`, batch shape `[...]`, event shape `[event_size]`.

    Raises:
        ValueError: if `event_size` or `rank` is not a positive integer, or `params` has another
            size.

    Example:
    >>> q = MultivariateNormalDiagPlusLowRank(3, 1)(tf.ones([1, MultivariateNormalDiagPlusLowRank.params_size(3, 1)]))
    >>> q.covariance()[0].numpy().round(2)
    array([[7.35, 5.63, 5.63],
           [5.63, 7.35, 5.63],
           [5.63, 5.63, 7.35]], dtype=float32)
    """

    roles = ("posterior",)
    covers_space = True

    def __init__(
        self,
        event_size: int,
        rank: int,
        convert_to_tensor_fn="sample",
        validate_args=False,
        **kwargs,
    ):
        arguments = {"event_size": as_event_size(event_size), "rank": as_count(rank, "rank")}
        super().__init__(arguments, convert_to_tensor_fn, validate_args, **kwargs)
        self.supports_jit = False

    @staticmethod
    def new(params, event_size: int, rank: int, validate_args=False, name=None) -> tfd.Distribution:
        """Build the distribution from `params`, `[..., params_size(event_size, rank)]`."""
        loc, scale_diag, factor = split_params(
            params, [[event_size], [event_size], [event_size, rank]]
        )
        return tfd.MultivariateNormalDiagPlusLowRank(
            loc,
            softplus_above(MIN_SCALE, scale_diag),
            factor,
            validate_args=validate_args,
            name=name or "MultivariateNormalDiagPlusLowRank",
        )

    @staticmethod
    def params_size(event_size: int, rank: int, name=None) -> int:
        """Return the number of parameters of one distribution."""
        return (2 + as_count(rank, "rank")) * as_event_size(event_size)


@keras.saving.register_keras_serializable(package="tfp_vae")
class IndependentNormal(OfOneClass):
    """Independent normal distributions, one for each value of an event: for real-valued data.

    When to use: values are real, and their noise differs from example to example; many data are
    needed to learn it.

    The scale is softplus of its parameter, and at least machine epsilon.

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

    roles = ("likelihood",)
    covers_space = True
    pixels = "unit"
    base = tfd.Normal
