"""Independent distributions over whole numbers: counts, and the levels of digital images."""

import math

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.checks import as_count
from tfp_vae.layers.distribution_layer import DistributionLayer
from tfp_vae.layers.independent import PerValue, independent, independent_of
from tfp_vae.layers.own import own
from tfp_vae.layers.shapes import as_event_shape, softplus_above, split_params
from tfp_vae.layers.values import Values, values_of, whole_numbers

__all__ = [
    "IndependentBinomial",
    "IndependentNegativeBinomial",
    "IndependentPoisson",
    "IndependentQuantizedLogistic",
    "IndependentZeroInflatedNegativeBinomial",
]

tfd = tfp.distributions

# TFP's samplers cannot distinguish means above exp(MAX_LOG_MEAN) from infinity, and then never
# return.
MAX_LOG_MEAN = 60.0
# Upper bound of the logits of a draw, which exceed the log-mean if total_count is small:
# exp(-logits) must not be 0 in float32.
MAX_DRAWN_LOGIT = 80.0
# Lowest scale of a quantized logistic distribution, relative to half the range, as in PixelCNN++.
MIN_QUANTIZED_SCALE = math.exp(-7.0)


@keras.saving.register_keras_serializable(package="tfp_vae")
class IndependentBinomial(DistributionLayer):
    """Independent binomial distributions, one for each value of an event: for counts with a known
    maximum.

    When to use: values are whole numbers from 0 to a known maximum, such as right answers out
    of ten.

    Args:
        event_shape: shape of one example, an int or a tuple; `()` for a scalar.
        total_count: number of trials, the largest value possible.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., prod(event_shape)]`, the logits of one trial.

    Output:
        `tfd.Independent(tfd.Binomial)`, batch shape `[...]`, event shape `event_shape`.

    Raises:
        ValueError: if `event_shape` is not a shape, `total_count` is below 1, or `params` has
            another size.

    Example:
    >>> p = IndependentBinomial([2], total_count=16)(tf.zeros([3, IndependentBinomial.params_size([2])]))
    >>> p.mean()[0].numpy()
    array([8., 8.], dtype=float32)
    """

    roles = ("likelihood",)
    pixels = "levels"

    def __init__(
        self,
        event_shape=(),
        total_count: int = 1,
        convert_to_tensor_fn="sample",
        validate_args=False,
        **kwargs,
    ):
        arguments = {
            "event_shape": as_event_shape(event_shape),
            "total_count": as_count(total_count, "total_count"),
        }
        super().__init__(arguments, convert_to_tensor_fn, validate_args, **kwargs)

    @classmethod
    def arguments_of_values(cls, largest: int) -> dict:
        """Return the number of trials."""
        return {"total_count": largest}

    @staticmethod
    def new(
        params, event_shape=(), total_count: int = 1, validate_args=False, name=None
    ) -> tfd.Distribution:
        """Build the distribution from `params`, `[..., params_size(event_shape)]`."""
        return independent(
            tfd.Binomial,
            params,
            event_shape,
            total_count=total_count,
            validate_args=validate_args,
            name=name,
        )

    @staticmethod
    def params_size(event_shape=(), name=None) -> int:
        """Return the number of parameters of one distribution."""
        return int(np.prod(as_event_shape(event_shape)))


@keras.saving.register_keras_serializable(package="tfp_vae")
class IndependentPoisson(PerValue):
    """Independent Poisson distributions, one for each value of an event: for counts whose variance
    equals their mean.

    When to use: values are counts of independent events; if in doubt, take the negative
    binomial distribution.

    Args:
        event_shape: shape of one example, an int or a tuple; `()` for a scalar.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., prod(event_shape)]`, the logarithms of the rates, which are bounded by 60.

    Output:
        `tfd.Independent(tfd.Poisson)`, batch shape `[...]`, event shape `event_shape`.

    Raises:
        ValueError: if `event_shape` is not a shape, or `params` has another size.

    Example:
    >>> IndependentPoisson([2])(tf.zeros([3, IndependentPoisson.params_size([2])])).mean()[0].numpy()
    array([1., 1.], dtype=float32)
    """

    roles = ("likelihood",)
    pixels = "levels"

    @staticmethod
    def new(params, event_shape=(), validate_args=False, name=None) -> tfd.Distribution:
        """Build the distribution from `params`, `[..., params_size(event_shape)]`."""
        return independent(
            Poisson, _bounded(params), event_shape, validate_args=validate_args, name=name
        )


@keras.saving.register_keras_serializable(package="tfp_vae")
class IndependentNegativeBinomial(PerValue):
    """Independent negative binomial distributions: for counts that vary more than their mean, as in
    gene expression.

    When to use: values are counts without a maximum: reads of genes, visits, purchases.

    With mean mu and inverse dispersion theta, as in scvi-tools, the variance is mu + mu^2 / theta.
    The mean is the exponential of its parameter, at most exp(60), so the logarithm of a known
    exposure (library size) can be added to it; theta is softplus of its parameter. XLA cannot draw
    from it: to train under XLA, convert it by "mean".

    Reference: Lopez et al., 2018, Deep generative modeling for single-cell transcriptomics, Nature
        Methods 15.

    Args:
        event_shape: shape of one example, an int or a tuple; `()` for a scalar.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., 2 * prod(event_shape)]`, all log mu, then all unconstrained theta.

    Output:
        `tfd.Independent(tfd.NegativeBinomial)`, batch shape `[...]`, event shape `event_shape`.

    Raises:
        ValueError: if `event_shape` is not a shape, or `params` has another size.

    Example:
    >>> p = IndependentNegativeBinomial([2])(tf.zeros([3, IndependentNegativeBinomial.params_size([2])]))
    >>> p.mean()[0].numpy().round(4), p.variance()[0].numpy().round(4)
    (array([1., 1.], dtype=float32), array([2.4427, 2.4427], dtype=float32))
    """

    roles = ("likelihood",)
    pixels = "levels"
    params_per_value = 2
    xla_can_draw = False

    @staticmethod
    def new(params, event_shape=(), validate_args=False, name=None) -> tfd.Distribution:
        """Build the distribution from `params`, `[..., params_size(event_shape)]`."""
        event_shape = as_event_shape(event_shape)
        total_count, logits = _counts_and_logits(*split_params(params, [event_shape] * 2))
        base = NegativeBinomial(
            total_count,
            logits=logits,
            require_integer_total_count=False,
            validate_args=validate_args,
        )
        return independent_of(base, len(event_shape), name)


@keras.saving.register_keras_serializable(package="tfp_vae")
class IndependentZeroInflatedNegativeBinomial(PerValue):
    """Independent negative binomial distributions with additional zeros: for counts that are often
    missed.

    When to use: values are counts, of which many are 0 because they were missed, as in single
    cells.

    Each value is an additional zero with a probability of its own, and otherwise negative binomial:
    see `IndependentNegativeBinomial`.

    Reference: Lopez et al., 2018, Deep generative modeling for single-cell transcriptomics, Nature
        Methods 15.

    Args:
        event_shape: shape of one example, an int or a tuple; `()` for a scalar.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., 3 * prod(event_shape)]`, all log mu, then all unconstrained theta, then the
            logits of all additional zeros.

    Output: `tfd.Independent(tfd.Inflated(tfd.NegativeBinomial))`, batch shape `[...]`, event shape
        `event_shape`.

    Raises:
        ValueError: if `event_shape` is not a shape, or `params` has another size.

    Example:
    >>> layer = IndependentZeroInflatedNegativeBinomial([2])
    >>> layer(tf.zeros([3, layer.params_size([2])])).mean()[0].numpy()
    array([0.5, 0.5], dtype=float32)
    """

    roles = ("likelihood",)
    pixels = "levels"
    params_per_value = 3
    xla_can_draw = False

    @staticmethod
    def new(params, event_shape=(), validate_args=False, name=None) -> tfd.Distribution:
        """Build the distribution from `params`, `[..., params_size(event_shape)]`."""
        event_shape = as_event_shape(event_shape)
        log_mean, inverse_dispersion, zero_logits = split_params(params, [event_shape] * 3)
        total_count, logits = _counts_and_logits(log_mean, inverse_dispersion)
        counts = NegativeBinomial(
            total_count,
            logits=logits,
            require_integer_total_count=False,
            validate_args=validate_args,
        )
        # TFP 0.25 takes half the log-odds: P(additional zero) is sigmoid(2 t).
        base = Inflated(counts, inflated_loc_logits=zero_logits / 2, validate_args=validate_args)
        return independent_of(base, len(event_shape), name)


@keras.saving.register_keras_serializable(package="tfp_vae")
class IndependentQuantizedLogistic(DistributionLayer):
    """Independent logistic distributions rounded to levels: for 8-bit images with values 0, 1,
    ..., 255.

    When to use: values are the levels of 8-bit images, above all photographs.

    The probability of a level is the mass of the logistic distribution within half a level of it;
    the lowest and the highest level also take the tail on their side. Location and scale are in
    units of half the range, and the location is relative to its middle, so they suit network
    outputs near 0. The scale is softplus of its parameter, plus exp(-7).

    Reference: Salimans et al., 2017, PixelCNN++, arXiv:1701.05517.

    Args:
        event_shape: shape of one example, an int or a tuple; `()` for a scalar.
        num_levels: number of levels, from 0 to `num_levels` - 1.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`; it has a mean, but no mode.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., 2 * prod(event_shape)]`, all locations, then all unconstrained scales.

    Output: `tfd.Independent(tfd.QuantizedDistribution)`, batch shape `[...]`, event shape
        `event_shape`.

    Raises:
        ValueError: if `event_shape` is not a shape, `num_levels` is below 2, or `params` has
            another size.

    Example:
    >>> p = IndependentQuantizedLogistic([2])(tf.zeros([3, IndependentQuantizedLogistic.params_size([2])]))
    >>> p.mean()[0].numpy().round(2), p.distribution.prob([0., 127.])[0].numpy().round(4)
    (array([127.5, 127.5], dtype=float32), array([0.1923, 0.0028], dtype=float32))
    """

    roles = ("likelihood",)
    pixels = "levels"

    def __init__(
        self,
        event_shape=(),
        num_levels: int = 256,
        convert_to_tensor_fn="sample",
        validate_args=False,
        **kwargs,
    ):
        arguments = {
            "event_shape": as_event_shape(event_shape),
            "num_levels": as_count(num_levels, "num_levels", 2),
        }
        super().__init__(arguments, convert_to_tensor_fn, validate_args, **kwargs)

    @staticmethod
    def new(
        params, event_shape=(), num_levels: int = 256, validate_args=False, name=None
    ) -> tfd.Distribution:
        """Build the distribution from `params`, `[..., params_size(event_shape)]`."""
        event_shape = as_event_shape(event_shape)
        loc, scale = split_params(params, [event_shape] * 2)
        base = quantized_logistic(loc, scale, num_levels, validate_args)
        return independent_of(base, len(event_shape), name)

    @staticmethod
    def params_size(event_shape=(), name=None) -> int:
        """Return the number of parameters of one distribution."""
        return 2 * int(np.prod(as_event_shape(event_shape)))


@own
class Poisson(tfd.Poisson):
    """TFP's distribution; a draw is NaN if a parameter is not finite, where TFP's sampler would
    never return.
    """

    def _sample_n(self, n, seed=None):
        is_finite = tf.math.is_finite(self.log_rate)
        draws = tfd.Poisson(log_rate=tf.where(is_finite, self.log_rate, 0.0)).sample(n, seed=seed)
        return tf.where(is_finite, draws, np.nan)


@own
class NegativeBinomial(tfd.NegativeBinomial):
    """TFP's distribution; a draw is NaN if a parameter is not finite, where TFP's sampler would
    never return.
    """

    def _sample_n(self, n, seed=None):
        is_finite = tf.math.is_finite(self.logits) & tf.math.is_finite(self.total_count)
        total_count = tf.where(is_finite, self.total_count, 1.0)
        logits = tf.where(is_finite, tf.minimum(self.logits, MAX_DRAWN_LOGIT), 0.0)
        counts = tfd.NegativeBinomial(total_count, logits=logits, require_integer_total_count=False)
        return tf.where(is_finite, counts.sample(n, seed=seed), np.nan)


@own
class Inflated(tfd.Inflated):
    """TFP's distribution, with moments for any number of axes: on the CPU, TensorFlow's softmax
    takes at most five.
    """

    def _cat_probs(self, log_probs):
        log_weights = tf.math.log_softmax(self.cat.logits_parameter())
        return tf.unstack(log_weights if log_probs else tf.exp(log_weights), axis=-1)


@own
class QuantizedLogistic(tfd.QuantizedDistribution):
    """TFP's distribution, with a mean and a log-density without cancellation errors."""

    def _log_prob(self, level):
        """Return log(F(x) - F(x - 1)) for the logistic F, as the sum of log F(x), log(1 - F(x - 1))
        and a third logarithm.

        TFP subtracts numbers that are equal in floating point if the scale or the location is
        large.
        """
        logistic = self.distribution
        level = tf.floor(level)
        low = tf.convert_to_tensor(self.low)
        high = tf.convert_to_tensor(self.high)
        below_upper = tf.where(level < high, logistic.log_cdf(level), 0.0)
        above_lower = tf.where(level > low, logistic.log_survival_function(level - 1.0), 0.0)
        # Not tfp.math.log1mexp: its gradient is NaN if the scale is large.
        width = tf.math.log(-tf.math.expm1(-1.0 / logistic.scale))
        inside = below_upper + above_lower + tf.where((level > low) & (level < high), width, 0.0)
        return tf.where((level < low) | (level > high), tf.constant(-np.inf, self.dtype), inside)

    def _mean(self):
        """Sum P(X > k) over all levels k, from level 0."""
        # One level at a time: memory does not grow with their number.
        levels = tf.range(tf.convert_to_tensor(self.high))
        nothing = tf.zeros_like(self.distribution.mean())
        return tf.foldl(lambda total, level: total + self.survival_function(level), levels, nothing)


def quantized_logistic(loc, scale, num_levels: int, validate_args: bool) -> QuantizedLogistic:
    """Build the distribution from location and unconstrained scale, in units of half the range."""
    half = (num_levels - 1) / 2
    # QuantizedDistribution rounds up; shifted down by half a level, it rounds to the nearest.
    logistic = tfd.Logistic(
        half * (loc + 1) - 0.5, half * softplus_above(MIN_QUANTIZED_SCALE, scale)
    )
    return QuantizedLogistic(logistic, low=0.0, high=num_levels - 1.0, validate_args=validate_args)


def _counts_and_logits(log_mean, inverse_dispersion) -> tuple[tf.Tensor, tf.Tensor]:
    """Return TFP's parameters of a negative binomial distribution.

    Its mean is total_count * exp(logits).
    """
    bijector = tfd.NegativeBinomial.parameter_properties(log_mean.dtype)["total_count"]
    total_count = bijector.default_constraining_bijector_fn()(inverse_dispersion)
    return total_count, _bounded(log_mean) - tf.math.log(total_count)


def _bounded(log_mean) -> tf.Tensor:
    """Return the logarithms of means, clipped to their upper bound; NaN stays NaN."""
    log_mean = tf.convert_to_tensor(log_mean)
    return tf.where(log_mean > MAX_LOG_MEAN, tf.constant(MAX_LOG_MEAN, log_mean.dtype), log_mean)


@values_of.register(tfd.Binomial)
def _(binomial: tfd.Binomial) -> Values:
    advice = "Raise total_count to the largest count, or round the data"
    return whole_numbers(
        "whole numbers from 0 to total_count", advice, high=np.max(binomial.total_count)
    )


@values_of.register(tfd.Poisson)
@values_of.register(tfd.NegativeBinomial)
def _(counts: tfd.Distribution) -> Values:
    return whole_numbers("whole numbers of at least 0", "Round the data")


@values_of.register(tfd.QuantizedDistribution)
def _(quantized: tfd.QuantizedDistribution) -> Values:
    advice = "Leave 8-bit images as they are, or raise num_levels"
    low = np.max(quantized.low)
    high = np.max(quantized.high)
    return whole_numbers("whole numbers from 0 to num_levels - 1", advice, low, high)
