"""Encoder, decoder and prior become one probabilistic model.

Its distributions, and what is computed from them.
"""

import abc
import contextlib
import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import batch, missing, objectives, priors, quantity, sampling
from tfp_vae.checks import as_count, as_seed, expect_kind
from tfp_vae.layers.distribution_layer import distribution_layers
from tfp_vae.layers.fold import first_distribution, fold, named_inputs, unfold
from tfp_vae.layers.frozen import frozen, later
from tfp_vae.layers.kl_divergence import call_prior
from tfp_vae.layers.parts import map_parts
from tfp_vae.layers.tensor_like import unwrap
from tfp_vae.layers.values import check_pair, expect_possible, is_point
from tfp_vae.layers.vector_quantized import with_codes_of
from tfp_vae.quantity import Quantity
from tfp_vae.seeds import Stream, seed_of
from tfp_vae.surface import Surface

tfd = tfp.distributions

# Rows of one decoder call in `log_prob`: enough for efficient matrix products, little memory.
ROWS_PER_DRAW = 1024


class LatentVariableModel(Surface, keras.Model):
    """The base of `VAE`: p(z) p(x|z) and q(z|x), without training.

    Args:
        encoder, decoder, prior, missing: see `VAE`.
        **kwargs: arguments of `keras.Model`.
    """

    called = "The VAE"

    def __init__(
        self,
        encoder: keras.Model,
        decoder: keras.Model,
        prior: keras.layers.Layer | None,
        missing: bool = False,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.missing = bool(missing)
        self.encoder = expect_kind("encoder", encoder, keras.layers.Layer, "a Keras model")
        self.decoder = expect_kind("decoder", decoder, keras.layers.Layer, "a Keras model")
        self.prior = prior  # `build` makes the default one
        if prior is not None:
            expect_kind(
                "prior",
                prior,
                keras.layers.Layer,
                "a prior such as tfp_vae.priors.StandardNormal(size)",
            )
        self.condition = Quantity.condition(
            [part for part in (encoder, decoder, prior) if part is not None]
        )

    # Building

    def build(self, input_shape):
        """Check that encoder, decoder and prior fit each other and x, and create what is not
        created yet.
        """
        shapes = batch.by_name(input_shape)["x"]
        self.x = Quantity.of("x", map_parts(lambda shape: shape[1:], shapes), self.variable_dtype)
        given = {} if self.condition is None else {"condition": self.condition.zeros()}
        x = self.x.zeros()
        seen = (
            {"mask": map_parts(lambda part: tf.ones_like(part, tf.bool), x)} if self.missing else {}
        )
        values = self._encoder_inputs({"x": x, **seen, **given})
        posterior = first_distribution("encoder", self.encoder, values, self.x.main)
        if posterior.event_shape == []:
            raise ValueError(
                "The encoder must end in a distribution over vectors, its event is ()."
            )
        self.z = Quantity.of("z", posterior.event_shape, self.variable_dtype)
        self.encodes_to_points = is_point(posterior)
        if not objectives.is_reparameterized(posterior):
            raise ValueError(
                f"The posterior {type(posterior).__name__} is not reparameterized: no gradient "
                "would reach the encoder through its draws. Use one that is, such as "
                "MultivariateNormalDiag, PowerSpherical or a relaxed one."
            )
        if self.prior is None:
            self.prior = self._default_prior()
        prior = self.own_prior(**given)
        check_pair(posterior, prior)
        if (shape := map_parts(tuple, prior.event_shape)) != self.z.shape:
            raise ValueError(
                f"The prior's event shape {shape} differs from the encoder's {self.z.shape}."
            )
        values = {**self.z.parts(self.z.zeros()), **given}
        likelihood = first_distribution("decoder", self.decoder, values, self.z.main)
        if (shape := map_parts(tuple, likelihood.event_shape)) != self.x.shape:
            raise ValueError(
                f"The encoder takes examples of shape {self.x.shape}, but the decoder's "
                f"distribution is over examples of shape {shape}. Make them equal."
            )
        quantity.expect_distinct_names(self.x, self.z)
        if self.missing:
            missing.observed(likelihood, seen["mask"])
            for layer in distribution_layers(self.decoder):
                layer.expect_missing()
        self.check(posterior, prior)
        super().build(input_shape)

    @abc.abstractmethod
    def check(self, posterior: tfd.Distribution, prior: tfd.Distribution) -> None:
        """Raise a ValueError if training is not defined for such distributions."""

    def _default_prior(self) -> priors.Prior:
        layers = distribution_layers(self.encoder)
        suited = [priors.prior.of_layer(layer, self.z.shape, self.dtype_policy) for layer in layers]
        if len(found := [prior for prior in suited if prior is not None]) == 1:
            return found[0]
        if not self.z.has_parts and len(self.z.shape) == 1:
            return priors.StandardNormal(self.z.size, dtype=self.dtype_policy)
        raise ValueError(
            f"The latents have shape {self.z.shape}, for which there is no default prior. Pass "
            "prior=..., such as a tfp_vae.layers.Joint of a prior for each."
        )

    def as_batch(self, data) -> dict:
        """Bring data to a dict of `x` and, of a conditional model, `condition`, in the variables'
        dtypes.

        Raises:
            ValueError: if a part is missing, not asked for, or of another shape.
        """
        data = batch.by_name(data)
        if not self.built:
            self.build(map_parts(lambda x: (None, *x.shape[1:]), data["x"]))
        x = self.x.expect(data["x"])
        mask = data.get("mask")
        seen = {}
        if self.missing:
            x, seen["mask"] = missing.split(x, None if mask is None else self._mask.expect(mask))
        elif mask is not None:
            raise ValueError(
                "A mask was given to a VAE that takes none: make it with VAE(..., missing=True)."
            )
        self._expect_possible(x, **seen)
        given = self._given(data.get("condition"))
        if self.condition is not None:
            quantity.expect_alike(self.x.leading(x), self.condition.leading(given["condition"]))
        return {"x": x, **seen, **given}

    def _expect_possible(self, x, mask=None) -> None:
        """Raise a ValueError if x can be looked at, which symbolic tensors cannot, and is
        impossible where observed.
        """
        with tf.init_scope():
            x = self.x.rows(x)
            mask = None if mask is None else self._mask.rows(mask)
            if x is not None:
                expect_possible(
                    self.some_likelihood, missing.observed_examples(x, mask) if self.missing else x
                )

    @functools.cached_property
    def some_likelihood(self) -> tfd.Distribution:
        """The likelihood at some z: the values it takes are the same at any."""
        return self._likelihood(
            self.z.zeros(), None if self.condition is None else self.condition.zeros()
        )

    @property
    def _mask(self) -> Quantity:
        return Quantity("mask", self.x.shape, tf.bool)

    # Distributions. Training goes through the private methods, which are not frozen.

    def frozen(self) -> contextlib.AbstractContextManager:
        """Return a context in which no gradient tape sees the weights of the model."""
        return frozen(self.parts.values())

    def encode(self, x) -> tfd.Distribution:
        """Return the posterior q(z|x), a plain tfd object.

        `[..., *event_shape]` -> batch shape `[...]`. Gradients flow to x, and none to the weights,
        which optimizers of TFP would train: to train them under a tape, call `vae.encoder(x)`.
        """
        data = self.as_batch(x)
        with self.frozen():
            return self._posterior(data)

    def _posterior(self, data: dict) -> tfd.Distribution:
        ndims = {**self.x.ndims, **self._condition_ndims}
        ndims |= {quantity.mask_name(name): number for name, number in self.x.ndims.items()}
        return fold(self.encoder, self._encoder_inputs(data), ndims, self.x.main)

    def _encoder_inputs(self, data: dict) -> dict:
        """Return all that an encoder may name.

        x or its parts, their masks as numbers, the condition.
        """
        values = self.x.parts(data["x"])
        if self.missing:
            masks = self.x.parts(data["mask"])
            values |= {
                quantity.mask_name(name): tf.cast(mask, self.variable_dtype)
                for name, mask in masks.items()
            }
        return {**values, **({"condition": data["condition"]} if "condition" in data else {})}

    def decode(self, z, condition=None) -> tfd.Distribution:
        """Return the likelihood p(x|z), a plain tfd object.

        `[..., *latent_shape]` -> batch shape `[...]`.

        Latents of several parts are a dict. No gradient flows to the weights, as in `encode`: to
        train them under a tape, call `vae.decoder(z)`. A condition with fewer leading axes than z
        is repeated along them.

        Raises:
            ValueError: if z or the condition has another shape, or can be looked at and is not
                finite.
        """
        self.expect_built()
        z = self.z.expect_finite(z)
        with self.frozen():
            return self._likelihood(z, condition)

    def _likelihood(self, z, condition=None) -> tfd.Distribution:
        z = self.z.expect(z)
        given = self._given(condition)
        if self.condition is not None:
            lead = self.condition.leading(given["condition"])
            if lead.rank <= self.z.leading(z).rank:
                quantity.expect_alike(self.z.leading(z), lead, "z")
        values = {**self.z.parts(z), **given}
        return fold(self.decoder, values, {**self.z.ndims, **self._condition_ndims}, self.z.main)

    def prior_distribution(self, condition=None) -> tfd.Distribution:
        """Return the prior p(z), a plain tfd object, batch shape `[]`, or p(z|condition), batch
        shape `[...]`, that of the condition also where the prior does not look at it.
        """
        with self.frozen():
            prior = self.own_prior(condition)
        return self._for_each(prior, condition)

    def own_prior(self, condition=None) -> tfd.Distribution:
        """Return the prior as its layer makes it, not frozen; batch shape `[]` where it does not look
        at the condition.
        """
        given = self._given(condition)
        if "condition" in named_inputs(self.prior):
            return fold(self.prior, given, self._condition_ndims)
        prior = unwrap(call_prior(self.prior))
        # Of a Keras model, which needs a batch.
        return unfold(prior, []) if prior.batch_shape == [1] else prior

    @property
    def _condition_ndims(self) -> dict[str, int]:
        return {} if self.condition is None else self.condition.ndims

    def one_pass(self, x, seed: tf.Tensor, step: tf.Tensor | None = None) -> objectives.OnePass:
        """Return what an objective sees of a batch x, `[batch, *event_shape]`."""
        data = self.as_batch(x)
        condition = data.get("condition")
        posterior = self._posterior(data)
        prior = with_codes_of(posterior, self.own_prior(condition))

        def likelihood(z):
            whole = self._likelihood(z, condition)
            return missing.observed(whole, data["mask"]) if self.missing else whole

        return objectives.OnePass(data["x"], posterior, prior, later(likelihood), seed, step)

    # What is computed from them

    def reconstruction(self, x):
        """Return what `reconstruct` gives, as tensors."""
        data = self.as_batch(x)
        if not tf.executing_eagerly():
            return _reconstruct(self, data)
        flat, lead = self._flatten(data)
        means = self.compile_once(_reconstruct, for_any_shape=True)(flat)
        return tf.nest.map_structure(
            lambda mean: tf.reshape(mean, tf.concat([lead, tf.shape(mean)[1:]], 0)), means
        )

    def rows_of_samples(
        self, seeds: tf.Tensor, condition, prior: tfd.Distribution | None, draws: bool
    ):
        """Return what `generate` gives, as tensors, of a stateless seed for each row, int32
        `[num_samples, 2]`.
        """
        return self._compiled_generate(seeds, condition, prior, draws)["x"]

    @functools.cached_property
    def _compiled_generate(self) -> Callable:
        return tf.function(self.sample_rows, reduce_retracing=True, autograph=False)

    def sample_rows(
        self,
        seeds: tf.Tensor,
        condition=None,
        prior: tfd.Distribution | None = None,
        draws: bool = False,
    ) -> dict:
        """Draw `z` from the prior for each row of stateless seeds, int32 `[batch, 2]`, and give
        `x`, as `generate`.
        """
        prior = self.own_prior(condition) if prior is None else unwrap(prior)
        z = sampling.sample_rows(prior, seeds)
        likelihood = self._likelihood(z, condition)
        return {
            "z": z,
            "x": sampling.draw_of_rows(likelihood, seeds) if draws else sampling.point(likelihood),
        }

    def log_prob(self, x, num_samples: int = 1000, seed: int = 0) -> tf.Tensor:
        """Estimate log p(x) by importance sampling from the posterior.

        `[..., *event_shape]` -> `[...]`, in nats.

        The estimate is log of the mean of p(x|z) p(z) / q(z|x) over `num_samples` draws of z: a
        lower bound in expectation, tight as `num_samples` grows. Memory does not grow with
        `num_samples`. Of a conditional model it is log p(x|condition).

        Reference: Burda et al., 2016, Importance Weighted Autoencoders, arXiv:1509.00519.

        Raises:
            ValueError: if `num_samples` is not a whole number of at least 1, `seed` one from 0 to
                2**31 - 1, x has another shape, or the posterior is `layers.Deterministic`.
        """
        num_samples = as_count(num_samples, "num_samples")
        seed = as_seed(seed)
        return self.estimate_log_prob(x, num_samples, seed_of(Stream.LOG_PROB, seed))

    def estimate_log_prob(self, x, num_samples: int, seed: tf.Tensor) -> tf.Tensor:
        """Estimate as `log_prob` does, by draws from a stateless seed, int32 `[2]`."""
        data = self.as_batch(x)
        if self.encodes_to_points:
            raise ValueError(
                "log p(x) cannot be estimated by a Deterministic posterior: importance sampling "
                "needs one that has a density. Judge the model by its log_likelihood, or give it "
                "another posterior."
            )
        flat, lead = self._flatten(data)
        return tf.reshape(self.compile_once(_log_prob)(flat, tf.constant(num_samples), seed), lead)

    def _flatten(self, data: dict) -> tuple[dict, tf.Tensor]:
        """Make one axis of the leading ones.

        A condition with fewer of them is repeated along the others.
        """
        variables: dict[str, Any] = {"x": self.x, "mask": self._mask, "condition": self.condition}
        ndims = {name: variables[name].ndims_of_parts for name in data}
        lead = tf.shape(tf.nest.flatten(data["x"])[0])[: self.x.leading(data["x"]).rank]
        flat = tf.nest.map_structure(
            lambda value, number: quantity.flatten(value, lead, number), data, ndims
        )
        # As numbers: a mask of truth values has no gradient, which `log_prob` asks for.
        if self.missing:
            flat["mask"] = tf.nest.map_structure(
                lambda mask: tf.cast(mask, self.x.dtype), flat["mask"]
            )
        return flat, lead

    def compile_once(self, function: Callable, *, for_any_shape: bool = False) -> Callable:
        """Return a function of the model and tensors as one of the tensors, compiled as training
        is, once for all; or once for any number of rows, as TensorFlow runs it.
        """
        key = function, self.uses_xla, *self.parts.values()
        if key not in self._compiled_functions:
            self._compiled_functions[key] = tf.function(
                functools.partial(function, self),
                jit_compile=self.uses_xla and not for_any_shape,
                reduce_retracing=for_any_shape,
                autograph=False,
            )
        return self._compiled_functions[key]

    @functools.cached_property
    def _compiled_functions(self) -> dict[tuple, Callable]:
        return {}

    def impute(self, x, num_samples: int = 1000, seed: int = 0, *, num_draws: int | None = None):
        """Fill in missing values by importance sampling: `[batch, *event_shape]`, the shape of x.

        The observed values of each example weigh `num_samples` draws of z; a missing value becomes
        the weighted mean of p(x|z), which is its mean given what is observed (of categories: the
        most probable one). What is filled in for an example does not depend on the others.

        Reference: Mattei & Frellsen, 2019, MIWAE, arXiv:1812.02633.

        Args:
            x: NaN where a value is missing; or a dict of "x" and "mask", which is 1 where a value
                is observed.
            num_samples: draws of z for each example.
            seed: of the draws.
            num_draws: None, or a number of draws of the missing values instead of their mean, by
                sampling importance resampling: `[num_draws, batch, *event_shape]`. They show how
                uncertain the values are.

        Raises:
            ValueError: if the VAE was not made with `missing=True`, a number is below 1, or x has
                another shape.
        """
        if not self.missing:
            raise ValueError(
                "This VAE knows no missing values: make it with VAE(..., missing=True)."
            )
        num_samples = as_count(num_samples, "num_samples")
        data = self.as_batch(x)
        num_draws = None if num_draws is None else as_count(num_draws, "num_draws")
        values = self._compiled_fill(
            data, num_samples, num_draws, seed_of(Stream.IMPUTATION, as_seed(seed))
        )
        return missing.replace(data["x"], data["mask"], values)

    @functools.cached_property
    def _compiled_fill(self) -> Callable:
        return tf.function(
            functools.partial(missing.fill, self), reduce_retracing=True, autograph=False
        )

    @property
    @abc.abstractmethod
    def uses_xla(self) -> bool:
        """Whether `log_prob` is compiled by XLA."""

    @property
    @abc.abstractmethod
    def parts(self) -> dict[str, keras.layers.Layer]:
        """The layers that the model is made of, by the names of its arguments."""


def _reconstruct(model: LatentVariableModel, data: dict):
    with model.frozen():
        z = sampling.point(model._posterior(data))
        return sampling.point(model._likelihood(z, data.get("condition")))


def _log_prob(
    model: LatentVariableModel, data: dict, num_samples: tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    rows = tf.nest.flatten(data)[0].shape[0] or ROWS_PER_DRAW
    draws = max(1, ROWS_PER_DRAW // rows)

    def one_pass(leaves):
        with model.frozen():
            return model.one_pass(leaves, seed)

    return objectives.log_prob_by_recomputation(one_pass, data, num_samples, draws_per_step=draws)
