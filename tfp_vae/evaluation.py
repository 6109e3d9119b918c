"""Numbers to judge a VAE by, in nats per example."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from tfp_vae import objectives, sampling
from tfp_vae.checks import as_count
from tfp_vae.vae import VAE

# A latent dimension is active when its posterior mean varies over the data by more than this (Burda et al., 2016).
ACTIVE_VARIANCE = 0.01


def evaluate(
    vae: VAE, x: np.ndarray, *, num_samples: int = 1000, batch_size: int = 500, seed: int = 0, verbose: int = 0
) -> dict[str, float]:
    """Give the numbers by which a VAE is judged on data it has not seen.

    Args:
        vae: a built VAE.
        x: `[num_examples, *event_shape]`.
        num_samples: draws for each example in the importance-sampled negative log-likelihood.
        batch_size: examples held in memory at once.
        seed: of the draws.
        verbose: 1 shows a progress bar.

    Returns:
        `negative_elbo`, `log_likelihood` (its first term, log p(x|z)), `kl`, `nll` (importance sampling), in nats per
        example; `active_units` of `latent_units`; `kl_is_analytic`; `num_examples`, `num_samples`.

    Raises:
        ValueError: if `x` is empty or `batch_size` below 1.

    Example:
    >>> from tfp_vae import layers as tfpl
    >>> encoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), tfpl.MultivariateNormalDiag(2)])
    >>> decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(6), tfpl.IndependentNormal(3)])
    >>> numbers = evaluate(VAE(encoder, decoder), np.zeros([8, 3], "float32"), num_samples=10)
    >>> sorted(numbers)[:3], numbers["latent_units"]
    (['active_units', 'kl', 'kl_is_analytic'], 2)
    """
    vae.check_data(x)

    def terms_and_mean(batch):
        return {**vae(batch), "mean": sampling.point(vae.encode(batch))}

    terms = _over_batches(_compile(vae, terms_and_mean), x, batch_size)
    return {
        "negative_elbo": -float(terms["elbo"].mean(dtype="float64")),
        "log_likelihood": float(terms["log_likelihood"].mean(dtype="float64")),
        "kl": float(terms["kl"].mean(dtype="float64")),
        "nll": nll(vae, x, num_samples=num_samples, batch_size=batch_size, seed=seed, verbose=verbose),
        "active_units": _count_active(terms["mean"], ACTIVE_VARIANCE),
        "latent_units": vae.latent_shape[0],
        "kl_is_analytic": objectives.kl_is_analytic(vae.encode(x[:1]), vae.prior_distribution()),
        "num_examples": len(x),
        "num_samples": num_samples,
    }


def elbo(vae: VAE, x: np.ndarray, *, batch_size: int = 500) -> dict[str, np.ndarray]:
    """Give the objective's terms (`loss`, `elbo`, `log_likelihood`, `kl`) for each example, `[num_examples]`."""
    return _over_batches(_compile(vae, vae), x, batch_size)


def nll(
    vae: VAE, x: np.ndarray, *, num_samples: int = 1000, batch_size: int = 500, seed: int = 0, verbose: int = 0
) -> float:
    """Estimate the mean of -log p(x) by importance sampling, see `VAE.log_prob`, in nats per example."""

    def log_prob(batch):
        return {"log_prob": vae.log_prob(batch, num_samples, seed)}

    return -float(_over_batches(log_prob, x, batch_size, verbose)["log_prob"].mean(dtype="float64"))


def active_units(vae: VAE, x: np.ndarray, *, threshold: float = ACTIVE_VARIANCE, batch_size: int = 500) -> int:
    """Count the latent dimensions whose posterior mean varies over the data by more than `threshold`.

    Reference: Burda et al., 2016, Importance Weighted Autoencoders, arXiv:1509.00519, section 5.1.
    """
    return _count_active(posterior_means(vae, x, batch_size=batch_size), threshold)


def posterior_means(vae: VAE, x: np.ndarray, *, batch_size: int = 500) -> np.ndarray:
    """Give the mean of q(z|x) for each example, `[num_examples, latent]`."""

    def mean(batch):
        return {"mean": sampling.point(vae.encode(batch))}

    return _over_batches(_compile(vae, mean), x, batch_size)["mean"]


def _count_active(means: np.ndarray, threshold: float) -> int:
    return int((means.var(axis=0, dtype="float64") > threshold).sum())


def _compile(vae: VAE, function: Callable) -> Callable:
    return tf.function(function, jit_compile=vae.uses_xla)


def _over_batches(function: Callable, x: np.ndarray, batch_size: int, verbose: int = 0) -> dict[str, np.ndarray]:
    """Apply a function of a batch to all rows; the last batch is filled up so that one compiled shape serves all."""
    if not len(x):
        raise ValueError("The data set is empty. Expected at least one example.")
    batch_size = min(as_count(batch_size, "batch_size"), len(x))
    progress = keras.utils.Progbar(len(x), verbose=verbose, unit_name="example")
    results = []
    for start in range(0, len(x), batch_size):
        rows = np.asarray(x[start : start + batch_size], "float32")
        filled = np.resize(rows, (batch_size, *rows.shape[1:]))
        results.append({name: value[: len(rows)].numpy() for name, value in function(tf.constant(filled)).items()})
        progress.add(len(rows))
    return {name: np.concatenate([result[name] for result in results]) for name in results[0]}


__all__ = ["active_units", "elbo", "evaluate", "nll", "posterior_means"]
