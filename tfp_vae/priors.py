"""Priors p(z): Keras layers that are called with None and return a `tfd.Distribution`."""

import abc

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.shapes import as_event_size

tfd = tfp.distributions


class Prior(keras.layers.Layer, abc.ABC):
    """Base of all priors.

    To add one: subclass, implement `call(inputs)` (inputs is None) so that it returns a `tfd.Distribution` built anew
    in each call, make trainable parameters with `add_weight`, extend `get_config`, decorate with
    `keras.saving.register_keras_serializable`, name it in `__all__` and give it a row in `tests/test_priors.py`.

    Args:
        event_size: number of latent dimensions.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: if `event_size` is not a positive integer.
    """

    def __init__(self, event_size: int, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.event_size = as_event_size(event_size)
        self.built = True

    @abc.abstractmethod
    def call(self, inputs=None) -> tfd.Distribution:
        """Give p(z), batch shape `[]`, event shape `[event_size]`."""

    def get_config(self) -> dict:
        return {**super().get_config(), "event_size": self.event_size}


@keras.saving.register_keras_serializable(package="tfp_vae")
class StandardNormal(Prior):
    """The standard normal prior N(0, I): the usual choice, without parameters.

    Reference: Kingma & Welling, 2014, Auto-Encoding Variational Bayes, arXiv:1312.6114.

    Args:
        event_size: number of latent dimensions.

    Call arguments:
        inputs: None.

    Output:
        `tfd.MultivariateNormalDiag`, batch shape `[]`, event shape `[event_size]`.

    Example:
    >>> StandardNormal(2)(None).log_prob([0., 0.]).numpy().round(4)
    np.float32(-1.8379)
    """

    def call(self, inputs=None) -> tfd.Distribution:
        zeros = tf.zeros([self.event_size], self.variable_dtype)
        return tfd.MultivariateNormalDiag(zeros, tf.ones_like(zeros))


__all__ = ["Prior", "StandardNormal"]
