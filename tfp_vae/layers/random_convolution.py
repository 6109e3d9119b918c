"""Convolutions with random weights."""

import keras
import tensorflow_probability as tfp

from tfp_vae.layers.random_weights import (
    RandomWeights,
    flipout,
    reparameterization,
)

__all__ = [
    "Convolution1DFlipout",
    "Convolution1DReparameterization",
    "Convolution2DFlipout",
    "Convolution2DReparameterization",
    "Convolution3DFlipout",
    "Convolution3DReparameterization",
]

tfd = tfp.distributions


class _Convolution(RandomWeights):
    """The convolutions; a subclass says of what `rank`."""

    def __init__(
        self,
        filters: int,
        kernel_size,
        strides=1,
        padding: str = "valid",
        data_format: str = "channels_last",
        dilation_rate=1,
        activation=None,
        activity_regularizer=None,
        **kwargs,
    ):
        super().__init__(activation, activity_regularizer=activity_regularizer, **kwargs)
        # Keras's own layer checks the arguments, and holds them.
        own = [keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D][self.rank - 1]
        checked = own(filters, kernel_size, strides, padding, data_format, dilation_rate)
        self.filters, self.kernel_size = checked.filters, checked.kernel_size
        self.strides, self.padding = checked.strides, checked.padding
        self.data_format, self.dilation_rate = checked.data_format, checked.dilation_rate
        self.input_spec = keras.layers.InputSpec(ndim=self.rank + 2)

    @property
    def num_outputs(self) -> int:
        return self.filters

    def kernel_shape(self, num_channels: int) -> tuple[int, ...]:
        return (*self.kernel_size, num_channels, self.filters)

    def linear(self, inputs, kernel):
        return keras.ops.conv(
            inputs,
            keras.ops.cast(kernel, inputs.dtype),
            strides=self.strides,
            padding=self.padding,
            data_format="channels_last",
            dilation_rate=self.dilation_rate,
        )

    @property
    def channel_axis(self) -> int:
        return -1 if self.data_format == "channels_last" else 1

    def channels_last(self, values):
        return keras.ops.moveaxis(values, self.channel_axis, -1)

    def channels_back(self, values):
        return keras.ops.moveaxis(values, -1, self.channel_axis)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
            "dilation_rate": self.dilation_rate,
        }


@keras.saving.register_keras_serializable(package="tfp_vae")
class Convolution1DReparameterization(_Convolution):
    """A 1D convolution with a random kernel, drawn once for all examples of a call.

    All examples of a call share one draw. Use it where a draw must be one function of its input, as
    in a picture of several functions; to train, Flipout has less noise.

    Reference: Kingma & Welling, 2014, Auto-Encoding Variational Bayes, arXiv:1312.6114.

    Args:
        filters, kernel_size, strides, padding, data_format, dilation_rate, activation,
            activity_regularizer: those of `keras.layers.Conv1D`.
        **kwargs: the functions that make posteriors, priors and divergences, and the other
            arguments of `RandomWeights`.

    Call arguments:
        inputs: `[batch, steps, channels]`, or with the channels first.

    Output: as of `keras.layers.Conv1D`, in the compute dtype.

    Raises:
        ValueError: if the number of channels is unknown; when saving, if a function is not
            registered with Keras.

    Example:
    >>> layer = Convolution1DReparameterization(2, kernel_size=3, activation="relu")
    >>> layer(keras.ops.ones([4, 8, 3])).shape, layer.losses[0].shape
    (TensorShape([4, 6, 2]), TensorShape([]))
    """

    rank = 1
    estimate = reparameterization


@keras.saving.register_keras_serializable(package="tfp_vae")
class Convolution1DFlipout(_Convolution):
    """A 1D convolution with a random kernel, whose deviation changes its signs between examples.

    Examples of a batch have nearly independent draws, so its gradients have less noise than those of
    one draw for all, at the cost of a second product.

    Reference: Wen et al., 2018, Flipout: Efficient Pseudo-Independent Weight
        Perturbations on Mini-Batches, arXiv:1803.04386.

    Args:
        filters, kernel_size, strides, padding, data_format, dilation_rate, activation,
            activity_regularizer: those of `keras.layers.Conv1D`.
        **kwargs: the functions that make posteriors, priors and divergences, and the other
            arguments of `RandomWeights`.

    Call arguments:
        inputs: `[batch, steps, channels]`, or with the channels first.

    Output: as of `keras.layers.Conv1D`, in the compute dtype.

    Raises:
        ValueError: if the number of channels is unknown; when saving, if a function is not
            registered with Keras.
        TypeError: if the kernel's posterior is not a `tfd.Independent(tfd.Normal)`.

    Example:
    >>> layer = Convolution1DFlipout(2, kernel_size=3, activation="relu")
    >>> layer(keras.ops.ones([4, 8, 3])).shape, layer.losses[0].shape
    (TensorShape([4, 6, 2]), TensorShape([]))
    """

    rank = 1
    estimate = flipout


@keras.saving.register_keras_serializable(package="tfp_vae")
class Convolution2DReparameterization(_Convolution):
    """A 2D convolution with a random kernel, drawn once for all examples of a call.

    All examples of a call share one draw. Use it where a draw must be one function of its input, as
    in a picture of several functions; to train, Flipout has less noise.

    Reference: Kingma & Welling, 2014, Auto-Encoding Variational Bayes, arXiv:1312.6114.

    Args:
        filters, kernel_size, strides, padding, data_format, dilation_rate, activation,
            activity_regularizer: those of `keras.layers.Conv2D`.
        **kwargs: the functions that make posteriors, priors and divergences, and the other
            arguments of `RandomWeights`.

    Call arguments:
        inputs: `[batch, height, width, channels]`, or with the channels first.

    Output: as of `keras.layers.Conv2D`, in the compute dtype.

    Raises:
        ValueError: if the number of channels is unknown; when saving, if a function is not
            registered with Keras.

    Example:
    >>> layer = Convolution2DReparameterization(2, kernel_size=3, activation="relu")
    >>> layer(keras.ops.ones([4, 8, 8, 3])).shape, layer.losses[0].shape
    (TensorShape([4, 6, 6, 2]), TensorShape([]))
    """

    rank = 2
    estimate = reparameterization


@keras.saving.register_keras_serializable(package="tfp_vae")
class Convolution2DFlipout(_Convolution):
    """A 2D convolution with a random kernel, whose deviation changes its signs between examples.

    Examples of a batch have nearly independent draws, so its gradients have less noise than those of
    one draw for all, at the cost of a second product.

    Reference: Wen et al., 2018, Flipout: Efficient Pseudo-Independent Weight
        Perturbations on Mini-Batches, arXiv:1803.04386.

    Args:
        filters, kernel_size, strides, padding, data_format, dilation_rate, activation,
            activity_regularizer: those of `keras.layers.Conv2D`.
        **kwargs: the functions that make posteriors, priors and divergences, and the other
            arguments of `RandomWeights`.

    Call arguments:
        inputs: `[batch, height, width, channels]`, or with the channels first.

    Output: as of `keras.layers.Conv2D`, in the compute dtype.

    Raises:
        ValueError: if the number of channels is unknown; when saving, if a function is not
            registered with Keras.
        TypeError: if the kernel's posterior is not a `tfd.Independent(tfd.Normal)`.

    Example:
    >>> layer = Convolution2DFlipout(2, kernel_size=3, activation="relu")
    >>> layer(keras.ops.ones([4, 8, 8, 3])).shape, layer.losses[0].shape
    (TensorShape([4, 6, 6, 2]), TensorShape([]))
    """

    rank = 2
    estimate = flipout


@keras.saving.register_keras_serializable(package="tfp_vae")
class Convolution3DReparameterization(_Convolution):
    """A 3D convolution with a random kernel, drawn once for all examples of a call.

    All examples of a call share one draw. Use it where a draw must be one function of its input, as
    in a picture of several functions; to train, Flipout has less noise.

    Reference: Kingma & Welling, 2014, Auto-Encoding Variational Bayes, arXiv:1312.6114.

    Args:
        filters, kernel_size, strides, padding, data_format, dilation_rate, activation,
            activity_regularizer: those of `keras.layers.Conv3D`.
        **kwargs: the functions that make posteriors, priors and divergences, and the other
            arguments of `RandomWeights`.

    Call arguments:
        inputs: `[batch, depth, height, width, channels]`, or with the channels first.

    Output: as of `keras.layers.Conv3D`, in the compute dtype.

    Raises:
        ValueError: if the number of channels is unknown; when saving, if a function is not
            registered with Keras.

    Example:
    >>> layer = Convolution3DReparameterization(2, kernel_size=3, activation="relu")
    >>> layer(keras.ops.ones([4, 8, 8, 8, 3])).shape, layer.losses[0].shape
    (TensorShape([4, 6, 6, 6, 2]), TensorShape([]))
    """

    rank = 3
    estimate = reparameterization


@keras.saving.register_keras_serializable(package="tfp_vae")
class Convolution3DFlipout(_Convolution):
    """A 3D convolution with a random kernel, whose deviation changes its signs between examples.

    Examples of a batch have nearly independent draws, so its gradients have less noise than those of
    one draw for all, at the cost of a second product.

    Reference: Wen et al., 2018, Flipout: Efficient Pseudo-Independent Weight
        Perturbations on Mini-Batches, arXiv:1803.04386.

    Args:
        filters, kernel_size, strides, padding, data_format, dilation_rate, activation,
            activity_regularizer: those of `keras.layers.Conv3D`.
        **kwargs: the functions that make posteriors, priors and divergences, and the other
            arguments of `RandomWeights`.

    Call arguments:
        inputs: `[batch, depth, height, width, channels]`, or with the channels first.

    Output: as of `keras.layers.Conv3D`, in the compute dtype.

    Raises:
        ValueError: if the number of channels is unknown; when saving, if a function is not
            registered with Keras.
        TypeError: if the kernel's posterior is not a `tfd.Independent(tfd.Normal)`.

    Example:
    >>> layer = Convolution3DFlipout(2, kernel_size=3, activation="relu")
    >>> layer(keras.ops.ones([4, 8, 8, 8, 3])).shape, layer.losses[0].shape
    (TensorShape([4, 6, 6, 6, 2]), TensorShape([]))
    """

    rank = 3
    estimate = flipout
