"""What the codes of a VAE hold: active units, mutual information, perplexity."""

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import objectives, sampling
from tfp_vae.batch import first
from tfp_vae.checks import as_count
from tfp_vae.evaluation.batches import each_batch, moments_over, over_batches
from tfp_vae.evaluation.errors import Estimate, mean_of
from tfp_vae.layers.fold import named_inputs
from tfp_vae.layers.parts import has_dependent_parts
from tfp_vae.layers.vector_quantized import is_quantized
from tfp_vae.surface import takes_frames
from tfp_vae.vae import VAE

__all__ = [
    "active_units",
    "aggregate_kl",
    "codes",
    "mutual_information",
    "perplexity",
    "posterior_means",
]

tfd = tfp.distributions

# A latent dimension is active when its posterior mean varies over the data by more than this (Burda
# et al., 2016).
ACTIVE_VARIANCE = 0.01
# Number of posteriors under which all codes are judged at once.
DENSITIES_AT_ONCE = 100


@takes_frames
def mutual_information(
    vae: VAE,
    x: Any,
    *,
    num_examples: int = 2000,
    batch_size: int = 500,
    seed: int = 0,
    verbose: int = 0,
) -> Estimate:
    """Estimate the mutual information of x and z under q(z|x), in nats: what a code tells about its
    example.

    It is the mean of log q(z|x) - log q(z), where q(z) is the mean of q(z|x) over the examples. If
    the posterior has collapsed, it is 0 up to the error of the draws, and maybe below; it is at most
    the logarithm of the number of examples, so below that of all data if codes tell more. The
    standard error is over the draws, with q(z) as it is.

    Reference: Hoffman & Johnson, 2016, ELBO surgery; He et al., 2019, Lagging inference networks,
        arXiv:1901.05534.

    Args:
        vae: a built VAE.
        x: data as in `evaluate`.
        num_examples: how many examples are used, the first ones; memory grows with their square.
        batch_size: examples held in memory at once.
        seed: of the draws, one for each example.
        verbose: 1 shows a progress bar.

    Raises:
        ValueError: if the posterior has no density, or latents that depend on each other, as a
            hierarchy has.
    """
    _, log_q = _densities_of_codes(vae, x, num_examples, batch_size, seed, verbose)
    return mean_of(np.diagonal(log_q) - _log_aggregate(log_q))


@takes_frames
def aggregate_kl(
    vae: VAE,
    x: Any,
    *,
    num_examples: int = 2000,
    batch_size: int = 500,
    seed: int = 0,
    verbose: int = 0,
) -> Estimate:
    """Estimate KL(q(z) || p(z)), in nats: how far the codes of all examples together are from the
    prior.

    The mean of KL(q(z|x) || p(z)) over examples is the sum of this and of `mutual_information`. As
    q(z) is the mean of q(z|x) over finitely many examples, with its own x among them, the estimate
    is above that of all data, by as much as `mutual_information` is below. The standard error is
    over the draws, with q(z) as it is.

    Reference: Hoffman & Johnson, 2016, ELBO surgery.

    Args:
        vae: a built VAE.
        x: data as in `evaluate`.
        num_examples: how many examples are used, the first ones; memory grows with their square.
        batch_size: examples held in memory at once.
        seed: of the draws, one for each example.
        verbose: 1 shows a progress bar.

    Raises:
        ValueError: if `mutual_information` is not defined, or the prior depends on a condition.
    """
    if "condition" in named_inputs(vae.prior):
        raise ValueError(
            "The prior depends on the condition, so there is no one prior of all codes."
        )
    z, log_q = _densities_of_codes(vae, x, num_examples, batch_size, seed, verbose)
    log_prior = sampling.log_density(vae.prior_distribution(), z)
    return mean_of(_log_aggregate(log_q) - log_prior)


def _densities_of_codes(vae: VAE, x, num_examples: int, batch_size: int, seed: int, verbose: int):
    """Return a code for each example, and the log densities of all of them under the posterior of
    each, `[num_examples, num_codes]`.
    """
    if vae.encodes_to_points:
        raise ValueError("A Deterministic posterior has no density, so no finite information.")
    if has_dependent_parts(vae.some_posterior):
        raise ValueError(
            "The latents of this posterior depend on each other, so that its density at the codes of "
            "other examples is not computed. Use a posterior of one latent, or of groups."
        )
    number = as_count(num_examples, "num_examples")
    x = first(x, number)
    seeds = sampling.row_seeds(len(tf.nest.flatten(x)[0]), seed)
    drawn = over_batches(vae.compile_once(_draws), (x, seeds), batch_size)
    z = vae.z.whole({name: tf.constant(drawn[name]) for name in vae.z.shapes})

    def densities(batch, start):
        return {"log_q": tf.transpose(vae.compile_once(_densities)(batch, z))}

    log_q = over_batches(densities, x, min(batch_size, DENSITIES_AT_ONCE), verbose)["log_q"]
    return z, log_q.astype("float64")


def _log_aggregate(log_q: np.ndarray) -> np.ndarray:
    """Return log q(z) of each code, the mean of its densities under all posteriors."""
    return tf.reduce_logsumexp(log_q, axis=0).numpy() - np.log(len(log_q))


def _draws(vae: VAE, batch_and_seeds, start: tf.Tensor) -> dict[str, tf.Tensor]:
    batch, seeds = batch_and_seeds
    return vae.z.parts(sampling.sample_rows(vae.encode(batch), seeds))


def _densities(vae: VAE, batch, z) -> tf.Tensor:
    """Return log q(z|x) of all z under the posterior of each x, `[num_codes, batch]`."""
    spread = tf.nest.map_structure(lambda part: part[:, tf.newaxis], z)
    return sampling.log_density(vae.encode(batch), spread)


@takes_frames
def active_units(
    vae: VAE,
    x: Any,
    *,
    threshold: float = ACTIVE_VARIANCE,
    batch_size: int = 500,
    verbose: int = 0,
) -> int:
    """Count the latent dimensions whose posterior mean varies over the data by more than
    `threshold`.

    Data and `verbose` as in `evaluate`; memory does not grow with the number of examples.

    Reference: Burda et al., 2016, Importance Weighted Autoencoders, arXiv:1509.00519, section 5.1.
    """
    return count_active(variance_of_means(vae, x, batch_size, verbose), threshold)


@takes_frames
def variance_of_means(vae: VAE, x, batch_size: int = 500, verbose: int = 0) -> np.ndarray:
    """Return the variance over the data of each dimension of the posterior mean, `[latent]`."""
    return moments_over(vae.compile_once(means_of), x, batch_size, verbose)["mean"].variance


@takes_frames
def posterior_means(vae: VAE, x: Any, *, batch_size: int = 500, verbose: int = 0) -> np.ndarray:
    """Return the mean of q(z|x) for each example, `[num_examples, latent]`; data and
    `verbose` as in `evaluate`.

    Several latents are concatenated.
    """
    return over_batches(vae.compile_once(means_of), x, batch_size, verbose)["mean"]


@takes_frames
def codes(vae: VAE, x: Any, *, batch_size: int = 500, verbose: int = 0) -> np.ndarray:
    """Return the integer codes of a `layers.VectorQuantized` posterior for each example,
    `[num_examples, num_vectors]`; data and `verbose` as in `evaluate`.

    Raises:
        ValueError: if the posterior is of another kind.
    """
    return over_batches(vae.compile_once(_codes), x, batch_size, verbose)["codes"]


@takes_frames
def perplexity(vae: VAE, x: Any, *, batch_size: int = 500, verbose: int = 0) -> float:
    """Return the perplexity: the effective number of codes in use.

    It is the exponential of the entropy of the codes' frequencies over the data and all positions.

    It is 1 if only one code is used, and the number of codes if all are used equally often. Data
    and `verbose` as in `evaluate`; memory does not grow with the number of examples.

    Reference: van den Oord et al., 2017, Neural discrete representation learning, arXiv:1711.00937.
    """
    counts = np.zeros(1, "int64")
    for found in each_batch(vae.compile_once(_codes), x, batch_size, verbose):
        own = np.bincount(found["codes"].ravel(), minlength=len(counts))
        counts = own + np.pad(counts, [0, len(own) - len(counts)])
    return float(np.exp(tfd.Categorical(probs=counts / counts.sum()).entropy()))


def means_of(vae: VAE, batch, start: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"mean": objectives.as_vectors(sampling.point(vae.encode(batch)))}


def _codes(vae: VAE, batch, start: tf.Tensor) -> dict[str, tf.Tensor]:
    posterior = vae.encode(batch)
    if not is_quantized(posterior):
        raise ValueError(
            f"The posterior {type(posterior).__name__} has no integer codes. End the encoder in "
            "tfp_vae.layers.VectorQuantized."
        )
    return {"codes": posterior.codes}


def count_active(variances: np.ndarray, threshold: float) -> int:
    return int((variances > threshold).sum())
