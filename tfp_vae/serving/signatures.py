"""The served functions: plain tensors in and out, the batch first everywhere, each row independent of the others."""

from collections.abc import Callable

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import objectives, sampling
from tfp_vae.serving.distributions import describe
from tfp_vae.vae import VAE

tfd = tfp.distributions

# The one seed of the deterministic estimates `score` and `log_prob`.
ESTIMATE_SEED = (7, 0)
# Draws of z held in memory at once for each row of a `log_prob` request.
DRAWS_PER_STEP = 32


def signatures(
    vae: VAE, *, score_samples: int, log_prob_samples: int
) -> dict[str, tf.types.experimental.PolymorphicFunction]:
    """Make every served function of a VAE; the keys are the signatures' names."""
    x = tf.TensorSpec([None, *vae.event_shape], tf.float32, "x")
    z = tf.TensorSpec([None, *vae.latent_shape], tf.float32, "z")
    seed = tf.TensorSpec([None, 2], tf.int32, "seed")

    def encode(x):
        posterior = vae.encode(x)
        return {**_parameters(posterior), **_stddev(posterior)}

    def decode(z):
        return _parameters(vae.decode(z))

    def reconstruct(x):
        return {"mean": sampling.point(vae.decode(sampling.point(vae.encode(x))))}

    def sample(seed):
        return vae.sample_rows(seed)

    def score(x):
        one_pass = vae.one_pass(x, tf.constant(ESTIMATE_SEED))
        z = sampling.sample_alike(one_pass.posterior, score_samples, one_pass.seed)
        log_likelihood, log_prior, log_posterior = (tf.reduce_mean(term, 0) for term in one_pass.log_densities(z))
        kl = one_pass.kl(log_prior, log_posterior)
        return {"elbo": log_likelihood - kl, "log_likelihood": log_likelihood, "kl": kl}

    def log_prob(x):
        estimate = objectives.importance_sampled_log_prob(
            vae.one_pass(x, tf.constant(ESTIMATE_SEED)),
            log_prob_samples,
            draws_per_step=min(DRAWS_PER_STEP, log_prob_samples),
            draw=sampling.sample_alike,
        )
        return {"log_prob": estimate}

    functions = {encode: x, decode: z, reconstruct: x, sample: seed, score: x, log_prob: x}
    served = {function.__name__: _serve(function, spec) for function, spec in functions.items()}
    return {"serving_default": served["encode"], **served}


def _serve(function: Callable, *specs: tf.TensorSpec) -> tf.types.experimental.PolymorphicFunction:
    def as_float32(*arguments):
        outputs = function(*arguments)
        return {name: tf.cast(value, tf.float32) for name, value in outputs.items()}

    return tf.function(as_float32, input_signature=specs)


def _parameters(distribution: tfd.Distribution) -> dict[str, tf.Tensor]:
    return {**describe(distribution)[1], "mean": sampling.point(distribution)}


def _stddev(distribution: tfd.Distribution) -> dict[str, tf.Tensor]:
    try:
        return {"stddev": distribution.stddev()}
    except NotImplementedError:
        return {}
