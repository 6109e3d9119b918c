"""Annealed importance sampling: log p(x) where a posterior is too far from the true one, bounded
from both sides on data that the model itself has drawn; and the curve of rate and distortion.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import objectives, sampling
from tfp_vae.checks import as_count, as_seed
from tfp_vae.evaluation.batches import moments_over, over_batches
from tfp_vae.evaluation.errors import Estimate, mean_of
from tfp_vae.layers.distribution_layer import distribution_layers
from tfp_vae.layers.shapes import in_dtype
from tfp_vae.objectives.importance import log_mean
from tfp_vae.seeds import Stream, seed_of
from tfp_vae.surface import takes_frames
from tfp_vae.vae import VAE

__all__ = ["annealed_log_prob", "bounds_on_simulated_data", "rate_distortion"]

# Draws of z that tell how far a posterior reaches in each direction.
NUM_OF_SCALE = 64


class Chain(NamedTuple):
    """The end of an annealed chain.

    Attributes:
        z: `[num_chains, batch, latent]`.
        log_weights: logs of the importance weights, `[num_chains, batch]`.
        acceptance: share of the proposals that were accepted, `[batch]`.
    """

    z: tf.Tensor
    log_weights: tf.Tensor
    acceptance: tf.Tensor


class Settings(NamedTuple):
    """How chains move: see `annealed_log_prob`."""

    num_steps: tf.Tensor
    num_chains: int
    step_size: tf.Tensor
    num_leapfrog_steps: int


@takes_frames
def annealed_log_prob(
    vae: VAE,
    x: Any,
    *,
    num_steps: int = 200,
    num_chains: int = 8,
    step_size: float = 0.3,
    num_leapfrog_steps: int = 5,
    batch_size: int = 100,
    seed: int = 0,
    verbose: int = 0,
) -> dict[str, np.ndarray]:
    """Estimate log p(x) of each example by annealed importance sampling, in nats.

    Chains begin at draws of q(z|x) and move by Hamiltonian Monte Carlo, while the density changes
    step by step from q(z|x) to p(x, z). The expectation of the result is a lower bound. It is mostly
    nearer to log p(x) than that of plain importance sampling, at `num_steps * num_leapfrog_steps`
    gradients for each chain; `bounds_on_simulated_data` says how near. Where q(z|x) is much
    narrower than the true posterior, chains need larger steps than these; a flow's density far from
    its draws may send them astray, so look at the bounds on simulated data first.

    Reference: Neal, 2001, Annealed importance sampling; Wu et al., 2017, On the quantitative
        analysis of decoder-based generative models, arXiv:1611.04273.

    Args:
        vae: a built VAE with one latent of real numbers: a normal or a flow posterior.
        x: data as in `evaluate`.
        num_steps: intermediate densities.
        num_chains: chains for each example; their weights are averaged.
        step_size: of the leapfrog steps, in standard deviations of q(z|x).
        num_leapfrog_steps: in one proposal.
        batch_size: examples held in memory at once.
        seed: of all draws.
        verbose: 1 shows a progress bar.

    Returns: `log_prob`, `[num_examples]`, and `acceptance`, the share of proposals that were
        accepted, `[num_examples]`: chains move best between 0.6 and 0.9. Raise the step size above
        this, and lower it below.

    Raises:
        ValueError: if the posterior is of another kind, or a number below 1.

    Example:
    >>> import keras
    >>> from tfp_vae import layers as tfpl
    >>> encoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), tfpl.MultivariateNormalDiag(2)])
    >>> decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(6), tfpl.IndependentNormal(3)])
    >>> x = np.zeros([8, 3], "float32")
    >>> annealed_log_prob(VAE(encoder, decoder), x, num_steps=2, num_chains=1)["log_prob"].shape
    (8,)
    """
    _expect_real_latent(vae)
    settings = _settings(num_steps, num_chains, step_size, num_leapfrog_steps)
    first = seed_of(Stream.ANNEALING, as_seed(seed))

    def estimate(batch, start):
        chain = vae.compile_once(_from_posterior)(batch, tf.random.fold_in(first, start), settings)
        return {"log_prob": log_mean(chain.log_weights), "acceptance": chain.acceptance}

    return over_batches(estimate, x, batch_size, verbose)


def bounds_on_simulated_data(
    vae: VAE,
    num_examples: int = 100,
    *,
    num_steps: int = 200,
    num_chains: int = 8,
    step_size: float = 0.3,
    num_leapfrog_steps: int = 5,
    batch_size: int = 100,
    seed: int = 0,
    verbose: int = 0,
) -> dict[str, Estimate]:
    """Bound log p(x) from below and from above, on data drawn from the model itself.

    The z that made an x is an exact draw of the true posterior. Chains that begin there and end at
    q(z|x) give the reciprocal weight: an upper bound in expectation. If both bounds are close, the
    same settings of `annealed_log_prob` can be trusted on real data that the model fits.

    Reference: Grosse et al., 2015, Sandwiching the marginal likelihood using bidirectional Monte
        Carlo, arXiv:1511.02543.

    Args:
        vae: a built VAE as in `annealed_log_prob`, without condition.
        num_examples: data to draw.
        num_steps: intermediate densities.
        num_chains: chains for each example.
        step_size: of the leapfrog steps, in standard deviations of q(z|x).
        num_leapfrog_steps: in one proposal.
        batch_size: examples held in memory at once.
        seed: of all draws.
        verbose: 1 shows a progress bar.

    Returns: the means over the examples, with their standard errors, in nats: `lower`, `upper`, and
        their difference `gap`.

    Raises:
        ValueError: if the VAE is conditional, or of another kind than `annealed_log_prob` takes.
    """
    _expect_real_latent(vae)
    if vae.is_conditional:
        raise ValueError("Data are simulated without a condition, but this VAE needs one.")
    settings = _settings(num_steps, num_chains, step_size, num_leapfrog_steps)
    seeds = sampling.row_seeds(as_count(num_examples, "num_examples"), as_seed(seed))
    simulate = vae.compile_once(_simulated, for_any_shape=True)
    first = seed_of(Stream.SIMULATION, seed)

    def both(seeds, start):
        drawn, own = simulate(seeds), tf.random.fold_in(first, start)
        forward = vae.compile_once(_from_posterior)(drawn["x"], own, settings)
        backward = vae.compile_once(_to_posterior)(drawn["x"], drawn["z"], own, settings)
        return {"lower": log_mean(forward.log_weights), "upper": -log_mean(backward.log_weights)}

    found = over_batches(both, seeds, batch_size, verbose)
    found["gap"] = found["upper"] - found["lower"]
    return {name: mean_of(values) for name, values in found.items()}


@takes_frames
def rate_distortion(
    vae: VAE,
    x: Any,
    betas: Sequence[float] = (0.01, 0.1, 0.3, 1.0, 3.0),
    *,
    num_steps: int = 200,
    num_chains: int = 8,
    step_size: float = 0.3,
    num_leapfrog_steps: int = 5,
    batch_size: int = 100,
    seed: int = 0,
    verbose: int = 0,
) -> dict[str, np.ndarray]:
    """Return points on the curve of rate and distortion of a decoder, in nats per example.

    At each beta, the best code of an x is distributed as p(z) p(x|z)^beta: no encoder with this
    decoder has both a smaller rate KL(q(z|x) || p(z)) and a smaller distortion -log p(x|z). Chains
    run from the prior to it. With too few steps, a point lies above the curve in expectation, at a
    lower rate and a larger distortion than the beta asks for.

    Reference: Huang et al., 2020, Evaluating lossy compression rates of deep generative models,
        arXiv:2008.06653; Alemi et al., 2018, Fixing a broken ELBO, arXiv:1711.00464.

    Args:
        vae: a built VAE as in `annealed_log_prob`.
        x: data as in `evaluate`; memory does not grow with the number of examples.
        betas: weights of the likelihood, above 0.
        num_steps: intermediate densities, for each beta.
        num_chains: chains for each example.
        step_size: of the leapfrog steps, in standard deviations of q(z|x).
        num_leapfrog_steps: in one proposal.
        batch_size: examples held in memory at once.
        seed: of all draws.
        verbose: 1 shows a progress bar for each beta.

    Returns: `beta`, `rate`, `distortion`, `rate_error` and `distortion_error`, their standard errors
        over examples, and `acceptance`, the share of proposals that were accepted, each
        `[len(betas)]`.

    Raises:
        ValueError: if a beta is not above 0, or the VAE is of another kind.
    """
    _expect_real_latent(vae)
    weights = np.atleast_1d(np.asarray(betas, "float64"))
    with np.errstate(over="ignore"):  # as chains see them
        seen = weights.astype("float32")
    if not seen.size or not np.all((seen > 0.0) & (seen < np.inf)):
        raise ValueError(f"betas must be positive numbers, received {betas}.")
    settings = _settings(num_steps, num_chains, step_size, num_leapfrog_steps)
    first = seed_of(Stream.ANNEALING, as_seed(seed))
    points = []
    for beta in weights:

        def point(batch, start, beta=beta):
            own = tf.random.fold_in(first, start)
            return vae.compile_once(_rate_and_distortion)(
                batch, tf.constant(beta, tf.float32), own, settings
            )

        found = moments_over(point, x, batch_size, verbose)
        moved = found["acceptance"].estimate.value
        points.append([*found["rate"].estimate, *found["distortion"].estimate, moved])
    rate, rate_error, distortion, distortion_error, acceptance = np.transpose(points)
    return {
        "beta": weights,
        "rate": rate,
        "rate_error": rate_error,
        "distortion": distortion,
        "distortion_error": distortion_error,
        "acceptance": acceptance,
    }


def _settings(num_steps, num_chains, step_size: float, num_leapfrog_steps) -> Settings:
    if not 0.0 < step_size < np.inf:
        raise ValueError(f"step_size must be a positive number, received {step_size}.")
    return Settings(
        tf.constant(as_count(num_steps, "num_steps")),
        as_count(num_chains, "num_chains"),
        tf.constant(step_size),
        as_count(num_leapfrog_steps, "num_leapfrog_steps"),
    )


def has_real_latent(vae: VAE) -> bool:
    """Return whether chains can move through z: whether it is one latent of real numbers."""
    layers = distribution_layers(vae.encoder)
    return not vae.z.has_parts and bool(layers) and layers[-1].covers_space


def _expect_real_latent(vae: VAE) -> None:
    vae.expect_built()
    if not has_real_latent(vae):
        layers = distribution_layers(vae.encoder)
        kinds = ", ".join(type(layer).__name__ for layer in layers)
        raise ValueError(
            "Annealed chains move through one latent of real numbers, as of MultivariateNormalDiag "
            f"or FlowPosterior; this encoder ends in {kinds}."
        )


def _simulated(vae: VAE, seeds: tf.Tensor) -> dict[str, tf.Tensor]:
    return vae.sample_rows(seeds, draws=True)


def _from_posterior(vae: VAE, batch, seed: tf.Tensor, settings: Settings) -> Chain:
    with vae.frozen():
        one_pass = vae.one_pass(batch, seed)
        z = sampling.sample(one_pass.posterior, settings.num_chains, seed)
        return _anneal(
            lambda z: sampling.log_density(one_pass.posterior, z),
            lambda z: _log_joint(one_pass, z),
            z,
            _step_sizes(one_pass, seed, settings),
            settings,
            seed,
        )


def _to_posterior(vae: VAE, batch, z, seed: tf.Tensor, settings: Settings) -> Chain:
    with vae.frozen():
        one_pass = vae.one_pass(batch, seed)
        return _anneal(
            lambda z: _log_joint(one_pass, z),
            lambda z: sampling.log_density(one_pass.posterior, z),
            tf.repeat(z[tf.newaxis], settings.num_chains, 0),
            _step_sizes(one_pass, seed, settings),
            settings,
            tf.random.fold_in(seed, 1),
        )


def _rate_and_distortion(
    vae: VAE, batch, beta: tf.Tensor, seed: tf.Tensor, settings: Settings
) -> dict[str, tf.Tensor]:
    with vae.frozen():
        one_pass = vae.one_pass(batch, seed)
        rows = tf.shape(tf.nest.flatten(one_pass.x)[0])[0]
        chains = [settings.num_chains]
        shape = chains if one_pass.prior.batch_shape.rank else [*chains, rows]
        beta = in_dtype(beta, vae.z.dtype)

        def log_start(z):
            return sampling.log_density(one_pass.prior, z)

        chain = _anneal(
            log_start,
            lambda z: log_start(z) + beta * one_pass.log_likelihood(z),
            sampling.sample(one_pass.prior, shape, seed),
            _step_sizes(one_pass, seed, settings) / tf.sqrt(tf.minimum(beta, 1.0)),
            settings,
            seed,
        )
        log_likelihood = one_pass.log_likelihood(chain.z)
        weights = tf.nn.softmax(chain.log_weights, 0)
        distortion = -tf.reduce_sum(weights * log_likelihood, 0)
        rate = -beta * distortion - log_mean(chain.log_weights)
        return {"rate": rate, "distortion": distortion, "acceptance": chain.acceptance}


def _log_joint(one_pass: objectives.OnePass, z) -> tf.Tensor:
    return one_pass.log_likelihood(z) + sampling.log_density(one_pass.prior, z)


def _step_sizes(one_pass: objectives.OnePass, seed: tf.Tensor, settings: Settings) -> tf.Tensor:
    """Return the leapfrog step of each number of z, `[batch, latent]`: a part of its standard
    deviation under q(z|x).
    """
    draws = sampling.sample(one_pass.posterior, NUM_OF_SCALE, tf.random.fold_in(seed, 2))
    return in_dtype(settings.step_size, draws.dtype) * tf.math.reduce_std(draws, 0)


def _anneal(
    log_start: Callable,
    log_end: Callable,
    z: tf.Tensor,
    step_size: tf.Tensor,
    settings: Settings,
    seed: tf.Tensor,
) -> Chain:
    """Move draws from one unnormalized density to another, through their geometric means.

    The kernel begins anew at each density: `tfp.mcmc.sample_annealed_importance_chain` compares a
    proposal with the density of the step before, so its weights are biased.
    """
    num_steps = settings.num_steps

    def step(number, z, log_weights, accepted):
        share = in_dtype(number + 1, z.dtype) / in_dtype(num_steps, z.dtype)
        log_weights += (log_end(z) - log_start(z)) / in_dtype(num_steps, z.dtype)
        kernel = tfp.mcmc.HamiltonianMonteCarlo(
            lambda z: share * log_end(z) + (1.0 - share) * log_start(z),
            step_size,
            settings.num_leapfrog_steps,
        )
        own = tf.random.fold_in(seed, 3 + number)
        z, results = kernel.one_step(z, kernel.bootstrap_results(z), seed=own)
        return number + 1, z, log_weights, accepted + tf.cast(results.is_accepted, z.dtype)

    zeros = tf.zeros_like(log_start(z))
    _, z, log_weights, accepted = tf.while_loop(
        lambda number, *_: number < num_steps, step, (tf.constant(0), z, zeros, zeros)
    )
    acceptance = tf.reduce_mean(accepted, 0) / in_dtype(num_steps, z.dtype)
    return Chain(z, log_weights, acceptance)
