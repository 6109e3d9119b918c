"""Binary codes with a gradient through their draws: discrete (straight-through) or relaxed."""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.distribution_layer import DistributionLayer
from tfp_vae.layers.independent import PerValue, independent_of
from tfp_vae.layers.own import own
from tfp_vae.layers.shapes import as_event_shape, as_positive, split_params
from tfp_vae.layers.straight_through import StraightThroughDraws
from tfp_vae.layers.values import Values, interval, values_of

__all__ = ["IndependentBernoulliStraightThrough", "IndependentRelaxedBernoulli"]

tfd = tfp.distributions

# Beyond this logit, the sigmoid is 0 or 1 to the last bit.
SATURATED = 40.0


@keras.saving.register_keras_serializable(package="tfp_vae")
class IndependentBernoulliStraightThrough(PerValue):
    """Independent Bernoulli distributions with a gradient through their draws: a posterior of
    binary codes.

    When to use: codes are to be bits, such as keys of a search.

    A draw is 0 or 1; its gradient is that of the probability. This gradient is biased unless the
    loss is linear in the draw. The KL divergence to a `priors.Bernoulli` is analytic.

    Reference: Bengio et al., 2013, Estimating or Propagating Gradients Through Stochastic Neurons,
        arXiv:1308.3432.

    Args:
        event_shape: shape of one draw, an int or a tuple; `()` for a scalar.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., prod(event_shape)]`, the logits.

    Output: `tfd.Independent` of a `tfd.Bernoulli` that states it is reparameterized, batch shape
        `[...]`, event shape `event_shape`.

    Raises:
        ValueError: if `event_shape` is not a shape, or `params` has another size.

    Example:
    >>> logits = tf.Variable([[0.]])
    >>> with tf.GradientTape() as tape:
    ...     z = IndependentBernoulliStraightThrough(1)(logits)[:, 0]
    >>> tape.gradient(z, logits).numpy()
    array([[0.25]], dtype=float32)
    """

    roles = ("posterior",)

    @staticmethod
    def new(params, event_shape=(), validate_args=False, name=None) -> tfd.Distribution:
        """Build the distribution from `params`, `[..., params_size(event_shape)]`."""
        event_shape = as_event_shape(event_shape)
        (logits,) = split_params(params, [event_shape])
        base = StraightThroughBernoulli(logits, dtype=logits.dtype, validate_args=validate_args)
        return independent_of(base, len(event_shape), name)


@own
class StraightThroughBernoulli(StraightThroughDraws, tfd.Bernoulli):
    """A draw of 0 or 1 with the gradient of the probability."""


@keras.saving.register_keras_serializable(package="tfp_vae")
class IndependentRelaxedBernoulli(DistributionLayer):
    """Independent relaxed Bernoulli (binary concrete) distributions: a continuous posterior near
    binary codes.

    When to use: codes are to be nearly bits, with a gradient that is not biased.

    A draw is sigmoid((logits + logistic noise) / temperature), reparameterized; the lower the
    temperature, the nearer to 0 and 1. Draws are censored at machine epsilon from 0 and 1, because
    floating point cannot resolve values nearer to the ends: a draw beyond that point is moved to
    it, and `log_prob` there is the log-probability of all such draws. Posterior and prior are
    censored in the same way, so KL divergences and importance weights stay valid at any
    temperature. The distribution has no mean and no mode: convert it by "sample".

    Reference: Maddison et al., 2017, The concrete distribution, arXiv:1611.00712, appendix B; Jang
    et al., 2017, arXiv:1611.01144.

    Args:
        event_shape: shape of one draw, an int or a tuple; `()` for a scalar.
        temperature: positive number.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., prod(event_shape)]`, the logits.

    Output:
        `tfd.Independent(tfd.RelaxedBernoulli)`, batch shape `[...]`, event shape `event_shape`.

    Raises:
        ValueError: if `event_shape` is not a shape, `temperature` is not positive, or `params` has
            another size.

    Example:
    >>> q = IndependentRelaxedBernoulli(3, temperature=0.1)(tf.constant([[-50., 0., 50.]]))
    >>> z = q.sample(seed=(0, 0))
    >>> z.numpy().round(3)[0, [0, 2]], bool(tf.math.is_finite(q.log_prob(z)[0]))
    (array([0., 1.], dtype=float32), True)
    """

    roles = ("posterior",)

    def __init__(
        self,
        event_shape=(),
        temperature: float = 0.5,
        convert_to_tensor_fn="sample",
        validate_args=False,
        **kwargs,
    ):
        arguments = {
            "event_shape": as_event_shape(event_shape),
            "temperature": as_positive(temperature, "temperature"),
        }
        super().__init__(arguments, convert_to_tensor_fn, validate_args, **kwargs)

    @staticmethod
    def new(
        params, event_shape=(), temperature: float = 0.5, validate_args=False, name=None
    ) -> tfd.Distribution:
        """Build the distribution from `params`, `[..., params_size(event_shape)]`."""
        event_shape = as_event_shape(event_shape)
        (logits,) = split_params(params, [event_shape])
        base = CensoredRelaxedBernoulli(
            tf.constant(temperature, logits.dtype), logits, validate_args=validate_args
        )
        return independent_of(base, len(event_shape), name)

    @staticmethod
    def params_size(event_shape=(), name=None) -> int:
        """Return the number of parameters of one distribution."""
        return int(np.prod(as_event_shape(event_shape)))


@own
class CensoredRelaxedBernoulli(tfd.RelaxedBernoulli):
    """TFP's distribution, censored at machine epsilon from 0 and 1, where TFP's density is NaN.

    It is not enough to clip the draws: a posterior with its mass beyond the clip would have no
    density there, and its sampled KL divergence would fall without bound as its logits grow.
    """

    def _sample_n(self, n, seed=None, **kwargs):
        # TFP's sigmoid has no gradient beyond 88. The clip at 40, where the last bit of float64 is
        # reached, makes the gradient 0.
        noisy = self._relaxed_logits().sample(n, seed=seed)
        return tf.clip_by_value(
            tf.math.sigmoid(tf.clip_by_value(noisy, -SATURATED, SATURATED)), *self._ends()
        )

    def _log_prob(self, z):
        low, high = self._ends()
        logit = tf.math.log(high) - tf.math.log(low)
        noise = self._relaxed_logits()
        inside = super()._log_prob(tf.clip_by_value(z, low, high))
        above = tf.where(z >= high, noise.log_survival_function(logit), inside)
        return tf.where(z <= low, noise.log_cdf(-logit), above)

    def _relaxed_logits(self) -> tfd.Logistic:
        temperature = tf.convert_to_tensor(self.temperature)
        return tfd.Logistic(self.logits_parameter() / temperature, 1.0 / temperature)

    def _ends(self) -> tuple[tf.Tensor, tf.Tensor]:
        epsilon = np.finfo(self.dtype.as_numpy_dtype).eps
        return tf.constant(epsilon, self.dtype), tf.constant(1.0 - epsilon, self.dtype)


@values_of.register(CensoredRelaxedBernoulli)
def _(relaxed: CensoredRelaxedBernoulli) -> Values:
    """Return values without an interval: the ends have a probability, so there is no density."""
    return interval(0.0, 1.0)._replace(interval=None)
