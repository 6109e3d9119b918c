"""The served functions.

Inputs and outputs are plain tensors. The batch is always the first axis, and rows are independent
of each other.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping

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
    parts = parts_of(vae.some_likelihood)
    ends = {name: values_of(innermost(part)).ends for name, part in parts.items()}
    are_possible = functools.partial(_are_possible, vae, ends)
    served = {
        function.__name__: _serve(function, specs, are_possible)
        for function, specs in _Functions(vae, score_samples, log_prob_samples).of_this_vae()
    }
    return {"serving_default": served["encode"], **served}


@dataclasses.dataclass(frozen=True)
class _Functions:
    """What is served: functions of named tensors, which return named tensors.

    Args:
        vae: the model.
        score_samples: draws of z in `score`.
        log_prob_samples: draws of z in `log_prob` and `impute`.
    """

    vae: VAE
    score_samples: int
    log_prob_samples: int

    def of_this_vae(self) -> Iterator[tuple[Callable, dict[str, tf.TensorSpec]]]:
        """Yield the functions that are defined for this VAE, each with what it takes."""
        vae = self.vae
        condition = {} if vae.condition is None else _specs(vae.condition, vae.condition.dtype)
        seed = {"seed": tf.TensorSpec([None, 2], tf.int32, "seed")}
        x, z = _specs(vae.x, tf.float32), _specs(vae.z, tf.float32)
        of_data, of_latents = {**x, **condition}, {**z, **condition}
        yield self.encode, of_data
        yield self.decode, of_latents
        yield self.reconstruct, of_data
        yield self.sample, {**seed, **condition}
        yield self.score, of_data
        if not vae.encodes_to_points:
            yield self.log_prob, of_data
        if not is_determined(vae.some_posterior):
            yield self.posterior_sample, {**of_data, **seed}
            yield self.posterior_log_prob, {**of_data, **z}
        if not is_determined(vae.some_likelihood):
            yield self.likelihood_sample, {**of_latents, **seed}
            yield self.likelihood_log_prob, {**of_latents, **x}
        if asks_for_prior(vae) and not vae.encodes_to_points and not vae.z.has_parts:
            yield self.prior_log_prob, of_latents
        if vae.missing:
            yield self.impute, of_data

    def encode(self, inputs):
        return _outputs(self._posterior(inputs), stddev=True)

    def decode(self, inputs):
        return _outputs(self._likelihood(inputs))

    def reconstruct(self, inputs):
        return _named("mean", self.vae.reconstruction(self._data(inputs)))

    def sample(self, inputs):
        drawn = self.vae.sample_rows(inputs["seed"], inputs.get("condition"))
        return {**self.vae.z.parts(drawn["z"]), **self.vae.x.parts(drawn["x"])}

    def score(self, inputs):
        one_pass = self._one_pass(inputs)
        z = sampling.sample_alike(one_pass.posterior, self.score_samples, one_pass.seed)
        if self.vae.encodes_to_points:  # without a density nothing else is defined
            return {"log_likelihood": tf.reduce_mean(one_pass.log_likelihood(z), 0)}
        log_likelihood, log_prior, log_posterior = (
            tf.reduce_mean(term, 0) for term in one_pass.log_densities(z)
        )
        kl = one_pass.kl(log_prior, log_posterior)
        return {"elbo": log_likelihood - kl, "log_likelihood": log_likelihood, "kl": kl}

    def log_prob(self, inputs):
        estimate = objectives.importance_sampled_log_prob(
            self._one_pass(inputs),
            self.log_prob_samples,
            draws_per_step=min(DRAWS_PER_STEP, self.log_prob_samples),
            draw=sampling.sample_alike,
        )
        return {"log_prob": estimate}

    def posterior_sample(self, inputs):
        return self.vae.z.parts(sampling.sample_rows(self._posterior(inputs), inputs["seed"]))

    def posterior_log_prob(self, inputs):
        return self._log_prob(self._posterior(inputs), self.vae.z.whole(inputs))

    def likelihood_sample(self, inputs):
        return self.vae.x.parts(sampling.sample_rows(self._likelihood(inputs), inputs["seed"]))

    def likelihood_log_prob(self, inputs):
        return self._log_prob(self._likelihood(inputs), self.vae.x.whole(inputs))

    def prior_log_prob(self, inputs):
        return self._log_prob(self.vae.own_prior(inputs.get("condition")), self.vae.z.whole(inputs))

    def impute(self, inputs):
        given, seed = self.vae.as_batch(self._data(inputs)), seed_of(Stream.SERVED_ESTIMATES)
        values = missing.fill(self.vae, given, self.log_prob_samples, None, seed)
        filled = tf.nest.map_structure(tf.where, given["mask"], given["x"], values)
        return self.vae.x.parts(filled)

    def _data(self, inputs):
        given = {} if self.vae.condition is None else {"condition": inputs["condition"]}
        return {"x": self.vae.x.whole(inputs), **given}

    def _one_pass(self, inputs):
        return self.vae.one_pass(self._data(inputs), seed_of(Stream.SERVED_ESTIMATES))

    def _posterior(self, inputs):
        return self.vae.posterior(self.vae.as_batch(self._data(inputs)))

    def _likelihood(self, inputs):
        return self.vae.likelihood(self.vae.z.whole(inputs), inputs.get("condition"))

    @staticmethod
    def _log_prob(distribution, value):
        return {"log_prob": sampling.log_density(distribution, value)}


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
