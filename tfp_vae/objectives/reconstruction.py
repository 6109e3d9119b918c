"""The objective of autoencoders: the posterior is a point, so there is no KL divergence."""

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.values import is_point
from tfp_vae.objectives.one_pass import Objective, OnePass, Schedule, as_vectors, as_weight

__all__ = ["Reconstruction"]

tfd = tfp.distributions


@keras.saving.register_keras_serializable(package="tfp_vae")
class Reconstruction(Objective):
    """The loss of a deterministic autoencoder: -log p(x|z) at the code z, and a penalty on long
    codes.

    When to use: the posterior is `layers.Deterministic`.

    It goes with a `layers.Deterministic` posterior, whose KL divergence to any density is infinite:
    there is no ELBO and no log p(x). `log_likelihood` is log p(x|z); `kl` is reported as 0 and
    `elbo` as `log_likelihood`, which bounds nothing. With a latent penalty and a
    `kernel_regularizer=keras.regularizers.L2(...)` in the decoder's layers it is the regularized
    autoencoder RAE-L2. In both cases no prior has shaped the codes: `fit_aggregate_prior` fits one
    to them. Without it, `generate` decodes the draws of a prior that training never used.

    Reference: Ghosh et al., 2020, From variational to deterministic autoencoders, arXiv:1903.12436.

    Args:
        latent_penalty: weight of half the squared length of z, as in its negative log-density
            under N(0, I): a number of at least 0, or a Keras schedule.

    Raises:
        ValueError: if `latent_penalty` is out of range, or the posterior has a density.

    Example:
    >>> Reconstruction(latent_penalty=0.01).latent_penalty
    0.01
    """

    takes_points = True

    def __init__(self, latent_penalty: float | Schedule = 0.0, **kwargs):
        super().__init__({"latent_penalty": as_weight(latent_penalty, "latent_penalty")}, **kwargs)

    def check(self, posterior: tfd.Distribution, prior: tfd.Distribution) -> None:
        if not is_point(posterior):
            raise ValueError(
                "Reconstruction is the loss of a deterministic autoencoder, received the posterior "
                f"{type(posterior).__name__}. End the encoder in tfp_vae.layers.Deterministic, or "
                "use ELBO(beta=0.0)."
            )

    def terms(self, one_pass: OnePass) -> dict[str, tf.Tensor]:
        z = one_pass.sample([])
        log_likelihood = one_pass.log_likelihood(z)
        penalty = (
            0.5 * one_pass.value_of(self.latent_penalty) * tf.reduce_sum(as_vectors(z) ** 2, -1)
        )
        kl = tf.zeros_like(log_likelihood)
        return {
            "loss": penalty - log_likelihood,
            "elbo": log_likelihood,
            "log_likelihood": log_likelihood,
            "kl": kl,
        }
