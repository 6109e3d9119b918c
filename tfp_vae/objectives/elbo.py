"""The evidence lower bound and its weighted, floored and capacity-controlled forms."""

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import replicas
from tfp_vae.checks import as_count, one_of
from tfp_vae.objectives.gradients import Draws, expect_exact_path, surrogate, with_gradient_of
from tfp_vae.objectives.one_pass import (
    Objective,
    OnePass,
    Schedule,
    analytic_kl,
    as_weight,
    elbo_terms,
    factors,
)

__all__ = ["ELBO", "ControlledCapacity"]

tfd = tfp.distributions


@keras.saving.register_keras_serializable(package="tfp_vae")
class ELBO(Objective):
    """The negative evidence lower bound, with the KL divergence weighted by beta and floored by
    free bits in the loss.

    When to use: first; with beta, free bits and schedules against collapse, or for
    disentanglement.

    The KL divergence is TFP's analytic one where TFP registers the pair of posterior and prior,
    else log q(z|x) - log p(z) at the draws that are decoded; `kl_is_analytic` says which. The
    reported `elbo` has beta 1 and no free bits. Schedules act in training, at the optimizer's step;
    evaluation uses their final value.

    Reference: Kingma & Welling, 2014, arXiv:1312.6114; beta: Higgins et al., 2017, beta-VAE (ICLR);
    free bits: Kingma et al., 2016, arXiv:1606.04934; sticking the landing: Roeder et al., 2017,
    arXiv:1703.09194.

    Args:
        beta: weight of the KL divergence in the loss: a number of at least 0, or a Keras schedule.
        free_bits: nats of KL divergence in each latent dimension, averaged over the whole batch (of
            all replicas), that cost nothing: a number of at least 0, or a Keras schedule. It needs
            a posterior and a prior that factorize.
        kl: "analytic" (where TFP has a closed form), or "sampled".
        num_samples: draws of z for each example.
        estimator: "standard", or "stl" (sticking the landing), which leaves the posterior's score
            out of the gradient; the gradient then has no variance if the posterior is exact. "stl"
            needs kl="sampled", and does not take straight-through posteriors.

    Raises:
        ValueError: if a number is out of range, options exclude each other, or free bits are asked
            of a posterior or prior that does not factorize.

    Example:
    >>> ELBO(beta=4.0).get_config()["beta"]
    4.0
    """

    has_scheduled_beta = True

    def __init__(
        self,
        beta: float | Schedule = 1.0,
        *,
        free_bits: float | Schedule = 0.0,
        kl: str = "analytic",
        num_samples: int = 1,
        estimator: str = "standard",
        **kwargs,
    ):
        arguments = {
            "beta": as_weight(beta, "beta"),
            "free_bits": as_weight(free_bits, "free_bits"),
            "kl": one_of(("analytic", "sampled"), kl, "kl"),
            "num_samples": as_count(num_samples, "num_samples"),
            "estimator": one_of(("standard", "stl"), estimator, "estimator"),
        }
        super().__init__(arguments, **kwargs)
        if estimator == "stl" and (kl == "analytic" or free_bits != 0.0):
            raise ValueError(
                "estimator='stl' is about a sampled KL divergence: it takes kl='sampled' and no "
                f"free_bits, received kl={kl!r} and free_bits={free_bits!r}."
            )

    def check(self, posterior: tfd.Distribution, prior: tfd.Distribution) -> None:
        expect_exact_path(posterior, self.estimator, "ELBO")
        if self.free_bits != 0.0:
            for distribution in (posterior, prior):
                factors(distribution, "ELBO with free_bits")

    def terms(self, one_pass: OnePass) -> dict[str, tf.Tensor]:
        beta = one_pass.value_of(self.beta)
        draws = Draws(one_pass, self.num_samples) if self.estimator == "stl" else None
        z = draws.z if draws else one_pass.sample(self.num_samples)
        log_likelihood, log_prior, log_posterior = (
            tf.reduce_mean(part, 0)
            for part in (draws.densities if draws else one_pass.log_densities(z))
        )
        is_analytic = self.kl == "analytic"
        kl = one_pass.kl(log_prior, log_posterior) if is_analytic else log_posterior - log_prior
        loss = beta * self._floored(kl, z, one_pass) - log_likelihood
        if draws:
            share = 1.0 / self.num_samples
            bound = surrogate(draws, model=share, path=share, score=0.0, kl_weight=beta)
            loss = with_gradient_of(-bound, loss)
        return {
            "loss": loss,
            "elbo": log_likelihood - kl,
            "log_likelihood": log_likelihood,
            "kl": kl,
        }

    def _floored(self, kl: tf.Tensor, z: tf.Tensor, one_pass: OnePass) -> tf.Tensor:
        """Replace the KL divergence of each dimension by the free bits where it lies below them on
        average.
        """
        if self.free_bits == 0.0:
            return kl
        posterior = factors(one_pass.posterior)
        prior = factors(one_pass.prior)
        kl = analytic_kl(posterior, prior) if self.kl == "analytic" else None
        if kl is None:
            kl = tf.reduce_mean(posterior.log_prob(z) - prior.log_prob(z), 0)
        free_bits = one_pass.value_of(self.free_bits)
        return tf.reduce_sum(tf.where(replicas.mean(kl, 0) > free_bits, kl, free_bits), -1)


@keras.saving.register_keras_serializable(package="tfp_vae")
class ControlledCapacity(Objective):
    """The negative ELBO with the KL divergence pulled towards a given capacity instead of zero.

    When to use: a code is to hold a given number of nats.

    loss = gamma * |mean KL - capacity| - log p(x|z), with the mean over the whole batch (of all
    replicas). If a schedule raises the capacity, the code takes up one factor of variation after
    another.

    Reference: Burgess et al., 2018, Understanding disentangling in beta-VAE, arXiv:1804.03599.

    Args:
        capacity: nats of KL divergence: a number of at least 0, or a Keras schedule.
        gamma: weight of the distance to the capacity.

    Raises:
        ValueError: if a number is out of range.

    Example:
    >>> warm_up = keras.optimizers.schedules.PolynomialDecay(0.0, 10_000, 25.0)
    >>> ControlledCapacity(warm_up, gamma=100.0).gamma
    100.0
    """

    def __init__(self, capacity: float | Schedule, gamma: float = 1.0, **kwargs):
        super().__init__(
            {"capacity": as_weight(capacity, "capacity"), "gamma": as_weight(gamma, "gamma")},
            **kwargs,
        )

    def terms(self, one_pass: OnePass) -> dict[str, tf.Tensor]:
        terms = elbo_terms(one_pass, one_pass.sample([]))
        distance = tf.abs(replicas.mean(terms["kl"]) - one_pass.value_of(self.capacity))
        return {**terms, "loss": one_pass.value_of(self.gamma) * distance - terms["log_likelihood"]}
