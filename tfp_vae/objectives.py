"""Objectives: what one stochastic pass produced goes in, loss terms for each example come out, in nats."""

import abc
import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import sampling

tfd = tfp.distributions


@dataclasses.dataclass(frozen=True)
class OnePass:
    """What a VAE hands to its objective for one batch.

    Args:
        x: the data, `[batch, *event_shape]`.
        posterior: q(z|x), batch shape `[batch]`.
        prior: p(z), batch shape `[]`.
        likelihood: function of z, `[any number, latent]`, that gives p(x|z), batch shape `[any number]`.
        seed: int32 `[2]`, the stateless seed of every draw.
        step: the optimizer's step in training, None in evaluation.
    """

    x: tf.Tensor
    posterior: tfd.Distribution
    prior: tfd.Distribution
    likelihood: Callable[[tf.Tensor], tfd.Distribution]
    seed: tf.Tensor
    step: tf.Tensor | None = None

    def log_densities(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Evaluate log p(x|z), log p(z) and log q(z|x), each `[*sample_shape, batch]`, at the given z."""
        batch, event = tf.shape(z)[:-1], tf.shape(self.x)[1:]
        # All sample axes are folded into the batch, which is what a Keras network takes; x is repeated along them.
        flat_z = tf.reshape(z, [-1, z.shape[-1]])
        flat_x = tf.reshape(tf.broadcast_to(self.x, tf.concat([batch, event], 0)), tf.concat([[-1], event], 0))
        log_likelihood = tf.reshape(self.likelihood(flat_z).log_prob(flat_x), batch)
        return log_likelihood, self.prior.log_prob(z), self.posterior.log_prob(z)

    def kl(self, log_prior: tf.Tensor, log_posterior: tf.Tensor) -> tf.Tensor:
        """Give KL(q(z|x) || p(z)), analytic where TFP has it, else estimated from the densities at drawn z."""
        kl = analytic_kl(self.posterior, self.prior)
        return log_posterior - log_prior if kl is None else kl


class Objective(keras.layers.Layer, abc.ABC):
    """Base of all objectives.

    To add one: subclass, implement `terms(one_pass)`, extend `get_config`, decorate with
    `keras.saving.register_keras_serializable`, name it in `__all__` and give it a row in `tests/test_objectives.py`.
    It is a Keras layer, so it may own weights; `terms` is called directly.
    """

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.built = True

    @abc.abstractmethod
    def terms(self, one_pass: OnePass) -> dict[str, tf.Tensor]:
        """Give `loss`, `elbo`, `log_likelihood` and `kl`, each `[batch]`, in nats."""

    def call(self, *args):
        raise TypeError(f"Call {type(self).__name__}.terms(one_pass): an objective is not a function of tensors.")


@keras.saving.register_keras_serializable(package="tfp_vae")
class ELBO(Objective):
    """The negative evidence lower bound, with the KL divergence weighted by beta in the loss.

    The KL divergence is TFP's analytic one where TFP registers the pair of posterior and prior, else
    log q(z|x) - log p(z) at the draw that is decoded; `kl_is_analytic` says which. The reported `elbo` has beta 1.

    Reference: Kingma & Welling, 2014, arXiv:1312.6114; beta: Higgins et al., 2017, beta-VAE (ICLR).

    Args:
        beta: weight of the KL divergence in the loss, at least 0.

    Raises:
        ValueError: if `beta` is negative or not finite.

    Example:
    >>> ELBO(beta=4.0).get_config()["beta"]
    4.0
    """

    def __init__(self, beta: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= beta < float("inf"):
            raise ValueError(f"beta must be a finite number of at least 0, received {beta!r}.")
        self.beta = float(beta)

    def terms(self, one_pass: OnePass) -> dict[str, tf.Tensor]:
        z = sampling.sample(one_pass.posterior, [], one_pass.seed)
        log_likelihood, log_prior, log_posterior = one_pass.log_densities(z)
        kl = one_pass.kl(log_prior, log_posterior)
        return {
            "loss": self.beta * kl - log_likelihood,
            "elbo": log_likelihood - kl,
            "log_likelihood": log_likelihood,
            "kl": kl,
        }

    def get_config(self) -> dict:
        return {**super().get_config(), "beta": self.beta}


def analytic_kl(posterior: tfd.Distribution, prior: tfd.Distribution) -> tf.Tensor | None:
    """Give KL(posterior || prior), `[batch]`, in nats, or None where TFP has no closed form for the pair.

    >>> analytic_kl(tfd.Normal(1., 1.), tfd.Normal(0., 1.)).numpy()
    np.float32(0.5)
    >>> analytic_kl(tfd.Normal(1., 1.), tfd.StudentT(3., 0., 1.)) is None
    True
    """
    try:
        return tfd.kl_divergence(posterior, prior)
    except NotImplementedError:
        return None


def importance_sampled_log_prob(
    one_pass: OnePass,
    num_samples: int,
    *,
    draws_per_step: int = 1,
    draw: Callable[[tfd.Distribution, int, tf.Tensor], tf.Tensor] | None = None,
) -> tf.Tensor:
    """Estimate log p(x) as log of the mean of p(x|z) p(z) / q(z|x) over draws of z from q, `[batch]`, in nats.

    Reference: Burda et al., 2016, Importance Weighted Autoencoders, arXiv:1509.00519.

    Args:
        one_pass: the batch.
        num_samples: draws for each example.
        draws_per_step: draws held in memory at once.
        draw: function (posterior, number, seed) -> z, `[number, batch, latent]`; None takes `sampling.sample`.
    """
    draw = draw or sampling.sample

    def add_draws(step, log_sum):
        z = draw(one_pass.posterior, draws_per_step, tf.random.fold_in(one_pass.seed, step))
        log_likelihood, log_prior, log_posterior = one_pass.log_densities(z)
        log_weights = log_likelihood + log_prior - log_posterior
        wanted = step * draws_per_step + tf.range(draws_per_step) < num_samples
        log_weights = tf.where(wanted[:, tf.newaxis], log_weights, -np.inf)
        return step + 1, tf.reduce_logsumexp(tf.concat([log_sum[tf.newaxis], log_weights], 0), 0)

    steps = -(-num_samples // draws_per_step)
    nothing = tf.fill([tf.shape(one_pass.x)[0]], tf.constant(-np.inf, one_pass.posterior.dtype))
    # XLA finds the loop's gradient only if it knows how often it runs.
    loop = tf.while_loop(lambda step, _: step < steps, add_draws, (tf.constant(0), nothing), maximum_iterations=steps)
    return loop[1] - tf.math.log(tf.cast(num_samples, loop[1].dtype))


def kl_is_analytic(posterior: tfd.Distribution, prior: tfd.Distribution) -> bool:
    """Say whether `ELBO` uses a closed form (True) or Monte Carlo (False) for this pair.

    >>> kl_is_analytic(tfd.Normal(1., 1.), tfd.Normal(0., 1.))
    True
    """
    return analytic_kl(posterior, prior) is not None


__all__ = ["ELBO", "Objective", "OnePass", "analytic_kl", "importance_sampled_log_prob", "kl_is_analytic"]
