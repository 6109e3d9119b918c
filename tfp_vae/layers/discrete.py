"""Independent distributions over a few values: binary data and categories."""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.checks import as_count
from tfp_vae.layers.distribution_layer import DistributionLayer
from tfp_vae.layers.independent import independent_of, independent_params_size
from tfp_vae.layers.own import own
from tfp_vae.layers.sequences import PaddedCategorical, expect_tokens, never_drawn
from tfp_vae.layers.shapes import as_event_shape, split_params
from tfp_vae.layers.values import SCALE, Values, are_whole, values_of, whole_numbers
from tfp_vae.text import Vocabulary

__all__ = ["IndependentBernoulli", "IndependentCategorical"]

tfd = tfp.distributions

BETWEEN_BITS = (
    "x holds values strictly between 0 and 1. The Bernoulli log_prob of such a value is a "
    "cross-entropy, not a log-likelihood. Binarize x, or use a likelihood of continuous values."
)


@keras.saving.register_keras_serializable(package="tfp_vae")
class IndependentBernoulli(DistributionLayer):
    """Independent Bernoulli distributions, one for each value of an event: for binary data.

    When to use: each value is 0 or 1, as in binarized images; not for grey levels.

    Args:
        event_shape: shape of one example, an int or a tuple; `()` for a scalar.
        convert_to_tensor_fn: see `DistributionLayer`; `tfd.Bernoulli.logits` gives the logits.
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

    roles = ("likelihood",)
    pixels = "bits"

    def __init__(
        self,
        event_shape=(),
        convert_to_tensor_fn="sample",
        sample_dtype=None,
        validate_args=False,
        **kwargs,
    ):
        arguments = {
            "event_shape": as_event_shape(event_shape),
            "sample_dtype": as_dtype(sample_dtype),
        }
        super().__init__(arguments, convert_to_tensor_fn, validate_args, **kwargs)

    @staticmethod
    def new(params, event_shape=(), dtype=None, validate_args=False, name=None) -> tfd.Distribution:
        """Build the distribution from `params`, `[..., params_size(event_shape)]`."""
        (logits,) = split_params(params, [as_event_shape(event_shape)])
        bernoulli = Bernoulli(logits, dtype=dtype or logits.dtype, validate_args=validate_args)
        return independent_of(bernoulli, len(as_event_shape(event_shape)), name)

    @staticmethod
    def params_size(event_shape=(), name=None) -> int:
        """Return the number of parameters of one distribution."""
        return independent_params_size(tfd.Bernoulli, event_shape)


@own
class Bernoulli(tfd.Bernoulli):
    """`tfd.Bernoulli`, whose density takes one softplus of each logit instead of two, and that of a
    whole image one logarithm for up to sixteen logits.
    """

    def _log_prob(self, event):
        if self.logits is None:
            return super()._log_prob(event)
        rest, wrong = self._parts(event)
        return rest - tf.math.softplus(wrong)

    def summed_log_prob(self, event, ndims: int) -> tf.Tensor:
        """Return the sum of the log-densities over the last axes, at least one."""
        axes = range(-ndims, 0)
        if self.logits is None:
            return tf.reduce_sum(self._log_prob(event), axes)
        rest, wrong = self._parts(event)
        return tf.reduce_sum(rest, axes) - summed_softplus(wrong, ndims)

    def _parts(self, event) -> tuple[tf.Tensor, tf.Tensor]:
        """Return what the log-density has beside minus a softplus, and the logit in that softplus."""
        logits = tf.convert_to_tensor(self.logits)
        event = tf.cast(event, logits.dtype)
        # An infinite logit of the right sign has density 1; fractions are weighed as TFP does.
        nearest = tf.cast(event > 0.5, logits.dtype)
        rest = tf.math.multiply_no_nan(logits, event - nearest)
        return rest, tf.where(event > 0.5, -logits, logits)


def summed_softplus(x: tf.Tensor, ndims: int) -> tf.Tensor:
    """Sum softplus over the last axes.

    >>> (summed_softplus(tf.zeros([2, 3, 4]), 2).numpy() / np.log(2.0)).round(5)
    array([12., 12.])
    """
    size = x.shape[-ndims:].num_elements() or 1
    number = max(divisor for divisor in range(1, 17) if size % divisor == 0)
    if number == 1 or x.dtype.size < 4:
        return tf.reduce_sum(tf.math.softplus(x), range(-ndims, 0))
    lead = tf.shape(x)[: x.shape.rank - ndims]
    return _softplus_by_products(tf.reshape(x, tf.concat([lead, [number, size // number]], 0)))


@tf.custom_gradient
def _softplus_by_products(x: tf.Tensor) -> tf.Tensor:
    """Sum softplus over the last two axes, with one logarithm of the product of each column. Its
    factors are from 1 to 2, and each is rounded by the dtype's epsilon at most.
    """
    products = tf.reduce_prod(1.0 + tf.exp(-tf.abs(x)), -2)
    total = tf.reduce_sum(tf.nn.relu(x), (-2, -1)) + tf.reduce_sum(tf.math.log(products), -1)
    return total, lambda upstream: upstream[..., tf.newaxis, tf.newaxis] * tf.sigmoid(x)


@keras.saving.register_keras_serializable(package="tfp_vae")
class IndependentCategorical(DistributionLayer):
    """Independent categorical distributions, one for each value of an event: for tokens and other
    unordered codes.

    When to use: values are names without an order.

    A draw is an integer from 0 to `num_categories` - 1; `mode()` is the most probable one, and
    `mean()` has no meaning.

    Args:
        event_shape: shape of one example, an int or a tuple; `()` for a scalar.
        num_categories: number of categories.
        padded: whether the event is a sequence, `[length]`, that ends at its first 0: only zeros
            may follow, and they count nothing.
        vocabulary: for a padded one, see `AutoregressiveCategorical`.
        convert_to_tensor_fn: see `DistributionLayer`; `tfd.Categorical.logits` gives the logits.
        sample_dtype: dtype of a draw; None takes int32.
        validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., prod(event_shape) * num_categories]`, the logits, `[*event_shape,
            num_categories]`, flattened.

    Output:
        `tfd.Independent(tfd.Categorical)`, batch shape `[...]`, event shape `event_shape`; or, if
        padded, a distribution over such sequences.

    Raises:
        ValueError: if `event_shape` is not a shape, or has several axes and is padded, if
            `num_categories` is below 1, or `params` has another size.

    Example:
    >>> import tensorflow as tf
    >>> p = IndependentCategorical([5], num_categories=4)(tf.zeros([3, IndependentCategorical.params_size([5], 4)]))
    >>> p.event_shape, p.log_prob([[0, 1, 2, 3, 3]])[0].numpy().round(4)
    (TensorShape([5]), np.float32(-6.9315))
    """

    roles = ("likelihood",)
    pixels = "levels"

    def __init__(
        self,
        event_shape,
        num_categories: int,
        convert_to_tensor_fn="sample",
        sample_dtype=None,
        validate_args=False,
        *,
        padded: bool = False,
        vocabulary: Vocabulary | None = None,
        **kwargs,
    ):
        arguments = {
            "event_shape": as_event_shape(event_shape),
            "num_categories": as_count(num_categories, "num_categories"),
            "sample_dtype": as_dtype(sample_dtype),
            "padded": bool(padded),
            "vocabulary": vocabulary,
        }
        super().__init__(arguments, convert_to_tensor_fn, validate_args, **kwargs)
        if padded and len(self.event_shape) != 1:
            raise ValueError(
                f"A padded sequence has one axis, received event_shape {self.event_shape}."
            )
        expect_tokens(vocabulary, self.num_categories)

    @classmethod
    def arguments_of_values(cls, largest: int) -> dict:
        """Return the number of categories."""
        return {"num_categories": largest + 1}

    @classmethod
    def arguments_of_text(cls, vocabulary: Vocabulary) -> dict:
        """Return the vocabulary and its size."""
        return {"num_categories": len(vocabulary), "padded": True, "vocabulary": vocabulary}

    def distribution(self, params):
        if not self.padded:
            return self.new(
                params,
                self.event_shape,
                self.num_categories,
                self.sample_dtype,
                self.validate_args,
            )
        (logits,) = split_params(params, [(*self.event_shape, self.num_categories)])
        return PaddedCategorical(logits, never_drawn(self.vocabulary), self.validate_args)

    @staticmethod
    def new(
        params, event_shape, num_categories: int, dtype=None, validate_args=False, name=None
    ) -> tfd.Distribution:
        """Build the distribution from `params`, `[..., params_size(event_shape, num_categories)]`."""
        (logits,) = split_params(params, [(*as_event_shape(event_shape), num_categories)])
        categorical = tfd.Categorical(logits, dtype=dtype or "int32", validate_args=validate_args)
        return independent_of(categorical, len(as_event_shape(event_shape)), name)

    @staticmethod
    def params_size(event_shape, num_categories: int, name=None) -> int:
        """Return the number of parameters of one distribution."""
        return int(np.prod(as_event_shape(event_shape))) * as_count(
            num_categories, "num_categories"
        )


def as_dtype(dtype) -> str | None:
    """Return the name of a dtype, such as `tf.int32` or "int32"; None stays."""
    return None if dtype is None else keras.backend.standardize_dtype(dtype)


@values_of.register(tfd.Bernoulli)
def _(bernoulli: tfd.Bernoulli) -> Values:
    """Accept values strictly between 0 and 1, with a remark: some users want the cross-entropy."""
    return Values(
        "zeros and ones",
        lambda x: bool(x.min() >= 0.0 and x.max() <= 1.0),
        f"{SCALE} and binarize them (datasets.load does both)",
        remark=lambda x: "" if are_whole(x) else BETWEEN_BITS,
    )


@values_of.register(tfd.Categorical)
def _(categorical: tfd.Categorical) -> Values:
    num_categories = categorical.logits_parameter().shape[-1]
    advice = "Number the categories from 0, or raise num_categories"
    return whole_numbers(
        "whole numbers from 0 to num_categories - 1", advice, high=num_categories - 1
    )
