"""Distributions over categories, written as one-hot vectors."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.checks import as_count
from tfp_vae.layers.discrete import as_dtype
from tfp_vae.layers.distribution_layer import DistributionLayer
from tfp_vae.layers.independent import independent_of
from tfp_vae.layers.own import own
from tfp_vae.layers.shapes import as_event_shape, as_event_size, as_positive, split_params
from tfp_vae.layers.straight_through import StraightThroughDraws
from tfp_vae.layers.values import Values, values_of

__all__ = [
    "CategoricalMixtureOfOneHotCategorical",
    "OneHotCategorical",
    "OneHotCategoricalStraightThrough",
    "RelaxedOneHotCategorical",
]

tfd = tfp.distributions


@keras.saving.register_keras_serializable(package="tfp_vae")
class OneHotCategorical(DistributionLayer):
    """A categorical distribution over one-hot vectors: for class labels.

    Args:
        event_size: number of categories.
        convert_to_tensor_fn: see `DistributionLayer`; `tfd.OneHotCategorical.logits` gives the
            logits.
        sample_dtype: dtype of a draw; None takes that of `params`.
        validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., event_size]`, the logits.

    Output:
        `tfd.OneHotCategorical`, batch shape `[...]`, event shape `[event_size]`.

    Raises:
        ValueError: if `event_size` is not a positive integer, or `params` has another size.

    Example:
    >>> OneHotCategorical(3)(tf.constant([[0., 2., 0.]])).mode().numpy()
    array([[0., 1., 0.]], dtype=float32)
    """

    roles = ()

    def __init__(
        self,
        event_size: int,
        convert_to_tensor_fn="sample",
        sample_dtype=None,
        validate_args=False,
        **kwargs,
    ):
        arguments = {
            "event_size": as_event_size(event_size),
            "sample_dtype": as_dtype(sample_dtype),
        }
        super().__init__(arguments, convert_to_tensor_fn, validate_args, **kwargs)

    @staticmethod
    def new(
        params, event_size: int, dtype=None, validate_args=False, name=None
    ) -> tfd.Distribution:
        """Build the distribution from `params`, `[..., event_size]`."""
        (logits,) = split_params(params, [[event_size]])
        return tfd.OneHotCategorical(
            logits,
            dtype=dtype or logits.dtype,
            validate_args=validate_args,
            name=name or "OneHotCategorical",
        )

    @staticmethod
    def params_size(event_size: int, name=None) -> int:
        """Return the number of parameters of one distribution."""
        return as_event_size(event_size)


@keras.saving.register_keras_serializable(package="tfp_vae")
class OneHotCategoricalStraightThrough(DistributionLayer):
    """A categorical distribution over one-hot vectors with a gradient through its draws: a discrete
    posterior.

    When to use: a code is to name one of several groups, which are found without labels.

    A draw is one-hot; its gradient is that of the probabilities. This gradient is biased unless
    the loss is linear in the draw. The KL divergence to a `tfd.OneHotCategorical` prior is
    analytic.

    Reference: Bengio et al., 2013, Estimating or Propagating Gradients Through Stochastic Neurons,
        arXiv:1308.3432.

    Args:
        event_size: number of categories, or a shape such as (num_variables, num_categories) for
            several independent variables.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., prod(event_size)]`, the logits.

    Output: A `tfd.OneHotCategorical` that states it is reparameterized, inside `tfd.Independent`
        for several variables; batch shape `[...]`, event shape `event_size`.

    Raises:
        ValueError: if `event_size` is neither a positive integer nor a shape, or `params` has
            another size.

    Example:
    >>> logits = tf.Variable([[0., 0.]])
    >>> with tf.GradientTape() as tape:
    ...     z = OneHotCategoricalStraightThrough(2)(logits)[:, 0]
    >>> tape.gradient(z, logits).numpy()
    array([[ 0.25, -0.25]], dtype=float32)
    """

    roles = ("posterior",)

    def __init__(
        self,
        event_size: int | Sequence[int],
        convert_to_tensor_fn="sample",
        validate_args=False,
        **kwargs,
    ):
        super().__init__(
            {"event_size": as_variables(event_size)}, convert_to_tensor_fn, validate_args, **kwargs
        )

    @staticmethod
    def new(
        params, event_size: int | Sequence[int], validate_args=False, name=None
    ) -> tfd.Distribution:
        """Build the distribution from `params`, `[..., params_size(event_size)]`."""
        event_shape = as_event_shape(event_size)
        (logits,) = split_params(params, [event_shape])
        name = name or "OneHotCategoricalStraightThrough"
        base = StraightThrough(logits, dtype=logits.dtype, validate_args=validate_args, name=name)
        return independent_of(base, len(event_shape))

    @staticmethod
    def params_size(event_size: int | Sequence[int], name=None) -> int:
        """Return the number of parameters of one distribution."""
        return int(np.prod(as_event_shape(event_size)))


@own
class OneHot(tfd.OneHotCategorical):
    """TFP's distribution, with a gradient of the log-density by its outcome, which TFP stops.

    The log-density is linear in the outcome. Without this gradient, the gradient of a sampled KL
    divergence would not reach the posterior through straight-through draws.
    """

    def _log_prob(self, x):
        return tf.reduce_sum(tf.cast(x, self.logits.dtype) * tf.math.log_softmax(self.logits), -1)


@own
class StraightThrough(StraightThroughDraws, OneHot):
    """A one-hot draw with the gradient of the probabilities."""


@keras.saving.register_keras_serializable(package="tfp_vae")
class RelaxedOneHotCategorical(DistributionLayer):
    """The Gumbel-softmax (concrete) distribution: a continuous posterior near the one-hot vectors.

    When to use: a code is to name nearly one group, with a gradient that is not biased.

    Its draws are probabilities, reparameterized; the lower the temperature, the nearer to one-hot.
    A probability too small for floating point is drawn as the smallest possible one, where
    `log_prob` counts the mass of all smaller ones. TFP has no mean and no mode for it: convert it
    by "sample".

    Reference: Jang et al., 2017, arXiv:1611.01144; Maddison et al., 2017, arXiv:1611.00712.

    Args:
        event_size: number of categories, or a shape such as (num_variables, num_categories) for
            several independent variables.
        temperature: positive number.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., prod(event_size)]`, the logits.

    Output: `tfd.RelaxedOneHotCategorical`, inside `tfd.Independent` for several variables; batch
        shape `[...]`, event shape `event_size`.

    Raises:
        ValueError: if `event_size` is neither a positive integer nor a shape, `temperature` is not
            positive, or `params` has another size.

    Example:
    >>> q = RelaxedOneHotCategorical(3, temperature=0.5)(tf.zeros([1, 3]))
    >>> tf.reduce_sum(q.sample(seed=0)).numpy().round(5)
    np.float32(1.0)
    """

    roles = ("posterior",)

    def __init__(
        self,
        event_size: int | Sequence[int],
        temperature: float = 0.5,
        convert_to_tensor_fn="sample",
        validate_args=False,
        **kwargs,
    ):
        arguments = {
            "event_size": as_variables(event_size),
            "temperature": as_positive(temperature, "temperature"),
        }
        super().__init__(arguments, convert_to_tensor_fn, validate_args, **kwargs)

    @staticmethod
    def new(
        params,
        event_size: int | Sequence[int],
        temperature: float = 0.5,
        validate_args=False,
        name=None,
    ) -> tfd.Distribution:
        """Build the distribution from `params`, `[..., params_size(event_size)]`."""
        event_shape = as_event_shape(event_size)
        (logits,) = split_params(params, [event_shape])
        base = CensoredRelaxedOneHotCategorical(
            tf.constant(temperature, logits.dtype),
            logits,
            validate_args=validate_args,
            name=name or "RelaxedOneHotCategorical",
        )
        return independent_of(base, len(event_shape))

    @staticmethod
    def params_size(event_size: int | Sequence[int], name=None) -> int:
        """Return the number of parameters of one distribution."""
        return int(np.prod(as_event_shape(event_size)))


@own
class CensoredRelaxedOneHotCategorical(tfd.RelaxedOneHotCategorical):
    """TFP's distribution, with each probability censored at the least that floating point can hold:
    a smaller one is drawn as this least one.

    `log_prob` is the density of the uncensored probabilities, times the mass of all smaller values
    for the censored ones: an integral in closed form. TFP's density is infinite or NaN at 0. It is
    not enough to clip the draws: a posterior with its mass beyond the clip would have no density
    there, and its sampled KL divergence would fall without bound as its logits grow.
    """

    def _call_sample_n(self, *args, **kwargs):
        return tf.maximum(super()._call_sample_n(*args, **kwargs), self._least())

    def _log_prob(self, z):
        """Return Maddison et al., 2017, equation (10), in which a censored category has no factor
        of its own.
        """
        seen = tf.cast(z > self._least(), self.dtype)
        number = tf.reduce_sum(seen, -1)
        log_z = tf.math.log(tf.maximum(z, self._least()))
        log_rates = tf.math.log_softmax(self.logits) - self.temperature * log_z
        log_normalizer = (number - 1.0) * tf.math.log(self.temperature) + tf.math.lgamma(number)
        factors = tf.reduce_sum(seen * (log_rates - log_z), -1)
        return log_normalizer + factors - number * tf.reduce_logsumexp(log_rates, -1)

    def _least(self) -> tf.Tensor:
        return tf.constant(np.finfo(self.dtype.as_numpy_dtype).tiny, self.dtype)


@keras.saving.register_keras_serializable(package="tfp_vae")
class CategoricalMixtureOfOneHotCategorical(DistributionLayer):
    """A mixture of categorical distributions over one-hot vectors.

    Args:
        event_size: number of categories.
        num_components: number of components of the mixture.
        convert_to_tensor_fn: see `DistributionLayer`; a function may call `log_mean()`.
        sample_dtype: dtype of a draw; None takes that of `params`.
        validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., num_components * (1 + event_size)]`, the mixture's logits, then those of each
            component.

    Output: A `tfd.MixtureSameFamily`, batch shape `[...]`, event shape `[event_size]`; its mode is
        the most probable category, and `log_mean()` is the logarithm of the mean, that is, of
        the probabilities of all categories.

    Raises:
        ValueError: if `event_size` or `num_components` is not a positive integer, or `params` has
            another size.

    Example:
    >>> p = CategoricalMixtureOfOneHotCategorical(2, num_components=2)(tf.constant([[0., 0., 9., -9., 0., 0.]]))
    >>> p.mean().numpy().round(4), p.mode().numpy()
    (array([[0.75, 0.25]], dtype=float32), array([[1., 0.]], dtype=float32))
    """

    roles = ()

    def __init__(
        self,
        event_size: int,
        num_components: int,
        convert_to_tensor_fn="sample",
        sample_dtype=None,
        validate_args=False,
        **kwargs,
    ):
        arguments = {
            "event_size": as_event_size(event_size),
            "num_components": as_count(num_components, "num_components"),
            "sample_dtype": as_dtype(sample_dtype),
        }
        super().__init__(arguments, convert_to_tensor_fn, validate_args, **kwargs)

    @staticmethod
    def new(
        params, event_size: int, num_components: int, dtype=None, validate_args=False, name=None
    ) -> tfd.Distribution:
        """Build the distribution from `params`, `[..., params_size(event_size, num_components)]`."""
        mixture, components = split_params(params, [[num_components], [num_components, event_size]])
        return MixtureOfOneHot(
            tfd.Categorical(mixture),
            tfd.OneHotCategorical(components, dtype=dtype or components.dtype),
            validate_args=validate_args,
            name=name or "CategoricalMixtureOfOneHotCategorical",
        )

    @staticmethod
    def params_size(event_size: int, num_components: int, name=None) -> int:
        """Return the number of parameters of one distribution."""
        return as_count(num_components, "num_components") * (1 + as_event_size(event_size))


@own
class MixtureOfOneHot(tfd.MixtureSameFamily):
    """TFP's distribution, with a mode and the logarithm of its mean."""

    def log_mean(self) -> tf.Tensor:
        """Return the logarithm of the probability of each category, `[..., event_size]`."""
        weights = tf.math.log_softmax(self.mixture_distribution.logits)
        probs = tf.math.log_softmax(self.components_distribution.logits)
        return tf.reduce_logsumexp(weights[..., tf.newaxis] + probs, axis=-2)

    def _mode(self):
        log_mean = self.log_mean()
        return tf.one_hot(tf.argmax(log_mean, axis=-1), log_mean.shape[-1], dtype=self.dtype)


def as_variables(event_size) -> int | tuple[int, ...]:
    """Check the size of one categorical variable, an int, or the shape of several, with the
    categories last.
    """
    shape = as_event_shape(event_size)
    if not shape:
        raise ValueError(
            "event_size must be a number of categories or a shape that ends in one, received "
            f"{shape}."
        )
    return shape[0] if np.ndim(event_size) == 0 else shape


@values_of.register(tfd.OneHotCategorical)
def _(one_hot: tfd.OneHotCategorical) -> Values:
    return Values(
        "vectors of one 1 and zeros",
        lambda x: bool(np.isin(x, (0, 1)).all() and (x.sum(-1) == 1).all()),
        "Encode categories by keras.ops.one_hot",
    )


@values_of.register(tfd.RelaxedOneHotCategorical)
@values_of.register(tfd.Dirichlet)
def _(simplex: tfd.Distribution) -> Values:
    return Values(
        "vectors of shares, which sum to 1",
        lambda x: bool((x >= 0).all() and np.allclose(x.sum(-1), 1.0, atol=1e-3)),
        "Divide them by their sum",
    )
