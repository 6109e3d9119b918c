"""Bounds and estimates of the likelihood of data under a VAE, in nats per example."""

import numpy as np
import tensorflow as tf

from tfp_vae import objectives
from tfp_vae.batch import by_name, num_examples
from tfp_vae.checks import as_count, as_seed
from tfp_vae.evaluation.batches import over_batches
from tfp_vae.evaluation.latents import (
    ACTIVE_VARIANCE,
    count_active,
    means_of,
    mutual_information,
    perplexity,
)
from tfp_vae.layers.parts import has_dependent_parts, innermost
from tfp_vae.layers.values import values_of
from tfp_vae.layers.vector_quantized import is_quantized
from tfp_vae.seeds import Stream, seed_of
from tfp_vae.vae import VAE

__all__ = ["elbo", "evaluate", "nll"]


def evaluate(
    vae: VAE,
    x: np.ndarray | dict,
    *,
    num_samples: int = 1000,
    batch_size: int = 500,
    seed: int = 0,
    verbose: int = 0,
) -> dict[str, float]:
    """Return the metrics of a VAE on data that it was not trained on.

    Args:
        vae: a built VAE.
        x: `[num_examples, *event_shape]`; for a conditional model, or an x of several parts, a dict
            of such arrays.
        num_samples: draws for each example in the importance-sampled negative log-likelihood.
        batch_size: examples held in memory at once.
        seed: of the draws.
        verbose: 1 shows a progress bar.

    Returns: `negative_elbo`, `log_likelihood` (its first term, log p(x|z)), `kl`, `nll` (importance
        sampling), in nats per example; `active_units` of `latent_units`; `kl_is_analytic`;
        `num_examples`, `num_samples`; for a `layers.VectorQuantized` posterior also `perplexity`
        and `nll_is_bound`: all draws of such a posterior are the same point, so `nll` is an upper
        bound of the negative log-likelihood for any number of draws. For a `layers.Deterministic`
        posterior `nll` is not defined, and its value is NaN. For sequences also
        `tokens_per_example`, with the end of a sequence and without its padding, and, where they
        are defined, `nll_per_token` and `mutual_information`.

    Raises:
        ValueError: if `x` is empty or `batch_size` below 1.

    Example:
    >>> import keras
    >>> from tfp_vae import layers as tfpl
    >>> encoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), tfpl.MultivariateNormalDiag(2)])
    >>> decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(6), tfpl.IndependentNormal(3)])
    >>> numbers = evaluate(VAE(encoder, decoder), np.zeros([8, 3], "float32"), num_samples=10)
    >>> sorted(numbers)[:3], numbers["latent_units"]
    (['active_units', 'kl', 'kl_is_analytic'], 2)
    """
    vae.check_data(x)
    terms = over_batches(vae.compile_once(_terms_and_mean), x, batch_size)
    has_codes = is_quantized(vae.some_posterior)
    nll_of = {
        "num_samples": num_samples,
        "batch_size": batch_size,
        "seed": seed,
        "verbose": verbose,
    }
    in_nats = np.nan if vae.encodes_to_points else nll(vae, x, **nll_of)
    return {
        "negative_elbo": -float(terms["elbo"].mean(dtype="float64")),
        "log_likelihood": float(terms["log_likelihood"].mean(dtype="float64")),
        "kl": float(terms["kl"].mean(dtype="float64")),
        "nll": in_nats,
        "active_units": count_active(terms["mean"], ACTIVE_VARIANCE),
        "latent_units": vae.z.size,
        "kl_is_analytic": kl_is_analytic(vae, x),
        "num_examples": num_examples(x),
        "num_samples": num_samples,
        **(
            {"perplexity": perplexity(vae, x, batch_size=batch_size), "nll_is_bound": True}
            if has_codes
            else {}
        ),
        **_of_sequences(vae, x, in_nats, batch_size),
    }


def _of_sequences(vae: VAE, x, nll: float, batch_size: int) -> dict[str, float]:
    """Return the metrics of sequences; none for other data."""
    if (
        vae.x.has_parts
        or (num_counted := values_of(innermost(vae.some_likelihood)).num_counted) is None
    ):
        return {}
    numbers = {"tokens_per_example": float(np.mean(num_counted(np.asarray(by_name(x)["x"]))))}
    if not vae.encodes_to_points:
        numbers["nll_per_token"] = nll / numbers["tokens_per_example"]
        if not has_dependent_parts(vae.some_posterior):
            numbers["mutual_information"] = mutual_information(vae, x, batch_size=batch_size)
    return numbers


def elbo(vae: VAE, x: np.ndarray | dict, *, batch_size: int = 500) -> dict[str, np.ndarray]:
    """Return the objective's terms (`loss`, `elbo`, `log_likelihood`, `kl`) for each example,
    `[num_examples]`.
    """
    return over_batches(vae.compile_once(_terms), x, batch_size)


def nll(
    vae: VAE,
    x: np.ndarray | dict,
    *,
    num_samples: int = 1000,
    batch_size: int = 500,
    seed: int = 0,
    verbose: int = 0,
) -> float:
    """Estimate the mean of -log p(x) by importance sampling, see `VAE.log_prob`, in nats per
    example.
    """
    num_samples = as_count(num_samples, "num_samples")
    first = seed_of(Stream.LOG_PROB, as_seed(seed))

    def log_prob(batch, start):
        return {
            "log_prob": vae.estimate_log_prob(batch, num_samples, tf.random.fold_in(first, start))
        }

    return -float(over_batches(log_prob, x, batch_size, verbose)["log_prob"].mean(dtype="float64"))


def kl_is_analytic(vae: VAE, x) -> bool:
    """Return whether TFP has a closed form of the VAE's KL divergence; if not, it is estimated by
    Monte Carlo.
    """
    one_pass = vae.one_pass(
        tf.nest.map_structure(lambda value: value[:1], x), seed_of(Stream.EVALUATION)
    )
    return objectives.kl_is_analytic(one_pass.posterior, one_pass.prior)


def _terms(vae: VAE, batch, start: tf.Tensor) -> dict[str, tf.Tensor]:
    """Return the terms, estimated with separate draws for each batch.

    With the same draws in each batch, the errors would add up.
    """
    return vae.terms(batch, tf.random.fold_in(seed_of(Stream.EVALUATION, vae.seed), start))


def _terms_and_mean(vae: VAE, batch, start: tf.Tensor) -> dict[str, tf.Tensor]:
    return {**_terms(vae, batch, start), **means_of(vae, batch, start)}
