"""Bounds and estimates of the likelihood of data under a VAE, in nats per example."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_vae import objectives
from tfp_vae.batch import by_name, first
from tfp_vae.checks import as_count, as_seed
from tfp_vae.evaluation.batches import Moments, each_batch, moments_over, over_batches
from tfp_vae.evaluation.errors import Estimate, flat
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
from tfp_vae.surface import takes_frames
from tfp_vae.vae import VAE

__all__ = ["elbo", "evaluate", "importance_sampling", "nll"]

# With fewer effective samples than these, a few draws have most of the weight: what others would
# add to the estimate is unknown.
FEW_SAMPLES = 10
# With fewer draws than these, nobody expects them to be many.
MANY_DRAWS = 100


@takes_frames
def evaluate(
    vae: VAE,
    x: Any,
    *,
    num_samples: int = 1000,
    batch_size: int = 500,
    seed: int = 0,
    verbose: int = 0,
) -> dict[str, float]:
    """Return the metrics of a VAE on data that it was not trained on.

    Of data larger than memory, a few batches are held at once, and four bytes of each example, for
    the median of `effective_samples`. The data are read two times or more.

    Args:
        vae: a built VAE.
        x: `[num_examples, *event_shape]`; for a conditional model, or an x of several parts, a dict
            of such arrays. Or a `tf.data.Dataset` of batches of these, of any size, which gives the
            same numbers; labels beside them are ignored, and only the first batch is checked.
        num_samples: draws for each example in the importance-sampled negative log-likelihood.
        batch_size: examples held in memory at once.
        seed: of the draws.
        verbose: 1 shows a progress bar.

    Returns: `negative_elbo`, `log_likelihood` (its first term, log p(x|z)), `kl`, `nll` (importance
        sampling), in nats per example, each with its standard error over the examples, such as
        `nll_error`; `effective_samples`, the median over the examples: if it is small, `nll` is too
        large, see `importance_sampling`; `bits_per_dim`, the `nll` in bits for each number of x, with
        its error, if all examples have equally many; `active_units` of `latent_units`; `kl_is_analytic`;
        `num_examples`, `num_samples`; for a `layers.VectorQuantized` posterior also `perplexity`
        and `nll_is_bound`: all draws of such a posterior are the same point, so `nll` is an upper
        bound of the negative log-likelihood for any number of draws. For a `layers.Deterministic`
        posterior `negative_elbo`, `kl` and `nll` are not defined, and NaN. For sequences also
        `tokens_per_example`, with the end of a sequence and without its padding, and, where they
        are defined, `nll_per_token` and `mutual_information`.

    Raises:
        ValueError: if `x` is empty, or a data set without end, or `batch_size` below 1.

    Warns:
        UserWarning: if 100 draws or more are worth fewer than 10 equal ones in the median example.

    Example:
    >>> import keras
    >>> from tfp_vae import layers as tfpl
    >>> encoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), tfpl.MultivariateNormalDiag(2)])
    >>> decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(6), tfpl.IndependentNormal(3)])
    >>> numbers = evaluate(VAE(encoder, decoder), np.zeros([8, 3], "float32"), num_samples=10)
    >>> sorted(numbers)[:2], numbers["latent_units"]
    (['active_units', 'bits_per_dim'], 2)
    """
    vae.check_data(x)
    terms = moments_over(_judge(vae, _terms_and_mean, as_seed(seed)), x, batch_size, verbose)
    means = {
        "negative_elbo": -terms["elbo"].estimate,
        "log_likelihood": terms["log_likelihood"].estimate,
        "kl": terms["kl"].estimate,
    }
    if vae.encodes_to_points:  # with no density, whatever stands in for their KL divergence
        means |= dict.fromkeys(("negative_elbo", "kl"), Estimate(np.nan, np.nan))
    numbers = {
        **flat(means),
        **_nll(vae, x, num_samples, batch_size, seed, verbose),
        "active_units": count_active(terms["mean"].variance, ACTIVE_VARIANCE),
        "latent_units": vae.z.size,
        "kl_is_analytic": kl_is_analytic(vae, x),
        "num_examples": terms["elbo"].number,
        "num_samples": num_samples,
    }
    _warn_of_few(numbers, num_samples)
    if is_quantized(vae.some_posterior):
        numbers["perplexity"] = perplexity(vae, x, batch_size=batch_size)
        numbers["nll_is_bound"] = True
    return {**numbers, **_of_sequences(vae, x, numbers["nll"], batch_size)}


def _nll(vae: VAE, x, num_samples: int, batch_size: int, seed: int, verbose: int) -> dict:
    """Return the negative log-likelihood, what it is in bits, and how far to trust it."""
    if vae.encodes_to_points:
        return {"nll": np.nan}
    numbers = _importance(vae, x, num_samples, batch_size, seed, verbose)
    if not (vae.x.has_parts or vae.missing or _num_counted(vae)):
        nats = vae.x.size * np.log(2.0)
        numbers |= {f"bits_per_dim{of}": numbers[f"nll{of}"] / nats for of in ("", "_error")}
    return numbers


def _importance(vae: VAE, x, num_samples: int, batch_size: int, seed: int, verbose: int) -> dict:
    """Return the negative log-likelihood with its error, and the effective samples."""
    log_prob, effective = Moments(), []
    weigh = _weigh(vae, num_samples, seed)
    for found in each_batch(weigh, x, batch_size, verbose):
        log_prob.add(found["log_prob"])
        effective.append(found["effective_samples"])
    numbers = flat({"nll": -log_prob.estimate})
    numbers["effective_samples"] = float(np.median(np.concatenate(effective)))
    return numbers


def _warn_of_few(numbers: dict, num_samples: int) -> None:
    effective = numbers.get("effective_samples", FEW_SAMPLES)
    if num_samples >= MANY_DRAWS and effective < FEW_SAMPLES:
        warnings.warn(
            f"Few effective samples: {effective:.1f} of {num_samples} draws in the median example. -log "
            "p(x) is smaller than this NLL, maybe by nats. Take more draws, or "
            "evaluation.annealed_log_prob.",
            stacklevel=4,  # who called the function that calls this one
        )


def _num_counted(vae: VAE) -> Callable | None:
    """Return the function that counts the values of examples of different lengths, if they are."""
    return None if vae.x.has_parts else values_of(innermost(vae.some_likelihood)).num_counted


def _of_sequences(vae: VAE, x, nll: float, batch_size: int) -> dict[str, float]:
    """Return the metrics of sequences; none for other data."""
    num_counted = _num_counted(vae)
    if num_counted is None:
        return {}

    def count(batch, start):
        return {"tokens": num_counted(np.asarray(by_name(batch)["x"]))}

    tokens = moments_over(count, x, batch_size)["tokens"]
    numbers = {"tokens_per_example": float(tokens.mean)}
    if not vae.encodes_to_points:
        numbers["nll_per_token"] = nll / numbers["tokens_per_example"]
        if not has_dependent_parts(vae.some_posterior):
            information = mutual_information(vae, x, batch_size=batch_size)
            numbers |= flat({"mutual_information": information})
    return numbers


@takes_frames
def elbo(
    vae: VAE, x: Any, *, batch_size: int = 500, seed: int = 0, verbose: int = 0
) -> dict[str, np.ndarray]:
    """Return the objective's terms (`loss`, `elbo`, `log_likelihood`, `kl`) for each example,
    `[num_examples]`; data and `verbose` as in `evaluate`.
    """
    return over_batches(_judge(vae, _terms, as_seed(seed)), x, batch_size, verbose)


@takes_frames
def nll(
    vae: VAE,
    x: Any,
    *,
    num_samples: int = 1000,
    batch_size: int = 500,
    seed: int = 0,
    verbose: int = 0,
) -> Estimate:
    """Estimate the mean of -log p(x) by importance sampling, see `VAE.log_prob`, in nats per
    example, with its standard error over the examples.

    Data and warning as in `evaluate`; of the examples, four bytes each are kept.
    """
    found = _importance(vae, x, num_samples, batch_size, seed, verbose)
    _warn_of_few(found, num_samples)
    return Estimate(found["nll"], found["nll_error"])


@takes_frames
def importance_sampling(
    vae: VAE,
    x: Any,
    *,
    num_samples: int = 1000,
    batch_size: int = 500,
    seed: int = 0,
    verbose: int = 0,
) -> dict[str, np.ndarray]:
    """Estimate log p(x) of each example by importance sampling, in nats, and say how far to trust
    it.

    The expectation of the estimate is a lower bound. Few effective samples mean that it is far below
    log p(x): a few draws have almost all of the weight. Then take more draws, or
    `annealed_log_prob`. Memory does not grow with the number of draws.

    Reference: Burda et al., 2016, Importance Weighted Autoencoders, arXiv:1509.00519; Kong, 1992, A
        note on importance sampling using standardized weights.

    Args:
        vae: a built VAE.
        x: data as in `evaluate`.
        num_samples: draws for each example.
        batch_size: examples held in memory at once.
        seed: of the draws.
        verbose: 1 shows a progress bar.

    Returns: `log_prob`, and `effective_samples` from 1 to `num_samples`: (sum of w)^2 / sum of w^2
        of the weights w, each `[num_examples]`.

    Raises:
        ValueError: if the posterior is a `layers.Deterministic`, or a number below 1.
    """
    return over_batches(_weigh(vae, num_samples, seed), x, batch_size, verbose)


def _weigh(vae: VAE, num_samples: int, seed: int) -> Callable:
    """Return the function of a batch that `importance_sampling` applies to each."""
    num_samples = as_count(num_samples, "num_samples")
    own_seed = seed_of(Stream.LOG_PROB, as_seed(seed))

    def weigh(batch, start):
        return vae.effective_samples(batch, num_samples, tf.random.fold_in(own_seed, start))

    return weigh


def kl_is_analytic(vae: VAE, x) -> bool:
    """Return whether TFP has a closed form of the VAE's KL divergence; if not, it is estimated by
    Monte Carlo.
    """
    one_pass = vae.one_pass(first(x, 1), seed_of(Stream.EVALUATION))
    return objectives.kl_is_analytic(one_pass.posterior, one_pass.prior)


def _judge(vae: VAE, terms: Callable, seed: int) -> Callable:
    """Return a function of a batch, with draws of its own: the same ones in each batch would let
    their errors add up.
    """
    own_seed = seed_of(Stream.EVALUATION, seed)
    return lambda batch, start: vae.compile_once(terms)(batch, tf.random.fold_in(own_seed, start))


def _terms(vae: VAE, batch, seed: tf.Tensor) -> dict[str, tf.Tensor]:
    return vae.terms(batch, seed)


def _terms_and_mean(vae: VAE, batch, seed: tf.Tensor) -> dict[str, tf.Tensor]:
    return {**vae.terms(batch, seed), **means_of(vae, batch, seed)}
