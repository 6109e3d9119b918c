"""Mixtures of distributions of one family."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.checks import as_count
from tfp_vae.layers.continuous import IndependentLogistic
from tfp_vae.layers.counts import quantized_logistic
from tfp_vae.layers.distribution_layer import DistributionLayer
from tfp_vae.layers.independent import independent_of
from tfp_vae.layers.normal import IndependentNormal
from tfp_vae.layers.own import own
from tfp_vae.layers.shapes import as_event_shape, split_params
from tfp_vae.layers.tensor_like import unwrap

__all__ = ["MixtureLogistic", "MixtureNormal", "MixtureQuantizedLogistic", "MixtureSameFamily"]

tfd = tfp.distributions
tfb = tfp.bijectors


@keras.saving.register_keras_serializable(package="tfp_vae")
class MixtureSameFamily(DistributionLayer):
    """A mixture whose components come from another distribution layer.

    Args:
        num_components: number of components of the mixture.
        component_layer: a distribution layer, or any function from `[..., num_components,
            component_params_size]` to a distribution of batch shape `[..., num_components]`.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., num_components * (1 + component_params_size)]`, the mixture's logits, then
            the parameters of each component.

    Output:
        `tfd.MixtureSameFamily`, batch shape `[...]`, event shape that of the components.

    Raises:
        ValueError: if `num_components` is not a positive integer, `params` has another size, or the
            dtype of `component_layer` differs.

    Example:
    >>> from tfp_vae import layers as tfpl
    >>> layer = MixtureSameFamily(num_components=3, component_layer=tfpl.MultivariateNormalTriL(2))
    >>> layer(tf.zeros([4, MixtureSameFamily.params_size(3, tfpl.MultivariateNormalTriL.params_size(2))])).event_shape
    TensorShape([2])
    """

    roles = ()

    def __init__(
        self,
        num_components: int,
        component_layer: Callable,
        convert_to_tensor_fn="sample",
        validate_args=False,
        **kwargs,
    ):
        arguments = {
            "num_components": as_count(num_components, "num_components"),
            "component_layer": component_layer,
        }
        super().__init__(arguments, convert_to_tensor_fn, validate_args, **kwargs)
        if (
            isinstance(component_layer, keras.layers.Layer)
            and component_layer.variable_dtype != self.variable_dtype
        ):
            raise ValueError(
                f"component_layer gives densities in {component_layer.variable_dtype}, this layer "
                f"in {self.variable_dtype}. Pass the same dtype to both."
            )

    @staticmethod
    def new(
        params, num_components: int, component_layer: Callable, validate_args=False, name=None
    ) -> tfd.Distribution:
        """Build the distribution from `params`, `[..., params_size(num_components,
        component_params_size)]`.
        """
        params = tf.convert_to_tensor(params)
        component_params_size = params.shape[-1] // num_components - 1
        logits, components = split_params(
            params, [[num_components], [num_components, component_params_size]]
        )
        return tfd.MixtureSameFamily(
            Categories(logits),
            unwrap(component_layer(components)),
            validate_args=validate_args,
            name=name or "MixtureSameFamily",
        )

    @staticmethod
    def params_size(num_components: int, component_params_size: int, name=None) -> int:
        """Return the number of parameters of one distribution."""
        return as_count(num_components, "num_components") * (1 + int(component_params_size))


class _MixtureOfIndependent(DistributionLayer):
    """A mixture whose components are of one class, each of all values of an event."""

    component: type[DistributionLayer]

    def __init__(
        self,
        num_components: int,
        event_shape=(),
        convert_to_tensor_fn="sample",
        validate_args=False,
        **kwargs,
    ):
        super().__init__(
            _arguments(num_components, event_shape), convert_to_tensor_fn, validate_args, **kwargs
        )

    @classmethod
    def new(
        cls, params, num_components: int, event_shape=(), validate_args=False, name=None
    ) -> tfd.Distribution:
        """Build the distribution from `params`, `[..., params_size(num_components, event_shape)]`."""
        return _mixture(
            params, num_components, cls.component, event_shape, validate_args, name or cls.__name__
        )

    @classmethod
    def params_size(cls, num_components: int, event_shape=(), name=None) -> int:
        """Return the number of parameters of one distribution."""
        return MixtureSameFamily.params_size(num_components, cls.component.params_size(event_shape))


@keras.saving.register_keras_serializable(package="tfp_vae")
class MixtureNormal(_MixtureOfIndependent):
    """A mixture of independent normal distributions: for real-valued data with several modes.

    Reference: Bishop, 1994, Mixture Density Networks, Aston University.

    Args:
        num_components: number of components of the mixture.
        event_shape: shape of one example, an int or a tuple; `()` for a scalar.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., params_size(num_components, event_shape)]`, the mixture's logits, then the
            parameters of each component, see `IndependentNormal`.

    Output:
        `tfd.MixtureSameFamily`, batch shape `[...]`, event shape `event_shape`.

    Raises:
        ValueError: if `num_components` is not a positive integer, `event_shape` is not a shape, or
            `params` has another size.

    Example:
    >>> MixtureNormal(3, [2])(tf.zeros([4, MixtureNormal.params_size(3, [2])])).event_shape
    TensorShape([2])
    """

    roles = ()
    component = IndependentNormal


@keras.saving.register_keras_serializable(package="tfp_vae")
class MixtureLogistic(_MixtureOfIndependent):
    """A mixture of independent logistic distributions: for real-valued data with several modes and
    heavier tails.

    Args:
        num_components: number of components of the mixture.
        event_shape: shape of one example, an int or a tuple; `()` for a scalar.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., params_size(num_components, event_shape)]`, the mixture's logits, then the
            parameters of each component, see `IndependentLogistic`.

    Output:
        `tfd.MixtureSameFamily`, batch shape `[...]`, event shape `event_shape`.

    Raises:
        ValueError: if `num_components` is not a positive integer, `event_shape` is not a shape, or
            `params` has another size.

    Example:
    >>> MixtureLogistic(3, [2])(tf.zeros([4, MixtureLogistic.params_size(3, [2])])).event_shape
    TensorShape([2])
    """

    roles = ()
    component = IndependentLogistic


@keras.saving.register_keras_serializable(package="tfp_vae")
class MixtureQuantizedLogistic(DistributionLayer):
    """Independent mixtures of quantized logistic distributions, one for each value: for 8-bit
    images.

    When to use: values are levels of 8-bit images, and several of them are likely at one place.

    Each value of an event has a mixture of its own (`MixtureLogistic` has one mixture of whole
    events); see `IndependentQuantizedLogistic` for the components. Channels are independent.

    Reference: Salimans et al., 2017, PixelCNN++, arXiv:1701.05517.

    Args:
        num_components: number of components of each mixture.
        event_shape: shape of one example, an int or a tuple; `()` for a scalar.
        num_levels: number of levels, from 0 to `num_levels` - 1.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`; it has a mean, but no mode.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., 3 * num_components * prod(event_shape)]`: the logits of all first components,
            of all second ..., then the locations, then the unconstrained scales in the same order.

    Output:
        `tfd.Independent(tfd.MixtureSameFamily)`, batch shape `[...]`, event shape `event_shape`.

    Raises:
        ValueError: if `num_components` is not a positive integer, `event_shape` is not a shape,
            `num_levels` is below 2, or `params` has another size.

    Example:
    >>> layer = MixtureQuantizedLogistic(5, [2])
    >>> layer(tf.zeros([3, layer.params_size(5, [2])])).mean()[0].numpy().round(2)
    array([127.5, 127.5], dtype=float32)
    """

    roles = ("likelihood",)
    pixels = "levels"

    def __init__(
        self,
        num_components: int,
        event_shape=(),
        num_levels: int = 256,
        convert_to_tensor_fn="sample",
        validate_args=False,
        **kwargs,
    ):
        arguments = {
            **_arguments(num_components, event_shape),
            "num_levels": as_count(num_levels, "num_levels", 2),
        }
        super().__init__(arguments, convert_to_tensor_fn, validate_args, **kwargs)

    @staticmethod
    def new(
        params,
        num_components: int,
        event_shape=(),
        num_levels: int = 256,
        validate_args=False,
        name=None,
    ) -> tfd.Distribution:
        """Build the distribution from `params`, `[..., params_size(num_components, event_shape)]`."""
        event_shape = as_event_shape(event_shape)
        pieces = split_params(params, [(num_components, *event_shape)] * 3)
        logits, loc, scale = (
            tfb.Transpose(perm=_last(len(event_shape)))(piece) for piece in pieces
        )
        components = quantized_logistic(loc, scale, num_levels, validate_args)
        base = tfd.MixtureSameFamily(Categories(logits), components, validate_args=validate_args)
        return independent_of(base, len(event_shape), name or "MixtureQuantizedLogistic")

    @staticmethod
    def params_size(num_components: int, event_shape=(), name=None) -> int:
        """Return the number of parameters of one distribution."""
        return (
            3
            * as_count(num_components, "num_components")
            * int(np.prod(as_event_shape(event_shape)))
        )


@own
class Categories(tfd.Categorical):
    """TFP's distribution, with probabilities for any number of axes: on the CPU, TensorFlow's
    softmax takes at most five.
    """

    def _probs_parameter_no_checks(self):
        return (
            tf.exp(tf.nn.log_softmax(self.logits))
            if self._probs is None
            else super()._probs_parameter_no_checks()
        )


def _last(event_ndims: int) -> list[int]:
    """Return the order of axes that moves the axis before the event axes behind them."""
    return [*range(1, event_ndims + 1), 0]


def _arguments(num_components, event_shape) -> dict:
    return {
        "num_components": as_count(num_components, "num_components"),
        "event_shape": as_event_shape(event_shape),
    }


def _mixture(
    params, num_components, component, event_shape, validate_args, name
) -> tfd.Distribution:
    def components(component_params):
        return component.new(component_params, event_shape, validate_args)

    return MixtureSameFamily.new(params, num_components, components, validate_args, name)
