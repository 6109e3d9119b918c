"""Distributions on the unit sphere: latent codes and data that are directions."""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.distribution_layer import DistributionLayer
from tfp_vae.layers.own import own
from tfp_vae.layers.shapes import as_event_size, softplus_above, split_params
from tfp_vae.layers.values import Values, values_of

__all__ = ["PowerSpherical", "VonMisesFisher"]

tfd = tfp.distributions

# Lowest concentration, which is almost uniform, and highest one with an accurate float32 density.
MIN_CONCENTRATION = 1e-2
MAX_CONCENTRATION = 1e4
# Range of a draw's position between the pole opposite to the mean direction, 0, and the mean
# direction, 1: at 0 and 1 the gradient through the draw is infinite.
ENDS = (1e-6, 1.0 - 1e-7)


@own
class SmoothPowerSpherical(tfd.PowerSpherical):
    """TFP's distribution, with gradients through every draw.

    In float32 a draw can fall on the mean direction or opposite to it, where TFP's gradient is
    infinite or NaN. This happens once in some million draws, that is, once in a training run.
    """

    def _sample_n(self, n, seed=None):
        beta_seed, tangent_seed = tfp.random.split_seed(seed, salt="power_spherical")
        direction = tf.convert_to_tensor(self.mean_direction)
        half = (tf.cast(tf.shape(direction)[-1], self.dtype) - 1.0) / 2.0
        batch = self.batch_shape_tensor()
        above = half + tf.broadcast_to(self.concentration, batch)
        share = tfd.Beta(above, half).sample(n, seed=beta_seed)
        share = tf.clip_by_value(share, *ENDS)[..., tf.newaxis]
        tangent = tfp.random.spherical_uniform(
            tf.concat([[n], batch], 0), self.event_shape[-1] - 1, self.dtype, tangent_seed
        )
        around_pole = tf.concat(
            [2.0 * share - 1.0, 2.0 * tf.sqrt(share * (1.0 - share)) * tangent], -1
        )
        # A Householder reflection takes the first axis, the pole, to the mean direction.
        pole = tf.one_hot(0, tf.shape(direction)[-1], dtype=self.dtype)
        normal = tf.math.l2_normalize(pole - direction, -1)
        along = tf.reduce_sum(around_pole * normal, -1, keepdims=True)
        return tf.math.l2_normalize(around_pole - 2.0 * along * normal, -1)


@keras.saving.register_keras_serializable(package="tfp_vae")
class PowerSpherical(DistributionLayer):
    """The power spherical distribution on the unit sphere: the posterior of a hyperspherical VAE.

    When to use: only the direction of a code is to count, as in similarity by cosine.

    Its draws are reparameterized, without rejection. Its prior is `tfd.SphericalUniform`, to which
    the KL divergence is analytic. The mean direction is normalized; the concentration is softplus
    of its parameter, between 0.01 and 10000.

    Reference: De Cao & Aziz, 2020, The Power Spherical distribution, arXiv:2006.04437.

    Args:
        event_size: number of dimensions of the space around the sphere, at least 2.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`; it has a mean, which lies
            inside the sphere, but not "mode": pass `tfd.PowerSpherical.mean_direction` instead.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., event_size + 1]`, the direction, of any length, then the unconstrained
            concentration.

    Output:
        `tfd.PowerSpherical`, batch shape `[...]`, event shape `[event_size]`, whose draws keep a
        tiny distance from its poles.

    Raises:
        ValueError: if `event_size` is not an integer of at least 2, or `params` has another size.

    Example:
    >>> q = PowerSpherical(3)(tf.constant([[0., 3., 4., 1.]]))
    >>> q.mean_direction.numpy(), tf.norm(q.sample(seed=0)).numpy().round(5)
    (array([[0. , 0.6, 0.8]], dtype=float32), np.float32(1.0))
    """

    roles = ("posterior",)

    def __init__(
        self, event_size: int, convert_to_tensor_fn="sample", validate_args=False, **kwargs
    ):
        super().__init__(
            {"event_size": _as_sphere(event_size)}, convert_to_tensor_fn, validate_args, **kwargs
        )

    @staticmethod
    def new(params, event_size: int, validate_args=False, name=None) -> tfd.Distribution:
        """Build the distribution from `params`, `[..., event_size + 1]`."""
        direction, concentration = _direction_and_concentration(params, event_size)
        return SmoothPowerSpherical(
            direction, concentration, validate_args=validate_args, name=name or "PowerSpherical"
        )

    @staticmethod
    def params_size(event_size: int, name=None) -> int:
        """Return the number of parameters of one distribution."""
        return _as_sphere(event_size) + 1


@keras.saving.register_keras_serializable(package="tfp_vae")
class VonMisesFisher(DistributionLayer):
    """The von Mises-Fisher distribution on the unit sphere: for data that are directions.

    Except in three dimensions, TFP draws from it by rejection and leaves out the gradient of the
    acceptance, so the gradient through a draw would be wrong, without an error. In these cases the
    distribution states that it is not reparameterized, and a VAE refuses it as a posterior: use
    `PowerSpherical`. As a likelihood it is exact.

    Reference: Davidson et al., 2018, Hyperspherical Variational Auto-Encoders, arXiv:1804.00891.

    Args:
        event_size: number of dimensions of the space around the sphere, at least 2.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., event_size + 1]`, the direction, of any length, then the unconstrained
            concentration, which is mapped between 0.01 and 10000.

    Output:
        `tfd.VonMisesFisher`, batch shape `[...]`, event shape `[event_size]`.

    Raises:
        ValueError: if `event_size` is not an integer of at least 2, or `params` has another size.

    Example:
    >>> VonMisesFisher(5)(tf.ones([1, 6])).reparameterization_type, VonMisesFisher(3)(tf.ones([1, 4])).event_shape
    (<Reparameterization Type: NOT_REPARAMETERIZED>, TensorShape([3]))
    """

    roles = ()

    def __init__(
        self, event_size: int, convert_to_tensor_fn="sample", validate_args=False, **kwargs
    ):
        super().__init__(
            {"event_size": _as_sphere(event_size)}, convert_to_tensor_fn, validate_args, **kwargs
        )

    @staticmethod
    def new(params, event_size: int, validate_args=False, name=None) -> tfd.Distribution:
        """Build the distribution from `params`, `[..., event_size + 1]`."""
        direction, concentration = _direction_and_concentration(params, event_size)
        kind = tfd.VonMisesFisher if event_size == 3 else RejectionVonMisesFisher
        return kind(
            direction, concentration, validate_args=validate_args, name=name or "VonMisesFisher"
        )

    @staticmethod
    def params_size(event_size: int, name=None) -> int:
        """Return the number of parameters of one distribution."""
        return _as_sphere(event_size) + 1


@own
class RejectionVonMisesFisher(tfd.VonMisesFisher):
    """TFP's distribution, which states that its draws are not differentiable."""

    @property
    def reparameterization_type(self):
        return tfd.NOT_REPARAMETERIZED

    def _sample_n(self, n, seed=None):
        return tf.stop_gradient(super()._sample_n(n, seed))


def _as_sphere(event_size) -> int:
    if as_event_size(event_size) < 2:
        raise ValueError(f"A sphere needs an event size of at least 2, received {event_size!r}.")
    return as_event_size(event_size)


def _direction_and_concentration(params, event_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    direction, concentration = split_params(params, [[event_size], []])
    # A zero vector becomes the direction of the first axis: a network that returns zeros still
    # gives a distribution.
    squared = tf.reduce_sum(direction**2, -1, keepdims=True)
    has_length = squared > np.finfo(direction.dtype.as_numpy_dtype).tiny
    first_axis = tf.one_hot(0, event_size, dtype=direction.dtype)
    direction = tf.where(has_length, direction, first_axis) * tf.math.rsqrt(
        tf.where(has_length, squared, 1.0)
    )
    concentration = softplus_above(MIN_CONCENTRATION, concentration)
    return direction, tf.minimum(concentration, MAX_CONCENTRATION)


@values_of.register(tfd.PowerSpherical)
@values_of.register(tfd.VonMisesFisher)
@values_of.register(tfd.SphericalUniform)
def _(spherical: tfd.Distribution) -> Values:
    return Values(
        "vectors of length 1",
        lambda x: np.allclose(np.linalg.norm(x, axis=-1), 1.0, atol=1e-3),
        "Divide by their length",
    )
