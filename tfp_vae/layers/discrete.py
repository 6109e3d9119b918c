"""Distributions of binary values and bounded counts."""

import keras
import numpy as np
import tensorflow_probability as tfp

from tfp_vae.layers.distribution_lambda import DistributionLayer
from tfp_vae.layers.shapes import as_event_shape, reshape_params

tfd = tfp.distributions


@keras.saving.register_keras_serializable(package="tfp_vae")
class IndependentBernoulli(DistributionLayer):
    """Independent Bernoulli distributions, one for each value of an event: for binary data.

    Args:
        event_shape: shape of one example, an int or a tuple; `()` for a scalar.
        convert_to_tensor_fn: see `DistributionLayer`.
        sample_dtype: dtype of a draw; None takes that of `params`.
        validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., prod(event_shape)]`, the logits.

    Output:
        `tfd.Independent(tfd.Bernoulli)`, batch shape `[...]`, event shape `event_shape`.

    Raises:
        ValueError: if `event_shape` is not a shape, or `params` has another size.

    Example:
    >>> import tensorflow as tf
    >>> p = IndependentBernoulli([2, 2])(tf.zeros([3, IndependentBernoulli.params_size([2, 2])]))
    >>> p.log_prob(tf.ones([3, 2, 2])).numpy().round(4)
    array([-2.7726, -2.7726, -2.7726], dtype=float32)
    """

    def __init__(self, event_shape=(), convert_to_tensor_fn="sample", sample_dtype=None, validate_args=False, **kwargs):
        super().__init__(convert_to_tensor_fn, validate_args, **kwargs)
        self.event_shape = as_event_shape(event_shape)
        self.sample_dtype = None if sample_dtype is None else keras.backend.standardize_dtype(sample_dtype)

    def make_distribution(self, params) -> tfd.Distribution:
        return self.new(params, self.event_shape, self.sample_dtype, self.validate_args)

    def get_config(self) -> dict:
        return {**super().get_config(), "event_shape": self.event_shape, "sample_dtype": self.sample_dtype}

    @staticmethod
    def new(params, event_shape=(), dtype=None, validate_args=False, name="IndependentBernoulli") -> tfd.Distribution:
        """Build the distribution from `params`, `[..., params_size(event_shape)]`."""
        (logits,) = reshape_params(params, event_shape, 1)
        bernoulli = tfd.Bernoulli(logits, dtype=dtype or logits.dtype, validate_args=validate_args)
        return tfd.Independent(bernoulli, len(as_event_shape(event_shape)), validate_args=validate_args, name=name)

    @staticmethod
    def params_size(event_shape=(), name=None) -> int:
        """Give the number of parameters of one distribution."""
        return int(np.prod(as_event_shape(event_shape)))


@keras.saving.register_keras_serializable(package="tfp_vae")
class IndependentBinomial(DistributionLayer):
    """Independent binomial distributions, one for each value of an event: for counts with a known maximum.

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
        ValueError: if `event_shape` is not a shape, `total_count` is below 1, or `params` has another size.

    Example:
    >>> import tensorflow as tf
    >>> p = IndependentBinomial([2], total_count=16)(tf.zeros([3, IndependentBinomial.params_size([2])]))
    >>> p.mean()[0].numpy()
    array([8., 8.], dtype=float32)
    """

    def __init__(
        self, event_shape=(), total_count: int = 1, convert_to_tensor_fn="sample", validate_args=False, **kwargs
    ):
        super().__init__(convert_to_tensor_fn, validate_args, **kwargs)
        self.event_shape = as_event_shape(event_shape)
        if int(total_count) != total_count or total_count < 1:
            raise ValueError(f"total_count must be a whole number of at least 1, received {total_count!r}.")
        self.total_count = int(total_count)

    def make_distribution(self, params) -> tfd.Distribution:
        return self.new(params, self.event_shape, self.total_count, self.validate_args)

    def get_config(self) -> dict:
        return {**super().get_config(), "event_shape": self.event_shape, "total_count": self.total_count}

    @staticmethod
    def new(
        params, event_shape=(), total_count: int = 1, validate_args=False, name="IndependentBinomial"
    ) -> tfd.Distribution:
        """Build the distribution from `params`, `[..., params_size(event_shape)]`."""
        (logits,) = reshape_params(params, event_shape, 1)
        binomial = tfd.Binomial(float(total_count), logits=logits, validate_args=validate_args)
        return tfd.Independent(binomial, len(as_event_shape(event_shape)), validate_args=validate_args, name=name)

    @staticmethod
    def params_size(event_shape=(), name=None) -> int:
        """Give the number of parameters of one distribution."""
        return int(np.prod(as_event_shape(event_shape)))
