"""Evaluation metrics of a VAE, in nats per example."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from scipy import stats

from tfp_vae import objectives, sampling
from tfp_vae.batch import num_examples
from tfp_vae.checks import as_count, as_seed
from tfp_vae.layers.vector_quantized import is_quantized
from tfp_vae.seeds import Stream, seed_of
from tfp_vae.vae import VAE

# A latent dimension is active when its posterior mean varies over the data by more than this (Burda
# et al., 2016).
ACTIVE_VARIANCE = 0.01


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
        posterior `nll` is not defined, and its value is NaN.

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
    terms = over_batches(vae.compile_once(_terms_and_mean), x, batch_size)
    has_codes = is_quantized(vae.encode(tf.nest.map_structure(lambda value: value[:1], x)))
    nll_of = {
        "num_samples": num_samples,
        "batch_size": batch_size,
        "seed": seed,
        "verbose": verbose,
    }
    return {
        "negative_elbo": -float(terms["elbo"].mean(dtype="float64")),
        "log_likelihood": float(terms["log_likelihood"].mean(dtype="float64")),
        "kl": float(terms["kl"].mean(dtype="float64")),
        "nll": np.nan if vae.encodes_to_points else nll(vae, x, **nll_of),
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
    }


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


def active_units(
    vae: VAE, x: np.ndarray | dict, *, threshold: float = ACTIVE_VARIANCE, batch_size: int = 500
) -> int:
    """Count the latent dimensions whose posterior mean varies over the data by more than
    `threshold`.

    Reference: Burda et al., 2016, Importance Weighted Autoencoders, arXiv:1509.00519, section 5.1.
    """
    return count_active(posterior_means(vae, x, batch_size=batch_size), threshold)


def posterior_means(vae: VAE, x: np.ndarray | dict, *, batch_size: int = 500) -> np.ndarray:
    """Return the mean of q(z|x) for each example, `[num_examples, latent]`.

    Several latents are concatenated.
    """
    return over_batches(vae.compile_once(_mean), x, batch_size)["mean"]


def codes(vae: VAE, x: np.ndarray | dict, *, batch_size: int = 500) -> np.ndarray:
    """Return the integer codes of a `layers.VectorQuantized` posterior for each example,
    `[num_examples, num_vectors]`.

    Raises:
        ValueError: if the posterior is of another kind.
    """
    return over_batches(vae.compile_once(_codes), x, batch_size)["codes"]


def perplexity(vae: VAE, x: np.ndarray | dict, *, batch_size: int = 500) -> float:
    """Return the perplexity: the effective number of codes in use.

    It is the exponential of the entropy of the codes' frequencies over the data and all positions.

    It is 1 if only one code is used, and the number of codes if all are used equally often.

    Reference: van den Oord et al., 2017, Neural discrete representation learning, arXiv:1711.00937.
    """
    counts = np.unique(codes(vae, x, batch_size=batch_size), return_counts=True)[1]
    return float(np.exp(stats.entropy(counts)))


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


def _mean(vae: VAE, batch, start: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"mean": objectives.as_vectors(sampling.point(vae.encode(batch)))}


def _terms_and_mean(vae: VAE, batch, start: tf.Tensor) -> dict[str, tf.Tensor]:
    return {**_terms(vae, batch, start), **_mean(vae, batch, start)}


def _codes(vae: VAE, batch, start: tf.Tensor) -> dict[str, tf.Tensor]:
    posterior = vae.encode(batch)
    if not is_quantized(posterior):
        raise ValueError(
            f"The posterior {type(posterior).__name__} has no integer codes. End the encoder in "
            "tfp_vae.layers.VectorQuantized."
        )
    return {"codes": posterior.codes}


def count_active(means: np.ndarray, threshold: float) -> int:
    return int((means.var(axis=0, dtype="float64") > threshold).sum())


def over_batches(
    function: Callable, x: np.ndarray | dict, batch_size: int, verbose: int = 0
) -> dict[str, np.ndarray]:
    """Apply a function to all rows, batch by batch; it takes a batch and the number of its first
    row.

    The last batch is padded, so that only one shape is compiled.
    """
    number = num_examples(x)
    if not number:
        raise ValueError("The data set is empty. Expected at least one example.")
    batch_size = min(as_count(batch_size, "batch_size"), number)
    progress = keras.utils.Progbar(number, verbose=verbose, unit_name="example")
    results = []
    for start in range(0, number, batch_size):
        rows = min(batch_size, number - start)
        batch = tf.nest.map_structure(
            lambda values, start=start: _rows(values, start, batch_size), x
        )
        results.append(
            {
                name: np.asarray(value[:rows])
                for name, value in function(batch, tf.constant(start)).items()
            }
        )
        progress.add(rows)
    return {name: np.concatenate([result[name] for result in results]) for name in results[0]}


def _rows(values: np.ndarray, start: int, batch_size: int) -> tf.Tensor:
    """Return a full batch; at the end of the data, the last rows are repeated."""
    rows = np.asarray(values[start : start + batch_size])
    filled = np.resize(rows, (batch_size, *rows.shape[1:]))
    return tf.constant(filled)


__all__ = ["active_units", "codes", "elbo", "evaluate", "nll", "perplexity", "posterior_means"]
