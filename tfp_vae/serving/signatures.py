"""The served functions.

Inputs and outputs are plain tensors. The batch is always the first axis, and rows are independent
of each other.
"""

import functools
import math
from collections.abc import Callable, Mapping

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import missing, objectives, sampling
from tfp_vae.layers.fold import named_inputs
from tfp_vae.layers.internals import without_retracing_warnings
from tfp_vae.layers.parts import innermost, is_joint, parts_of
from tfp_vae.layers.values import values_of
from tfp_vae.quantity import Quantity
from tfp_vae.seeds import Stream, seed_of
from tfp_vae.serving.plain_tensors import describe, is_determined
from tfp_vae.vae import VAE

tfd = tfp.distributions

# Draws of z held in memory at once for each row of a `log_prob` request.
DRAWS_PER_STEP = 32


def signatures(
    vae: VAE, *, score_samples: int, log_prob_samples: int
) -> dict[str, tf.types.experimental.PolymorphicFunction]:
    """Make every served function of a VAE; the keys are the signatures' names."""
    x = _specs(vae.x, tf.float32)
    z = _specs(vae.z, tf.float32)
    condition = {} if vae.condition is None else _specs(vae.condition, vae.condition.dtype)
    seed = {"seed": tf.TensorSpec([None, 2], tf.int32, "seed")}

    def data(inputs):
        given = {"condition": inputs["condition"]} if condition else {}
        return {"x": vae.x.whole(inputs), **given}

    def posterior(inputs):
        return vae.posterior(vae.as_batch(data(inputs)))

    def encode(inputs):
        return _outputs(posterior(inputs), stddev=True)

    def decode(inputs):
        return _outputs(likelihood(inputs))

    def reconstruct(inputs):
        return _named("mean", vae.reconstruction(data(inputs)))

    def sample(inputs):
        drawn = vae.sample_rows(inputs["seed"], inputs.get("condition"))
        return {**vae.z.parts(drawn["z"]), **vae.x.parts(drawn["x"])}

    def score(inputs):
        one_pass = vae.one_pass(data(inputs), seed_of(Stream.SERVED_ESTIMATES))
        z = sampling.sample_alike(one_pass.posterior, score_samples, one_pass.seed)
        if vae.encodes_to_points:  # without a density nothing else is defined
            return {"log_likelihood": tf.reduce_mean(one_pass.log_likelihood(z), 0)}
        log_likelihood, log_prior, log_posterior = (
            tf.reduce_mean(term, 0) for term in one_pass.log_densities(z)
        )
        kl = one_pass.kl(log_prior, log_posterior)
        return {"elbo": log_likelihood - kl, "log_likelihood": log_likelihood, "kl": kl}

    def log_prob(inputs):
        estimate = objectives.importance_sampled_log_prob(
            vae.one_pass(data(inputs), seed_of(Stream.SERVED_ESTIMATES)),
            log_prob_samples,
            draws_per_step=min(DRAWS_PER_STEP, log_prob_samples),
            draw=sampling.sample_alike,
        )
        return {"log_prob": estimate}

    def posterior_sample(inputs):
        return vae.z.parts(sampling.sample_rows(posterior(inputs), inputs["seed"]))

    def posterior_log_prob(inputs):
        return {"log_prob": sampling.log_density(posterior(inputs), vae.z.whole(inputs))}

    def likelihood(inputs):
        return vae.likelihood(vae.z.whole(inputs), inputs.get("condition"))

    def likelihood_sample(inputs):
        return vae.x.parts(sampling.sample_rows(likelihood(inputs), inputs["seed"]))

    def likelihood_log_prob(inputs):
        return {"log_prob": sampling.log_density(likelihood(inputs), vae.x.whole(inputs))}

    def prior_log_prob(inputs):
        prior = vae.own_prior(inputs.get("condition"))
        return {"log_prob": sampling.log_density(prior, vae.z.whole(inputs))}

    def impute(inputs):
        given = vae.as_batch(data(inputs))
        values = missing.fill(vae, given, log_prob_samples, None, seed_of(Stream.SERVED_ESTIMATES))
        return vae.x.parts(tf.nest.map_structure(tf.where, given["mask"], given["x"], values))

    of_data = {**x, **condition}
    of_latents = {**z, **condition}
    functions = {
        encode: of_data,
        decode: of_latents,
        reconstruct: of_data,
        sample: {**seed, **condition},
    }
    functions |= {score: of_data} if vae.encodes_to_points else {score: of_data, log_prob: of_data}
    if not is_determined(vae.some_posterior):
        functions |= {posterior_sample: {**of_data, **seed}, posterior_log_prob: {**of_data, **z}}
    if not is_determined(vae.some_likelihood):
        functions |= {
            likelihood_sample: {**of_latents, **seed},
            likelihood_log_prob: {**of_latents, **x},
        }
    if asks_for_prior(vae) and not vae.encodes_to_points and not vae.z.has_parts:
        functions[prior_log_prob] = of_latents
    if vae.missing:
        functions[impute] = of_data
    parts = parts_of(vae.some_likelihood)
    ends = {name: values_of(innermost(part)).ends for name, part in parts.items()}
    served = {
        function.__name__: _serve(function, specs, functools.partial(_are_possible, vae, ends))
        for function, specs in functions.items()
    }
    return {"serving_default": served["encode"], **served}


def asks_for_prior(vae: VAE) -> bool:
    """Return whether fixed tensors do not determine the prior."""
    if "condition" in named_inputs(vae.prior):
        return True
    return not is_determined(
        vae.own_prior(None if vae.condition is None else vae.condition.zeros())
    )


def _specs(variable: Quantity, dtype) -> dict[str, tf.TensorSpec]:
    return {
        name: tf.TensorSpec([None, *shape], dtype, name) for name, shape in variable.shapes.items()
    }


def _are_possible(vae: VAE, ends: Mapping[str, tuple], inputs: Mapping) -> tf.Tensor:
    """Return for each row whether the model can answer it, `[batch]`.

    It cannot answer a row that holds infinity, NaN where no value may be missing, a value outside
    the likelihood's support (such as an unknown category), or a label that the networks do not
    know.
    """
    possible = []
    for name, value in inputs.items():
        if vae.condition is not None and name == "condition":
            good = vae.condition.is_known(value)
        elif name in vae.x.shapes:
            low, high = ends[name]
            good = tf.math.is_finite(value) & (low <= value) & (value <= high)
            good |= tf.math.is_nan(value) & vae.missing
        else:
            good = tf.math.is_finite(tf.cast(value, tf.float32))
        possible.append(tf.reduce_all(good, range(1, good.shape.rank)))
    return functools.reduce(tf.logical_and, possible)


def _serve(
    function: Callable, specs: Mapping[str, tf.TensorSpec], are_possible: Callable
) -> tf.types.experimental.PolymorphicFunction:
    def as_float32(*arguments):
        inputs = dict(zip(specs, arguments, strict=True))
        # A server joins the rows of many clients: a bad row gets NaN, and the other rows get their
        # normal answers.
        possible = are_possible(inputs)
        inputs = {name: _where(possible, value, 0) for name, value in inputs.items()}
        outputs = function(inputs)
        return {
            name: _where(possible, tf.cast(value, tf.float32), math.nan)
            for name, value in outputs.items()
        }

    # All signatures share this function's code, by which TensorFlow counts tracings.
    return without_retracing_warnings(
        tf.function(as_float32, input_signature=[*specs.values()], autograph=False)
    )


def _where(rows: tf.Tensor, value: tf.Tensor, other: float) -> tf.Tensor:
    """Return one value in the chosen rows, and another value in the other rows."""
    at = tf.reshape(rows, [-1, *[1] * (value.shape.rank - 1)])
    return tf.where(at, value, tf.constant(other, value.dtype))


def _outputs(distribution: tfd.Distribution, *, stddev: bool = False) -> dict[str, tf.Tensor]:
    """Return the parameters that determine a distribution, if there are such, and its
    representative value.

    Parts are named.
    """
    parameters = describe(distribution)[1] if is_determined(distribution) else {}
    return {
        **parameters,
        **_named("mean", sampling.point(distribution)),
        **(_stddev(distribution) if stddev else {}),
    }


def _stddev(distribution: tfd.Distribution) -> dict[str, tf.Tensor]:
    if is_joint(distribution) and not is_determined(distribution):
        return {}
    try:
        return _named("stddev", distribution.stddev())
    except NotImplementedError:
        return {}


def _named(statistic: str, value) -> dict[str, tf.Tensor]:
    """Return a statistic by name, or one for each part, such as `z1_mean`."""
    if isinstance(value, Mapping):
        return {f"{name}_{statistic}": part for name, part in value.items()}
    return {statistic: value}
