"""A sparse Gaussian process over the outputs of the layer before."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.checks import expect_kind
from tfp_vae.layers.distribution_layer import DistributionLayer
from tfp_vae.layers.shapes import as_event_shape, as_event_size

__all__ = ["VariationalGaussianProcess"]

tfd = tfp.distributions
tfb = tfp.bijectors

NOISE = keras.initializers.Constant(-10.0)


@keras.saving.register_keras_serializable(package="tfp_vae")
class VariationalGaussianProcess(DistributionLayer):
    """A Gaussian process at the layer's inputs, learned at a few inducing points.

    Use it for a function of few dimensions with an uncertainty that grows away from the data. Its
    distribution is that of a whole batch at once: train it by
    `loss=lambda y, process: process.variational_loss(y, kl_weight=batch_size / num_examples)`. With
    close points, the decompositions of matrices need float64: `kernel_provider` with
    `dtype="float64"`.

    Reference: Titsias, 2009, Variational Learning of Inducing Variables in Sparse Gaussian
        Processes; Hensman et al., 2013, Gaussian Processes for Big Data, arXiv:1309.6835.

    Args:
        num_inducing_points: number of points at which the process is learned.
        kernel_provider: Keras layer with a property `kernel` that builds a
            `tfp.math.psd_kernels.PositiveSemidefiniteKernel` out of its weights.
        event_shape: shape of the function's value at one point, with one axis: so many independent
            processes.
        inducing_index_points_initializer: Keras initializer of the inducing points,
            `[*event_shape, num_inducing_points, *features]`. Points near the data train best.
        unconstrained_observation_noise_variance_initializer: Keras initializer of the number whose
            softplus is the variance of the noise; None for no noise.
        variational_inducing_observations_scale_initializer: Keras initializer of the scale at the
            inducing points, `[*event_shape, num_inducing_points, num_inducing_points]`; by default
            1e-5 on the diagonal.
        mean_fn: function of the inputs that gives the mean; by default a trained constant.
        jitter: what is added to the diagonals of matrices, so that they can be inverted.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        x: the points, `[batch, *features]`.

    Output:
        A distribution of event shape `[batch, *event_shape]`, with two methods of
        `tfd.VariationalGaussianProcess` besides those of all distributions:
        `surrogate_posterior_kl_divergence_prior()`, and `variational_loss(y, kl_weight=1.)`,
        `[*event_shape]`, in nats: the negative bound on the evidence of y, plus half a nat for each
        example, for TFP counts the noise once more.

    Raises:
        TypeError: if `kernel_provider` is no layer.
        ValueError: if `event_shape` has not one axis; when saving, if `kernel_provider` or
            `mean_fn` is not registered with Keras.

    Example:
    >>> class RBF(keras.layers.Layer):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.log_length = self.add_weight(shape=(), initializer="zeros")
    ...     @property
    ...     def kernel(self):
    ...         return tfp.math.psd_kernels.ExponentiatedQuadratic(None, tf.exp(self.log_length))
    >>> layer = VariationalGaussianProcess(4, RBF(), inducing_index_points_initializer="normal")
    >>> process = layer(tf.constant([[0.], [1.], [2.]]))
    >>> process.event_shape, process.variational_loss(tf.zeros([3, 1])).shape
    (TensorShape([3, 1]), TensorShape([1]))
    """

    def __init__(
        self,
        num_inducing_points: int,
        kernel_provider: keras.layers.Layer,
        event_shape=(1,),
        inducing_index_points_initializer=None,
        unconstrained_observation_noise_variance_initializer=NOISE,
        variational_inducing_observations_scale_initializer=None,
        mean_fn: Callable | None = None,
        jitter: float = 1e-6,
        convert_to_tensor_fn="sample",
        validate_args: bool = False,
        **kwargs,
    ):
        expect_kind(
            "kernel_provider",
            kernel_provider,
            keras.layers.Layer,
            "a Keras layer with a property `kernel`",
        )
        if len(as_event_shape(event_shape)) != 1:
            raise ValueError(
                f"event_shape must have one axis, such as (1,), received {event_shape}. Reshape y."
            )
        arguments = {
            "num_inducing_points": as_event_size(num_inducing_points),
            "kernel_provider": kernel_provider,
            "event_shape": as_event_shape(event_shape),
            "inducing_index_points_initializer": inducing_index_points_initializer,
            "unconstrained_observation_noise_variance_initializer": (
                unconstrained_observation_noise_variance_initializer
            ),
            "variational_inducing_observations_scale_initializer": (
                variational_inducing_observations_scale_initializer
            ),
            "mean_fn": mean_fn,
            "jitter": jitter,
        }
        kwargs.setdefault("dtype", kernel_provider.dtype)
        super().__init__(arguments, convert_to_tensor_fn, validate_args, **kwargs)

    def build(self, input_shape):
        kernel = self.kernel_provider.kernel
        features = tuple(input_shape[-kernel.feature_ndims :])
        points = (*self.event_shape, self.num_inducing_points)
        if self.mean_fn is None:
            self.mean = self._weight("mean", (), "zeros")
        self.noise = None
        if self.unconstrained_observation_noise_variance_initializer is not None:
            self.noise = self._weight(
                "observation_noise_variance",
                (),
                self.unconstrained_observation_noise_variance_initializer,
            )
        self.inducing_index_points = self._weight(
            "inducing_index_points",
            (*points, *features),
            self.inducing_index_points_initializer,
        )
        self.loc = self._weight("variational_inducing_observations_loc", points, "zeros")
        initializer = self.variational_inducing_observations_scale_initializer
        self.scale = self._weight(
            "variational_inducing_observations_scale",
            (*points, self.num_inducing_points),
            _small_diagonal if initializer is None else initializer,
        )

    def _weight(self, name: str, shape: tuple[int, ...], initializer) -> keras.Variable:
        return self.add_weight(name=name, shape=shape, initializer=initializer, autocast=False)

    def distribution(self, params) -> tfd.Distribution:
        no_noise = tf.zeros([], self.variable_dtype)
        noise = no_noise if self.noise is None else tf.nn.softplus(self.noise)
        return self.new(
            params,
            self.kernel_provider,
            self.event_shape,
            tf.convert_to_tensor(self.inducing_index_points),
            self.mean_fn or (lambda x: tf.convert_to_tensor(self.mean)),
            tf.convert_to_tensor(self.loc),
            tf.convert_to_tensor(self.scale),
            noise,
            self.jitter,
        )

    @staticmethod
    def new(
        x,
        kernel_provider,
        event_shape,
        inducing_index_points,
        mean_fn,
        variational_inducing_observations_loc,
        variational_inducing_observations_scale,
        observation_noise_variance,
        jitter=1e-6,
    ) -> tfd.Distribution:
        """Build the distribution at the points `x`; the arguments are those of
        `tfd.VariationalGaussianProcess`.
        """
        process = tfd.VariationalGaussianProcess(
            kernel_provider.kernel,
            x,
            inducing_index_points,
            variational_inducing_observations_loc,
            variational_inducing_observations_scale,
            mean_fn=mean_fn,
            observation_noise_variance=observation_noise_variance,
            jitter=jitter,
        )
        points_first = tfb.Transpose(rightmost_transposed_ndims=2)
        values = tfd.TransformedDistribution(tfd.Independent(process, 1), points_first)

        def variational_loss(y, kl_weight=1.0):
            return process.variational_loss(
                points_first.inverse(tf.cast(y, process.dtype)), kl_weight=kl_weight
            )

        values.variational_loss = variational_loss
        values.surrogate_posterior_kl_divergence_prior = (
            process.surrogate_posterior_kl_divergence_prior
        )
        return values


def _small_diagonal(shape, dtype) -> tf.Tensor:
    return tf.convert_to_tensor(np.broadcast_to(1e-5 * np.eye(shape[-1]), shape), dtype)
