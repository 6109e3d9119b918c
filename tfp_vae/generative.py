"""Computations with the distributions of a model: reconstructions, samples, likelihoods."""

import functools
from collections.abc import Callable

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import missing, objectives, sampling
from tfp_vae.batch import batches_of, is_dataset, num_examples
from tfp_vae.checks import as_count, as_seed
from tfp_vae.layers.frozen import later
from tfp_vae.layers.parts import map_parts
from tfp_vae.layers.tensor_like import unwrap
from tfp_vae.layers.vector_quantized import with_codes_of
from tfp_vae.probabilistic import ProbabilisticModel
from tfp_vae.seeds import Stream, seed_of

tfd = tfp.distributions

# Rows of one decoder call in `log_prob`: enough for efficient matrix products with little memory.
ROWS_PER_DRAW = 1024


class LatentVariableModel(ProbabilisticModel):
    """Base class of `VAE`, without training."""

    @tf.autograph.experimental.do_not_convert
    def one_pass(self, x, seed: tf.Tensor, step: tf.Tensor | None = None) -> objectives.OnePass:
        """Return the inputs of an objective for a batch x, `[batch, *event_shape]`."""
        data = self.as_batch(x)
        condition = data.get("condition")
        posterior = self.posterior(data)
        prior = with_codes_of(posterior, self.own_prior(condition))

        def likelihood(z):
            whole = self.likelihood(z, condition)
            return missing.observed(whole, data["mask"]) if self.missing else whole

        return objectives.OnePass(data["x"], posterior, prior, later(likelihood), seed, step)

    @tf.autograph.experimental.do_not_convert
    def reconstruction(self, x):
        """Return the results of `reconstruct` as tensors."""
        data = self.as_batch(x)
        if not tf.executing_eagerly():
            return _reconstruct(self, data)
        flat, lead = self._as_numbers(data)
        means = self.compile_once(_reconstruct, for_any_shape=True)(flat)
        if lead.shape == [1]:
            return means
        return tf.nest.map_structure(
            lambda mean: tf.reshape(mean, tf.concat([lead, tf.shape(mean)[1:]], 0)), means
        )

    def rows_of_samples(
        self, seeds: tf.Tensor, condition, prior: tfd.Distribution | None, draws: bool
    ):
        """Return the results of `generate` as tensors, from a stateless seed for each row, int32
        `[num_samples, 2]`.
        """
        sample_rows = self.compile_once(LatentVariableModel.sample_rows, for_any_shape=True)
        return sample_rows(seeds, condition, prior, draws)["x"]

    def sample_rows(
        self,
        seeds: tf.Tensor,
        condition=None,
        prior: tfd.Distribution | None = None,
        draws: bool = False,
    ) -> dict:
        """Draw `z` from the prior for each row of stateless seeds, int32 `[batch, 2]`, and return
        it with `x` as in `generate`.
        """
        prior = self.own_prior(condition) if prior is None else unwrap(prior)
        z = sampling.sample_rows(prior, seeds)
        likelihood = self.likelihood(z, condition)
        return {
            "z": z,
            "x": sampling.draw_of_rows(likelihood, seeds) if draws else sampling.point(likelihood),
        }

    @tf.autograph.experimental.do_not_convert
    def log_prob(self, x, num_samples: int = 1000, seed: int = 0) -> tf.Tensor:
        """Estimate log p(x) by importance sampling from the posterior.

        `[..., *event_shape]` -> `[...]`, in nats.

        The estimate is the log of the mean of p(x|z) p(z) / q(z|x) over `num_samples` draws of z.
        Its expectation is a lower bound, which becomes tight as `num_samples` grows. Memory does
        not grow with `num_samples`. For a conditional model it estimates log p(x|condition). The
        densities of a DataFrame are in the units of its columns, of dates in days.

        Reference: Burda et al., 2016, Importance Weighted Autoencoders, arXiv:1509.00519.

        Raises:
            ValueError: if `num_samples` is not a whole number of at least 1, `seed` one from 0 to
                2**31 - 1, x has another shape, or the posterior is `layers.Deterministic`.
        """
        num_samples = as_count(num_samples, "num_samples")
        seed = as_seed(seed)
        log_prob = self.estimate_log_prob(x, num_samples, seed_of(Stream.LOG_PROB, seed))
        return self.in_units(log_prob, x)

    def estimate_log_prob(self, x, num_samples: int, seed: tf.Tensor) -> tf.Tensor:
        """Estimate log p(x) as `log_prob` does, with draws from a stateless seed, int32 `[2]`."""
        flat, lead = self._importance_data(x)
        return tf.reshape(self.compile_once(_log_prob)(flat, tf.constant(num_samples), seed), lead)

    def effective_samples(self, x, num_samples: int, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the result of `estimate_log_prob` as `log_prob`, and as `effective_samples` how many
        equal weights would say as much as those of its draws: (sum of w)^2 / sum of w^2.
        """
        flat, lead = self._importance_data(x)
        weigh = self.compile_once(_sum_of_weights)
        log_sum, effective = weigh(flat, tf.constant(num_samples), seed)
        log_number = tf.math.log(tf.cast(num_samples, log_sum.dtype))
        return {
            "log_prob": tf.reshape(log_sum - log_number, lead),
            "effective_samples": tf.reshape(effective, lead),
        }

    def _importance_data(self, x) -> tuple[dict, tf.Tensor]:
        data = self.as_batch(x)
        if self.encodes_to_points:
            raise ValueError(
                "log p(x) cannot be estimated by a Deterministic posterior: importance sampling "
                "needs one that has a density. Judge the model by its log_likelihood, or give it "
                "another posterior."
            )
        return self._as_numbers(data)

    def _as_numbers(self, data: dict) -> tuple[dict, tf.Tensor]:
        """Flatten the leading axes into one, and make numbers of masks, as gradients need them."""
        flat, lead = self.as_rows(data)
        if self.missing:
            flat["mask"] = tf.nest.map_structure(
                lambda mask: tf.cast(mask, self.x.dtype), flat["mask"]
            )
        return flat, lead

    def compile_once(self, function: Callable, *, for_any_shape: bool = False) -> Callable:
        """Return a function of the model and tensors as a function of the tensors, compiled once
        like training; or compiled once for any number of rows, without XLA.
        """
        jit_compile = self.uses_xla and not for_any_shape
        return self._once(
            (function, jit_compile),
            lambda: tf.function(
                functools.partial(function, self),
                jit_compile=jit_compile,
                reduce_retracing=for_any_shape,
                autograph=False,
            ),
        )

    def impute(self, x, num_samples: int = 1000, seed: int = 0, *, num_draws: int | None = None):
        """Fill in missing values by importance sampling: `[batch, *event_shape]`, the shape of x.

        The observed values of each example give the weights of `num_samples` draws of z. A missing
        value becomes the weighted mean of p(x|z), that is, its mean given the observed values; a
        missing category becomes the most probable one. The result for one example does not depend
        on the other examples, but draws depend on its place among them.

        Reference: Mattei & Frellsen, 2019, MIWAE, arXiv:1812.02633.

        Args:
            x: NaN where a value is missing; or a dict of "x" and "mask", which is 1 where a value
                is observed; or a DataFrame, which gives one whose observed values are untouched; or a
                `tf.data.Dataset` of batches, for which the result is a `tf.data.Dataset` of the same
                batches, filled in as they are asked for.
            num_samples: draws of z for each example.
            seed: of the draws.
            num_draws: if given, return this number of draws of the missing values instead of their
                mean: `[num_draws, batch, *event_shape]`. The method is sampling importance
                resampling. The draws show how uncertain the values are.

        Raises:
            ValueError: if the VAE was not made with `missing=True`, a number is below 1, or x has
                another shape.
        """
        if not self.missing:
            raise ValueError(
                "This VAE knows no missing values: make it with VAE(..., missing=True)."
            )
        num_samples = as_count(num_samples, "num_samples")
        num_draws = None if num_draws is None else as_count(num_draws, "num_draws")
        own_seed = seed_of(Stream.IMPUTATION, as_seed(seed))
        if not is_dataset(x):
            return self._impute(x, num_samples, num_draws, own_seed, 0)

        def filled():
            row = 0
            for batch in batches_of(x, None):
                yield self._impute(batch, num_samples, num_draws, own_seed, row)
                row += num_examples(batch)

        self.expect_built()
        lead = [None] if num_draws is None else [num_draws, None]
        spec = map_parts(lambda shape: tf.TensorSpec([*lead, *shape], self.x.dtype), self.x.shape)
        return tf.data.Dataset.from_generator(filled, output_signature=spec)

    def _impute(self, x, num_samples: int, num_draws: int | None, seed: tf.Tensor, row: int):
        data = self.as_batch(x)
        fill = self.compile_once(missing.fill, for_any_shape=True)
        values = fill(data, num_samples, num_draws, seed, tf.constant(row))
        filled = missing.replace(data["x"], data["mask"], values)
        return self.filled(x, filled)


def _reconstruct(model: LatentVariableModel, data: dict):
    with model.frozen():
        z = sampling.point(model.posterior(data))
        return sampling.point(model.likelihood(z, data.get("condition")))


def _log_prob(
    model: LatentVariableModel, data: dict, num_samples: tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    def one_pass(leaves):
        with model.frozen():
            return model.one_pass(leaves, seed)

    return objectives.log_prob_by_recomputation(
        one_pass, data, num_samples, draws_per_step=_draws_per_step(data)
    )


def _sum_of_weights(
    model: LatentVariableModel, data: dict, num_samples: tf.Tensor, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    with model.frozen():
        one_pass = model.one_pass(data, seed)
        return objectives.sum_of_weights(one_pass, num_samples, _draws_per_step(data))


def _draws_per_step(data: dict) -> int:
    rows = tf.nest.flatten(data)[0].shape[0] or ROWS_PER_DRAW
    return max(1, ROWS_PER_DRAW // rows)
