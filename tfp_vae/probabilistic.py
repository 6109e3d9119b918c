"""One probabilistic model, made of encoder, decoder and prior."""

import abc
import contextlib
import functools
from collections.abc import Callable, Hashable
from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import batch, missing, networks, objectives, priors, quantity
from tfp_vae.checks import expect_kind
from tfp_vae.layers.compiled import CompiledDistribution, CompiledJoint
from tfp_vae.layers.distribution_layer import distribution_layers
from tfp_vae.layers.fold import first_distribution, fold, named_inputs, unfold
from tfp_vae.layers.frozen import frozen
from tfp_vae.layers.internals import take_non_tensors
from tfp_vae.layers.kl_divergence import call_prior
from tfp_vae.layers.parts import map_parts
from tfp_vae.layers.tensor_like import unwrap
from tfp_vae.layers.values import check_pair, expect_possible, is_point
from tfp_vae.quantity import Quantity
from tfp_vae.surface import Surface
from tfp_vae.tables import Table
from tfp_vae.text import Vocabulary

tfd = tfp.distributions


class ProbabilisticModel(Surface, keras.Model):
    """p(z) p(x|z) and q(z|x), made of three networks.

    Args:
        encoder, decoder, prior, missing: see `VAE`.
        **kwargs: arguments of `keras.Model`.
    """

    called = "The VAE"
    joint_class = CompiledJoint

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
        take_non_tensors(decoder)  # such as the posterior that `encode` returns
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
        """Check that encoder, decoder and prior fit each other and x, and build those that are not
        built yet.
        """
        shapes = batch.by_name(input_shape)["x"]
        self.x = Quantity.of("x", map_parts(lambda shape: shape[1:], shapes), self.variable_dtype)
        given = {} if self.condition is None else {"condition": self.condition.zeros()}
        zeros = self._zeros()
        values = self.encoder_inputs(zeros)
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
            missing.observed(likelihood, zeros["mask"])
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
        """Return data as a dict of `x` and, for a conditional model, `condition`, in the variables'
        dtypes.

        Raises:
            ValueError: if a part is missing, unexpected, or of another shape.
        """
        data = batch.by_name(self.in_parts(data))
        if not self.built:
            self.build(map_parts(lambda x: (None, *x.shape[1:]), data["x"]))
        x = self.x.expect(data["x"])
        mask = data.get("mask")
        seen = {}
        if self.missing:
            x, seen["mask"] = missing.split(x, None if mask is None else self.mask.expect(mask))
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
        """Raise a ValueError if observed values of x are impossible under the likelihood; symbolic
        tensors are not checked.
        """
        with tf.init_scope():
            x = self.x.rows(x)
            mask = None if mask is None else self.mask.rows(mask)
            if x is not None:
                expect_possible(
                    self.some_likelihood, missing.observed_examples(x, mask) if self.missing else x
                )

    @functools.cached_property
    def some_likelihood(self) -> tfd.Distribution:
        """The likelihood at an arbitrary z; its support is the same for every z."""
        return self.likelihood(
            self.z.zeros(), None if self.condition is None else self.condition.zeros()
        )

    @property
    def some_posterior(self) -> tfd.Distribution:
        """The posterior of an arbitrary x; its kind is the same for every x."""
        return _frozen_posterior(self, self._zeros())

    def _zeros(self) -> dict:
        """Return one example of zeros as `as_batch` returns data, possible or not."""
        x = self.x.zeros()
        data = {"x": x}
        if self.missing:
            data["mask"] = map_parts(lambda part: tf.ones_like(part, tf.bool), x)
        if self.condition is not None:
            data["condition"] = self.condition.zeros()
        return data

    # Distributions

    def frozen(self) -> contextlib.AbstractContextManager:
        """Return a context in which gradient tapes do not watch the weights of the model."""
        return frozen(self.parts.values())

    @tf.autograph.experimental.do_not_convert
    def encode(self, x) -> tfd.Distribution:
        """Return the posterior q(z|x), a plain tfd object.

        `[..., *event_shape]` -> batch shape `[...]`. Gradients flow to x but not to the weights, so
        that optimizers of TFP do not train them by accident. To train them under a tape, call
        `vae.encoder(x)`.
        """
        data = batch.by_name(self.in_parts(x))
        if quantity.has_unknown_rank(data["x"]):
            rows, lead = self.as_rows(tf.nest.map_structure(tf.convert_to_tensor, data))
            return unfold(self.encode(rows), lead)
        return self._distribution(_frozen_posterior, self.as_batch(data))

    def _distribution(self, function: Callable, data: dict) -> tfd.Distribution:
        """Return the distribution that a function of the model makes from data, compiled if
        possible.
        """
        made = self._once(function, lambda: CompiledDistribution(functools.partial(function, self)))
        return made(data)

    def posterior(self, data: dict) -> tfd.Distribution:
        """Return q(z|x) of what `as_batch` returns, for training and export: neither frozen nor
        compiled.
        """
        ndims = {**self.x.ndims, **self._condition_ndims}
        ndims |= {networks.mask_name(name): number for name, number in self.x.ndims.items()}
        return fold(self.encoder, self.encoder_inputs(data), ndims, self.x.main)

    def encoder_inputs(self, data: dict) -> dict:
        """Return all possible inputs of an encoder by name: x or its parts, their masks as numbers,
        the condition.
        """
        values = self.x.parts(data["x"])
        if self.missing:
            masks = self.x.parts(data["mask"])
            values |= {
                networks.mask_name(name): tf.cast(mask, self.variable_dtype)
                for name, mask in masks.items()
            }
        return {**values, **({"condition": data["condition"]} if "condition" in data else {})}

    @tf.autograph.experimental.do_not_convert
    def decode(self, z, condition=None) -> tfd.Distribution:
        """Return the likelihood p(x|z), a plain tfd object.

        `[..., *latent_shape]` -> batch shape `[...]`.

        Latents of several parts are a dict. No gradient flows to the weights, as in `encode`: to
        train them under a tape, call `vae.decoder(z)`. A condition with fewer leading axes than z
        is repeated along them.

        Raises:
            ValueError: if z or the condition has another shape, or is not finite (symbolic tensors
                are not checked).
        """
        self.expect_built()
        data = {"z": self.z.expect_finite(z), **self._given(condition)}
        if quantity.has_unknown_rank(data["z"]):
            rows, lead = self.as_rows(data)
            return unfold(self.decode(**rows), lead)
        return self._distribution(_frozen_likelihood, data)

    def likelihood(self, z, condition=None) -> tfd.Distribution:
        """Return p(x|z), for training and export: neither frozen nor compiled."""
        z = self.z.expect(z)
        given = self._given(condition)
        if self.condition is not None:
            lead = self.condition.leading(given["condition"])
            if lead.rank <= self.z.leading(z).rank:
                quantity.expect_alike(self.z.leading(z), lead, "z")
        values = {**self.z.parts(z), **given}
        return fold(self.decoder, values, {**self.z.ndims, **self._condition_ndims}, self.z.main)

    @tf.autograph.experimental.do_not_convert
    def prior_distribution(self, condition=None) -> tfd.Distribution:
        """Return the prior p(z), a plain tfd object with batch shape `[]`, or p(z|condition) with
        the batch shape `[...]` of the condition, even if the prior does not depend on it.
        """
        with self.frozen():
            prior = self.own_prior(condition)
        return self._for_each(prior, condition)

    def own_prior(self, condition=None) -> tfd.Distribution:
        """Return the prior as its layer makes it, not frozen; its batch shape is `[]` if it does
        not depend on the condition.
        """
        given = self._given(condition)
        if "condition" in named_inputs(self.prior):
            return fold(self.prior, given, self._condition_ndims)
        prior = unwrap(call_prior(self.prior))
        # Remove the batch axis of 1 that a Keras model needs.
        return unfold(prior, []) if prior.batch_shape == [1] else prior

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The tokens by number, of a likelihood of texts; otherwise None."""
        found = (layer.vocabulary for layer in distribution_layers(self.decoder))
        return next((vocabulary for vocabulary in found if vocabulary is not None), None)

    @property
    def table(self) -> Table | None:
        """The columns of a likelihood of tables; otherwise None."""
        found = (layer.table for layer in distribution_layers(self.decoder))
        return next((table for table in found if table is not None), None)

    @property
    def _condition_ndims(self) -> dict[str, int]:
        return {} if self.condition is None else self.condition.ndims

    @tf.autograph.experimental.do_not_convert
    def joint_distribution(self, condition=None) -> tfd.JointDistribution:
        """Return p(z, x) = p(z) p(x|z) as a `tfd.JointDistributionNamed` of `z` and `x`, or of
        their parts.

        TFP needs tens of milliseconds to trace a new one, so it is made only once if it cannot
        change.
        """
        if condition is not None or self.prior is None or self.prior.variables:
            return super().joint_distribution(condition)
        with tf.init_scope():
            return self._once("joint", super().joint_distribution)

    @property
    @abc.abstractmethod
    def uses_xla(self) -> bool:
        """Whether `log_prob` is compiled by XLA."""

    @property
    @abc.abstractmethod
    def parts(self) -> dict[str, keras.layers.Layer]:
        """The layers of the model, by the names of its arguments."""

    def _once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return what `make` has made for a key, until a part of the model or its variables change,
        as by `enable_lora`, or the model is compiled.
        """
        parts = self.parts.values()
        whole = key, *parts, *(id(weight) for part in parts for weight in part.variables)
        if whole not in self._made_once:
            self._made_once[whole] = make()
        return self._made_once[whole]

    @functools.cached_property
    def _made_once(self) -> dict[tuple, Any]:
        return {}


def _frozen_posterior(model: ProbabilisticModel, data: dict) -> tfd.Distribution:
    with model.frozen():
        return model.posterior(data)


def _frozen_likelihood(model: ProbabilisticModel, data: dict) -> tfd.Distribution:
    with model.frozen():
        return model.likelihood(data["z"], data.get("condition"))
