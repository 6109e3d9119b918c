"""Priors over categories and binary codes, discrete and relaxed."""

from collections.abc import Sequence

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import layers
from tfp_vae.checks import expect_kind
from tfp_vae.layers.code_vectors import CodeVectors
from tfp_vae.layers.independent import independent_of
from tfp_vae.layers.one_hot import OneHot, as_variables
from tfp_vae.layers.shapes import as_event_shape, as_positive
from tfp_vae.priors.prior import Prior, of_layer

__all__ = ["Bernoulli", "Categorical", "Codes", "RelaxedBernoulli", "RelaxedCategorical"]

tfd = tfp.distributions


class OfLogits(Prior):
    """A prior with logits, which are 0 unless they are trained; `call` builds p(z) from them.

    Args:
        arguments: see `Prior`.
        event_shape: shape of the logits.
        trained: whether the logits are weights.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(self, arguments: dict, event_shape: Sequence[int], trained: bool, **kwargs):
        super().__init__({**arguments, "trained": bool(trained)}, **kwargs)
        self.logits_shape = event_shape
        if trained:
            self.raw_logits = self.add_weight(
                name="logits", shape=event_shape, initializer="zeros", autocast=False
            )

    @property
    def logits(self) -> tf.Tensor:
        """The logits, a tensor of the shape of the event."""
        zeros = tf.zeros(self.logits_shape, self.variable_dtype)
        return tf.convert_to_tensor(self.raw_logits) if self.trained else zeros


@keras.saving.register_keras_serializable(package="tfp_vae")
class Categorical(OfLogits):
    """Independent uniform categories as one-hot vectors, for a
    `layers.OneHotCategoricalStraightThrough` posterior.

    When to use: the posterior is that one.

    Args:
        event_size: number of categories, or a shape such as (num_variables, num_categories).
        trained: whether the probabilities of the categories are trained; they start equal.

    Call arguments:
        inputs: None.

    Output: `tfd.OneHotCategorical`, inside `tfd.Independent` for several variables; batch shape
        `[]`, event shape `event_size`.

    Raises:
        ValueError: if `event_size` is neither a positive integer nor a shape.

    Example:
    >>> Categorical((20, 10))(None).entropy().numpy().round(3)  # 20 log 10
    np.float32(46.052)
    """

    def __init__(self, event_size: int | Sequence[int], *, trained: bool = False, **kwargs):
        event_size = as_variables(event_size)
        super().__init__({"event_size": event_size}, as_event_shape(event_size), trained, **kwargs)

    def call(self, inputs=None) -> tfd.Distribution:
        return independent_of(OneHot(self.logits, dtype=self.logits.dtype), len(self.logits_shape))


@keras.saving.register_keras_serializable(package="tfp_vae")
class RelaxedCategorical(OfLogits):
    """Independent relaxed categories (Gumbel-softmax), for a posterior of
    `layers.RelaxedOneHotCategorical`.

    When to use: the posterior is that one.

    TFP has no closed form of the KL divergence between relaxed distributions: it is estimated from
    draws.

    Reference: Maddison et al., 2017, arXiv:1611.00712; Jang et al., 2017, arXiv:1611.01144.

    Args:
        event_size: number of categories, or a shape such as (num_variables, num_categories).
        temperature: positive number, which may differ from the posterior's.
        trained: whether the logits are trained; they start equal.

    Call arguments:
        inputs: None.

    Output: `tfd.RelaxedOneHotCategorical`, inside `tfd.Independent` for several variables; batch
        shape `[]`, event shape `event_size`.

    Raises:
        ValueError: if `event_size` is neither a positive integer nor a shape, or `temperature` is
            not positive.

    Example:
    >>> RelaxedCategorical((20, 10), temperature=0.5)(None).event_shape
    TensorShape([20, 10])
    """

    def __init__(
        self,
        event_size: int | Sequence[int],
        temperature: float = 0.5,
        *,
        trained: bool = False,
        **kwargs,
    ):
        arguments = {
            "event_size": as_variables(event_size),
            "temperature": as_positive(temperature, "temperature"),
        }
        super().__init__(arguments, as_event_shape(event_size), trained, **kwargs)

    def call(self, inputs=None) -> tfd.Distribution:
        logits = tf.reshape(self.logits, [-1])
        return layers.RelaxedOneHotCategorical.new(logits, self.event_size, self.temperature)


@keras.saving.register_keras_serializable(package="tfp_vae")
class Bernoulli(OfLogits):
    """Independent fair coins, for a posterior of `layers.IndependentBernoulliStraightThrough`.

    When to use: the posterior is that one.

    Args:
        event_shape: number of latent dimensions, or their shape.
        trained: whether the probabilities are trained; they start at a half.

    Call arguments:
        inputs: None.

    Output:
        `tfd.Independent(tfd.Bernoulli)`, batch shape `[]`, event shape `event_shape`.

    Raises:
        ValueError: if `event_shape` is not a shape.

    Example:
    >>> Bernoulli(8)(None).prob(tf.ones([8])).numpy()  # 1 / 256
    np.float32(0.00390625)
    """

    def __init__(self, event_shape: int | Sequence[int], *, trained: bool = False, **kwargs):
        event_shape = as_event_shape(event_shape)
        super().__init__({"event_shape": event_shape}, event_shape, trained, **kwargs)

    def call(self, inputs=None) -> tfd.Distribution:
        return independent_of(
            tfd.Bernoulli(self.logits, dtype=self.logits.dtype), len(self.event_shape)
        )


@keras.saving.register_keras_serializable(package="tfp_vae")
class RelaxedBernoulli(OfLogits):
    """Independent relaxed coins (binary concrete), for a posterior of
    `layers.IndependentRelaxedBernoulli`.

    When to use: the posterior is that one.

    TFP has no closed form of the KL divergence between relaxed distributions: it is estimated from
    draws.

    Reference: Maddison et al., 2017, arXiv:1611.00712.

    Args:
        event_shape: number of latent dimensions, or their shape.
        temperature: positive number, which may differ from the posterior's.
        trained: whether the logits are trained; they start at 0.

    Call arguments:
        inputs: None.

    Output:
        `tfd.Independent(tfd.RelaxedBernoulli)`, batch shape `[]`, event shape `event_shape`.

    Raises:
        ValueError: if `event_shape` is not a shape, or `temperature` is not positive.

    Example:
    >>> RelaxedBernoulli(2, temperature=1.0)(None).prob([0.1, 0.9]).numpy().round(4)  # at temperature 1 uniform
    np.float32(1.0)
    """

    def __init__(
        self,
        event_shape: int | Sequence[int],
        temperature: float = 0.5,
        *,
        trained: bool = False,
        **kwargs,
    ):
        event_shape = as_event_shape(event_shape)
        arguments = {
            "event_shape": event_shape,
            "temperature": as_positive(temperature, "temperature"),
        }
        super().__init__(arguments, event_shape, trained, **kwargs)

    def call(self, inputs=None) -> tfd.Distribution:
        logits = tf.reshape(self.logits, [-1])
        return layers.IndependentRelaxedBernoulli.new(logits, self.event_shape, self.temperature)


@keras.saving.register_keras_serializable(package="tfp_vae")
class Codes(OfLogits):
    """Independent uniform codes as code vectors, for a `layers.VectorQuantized` posterior, whose
    vectors it shares.

    When to use: the posterior is that one.

    Even if it is trained, it does not model how the codes of an example depend on each other; after
    training, `fit_aggregate_prior` does.

    Reference: van den Oord et al., 2017, Neural discrete representation learning, arXiv:1711.00937.

    Args:
        quantizer: the `layers.VectorQuantized` at the end of the VAE's encoder, the same object.
        trained: whether the probabilities of the codes at each position are trained; they start
            equal.

    Call arguments:
        inputs: None.

    Output:
        `CodeVectors`, batch shape `[]`, event shape as the quantizer's.

    Raises:
        TypeError: if `quantizer` is not a `layers.VectorQuantized`.

    Example:
    >>> prior = Codes(layers.VectorQuantized((3, 2), num_codes=4))
    >>> prior(None).entropy().numpy().round(3)  # 3 log 4
    np.float32(4.159)
    """

    roles = ("of an encoder",)

    def __init__(self, quantizer: layers.VectorQuantized, *, trained: bool = False, **kwargs):
        expect_kind(
            "quantizer",
            quantizer,
            layers.VectorQuantized,
            "the VectorQuantized layer of the VAE's encoder",
        )
        shape = (quantizer.event_shape[0], quantizer.num_codes)
        super().__init__({"quantizer": quantizer}, shape, trained, **kwargs)

    @classmethod
    def of_encoder(cls, encoder: keras.Model, x, **arguments) -> "Codes":
        """Return the prior of the encoder's last layer."""
        return cls(encoder.layers[-1], **arguments)

    def call(self, inputs=None) -> tfd.Distribution:
        return CodeVectors(
            tf.cast(self.logits, self.quantizer.variable_dtype), self.quantizer.codebook
        )


@of_layer.register(layers.VectorQuantized)
def _(quantizer: layers.VectorQuantized, latent_shape, dtype) -> Codes | None:
    return Codes(quantizer, dtype=dtype) if quantizer.event_shape == latent_shape else None
