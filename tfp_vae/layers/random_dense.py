"""Dense layers with random weights."""

import keras
import tensorflow_probability as tfp

from tfp_vae.layers.random_weights import (
    RandomWeights,
    flipout,
    local_reparameterization,
    reparameterization,
)
from tfp_vae.layers.shapes import as_event_size

__all__ = [
    "DenseFlipout",
    "DenseLocalReparameterization",
    "DenseReparameterization",
]

tfd = tfp.distributions


class _Dense(RandomWeights):
    """The layers of `units` outputs."""

    def __init__(
        self,
        units: int,
        activation=None,
        activity_regularizer=None,
        trainable: bool = True,
        **kwargs,
    ):
        super().__init__(
            activation, activity_regularizer=activity_regularizer, trainable=trainable, **kwargs
        )
        self.units = as_event_size(units)
        self.input_spec = keras.layers.InputSpec(min_ndim=2)

    @property
    def num_outputs(self) -> int:
        return self.units

    def kernel_shape(self, num_channels: int) -> tuple[int, ...]:
        return num_channels, self.units

    def linear(self, inputs, kernel):
        return keras.ops.matmul(inputs, keras.ops.cast(kernel, inputs.dtype))

    def get_config(self) -> dict:
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="tfp_vae")
class DenseReparameterization(_Dense):
    """A dense layer with a random kernel, drawn once for all examples of a call.

    All examples of a call share one draw. Use it where a draw must be one function of its input, as
    in a picture of several functions; to train, Flipout has less noise.

    Reference: Kingma & Welling, 2014, Auto-Encoding Variational Bayes, arXiv:1312.6114.

    Args:
        units: number of outputs.
        activation: function of the output, or its name in Keras.
        activity_regularizer: Keras's, for the output.
        trainable: whether the variables are trained.
        **kwargs: the functions that make posteriors, priors and divergences, and the other
            arguments of `RandomWeights`.

    Call arguments:
        inputs: `[..., features]`.

    Output: `[..., units]`, in the compute dtype.

    Raises:
        ValueError: if the number of features is unknown; when saving, if a function is not
            registered with Keras.

    Example:
    >>> from tfp_vae.layers import KLPerExample
    >>> layer = DenseReparameterization(2, kernel_divergence_fn=KLPerExample(100))
    >>> layer(keras.ops.ones([5, 3])).shape, [weight.name for weight in layer.trainable_weights]
    (TensorShape([5, 2]), ['kernel_posterior_loc', 'kernel_posterior_untransformed_scale', 'bias_posterior_loc'])
    >>> len(layer.losses)
    1
    """

    estimate = reparameterization


@keras.saving.register_keras_serializable(package="tfp_vae")
class DenseLocalReparameterization(_Dense):
    """A dense layer with a random kernel: it draws each output from its distribution given the input.

    It draws the outputs, not the kernel: the least noise of the three, as each example has a draw
    of its own. Outputs of one call do not belong to one function.

    Reference: Kingma et al., 2015, Variational Dropout and the Local Reparameterization
        Trick, arXiv:1506.02557.

    Args:
        units: number of outputs.
        activation: function of the output, or its name in Keras.
        activity_regularizer: Keras's, for the output.
        trainable: whether the variables are trained.
        **kwargs: the functions that make posteriors, priors and divergences, and the other
            arguments of `RandomWeights`.

    Call arguments:
        inputs: `[..., features]`.

    Output: `[..., units]`, in the compute dtype.

    Raises:
        ValueError: if the number of features is unknown; when saving, if a function is not
            registered with Keras.
        TypeError: if the kernel's posterior is not a `tfd.Independent(tfd.Normal)`.

    Example:
    >>> from tfp_vae.layers import KLPerExample
    >>> layer = DenseLocalReparameterization(2, kernel_divergence_fn=KLPerExample(100))
    >>> layer(keras.ops.ones([5, 3])).shape, [weight.name for weight in layer.trainable_weights]
    (TensorShape([5, 2]), ['kernel_posterior_loc', 'kernel_posterior_untransformed_scale', 'bias_posterior_loc'])
    >>> len(layer.losses)
    1
    """

    estimate = local_reparameterization


@keras.saving.register_keras_serializable(package="tfp_vae")
class DenseFlipout(_Dense):
    """A dense layer with a random kernel, whose deviation changes its signs from example to example.

    Examples of a batch have nearly independent draws, so its gradients have less noise than those of
    one draw for all, at the cost of a second product.

    Reference: Wen et al., 2018, Flipout: Efficient Pseudo-Independent Weight
        Perturbations on Mini-Batches, arXiv:1803.04386.

    Args:
        units: number of outputs.
        activation: function of the output, or its name in Keras.
        activity_regularizer: Keras's, for the output.
        trainable: whether the variables are trained.
        **kwargs: the functions that make posteriors, priors and divergences, and the other
            arguments of `RandomWeights`.

    Call arguments:
        inputs: `[..., features]`.

    Output: `[..., units]`, in the compute dtype.

    Raises:
        ValueError: if the number of features is unknown; when saving, if a function is not
            registered with Keras.
        TypeError: if the kernel's posterior is not a `tfd.Independent(tfd.Normal)`.

    Example:
    >>> from tfp_vae.layers import KLPerExample
    >>> layer = DenseFlipout(2, kernel_divergence_fn=KLPerExample(100))
    >>> layer(keras.ops.ones([5, 3])).shape, [weight.name for weight in layer.trainable_weights]
    (TensorShape([5, 2]), ['kernel_posterior_loc', 'kernel_posterior_untransformed_scale', 'bias_posterior_loc'])
    >>> len(layer.losses)
    1
    """

    estimate = flipout
