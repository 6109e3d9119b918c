"""Priors over vectors of real numbers and over directions."""

import warnings

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.checks import as_count, expect_kind
from tfp_vae.layers import light
from tfp_vae.layers.flows import Flow
from tfp_vae.layers.fold import named_inputs
from tfp_vae.layers.normal import MIN_SCALE, UNIT_SCALE
from tfp_vae.layers.shapes import as_event_shape, as_event_size, as_positive, softplus_above
from tfp_vae.layers.tensor_like import unwrap
from tfp_vae.priors.prior import Prior

__all__ = [
    "FlowPrior",
    "HypersphericalUniform",
    "Normal",
    "NormalMixture",
    "StandardNormal",
    "StudentT",
    "VampPrior",
]

tfd = tfp.distributions
tfb = tfp.bijectors


@keras.saving.register_keras_serializable(package="tfp_vae")
class StandardNormal(Prior):
    """The standard normal prior N(0, I): the usual choice, without parameters.

    When to use: first, and where others draw codes, who need to know nothing of the model.

    Reference: Kingma & Welling, 2014, Auto-Encoding Variational Bayes, arXiv:1312.6114.

    Args:
        event_size: number of latent dimensions.

    Call arguments:
        inputs: None.

    Output:
        `tfd.MultivariateNormalDiag`, batch shape `[]`, event shape `[event_size]`.

    Raises:
        ValueError: if `event_size` is not a positive integer.

    Example:
    >>> StandardNormal(2)(None).log_prob([0., 0.]).numpy().round(4)
    np.float32(-1.8379)
    """

    def __init__(self, event_size: int, **kwargs):
        super().__init__({"event_size": as_event_size(event_size)}, **kwargs)

    def call(self, inputs=None) -> tfd.Distribution:
        zeros = tf.zeros([self.event_size], self.variable_dtype)
        return light.MultivariateNormalDiag(zeros, tf.ones_like(zeros))


@keras.saving.register_keras_serializable(package="tfp_vae")
class Normal(Prior):
    """A normal prior with diagonal covariance whose location and scale are trained; it starts as
    N(0, I).

    When to use: the decoder is to see codes in units of its own, as in a part of a larger model.

    Args:
        event_size: number of latent dimensions.

    Call arguments:
        inputs: None.

    Output:
        `tfd.MultivariateNormalDiag`, batch shape `[]`, event shape `[event_size]`.

    Raises:
        ValueError: if `event_size` is not a positive integer.

    Example:
    >>> Normal(2)(None).log_prob([0., 0.]).numpy().round(3)
    np.float32(-1.838)
    """

    def __init__(self, event_size: int, **kwargs):
        super().__init__({"event_size": as_event_size(event_size)}, **kwargs)
        self.loc = self.add_weight(
            name="loc", shape=[self.event_size], initializer="zeros", autocast=False
        )
        self.raw_scale = self.add_weight(
            name="raw_scale",
            shape=[self.event_size],
            initializer=keras.initializers.Constant(UNIT_SCALE),
            autocast=False,
        )

    def call(self, inputs=None) -> tfd.Distribution:
        return light.MultivariateNormalDiag(
            tf.convert_to_tensor(self.loc),
            softplus_above(MIN_SCALE, tf.convert_to_tensor(self.raw_scale)),
        )


@keras.saving.register_keras_serializable(package="tfp_vae")
class StudentT(Prior):
    """Independent standard Student's t distributions: heavier tails than N(0, 1), so outliers cost
    less to encode.

    When to use: some examples are far from all others.

    It suits any posterior over real vectors; the KL divergence is sampled.

    Reference: Takahashi et al., 2018, Student-t Variational Autoencoder for Robust Density
        Estimation (IJCAI).

    Args:
        event_size: number of latent dimensions.
        df: degrees of freedom; with more of them, the prior approaches N(0, I).

    Call arguments:
        inputs: None.

    Output:
        `tfd.Independent(tfd.StudentT)`, batch shape `[]`, event shape `[event_size]`.

    Raises:
        ValueError: if `event_size` is not a positive integer, or `df` not a positive number.

    Example:
    >>> StudentT(2, df=3.0)(None).log_prob([0., 5.]).numpy().round(4)
    np.float32(-6.469)
    """

    def __init__(self, event_size: int, df: float = 5.0, **kwargs):
        super().__init__(
            {"event_size": as_event_size(event_size), "df": as_positive(df, "df")}, **kwargs
        )

    def call(self, inputs=None) -> tfd.Distribution:
        zeros = tf.zeros([self.event_size], self.variable_dtype)
        return tfd.Independent(
            tfd.StudentT(tf.constant(self.df, zeros.dtype), zeros, tf.ones_like(zeros)), 1
        )


@keras.saving.register_keras_serializable(package="tfp_vae")
class NormalMixture(Prior):
    """A trained mixture of normals with diagonal covariance, for latent codes that form clusters.

    When to use: the data fall into groups, which are to be found or to be drawn from.

    With one component it is `Normal`. The locations start as draws from N(0, I), the scales at 1,
    the weights equal.

    Reference: Dilokthanakul et al., 2016, Deep unsupervised clustering with Gaussian mixture VAEs,
        arXiv:1611.02648.

    Args:
        event_size: number of latent dimensions.
        num_components: number of normals.
        seed: int, for the first locations.

    Call arguments:
        inputs: None.

    Output:
        `tfd.MixtureSameFamily`, batch shape `[]`, event shape `[event_size]`.

    Raises:
        ValueError: if a number is not a positive integer.

    Example:
    >>> NormalMixture(2, num_components=10)(None).sample(seed=0).shape
    TensorShape([2])
    """

    def __init__(self, event_size: int, num_components: int, *, seed: int = 0, **kwargs):
        num_components = as_count(num_components, "num_components")
        arguments = {
            "event_size": as_event_size(event_size),
            "num_components": num_components,
            "seed": seed,
        }
        super().__init__(arguments, **kwargs)
        shape = [self.num_components, self.event_size]
        self.locs = self.add_weight(
            name="locs",
            shape=shape,
            initializer=keras.initializers.RandomNormal(stddev=1.0, seed=seed),
            autocast=False,
        )
        self.raw_scales = self.add_weight(
            name="raw_scales",
            shape=shape,
            initializer=keras.initializers.Constant(UNIT_SCALE),
            autocast=False,
        )
        self.logits = self.add_weight(
            name="logits", shape=shape[:1], initializer="zeros", autocast=False
        )

    def call(self, inputs=None) -> tfd.Distribution:
        scales = softplus_above(MIN_SCALE, tf.convert_to_tensor(self.raw_scales))
        components = light.MultivariateNormalDiag(tf.convert_to_tensor(self.locs), scales)
        return tfd.MixtureSameFamily(tfd.Categorical(tf.convert_to_tensor(self.logits)), components)


@keras.saving.register_keras_serializable(package="tfp_vae")
class VampPrior(Prior):
    """The mixture of the posteriors of trained pseudo-inputs, through the VAE's own encoder.

    When to use: likelihood and samples matter more than the time of training, which grows with
    the pseudo-inputs.

    The best possible prior is the aggregate posterior; this prior approximates it with a few
    hundred learned examples. Start the pseudo-inputs at real examples:
    `prior.pseudo_inputs.assign(x_train[:num_components])`.

    Reference: Tomczak & Welling, 2018, VAE with a VampPrior, arXiv:1705.07120.

    Args:
        encoder: the same object as the VAE's encoder, so that they share their weights.
        event_shape: shape of one example.
        num_components: number of pseudo-inputs.
        low: least value of a pseudo-input; pass that of the data.
        high: largest value of a pseudo-input; pass that of the data. Training gives a warning if
            the data are not between `low` and `high`.
        seed: int, for the first pseudo-inputs, which are uniform between `low` and `high`.

    Call arguments:
        inputs: None.

    Output:
        `tfd.MixtureSameFamily` of the encoder's distributions, batch shape `[]`.

    Raises:
        ValueError: if a number or shape is not valid, or the encoder takes more than x.

    Example:
    >>> from tfp_vae import layers as tfpl
    >>> encoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), tfpl.MultivariateNormalDiag(2)])
    >>> VampPrior(encoder, event_shape=3, num_components=5)(None).event_shape
    TensorShape([2])
    """

    roles = ("of an encoder",)

    def __init__(
        self,
        encoder: keras.Model,
        event_shape,
        num_components: int = 500,
        *,
        low: float = 0.0,
        high: float = 1.0,
        seed: int = 0,
        **kwargs,
    ):
        if not low < high:
            raise ValueError(f"low must be below high, received {low!r} and {high!r}.")
        arguments = {
            "event_shape": as_event_shape(event_shape),
            "num_components": as_count(num_components, "num_components"),
            "low": float(low),
            "high": float(high),
            "seed": seed,
        }
        if len(taken := named_inputs(encoder)) > 1:
            raise ValueError(
                "VampPrior learns pseudo-inputs of an encoder that takes x alone, this one takes "
                f"{[*taken]}. Choose another prior, or leave the condition to decoder and prior."
            )
        _expect_gradient(encoder, as_event_shape(event_shape))
        super().__init__(arguments, **kwargs)
        self.encoder = encoder
        self.pseudo_inputs = self.add_weight(
            name="pseudo_inputs",
            shape=[self.num_components, *self.event_shape],
            initializer=keras.initializers.RandomUniform(low, high, seed=seed),
            autocast=False,
        )

    def call(self, inputs=None) -> tfd.Distribution:
        examples = tf.clip_by_value(tf.convert_to_tensor(self.pseudo_inputs), self.low, self.high)
        components = unwrap(self.encoder(examples))
        return tfd.MixtureSameFamily(
            tfd.Categorical(tf.zeros([self.num_components], components.dtype)), components
        )

    @classmethod
    def of_encoder(cls, encoder: keras.Model | None, x, **arguments) -> "VampPrior":
        """Return a prior that starts at examples x, `[num_examples, *event_shape]`."""
        if encoder is None or x is None:
            raise ValueError(
                "VampPrior needs an encoder from an x without parts to one latent, and examples "
                "without missing values. Choose another prior."
            )
        arguments = {"low": float(x.min()), "high": float(x.max()), **arguments}
        prior = cls(encoder, x.shape[1:], **arguments)
        prior.pseudo_inputs.assign(np.resize(x, prior.pseudo_inputs.shape))
        return prior

    def look_at(self, x) -> None:
        low = float(np.min(x))
        high = float(np.max(x))
        if low < self.low or high > self.high:
            warnings.warn(
                f"VampPrior keeps its pseudo-inputs between {self.low:g} and {self.high:g}, but the "
                f"data lie between {low:g} and {high:g}: no pseudo-input can be like the examples "
                f"beyond. Pass low={low:g}, high={high:g}.",
                stacklevel=4,
            )

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
        }


def _expect_gradient(encoder: keras.Model, event_shape: tuple) -> None:
    """Raise a ValueError if no gradient of the encoder reaches its input, as with tokens."""
    with tf.GradientTape() as tape:
        x = tf.zeros([1, *event_shape])
        tape.watch(x)
        draw = tf.convert_to_tensor(encoder(x))
    if tape.gradient(draw, x) is None:
        raise ValueError(
            "VampPrior learns pseudo-inputs by gradients, but none reaches the input of this encoder, "
            "which takes whole numbers such as tokens. Choose another prior, such as NormalMixture or "
            "FlowPrior."
        )


@keras.saving.register_keras_serializable(package="tfp_vae")
class HypersphericalUniform(Prior):
    """The uniform distribution on the unit sphere, which goes with a `layers.PowerSpherical`
    posterior.

    When to use: the posterior is that one.

    Reference: Davidson et al., 2018, Hyperspherical variational auto-encoders, arXiv:1804.00891; De
    Cao & Aziz, 2020, The power spherical distribution, arXiv:2006.04437.

    Args:
        event_size: number of dimensions of the space around the sphere, at least 2.

    Call arguments:
        inputs: None.

    Output:
        `tfd.SphericalUniform`, batch shape `[]`, event shape `[event_size]`.

    Raises:
        ValueError: if `event_size` is below 2.

    Example:
    >>> HypersphericalUniform(3)(None).prob([0., 0., 1.]).numpy().round(4)  # 1 / (4 pi)
    np.float32(0.0796)
    """

    def __init__(self, event_size: int, **kwargs):
        super().__init__({"event_size": as_event_size(event_size)}, **kwargs)
        if self.event_size < 2:
            raise ValueError(
                f"A sphere needs an event_size of at least 2, received {event_size!r}."
            )

    def call(self, inputs=None) -> tfd.Distribution:
        return tfd.SphericalUniform(self.event_size, dtype=tf.as_dtype(self.variable_dtype))


@keras.saving.register_keras_serializable(package="tfp_vae")
class FlowPrior(Prior):
    """The standard normal prior, pushed through a trained flow; it starts near N(0, I).

    `flow` should give densities fast, as `MaskedAutoregressiveFlow`, `RealNVP` and `NeuralSpline`
    do: training needs densities; only `generate` needs draws. With enough transforms it can
    follow the aggregate posterior.

    Reference: Chen et al., 2017, Variational Lossy Autoencoder, arXiv:1611.02731.

    Args:
        flow: a `layers.Flow` without context, trained and saved with the prior.

    Call arguments:
        inputs: None.

    Output:
        `tfd.TransformedDistribution`, batch shape `[]`, event shape `[event_size]`.

    Raises:
        TypeError: if `flow` is not a `layers.Flow`.
        ValueError: if `flow` has a context, or another dtype.

    Example:
    >>> from tfp_vae import layers as tfpl
    >>> FlowPrior(tfpl.MaskedAutoregressiveFlow(2, num_transforms=4))(None).log_prob([[0., 0.]]).shape
    TensorShape([1])
    """

    roles = ()

    def __init__(self, flow: Flow, **kwargs):
        expect_kind(
            "flow", flow, Flow, "a flow such as tfp_vae.layers.MaskedAutoregressiveFlow(size)"
        )
        super().__init__({"flow": flow}, **kwargs)
        if flow.context_size:
            raise ValueError(
                "A prior depends on nothing: flow must have context_size=0, not "
                f"{flow.context_size}."
            )
        if flow.variable_dtype != self.variable_dtype:
            raise ValueError(
                f"flow is in {flow.variable_dtype}, the prior in {self.variable_dtype}. Pass the "
                "same dtype to both."
            )

    def call(self, inputs=None) -> tfd.Distribution:
        zeros = tf.zeros([self.flow.event_size], self.variable_dtype)
        normal = light.MultivariateNormalDiag(zeros, tf.ones_like(zeros))
        return tfd.TransformedDistribution(normal, self.flow.bijector())
