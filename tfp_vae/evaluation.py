"""Evaluation metrics of a VAE, in nats per example."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import objectives, sampling
from tfp_vae.batch import by_name, num_examples
from tfp_vae.checks import as_count, as_seed
from tfp_vae.layers.parts import has_dependent_parts, innermost
from tfp_vae.layers.values import values_of
from tfp_vae.layers.vector_quantized import is_quantized
from tfp_vae.seeds import Stream, seed_of
from tfp_vae.vae import VAE

tfd = tfp.distributions

# A latent dimension is active when its posterior mean varies over the data by more than this (Burda
# et al., 2016).
ACTIVE_VARIANCE = 0.01
# Number of posteriors under which all codes are judged at once.
DENSITIES_AT_ONCE = 100


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


def mutual_information(
    vae: VAE,
    x: np.ndarray | dict,
    *,
    num_examples: int = 2000,
    batch_size: int = 500,
    seed: int = 0,
) -> float:
    """Estimate the mutual information of x and z under q(z|x), in nats: what a code tells about its
    example.

    It is the mean of log q(z|x) - log q(z), where q(z) is the mean of q(z|x) over the examples. If
    the posterior has collapsed, it is 0 up to the error of the draws, and maybe below; it is at most
    the logarithm of the number of examples.

    Reference: Hoffman & Johnson, 2016, ELBO surgery; He et al., 2019, Lagging inference networks,
        arXiv:1901.05534.

    Args:
        vae: a built VAE.
        x: `[num_examples, *event_shape]`, or a dict of such arrays.
        num_examples: how many examples are used, the first ones.
        batch_size: examples held in memory at once.
        seed: of the draws, one for each example.

    Raises:
        ValueError: if the posterior has no density, or latents that depend on each other, as a
            hierarchy has.
    """
    if vae.encodes_to_points:
        raise ValueError("A Deterministic posterior has no density, so no finite information.")
    if has_dependent_parts(vae.some_posterior):
        raise ValueError(
            "The latents of this posterior depend on each other, so that its density at the codes of "
            "other examples is not computed. Use a posterior of one latent, or of groups."
        )
    number = as_count(num_examples, "num_examples")
    x = tf.nest.map_structure(lambda values: values[:number], x)
    seeds = sampling.row_seeds(len(tf.nest.flatten(x)[0]), seed)
    drawn = over_batches(vae.compile_once(_draws), (x, seeds), batch_size)
    z = vae.z.whole({name: tf.constant(drawn[name]) for name in vae.z.shapes})

    def densities(batch, start):
        # Of each code under the posteriors of a batch: [batch, num_examples].
        return {"log_q": tf.transpose(vae.compile_once(_densities)(batch, z))}

    log_q = over_batches(densities, x, min(batch_size, DENSITIES_AT_ONCE))["log_q"]
    log_q = log_q.astype("float64")
    log_aggregate = tf.reduce_logsumexp(log_q, axis=0) - np.log(len(log_q))
    return float(np.mean(np.diagonal(log_q) - log_aggregate))


def _draws(vae: VAE, batch_and_seeds, start: tf.Tensor) -> dict[str, tf.Tensor]:
    batch, seeds = batch_and_seeds
    return vae.z.parts(sampling.sample_rows(vae.encode(batch), seeds))


def _densities(vae: VAE, batch, z) -> tf.Tensor:
    """Return log q(z|x) of all z under the posterior of each x, `[num_codes, batch]`."""
    spread = tf.nest.map_structure(lambda part: part[:, tf.newaxis], z)
    return sampling.log_density(vae.encode(batch), spread)


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
    return float(np.exp(tfd.Categorical(probs=counts / counts.sum()).entropy()))


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
    function: Callable, x: np.ndarray | dict | tuple, batch_size: int, verbose: int = 0
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


__all__ = [
    "active_units",
    "codes",
    "elbo",
    "evaluate",
    "mutual_information",
    "nll",
    "perplexity",
    "posterior_means",
]
