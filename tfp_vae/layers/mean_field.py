"""Makers of the distributions of weights, with the signature of tfp.layers: `(dtype, shape, name,
trainable, add_variable_fn)`.
"""

from collections.abc import Callable

import keras
import ml_dtypes
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.arguments import rebuild, to_config

__all__ = [
    "default_loc_scale_fn",
    "default_mean_field_normal_fn",
    "default_multivariate_normal_fn",
]

tfd = tfp.distributions

LOC = keras.initializers.RandomNormal(stddev=0.1)
UNTRANSFORMED_SCALE = keras.initializers.RandomNormal(mean=-3.0, stddev=0.1)


@keras.saving.register_keras_serializable(package="tfp_vae")
class default_loc_scale_fn:  # the name in tfp.layers
    """A function that makes a location and a positive scale out of two variables.

    Use it in a `kernel_posterior_fn` with another distribution than the normal.

    Args:
        is_singular: whether there is no scale: None in its place.
        loc_initializer, untransformed_scale_initializer: Keras initializers; those without a seed
            draw anew for each variable.
        loc_regularizer, untransformed_scale_regularizer: Keras's, for the variables.
        loc_constraint, untransformed_scale_constraint: Keras's, for the variables.

    Call arguments:
        dtype, shape, name, trainable: of the variables; `_loc` and `_untransformed_scale` are
            appended to the name.
        add_variable_fn: function that makes a variable of these, such as a layer's `add_weight`.

    Output:
        `(loc, scale)`, each of shape `shape`: the scale is the softplus of its variable, plus the
        dtype's epsilon.

    Example:
    >>> make, layer = default_loc_scale_fn(loc_initializer="ones"), keras.layers.Layer()
    >>> loc, scale = make(tf.float32, [2], "kernel", True, layer.add_weight)
    >>> loc.numpy(), [weight.name for weight in layer.weights]
    (array([1., 1.], dtype=float32), ['kernel_loc', 'kernel_untransformed_scale'])
    """

    def __init__(
        self,
        is_singular: bool = False,
        loc_initializer=LOC,
        untransformed_scale_initializer=UNTRANSFORMED_SCALE,
        loc_regularizer=None,
        untransformed_scale_regularizer=None,
        loc_constraint=None,
        untransformed_scale_constraint=None,
    ):
        self.is_singular = is_singular
        self.loc_initializer = keras.initializers.get(loc_initializer)
        self.untransformed_scale_initializer = keras.initializers.get(
            untransformed_scale_initializer
        )
        self.loc_regularizer = keras.regularizers.get(loc_regularizer)
        self.untransformed_scale_regularizer = keras.regularizers.get(
            untransformed_scale_regularizer
        )
        self.loc_constraint = keras.constraints.get(loc_constraint)
        self.untransformed_scale_constraint = keras.constraints.get(untransformed_scale_constraint)

    def __call__(self, dtype, shape, name: str, trainable: bool, add_variable_fn: Callable):
        loc = add_variable_fn(
            name=f"{name}_loc",
            shape=shape,
            initializer=_afresh(self.loc_initializer),
            regularizer=self.loc_regularizer,
            constraint=self.loc_constraint,
            dtype=dtype,
            trainable=trainable,
        )
        if self.is_singular:
            return loc, None
        untransformed_scale = add_variable_fn(
            name=f"{name}_untransformed_scale",
            shape=shape,
            initializer=_afresh(self.untransformed_scale_initializer),
            regularizer=self.untransformed_scale_regularizer,
            constraint=self.untransformed_scale_constraint,
            dtype=dtype,
            trainable=trainable,
        )
        return loc, tfp.util.DeferredTensor(untransformed_scale, _above_zero, dtype, shape)

    def get_config(self) -> dict:
        return {name: to_config(value, name) for name, value in vars(self).items()}

    @classmethod
    def from_config(cls, config: dict):
        return rebuild(cls, config)


@keras.saving.register_keras_serializable(package="tfp_vae")
class default_mean_field_normal_fn(default_loc_scale_fn):
    """A function that makes a normal distribution for each entry of a weight, out of two variables.

    Use it for `kernel_posterior_fn` and `bias_posterior_fn`, with other arguments than the usual.

    Reference: Blundell et al., 2015, Weight Uncertainty in Neural Networks, arXiv:1505.05424.

    Args:
        is_singular: whether each entry is a point: its location.
        loc_initializer, untransformed_scale_initializer, loc_regularizer,
            untransformed_scale_regularizer, loc_constraint, untransformed_scale_constraint: see
            `default_loc_scale_fn`.

    Call arguments:
        dtype, shape, name, trainable, add_variable_fn: see `default_loc_scale_fn`.

    Output:
        A `tfd.Independent(tfd.Normal)` of event shape `shape`.

    Example:
    >>> from tfp_vae.layers import DenseFlipout
    >>> posterior = default_mean_field_normal_fn(loc_initializer="ones")
    >>> layer = DenseFlipout(2, kernel_posterior_fn=posterior)
    >>> layer(tf.ones([5, 3])).shape, layer.kernel_posterior.mean().numpy().sum()
    (TensorShape([5, 2]), np.float32(6.0))
    """

    def __call__(self, dtype, shape, name: str, trainable: bool, add_variable_fn: Callable):
        loc, scale = super().__call__(dtype, shape, name, trainable, add_variable_fn)
        entries = tfd.Deterministic(loc) if scale is None else tfd.Normal(loc, scale)
        return tfd.Independent(entries, reinterpreted_batch_ndims=len(shape))


@keras.saving.register_keras_serializable(package="tfp_vae")
def default_multivariate_normal_fn(dtype, shape, name, trainable, add_variable_fn):
    """Make a standard normal distribution over all entries of a weight: the usual prior.

    Args:
        dtype: of the weight.
        shape: of the weight.
        name: ignored.
        trainable: ignored, as nothing is trained.
        add_variable_fn: ignored.

    Returns:
        A `tfd.Independent(tfd.Normal)` of event shape `shape`.

    >>> default_multivariate_normal_fn(tf.float32, [3, 2], "kernel_prior", True, None).event_shape
    TensorShape([3, 2])
    """
    one = np.ones([], dtype.as_numpy_dtype)
    return tfd.Independent(tfd.Normal(tf.zeros(shape, dtype), one), len(shape))


def _above_zero(unconstrained: tf.Tensor) -> tf.Tensor:
    return ml_dtypes.finfo(unconstrained.dtype.as_numpy_dtype).eps + tf.nn.softplus(unconstrained)


def _afresh(initializer):
    """Return an initializer with a seed of its own, unless its seed is fixed: in Keras 3, an object
    draws the same values each time.
    """
    is_of_keras = isinstance(initializer, keras.initializers.Initializer)
    return initializer.clone() if is_of_keras else initializer
