"""Independent continuous distributions, one for each value of an event, and the deterministic
distribution.
"""

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.independent import OfOneClass
from tfp_vae.layers.own import own
from tfp_vae.layers.values import Values, values_of

__all__ = [
    "Deterministic",
    "IndependentBeta",
    "IndependentContinuousBernoulli",
    "IndependentLogistic",
    "IndependentStudentT",
]

tfd = tfp.distributions

# Lowest degrees of freedom of Student's t, so that its variance exists.
MIN_DF = 2.001
# Lowest concentration of a beta distribution: below it, the density has a pole at 0 or 1, where
# data often lie. The density may be 0 at 0 and 1, so it is evaluated no nearer than NEAREST.
MIN_CONCENTRATION = 1.0
NEAREST = 1e-6


@keras.saving.register_keras_serializable(package="tfp_vae")
class IndependentLogistic(OfOneClass):
    """Independent logistic distributions: for real-valued data with heavier tails than the
    normal's.

    When to use: values are real, a few of them far out.

    The scale is softplus of its parameter, and at least machine epsilon.

    Args:
        event_shape: shape of one example, an int or a tuple; `()` for a scalar.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., 2 * prod(event_shape)]`, all locations, then all unconstrained scales.

    Output:
        `tfd.Independent(tfd.Logistic)`, batch shape `[...]`, event shape `event_shape`.

    Raises:
        ValueError: if `event_shape` is not a shape, or `params` has another size.

    Example:
    >>> import tensorflow as tf
    >>> p = IndependentLogistic([2])(tf.zeros([3, IndependentLogistic.params_size([2])]))
    >>> p.stddev()[0].numpy().round(3)
    array([1.257, 1.257], dtype=float32)
    """

    roles = ("likelihood",)
    pixels = "unit"
    base = tfd.Logistic


@keras.saving.register_keras_serializable(package="tfp_vae")
class IndependentStudentT(OfOneClass):
    """Independent Student's t distributions: for real-valued data with outliers.

    When to use: values are real, and outliers must not bend the model.

    The degrees of freedom are softplus of their parameter, plus 2.001, so mean and variance exist;
    the scale is softplus of its parameter. For heavier tails, or fixed degrees of freedom, see
    `Independent`.

    Reference: Takahashi et al., 2018, Student-t Variational Autoencoder for Robust Density
        Estimation (IJCAI).

    Args:
        event_shape: shape of one example, an int or a tuple; `()` for a scalar.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., 3 * prod(event_shape)]`, all unconstrained degrees of freedom, then all
            locations, then all unconstrained scales.

    Output:
        `tfd.Independent(tfd.StudentT)`, batch shape `[...]`, event shape `event_shape`.

    Raises:
        ValueError: if `event_shape` is not a shape, or `params` has another size.

    Example:
    >>> import tensorflow as tf
    >>> p = IndependentStudentT([2])(tf.zeros([3, IndependentStudentT.params_size([2])]))
    >>> p.distribution.df[0].numpy().round(3)
    array([2.694, 2.694], dtype=float32)
    """

    roles = ("likelihood",)
    pixels = "unit"
    base = tfd.StudentT
    lowest = {"df": MIN_DF}


@keras.saving.register_keras_serializable(package="tfp_vae")
class IndependentContinuousBernoulli(OfOneClass):
    """Independent continuous Bernoulli distributions: for values in [0, 1], such as grey levels.

    When to use: values are grey levels in [0, 1], many of them near the ends.

    Unlike with the Bernoulli distribution, `log_prob` of a value strictly between 0 and 1 is a true
    log-density.

    Reference: Loaiza-Ganem & Cunningham, 2019, The continuous Bernoulli, arXiv:1907.06845.

    Args:
        event_shape: shape of one example, an int or a tuple; `()` for a scalar.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., prod(event_shape)]`, the logits.

    Output:
        `tfd.Independent(tfd.ContinuousBernoulli)`, batch shape `[...]`, event shape `event_shape`.

    Raises:
        ValueError: if `event_shape` is not a shape, or `params` has another size.

    Example:
    >>> import tensorflow as tf
    >>> p = IndependentContinuousBernoulli([2])(tf.zeros([3, IndependentContinuousBernoulli.params_size([2])]))
    >>> p.prob([0.2, 0.7]).numpy().round(4)
    array([1., 1., 1.], dtype=float32)
    """

    roles = ("likelihood",)
    pixels = "scaled"
    base = tfd.ContinuousBernoulli


@own
class Beta(tfd.Beta):
    """TFP's distribution, with a positive density at 0 and 1."""

    def _log_prob(self, x):
        return super()._log_prob(tf.clip_by_value(x, NEAREST, 1.0 - NEAREST))


@keras.saving.register_keras_serializable(package="tfp_vae")
class IndependentBeta(OfOneClass):
    """Independent beta distributions: for shares and intensities from 0 to 1 whose spread differs
    from value to value.

    When to use: values are shares, strictly between 0 and 1, some known better than others.

    Both concentrations are softplus of their parameter, plus 1, so the density is bounded. The
    density may be 0 at 0 and 1, so these values get the density at a distance of 1e-6.

    Args:
        event_shape: shape of one example, an int or a tuple; `()` for a scalar.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., 2 * prod(event_shape)]`, all unconstrained concentrations towards 1, then all
            towards 0.

    Output:
        `tfd.Independent(tfd.Beta)`, batch shape `[...]`, event shape `event_shape`.

    Raises:
        ValueError: if `event_shape` is not a shape, or `params` has another size.

    Example:
    >>> import tensorflow as tf
    >>> p = IndependentBeta([2])(tf.zeros([3, IndependentBeta.params_size([2])]))
    >>> p.mean()[0].numpy().round(4), p.log_prob([[0., 1.]]).numpy().round(3)[0]
    (array([0.5, 0.5], dtype=float32), np.float32(-16.599))
    """

    roles = ("likelihood",)
    pixels = "unit"
    base = Beta
    lowest = {"concentration1": MIN_CONCENTRATION, "concentration0": MIN_CONCENTRATION}


@keras.saving.register_keras_serializable(package="tfp_vae")
class Deterministic(OfOneClass):
    """All probability on one value: with this posterior, a VAE is a plain autoencoder.

    When to use: x is to be compressed, and no likelihood of it is asked for; new examples need a
    prior that is fitted to the codes after training.

    Its log-probability is 0 at that value and -inf elsewhere. The KL divergence to a prior with a
    density is infinite, so a VAE uses -log p(z) instead, a penalty on z, which
    `objectives.ELBO(beta=0.0)` leaves out. It cannot be a likelihood.

    Args:
        event_shape: shape of one example, an int or a tuple; `()` for a scalar.
        convert_to_tensor_fn, validate_args: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: `[..., prod(event_shape)]`, the values.

    Output:
        `tfd.Independent(tfd.Deterministic)`, batch shape `[...]`, event shape `event_shape`.

    Raises:
        ValueError: if `event_shape` is not a shape, or `params` has another size.

    Example:
    >>> import tensorflow as tf
    >>> q = Deterministic(2)(tf.constant([[1., 2.]]))
    >>> q.sample().numpy(), q.log_prob([[1., 2.]]).numpy()
    (array([[1., 2.]], dtype=float32), array([0.], dtype=float32))
    """

    roles = ("posterior",)
    base = tfd.Deterministic


@values_of.register(tfd.Deterministic)
@values_of.register(tfd.VectorDeterministic)
def _(point: tfd.Distribution) -> Values:
    advice = "It is no likelihood: end the decoder in IndependentNormal"
    return Values("only its own location", lambda x: False, advice, is_point=True)
