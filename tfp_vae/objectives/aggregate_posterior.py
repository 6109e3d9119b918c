"""Objectives about the aggregate posterior q(z), the mean of q(z|x) over the data.

The batch stands for the data.

Each term of an example depends on its batch, so the loss is a property of the batch. Larger batches
tell more. Under a distribution strategy it is the whole batch, which the replicas gather; only the
discriminator of `FactorVAE` shuffles the rows of its replica among themselves.
"""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import networks, replicas, sampling
from tfp_vae.checks import as_count, one_of
from tfp_vae.layers.parts import innermost, is_joint
from tfp_vae.layers.tensor_like import is_a
from tfp_vae.objectives.gradients import with_gradient_of
from tfp_vae.objectives.one_pass import (
    Objective,
    OnePass,
    Schedule,
    as_vectors,
    as_weight,
    elbo_terms,
    factors,
    is_reparameterized,
)

__all__ = ["DIPVAE", "WAE", "BetaTCVAE", "FactorVAE", "InfoVAE", "max_mean_discrepancy"]

tfd = tfp.distributions
psd_kernels = tfp.math.psd_kernels
# Factors of the kernel's constant, which is 2 * latent size for a prior of unit variance
# (Tolstikhin et al., 2018).
KERNEL_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


@keras.saving.register_keras_serializable(package="tfp_vae")
class BetaTCVAE(Objective):
    """The negative ELBO with its KL divergence split into parts, so that the total correlation
    has its own weight.

    When to use: dimensions of z are to be independent factors, at less cost in reconstruction
    than by beta.

    KL(q(z|x) || p(z)), averaged over the data, is the mutual information of x and z, plus the total
    correlation KL(q(z) || prod q(z_j)), plus the sum of KL(q(z_j) || p(z_j)).

    Reference: Chen et al., 2018, Isolating sources of disentanglement in variational autoencoders,
        arXiv:1802.04942.

    Args:
        dataset_size: number of training examples.
        beta: weight of the total correlation: a number of at least 0, or a Keras schedule.
        alpha: weight of the mutual information.
        gamma: weight of the dimension-wise KL divergence.
        estimator: how q(z) is estimated from a batch: "weighted" (the paper's minibatch-weighted
            sampling, biased low), or "stratified" (unbiased; the paper's, averaged over the choice
            of its special example).

    Raises:
        ValueError: if a number is out of range, or the posterior does not factorize.

    Example:
    >>> BetaTCVAE(dataset_size=60_000, beta=6.0).beta
    6.0
    """

    has_scheduled_beta = True

    def __init__(
        self,
        dataset_size: int,
        beta: float | Schedule = 6.0,
        *,
        alpha: float = 1.0,
        gamma: float = 1.0,
        estimator: str = "weighted",
        **kwargs,
    ):
        arguments = {
            "dataset_size": as_count(dataset_size, "dataset_size"),
            "beta": as_weight(beta, "beta"),
            "alpha": as_weight(alpha, "alpha"),
            "gamma": as_weight(gamma, "gamma"),
            "estimator": one_of(("weighted", "stratified"), estimator, "estimator"),
        }
        super().__init__(arguments, **kwargs)

    @classmethod
    def arguments_of_data(cls, num_examples: int) -> dict:
        return {"dataset_size": num_examples}

    def check(self, posterior: tfd.Distribution, prior: tfd.Distribution) -> None:
        factors(posterior, "BetaTCVAE")

    def terms(self, one_pass: OnePass) -> dict[str, tf.Tensor]:
        z = one_pass.sample([])
        log_marginal, log_product = self.log_aggregate(one_pass.posterior, z)
        information = one_pass.posterior.log_prob(z) - log_marginal
        total_correlation = log_marginal - log_product
        dimension_wise = log_product - one_pass.prior.log_prob(z)
        terms = elbo_terms(one_pass, z)
        weights = (one_pass.value_of(weight) for weight in (self.alpha, self.beta, self.gamma))
        penalty = sum(
            w * part
            for w, part in zip(
                weights, (information, total_correlation, dimension_wise), strict=True
            )
        )
        return {**terms, "loss": penalty - terms["log_likelihood"]}

    def log_aggregate(
        self, posterior: tfd.Distribution, z: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Estimate log q(z) and the sum of log q(z_j) at each z of the batch, both `[batch]`."""
        # Row i, column j: the density of draw i under the posterior of example j.
        log_each = _of_all_replicas(factors(posterior)).log_prob(z[:, tf.newaxis])
        log_weights = self._log_weights(tf.shape(z)[0], tf.shape(log_each)[1], z.dtype)
        log_marginal = tf.reduce_logsumexp(log_weights + tf.reduce_sum(log_each, -1), 1)
        log_product = tf.reduce_sum(
            tf.reduce_logsumexp(log_weights[..., tf.newaxis] + log_each, 1), -1
        )
        return log_marginal, log_product

    def _log_weights(self, num_draws: tf.Tensor, batch_size: tf.Tensor, dtype: tf.DType):
        """Return the log weight of each example of the batch in the estimate of q(z) at each draw,
        `[num_draws, batch]`.
        """
        batch = tf.cast(batch_size, dtype)
        size = tf.cast(self.dataset_size, dtype)
        places = replicas.first_row(num_draws) + tf.range(num_draws)
        own = places[:, tf.newaxis] == tf.range(batch_size)
        if self.estimator == "weighted":
            return tf.where(own, -tf.math.log(batch * size), -tf.math.log(batch * size))
        others = tf.math.log(tf.math.divide_no_nan(size - 1.0, size * (batch - 1.0)))
        return tf.where(own, -tf.math.log(size), others)


@keras.saving.register_keras_serializable(package="tfp_vae")
class FactorVAE(Objective):
    """The negative ELBO plus the total correlation of the aggregate posterior, which a
    discriminator estimates.

    When to use: dimensions of z are to be independent factors, and a second network may be
    trained.

    The discriminator tells draws of q(z) from draws whose dimensions are shuffled over the batch.
    It is trained in the same step, by the same optimizer; its own loss is not part of the reported
    one.

    Reference: Kim & Mnih, 2018, Disentangling by factorising, arXiv:1802.05983.

    Args:
        gamma: weight of the total correlation: a number of at least 0, or a Keras schedule.
        hidden_sizes: width of each hidden layer of the discriminator.

    Raises:
        ValueError: if `gamma` is out of range.

    Example:
    >>> FactorVAE(gamma=10.0, hidden_sizes=(256, 256)).gamma
    10.0
    """

    def __init__(self, gamma: float | Schedule = 10.0, *, hidden_sizes=(1000,) * 6, **kwargs):
        sizes = tuple(as_count(size, "hidden_sizes") for size in hidden_sizes)
        super().__init__({"gamma": as_weight(gamma, "gamma"), "hidden_sizes": sizes}, **kwargs)
        self.built = False

    def build(self, latent_shape):
        self.discriminator = networks.mlp(
            latent_shape, 1, hidden_sizes=self.hidden_sizes, activation="leaky_relu"
        )
        self.built = True

    def terms(self, one_pass: OnePass) -> dict[str, tf.Tensor]:
        draws = one_pass.sample([])
        terms = elbo_terms(one_pass, draws)
        z = as_vectors(draws)
        fixed_z = tf.stop_gradient(z)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(fixed_z)
            logit = self.discriminator(fixed_z)[:, 0]
        slope = tf.stop_gradient(tape.gradient(logit, fixed_z))
        total_correlation = with_gradient_of(tf.reduce_sum(slope * z, -1), logit)
        shuffled = self.discriminator(_shuffle_dims(fixed_z, tf.random.fold_in(one_pass.seed, 1)))[
            :, 0
        ]
        discriminator_loss = 0.5 * (tf.nn.softplus(-logit) + tf.nn.softplus(shuffled))
        loss = one_pass.value_of(self.gamma) * total_correlation - terms["elbo"]
        return {**terms, "loss": with_gradient_of(loss + discriminator_loss, loss)}


@keras.saving.register_keras_serializable(package="tfp_vae")
class InfoVAE(Objective):
    """The negative ELBO with part of the KL divergence replaced by the maximum mean discrepancy
    of q(z) and p(z).

    When to use: codes collapse, and are still to be distributed as the prior.

    loss = -log p(x|z) + (1 - alpha) KL(q(z|x) || p(z)) + (alpha + weight - 1) MMD(q(z), p(z)). The
    discrepancy is estimated without bias from the batch and an equal number of draws of the prior,
    with a sum of rational quadratic kernels.

    Reference: Zhao et al., 2019, InfoVAE, arXiv:1706.02262; kernel: Tolstikhin et al., 2018,
        arXiv:1711.01558.

    Args:
        alpha: share of the KL divergence that is left out, at most 1.
        weight: the paper's lambda, at least 1 - alpha.

    Raises:
        ValueError: if a number is out of range.

    Example:
    >>> InfoVAE(alpha=0.0, weight=1000.0).weight
    1000.0
    """

    def __init__(self, alpha: float = 0.0, weight: float = 1000.0, **kwargs):
        if not (-np.inf < alpha <= 1.0 and 1.0 - alpha <= weight < np.inf):
            raise ValueError(
                f"alpha must be at most 1 and weight at least 1 - alpha, received alpha={alpha!r}, "
                f"weight={weight!r}."
            )
        super().__init__({"alpha": float(alpha), "weight": float(weight)}, **kwargs)

    def check(self, posterior: tfd.Distribution, prior: tfd.Distribution) -> None:
        _expect_path(prior, "InfoVAE")

    def terms(self, one_pass: OnePass) -> dict[str, tf.Tensor]:
        z = one_pass.sample([])
        terms = elbo_terms(one_pass, z)
        discrepancy = _discrepancy_to_prior(one_pass, z)
        penalty = (1.0 - self.alpha) * terms["kl"] + (self.alpha + self.weight - 1.0) * discrepancy
        return {**terms, "loss": penalty - terms["log_likelihood"]}


@keras.saving.register_keras_serializable(package="tfp_vae")
class WAE(Objective):
    """The Wasserstein autoencoder's loss with the maximum mean discrepancy: no KL divergence at
    all.

    When to use: reconstructions and the distribution of the codes matter, and no likelihood
    does.

    loss = -log p(x|z) + weight MMD(q(z), p(z)), as `InfoVAE` with alpha = 1.

    Reference: Tolstikhin et al., 2018, Wasserstein auto-encoders, arXiv:1711.01558.

    Args:
        weight: of the discrepancy: a number of at least 0, or a Keras schedule.

    Raises:
        ValueError: if `weight` is out of range.

    Example:
    >>> WAE(weight=100.0).weight
    100.0
    """

    def __init__(self, weight: float | Schedule = 10.0, **kwargs):
        super().__init__({"weight": as_weight(weight, "weight")}, **kwargs)

    def check(self, posterior: tfd.Distribution, prior: tfd.Distribution) -> None:
        _expect_path(prior, "WAE")

    def terms(self, one_pass: OnePass) -> dict[str, tf.Tensor]:
        z = one_pass.sample([])
        terms = elbo_terms(one_pass, z)
        discrepancy = _discrepancy_to_prior(one_pass, z)
        return {
            **terms,
            "loss": one_pass.value_of(self.weight) * discrepancy - terms["log_likelihood"],
        }


@keras.saving.register_keras_serializable(package="tfp_vae")
class DIPVAE(Objective):
    """The negative ELBO plus a penalty that pulls the covariance of z over the data towards the
    identity.

    When to use: dimensions of z are to be uncorrelated, at next to no cost in time.

    Reference: Kumar et al., 2018, Variational inference of disentangled latent concepts from
    unlabeled observations, arXiv:1711.00848.

    Args:
        off_diagonal: weight of the squared covariances.
        diagonal: weight of the squared distances of the variances to 1.
        kind: 1 for the covariance of the posterior's mean; 2 for the covariance of z, which adds
            the posterior's average covariance.

    Raises:
        ValueError: if a number is out of range, TFP has no mean for the posterior, or z is not a
            vector.

    Example:
    >>> DIPVAE(off_diagonal=10.0, diagonal=100.0, kind=1).kind
    1
    """

    def __init__(self, off_diagonal: float = 10.0, diagonal: float = 10.0, kind: int = 2, **kwargs):
        arguments = {
            "off_diagonal": as_weight(off_diagonal, "off_diagonal"),
            "diagonal": as_weight(diagonal, "diagonal"),
            "kind": one_of((1, 2), kind, "kind"),
        }
        super().__init__(arguments, **kwargs)

    def check(self, posterior: tfd.Distribution, prior: tfd.Distribution) -> None:
        if not is_joint(posterior) and posterior.event_shape.rank != 1:
            raise ValueError(
                "DIPVAE is about the covariance of vectors z, received the posterior "
                f"{type(posterior).__name__} of event shape {tuple(posterior.event_shape)}. Use a "
                "posterior over vectors, or another objective."
            )
        try:
            if is_joint(posterior) or len(posterior.event_shape) > 1:
                raise NotImplementedError
            posterior.mean()
        except NotImplementedError as error:
            name = type(innermost(posterior)).__name__.lstrip("_")
            raise ValueError(
                f"DIPVAE is about the mean of q(z|x), but TFP knows none of {name}. Use a posterior "
                "that has one, such as MultivariateNormalDiag or a straight-through one, or "
                "another objective."
            ) from error

    def terms(self, one_pass: OnePass) -> dict[str, tf.Tensor]:
        terms = elbo_terms(one_pass, one_pass.sample([]))
        posterior = one_pass.posterior
        means = replicas.gather(posterior.mean())
        covariance = tfp.stats.covariance(means, sample_axis=0, event_axis=-1)
        if self.kind == 2:
            covariance += replicas.mean(_covariance(posterior), 0)
        variances = tf.linalg.diag_part(covariance)
        off_diagonal = tf.reduce_sum(covariance**2) - tf.reduce_sum(variances**2)
        penalty = one_pass.value_of(self.off_diagonal) * off_diagonal
        penalty += one_pass.value_of(self.diagonal) * tf.reduce_sum((variances - 1.0) ** 2)
        return {**terms, "loss": penalty - terms["elbo"]}


def max_mean_discrepancy(z: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Estimate the squared maximum mean discrepancy of two samples, `[n, latent]` and `[m,
    latent]`, without bias; of a sample of one example, without the distances within it.

    Reference: Gretton et al., 2012, A kernel two-sample test, JMLR 13.

    >>> z = tf.random.stateless_normal([500, 2], [0, 1])
    >>> bool(abs(max_mean_discrepancy(z, tf.random.stateless_normal([500, 2], [0, 2]))) < 0.02)
    True
    """
    size = tf.cast(tf.shape(z)[-1], z.dtype)
    # RationalQuadratic with mixture rate 1 is the inverse multiquadratic kernel C / (C +
    # distance^2), C = 2 scale^2.
    kernels = [
        psd_kernels.RationalQuadratic(
            length_scale=tf.sqrt(scale * size), scale_mixture_rate=tf.ones([], z.dtype)
        )
        for scale in KERNEL_SCALES
    ]

    def within(x):
        number = tf.cast(tf.shape(x)[0], x.dtype)
        matrix = sum(kernel.matrix(x, x) for kernel in kernels)
        others = tf.reduce_sum(matrix) - tf.linalg.trace(matrix)
        return tf.math.divide_no_nan(others, number * (number - 1.0))

    between = tf.reduce_mean(sum(kernel.matrix(z, other) for kernel in kernels))
    return within(z) + within(other) - 2.0 * between


def _of_all_replicas(distribution: tfd.Distribution) -> tfd.Distribution:
    """Return factors with a batch of `[batch, latent]` as those of the examples of all replicas."""
    shape = distribution.batch_shape_tensor()
    own = {name: distribution.parameters[name] for name in distribution.parameter_properties()}
    return distribution.copy(
        **{
            name: replicas.gather(tf.broadcast_to(value, shape))
            for name, value in own.items()
            if value is not None
        }
    )


def _expect_path(prior: tfd.Distribution, objective: str) -> None:
    """Refuse a prior whose draws have no gradient.

    A trained mixture would be trained wrongly, or not at all.
    """
    if not is_reparameterized(prior):
        raise ValueError(
            f"{objective} compares draws of the posterior with draws of the prior, but those of "
            f"{type(prior).__name__} are not reparameterized. Use a prior such as Normal, or "
            "another objective."
        )


def _discrepancy_to_prior(one_pass: OnePass, z: tf.Tensor) -> tf.Tensor:
    vectors = as_vectors(z)
    prior = one_pass.prior
    is_conditional = tf.nest.flatten(prior.batch_shape)[0].rank == 1
    number = [] if is_conditional else tf.shape(vectors)[:1]
    other = as_vectors(sampling.sample(prior, number, tf.random.fold_in(one_pass.seed, 1)))
    return max_mean_discrepancy(replicas.gather(vectors), replicas.gather(other))


def _shuffle_dims(z: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Shuffle each dimension over the batch independently."""
    order = tf.argsort(tf.random.stateless_uniform(tf.shape(z), seed), 0)
    return tf.experimental.numpy.take_along_axis(z, order, 0)


def _covariance(posterior: tfd.Distribution) -> tf.Tensor:
    """Return the covariance matrices, `[batch, latent, latent]`."""
    if is_a(posterior, tfd.Independent):
        return tf.linalg.diag(posterior.variance())
    return posterior.covariance()
