"""The KL divergence of each latent dimension."""

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.evaluation.batches import moments_over
from tfp_vae.layers.parts import is_joint, parts_given
from tfp_vae.objectives.one_pass import analytic_kl, factors
from tfp_vae.seeds import Stream, seed_of
from tfp_vae.surface import takes_frames
from tfp_vae.vae import VAE

__all__ = ["kl_by_dimension"]

tfd = tfp.distributions


@takes_frames
def kl_by_dimension(
    vae: VAE, x: Any, *, batch_size: int = 500, verbose: int = 0
) -> dict[str, np.ndarray]:
    """Return the mean KL(q(z|x) || p(z)) of each latent dimension, `[size]`, in nats, by the names
    of the latents; a sole latent is called z.

    The values add up to the KL divergence. A latent whose posterior or prior does not factorize
    over its dimensions, such as a mixture of normals, has one value for all of them, `[1]`. A layer
    of a hierarchy is compared with its prior given draws of the layers above it. Where TFP has no
    closed form, one draw for each example estimates it, so that values may come out below 0. Memory
    does not grow with the number of examples.

    Args:
        vae: a built VAE.
        x: data as in `evaluate`.
        batch_size: examples held in memory at once.
        verbose: 1 shows a progress bar.

    Raises:
        ValueError: if the posterior is `layers.Deterministic`, which has no density.

    Example:
    >>> import keras
    >>> from tfp_vae import layers as tfpl
    >>> encoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), tfpl.MultivariateNormalDiag(2)])
    >>> decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(6), tfpl.IndependentNormal(3)])
    >>> kl_by_dimension(VAE(encoder, decoder), np.zeros([8, 3], "float32"))["z"].shape
    (2,)
    """
    if vae.encodes_to_points:
        raise ValueError("A Deterministic posterior has no density, so no KL divergence.")
    values = moments_over(vae.compile_once(_kl_of_dimensions), x, batch_size, verbose)
    return {name: values[name].mean for name in vae.z.shapes}


def _kl_of_dimensions(vae: VAE, batch, start: tf.Tensor) -> dict[str, tf.Tensor]:
    """Return the KL divergence of each latent, `[batch, size]` or `[batch, 1]`, by name."""
    seed = tf.random.fold_in(seed_of(Stream.EVALUATION, vae.seed), start)
    one_pass = vae.one_pass(batch, seed)
    z = one_pass.sample([])
    posteriors = _parts(one_pass.posterior, z)
    priors = _parts(one_pass.prior, z)
    return {
        name: _kl(posterior, prior, value)
        for (name, value), posterior, prior in zip(
            vae.z.parts(z).items(), posteriors, priors, strict=True
        )
    }


def _parts(distribution: tfd.Distribution, z) -> list[tfd.Distribution]:
    """Return the distribution of each latent given the others, sorted by their names."""
    if not is_joint(distribution):
        return [distribution]
    return [part for _, part in sorted(parts_given(distribution, z).items())]


def _kl(posterior: tfd.Distribution, prior: tfd.Distribution, z: tf.Tensor) -> tf.Tensor:
    try:
        of_dimensions = factors(posterior), factors(prior)
    except ValueError:  # one of them does not factorize
        return _analytic_or_drawn(posterior, prior, z)[..., tf.newaxis]
    return _analytic_or_drawn(*of_dimensions, z)


def _analytic_or_drawn(posterior, prior, z: tf.Tensor) -> tf.Tensor:
    kl = analytic_kl(posterior, prior)
    return posterior.log_prob(z) - prior.log_prob(z) if kl is None else kl
