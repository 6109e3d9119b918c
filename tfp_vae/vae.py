"""The composition root: encoder, decoder, prior and objective become one Keras model."""

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import objectives, priors, sampling
from tfp_vae.checks import as_count, as_seed, expect_kind
from tfp_vae.layers.divergence import KLDivergenceAddLoss, KLDivergenceRegularizer, call_prior
from tfp_vae.layers.fold import first_distribution, fold, input_shape_of
from tfp_vae.layers.support import check_pair, check_support, examples_of
from tfp_vae.layers.tensor_like import unwrap

tfd = tfp.distributions

# Mean KL(q(z|x) || p(z)), in nats per example, below which the latent code says next to nothing about x.
COLLAPSED_KL = 0.1
# Rows of one decoder call in `log_prob`: enough for efficient matrix products, little memory.
ROWS_PER_DRAW = 1024


@keras.saving.register_keras_serializable(package="tfp_vae")
class VAE(keras.Model):
    """A variational autoencoder: x -> q(z|x) -> z -> p(x|z), trained by `fit` to maximize the objective.

    `vae(x)` gives the objective's terms for each example, a dict of `loss`, `elbo`, `log_likelihood` and `kl`, each
    `[batch]`, in nats. `fit` and `evaluate` report their means over the examples, weighted by `sample_weight`; their
    `loss` is Keras's mean over the batches, with regularizers. `predict` gives reconstructions.

    Reference: Kingma & Welling, 2014, arXiv:1312.6114; Rezende et al., 2014, arXiv:1401.4082.

    Args:
        encoder: Keras model from x, `[batch, *event_shape]`, to a posterior: it ends in a distribution layer.
        decoder: Keras model from z, `[batch, latent]`, to a likelihood of x: it ends in a distribution layer.
        prior: a `priors.Prior`, or any Keras layer that gives a distribution whatever its input; None takes
            `priors.StandardNormal` of the posterior's size.
        objective: an `objectives.Objective`; None takes `objectives.ELBO()`.
        seed: int. Each draw has a stateless seed made of it and, in training, of the optimizer's step.
        **kwargs: arguments of `keras.Model`, such as `name`.

    Call arguments:
        x: `[batch, *event_shape]`.

    Raises:
        TypeError: if a part is of the wrong kind, or encoder or decoder do not end in a distribution layer.
        ValueError: if the shapes of encoder, decoder, prior and x do not fit each other, or the posterior is not
            reparameterized.

    Example:
    >>> from tfp_vae import layers as tfpl
    >>> encoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), tfpl.MultivariateNormalDiag(2)])
    >>> decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(6), tfpl.IndependentNormal(3)])
    >>> vae = VAE(encoder, decoder)
    >>> vae.compile("adam")
    >>> history = vae.fit(np.ones([8, 3], "float32"), verbose=0)
    >>> vae.encode(np.ones([8, 3], "float32"))
    <tfp.distributions.MultivariateNormalDiag 'MultivariateNormalDiag' batch_shape=[8] event_shape=[2] dtype=float32>
    """

    def __init__(
        self,
        encoder: keras.Model,
        decoder: keras.Model,
        *,
        prior: priors.Prior | None = None,
        objective: objectives.Objective | None = None,
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.encoder = expect_kind("encoder", encoder, keras.layers.Layer, "a Keras model")
        self.decoder = expect_kind("decoder", decoder, keras.layers.Layer, "a Keras model")
        self.prior: Any = prior  # `build` makes the default one
        if prior is not None:
            expect_kind("prior", prior, keras.layers.Layer, "a prior such as tfp_vae.priors.StandardNormal(size)")
        self.objective = objectives.ELBO() if objective is None else objective
        expect_kind("objective", self.objective, objectives.Objective, "an objective such as tfp_vae.objectives.ELBO()")
        self.seed = as_seed(seed)
        self.term_metrics = [keras.metrics.Mean(name=name) for name in ("elbo", "log_likelihood", "kl")]
        if input_shape_of(encoder) is not None:
            self.build(input_shape_of(encoder))

    # Building and saving

    def build(self, input_shape):
        """Check that encoder, decoder and prior fit each other and x, and create what is not created yet."""
        self.event_shape = tuple(input_shape[1:])
        posterior = first_distribution("encoder", self.encoder, tf.zeros([1, *self.event_shape], self.variable_dtype))
        self.latent_shape = tuple(posterior.event_shape)
        if len(self.latent_shape) != 1:
            raise ValueError(f"The encoder must end in a distribution over vectors, its event is {self.latent_shape}.")
        if posterior.reparameterization_type is not tfd.FULLY_REPARAMETERIZED:
            raise ValueError(
                f"The posterior {type(posterior).__name__} is not reparameterized: no gradient would reach the encoder "
                "through its draws. Use one that is, such as MultivariateNormalDiag, PowerSpherical or a relaxed one."
            )
        if self.prior is None:
            self.prior = priors.StandardNormal(self.latent_shape[0], dtype=self.dtype_policy)
        prior = self.prior_distribution()
        check_pair(posterior, prior)
        if tuple(prior.event_shape) != self.latent_shape:
            raise ValueError(
                f"The prior's event shape {tuple(prior.event_shape)} differs from the encoder's {self.latent_shape}."
            )
        likelihood = first_distribution("decoder", self.decoder, tf.zeros([1, *self.latent_shape], posterior.dtype))
        if tuple(likelihood.event_shape) != self.event_shape:
            raise ValueError(
                f"The encoder takes examples of shape {self.event_shape}, but the decoder's distribution is over "
                f"examples of shape {tuple(likelihood.event_shape)}. Make them equal."
            )
        self.objective.check(posterior, prior)
        if not self.objective.built:
            self.objective.build(self.latent_shape)
        super().build(input_shape)

    def _expect_built(self):
        if not self.built:
            raise ValueError("The VAE is not built yet: call it on data, fit it, or give its networks a keras.Input.")

    def _examples(self, x) -> tf.Tensor:
        """Bring x, `[..., *event_shape]`, to the variables' dtype."""
        x = self._cast(x)
        if not self.built:
            self.build((None, *x.shape[1:]))
        if not x.shape[-len(self.event_shape) :].is_compatible_with(self.event_shape):
            raise ValueError(f"The VAE takes examples of shape {self.event_shape}, received x of shape {x.shape}.")
        return x

    def get_config(self) -> dict:
        parts = {"encoder": self.encoder, "decoder": self.decoder, "prior": self.prior, "objective": self.objective}
        serialized = {name: keras.saving.serialize_keras_object(part) for name, part in parts.items()}
        return {**super().get_config(), **serialized, "seed": self.seed}

    @classmethod
    def from_config(cls, config: dict, custom_objects=None):
        config = dict(config)
        for name in ("encoder", "decoder", "prior", "objective"):
            config[name] = keras.saving.deserialize_keras_object(config[name], custom_objects=custom_objects)
        return cls(**config)

    # Training: Keras's own fit, evaluate and train step

    def compile(
        self, optimizer="adam", loss=None, *, metrics=None, weighted_metrics=None, jit_compile="auto", **kwargs
    ):
        """Configure training as `keras.Model.compile` does; the loss is the objective's.

        Args:
            optimizer: name or `keras.optimizers.Optimizer`.
            loss: refused.
            metrics: refused.
            weighted_metrics: refused.
            jit_compile: "auto" compiles with XLA, on the CPU too (where Keras's own "auto" does not), unless a layer
                has `supports_jit = False`, or under a distribution strategy.
            **kwargs: `steps_per_execution`, `run_eagerly`, `auto_scale_loss`.

        Raises:
            ValueError: if a loss or metrics are given, or the encoder adds a KL divergence of its own to the loss.
        """
        if loss is not None or metrics or weighted_metrics:
            raise ValueError(
                "A VAE's loss is its objective and its metrics are the objective's terms: compile takes no loss and no "
                "metrics. Pass objective=tfp_vae.objectives.ELBO(beta=...) to VAE(...), or add a loss with add_loss in "
                "a layer."
            )
        kinds = KLDivergenceAddLoss | KLDivergenceRegularizer
        if any(isinstance(layer, kinds) for layer in self.encoder._flatten_layers()):
            raise ValueError(
                "The encoder has a KLDivergenceRegularizer or KLDivergenceAddLoss, but the VAE's objective has the KL "
                "divergence already: it would count twice. Leave it out, or train a plain keras.Model."
            )
        if jit_compile == "auto":
            jit_compile = self._supports_xla() and not kwargs.get("run_eagerly")
        super().compile(optimizer, jit_compile=jit_compile, **kwargs)
        vars(self).pop("_compiled_log_prob", None)

    @property
    def uses_xla(self) -> bool:
        """Whether training, evaluation and `log_prob` are compiled by XLA."""
        return self.jit_compile if self.compiled else self._supports_xla()

    def _supports_xla(self) -> bool:
        return not tf.distribute.has_strategy() and all(layer.supports_jit for layer in self._flatten_layers())

    def compile_from_config(self, config: dict):
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def fit(self, x=None, y=None, *args, validation_data=None, **kwargs):
        """Train as `keras.Model.fit` does; labels `y` are ignored.

        The data are checked first: arrays whole, a `tf.data.Dataset` by its first batch. A warning tells when the
        posterior has collapsed onto the prior.

        Args:
            x: `[num_examples, *event_shape]`, or any input that `keras.Model.fit` takes.
            y: labels, which are ignored.
            *args: further arguments of `keras.Model.fit`.
            **kwargs: further arguments of `keras.Model.fit`.
            validation_data: `(x,)`, `(x, y)`, `(x, y, sample_weight)`, or any iterable input.

        Raises:
            ValueError: if the data are empty, not finite, of another shape, or impossible under the likelihood.
        """
        self.check_data(x)
        if validation_data is not None:
            self.check_data(validation_data[0] if isinstance(validation_data, tuple) else validation_data)
        if isinstance(x, tf.data.Dataset):
            kwargs.setdefault("shuffle", False)  # a Dataset shuffles itself, and Keras would warn
        if isinstance(validation_data, tuple) and len(validation_data) == 3:
            x_val, y_val, weight = validation_data
            validation_data = x_val, _labels(x_val, y_val, weight), weight
        y = _labels(x, y, kwargs.get("sample_weight"))
        history = super().fit(x, y, *args, validation_data=validation_data, **kwargs)
        kl = history.history.get("kl", [np.inf])[-1]
        if kl < COLLAPSED_KL:
            warnings.warn(
                f"The posterior has collapsed: KL(q(z|x) || p(z)) is {kl:.2g} nats per example, so z says next to "
                "nothing about x. Try a smaller beta, a lower learning rate, or a weaker decoder.",
                stacklevel=2,
            )
        return history

    def evaluate(self, x=None, y=None, *args, **kwargs):
        """Evaluate as `keras.Model.evaluate` does, with a fixed seed; labels `y` are ignored."""
        if not kwargs.get("_use_cached_eval_dataset"):  # `fit` says so of validation data, which it has checked
            self.check_data(x)
        return super().evaluate(x, _labels(x, y, kwargs.get("sample_weight")), *args, **kwargs)

    def check_data(self, data) -> None:
        """Check that data are possible under the likelihood; `fit` and `evaluate` do so before they begin.

        Args:
            data: array or tensor `[num_examples, *event_shape]`; a `tf.data.Dataset`, of which the first batch is
                looked at; or another iterable, such as a `keras.utils.PyDataset`, which is let through.

        Raises:
            TypeError: if the data are of another kind.
            ValueError: if the data are empty, not finite, of another shape, or impossible under the likelihood, or the
                model's weights are not finite.
        """
        examples = examples_of(data)
        if examples is not None:
            if not self.built:
                self.build((None, *examples.shape[1:]))
            if not all(np.isfinite(weight).all() for weight in self.get_weights()):
                raise ValueError("The model's weights are not finite: its training has diverged. Train it anew.")
            check_support(self.decode(tf.zeros([1, *self.latent_shape])), examples)

    def call(self, x, training=False):
        seed, step = tf.constant([0, self.seed], tf.int32), None
        if training:
            step = tf.cast(self.optimizer.iterations, tf.int32) if self.compiled else tf.constant(0)
            seed = tf.random.fold_in(tf.constant([1, self.seed], tf.int32), step)
        replicas = tf.distribute.get_replica_context()
        if replicas is not None and replicas.num_replicas_in_sync > 1:
            seed = tf.random.fold_in(seed, replicas.replica_id_in_sync_group)
        return self.objective.terms(self.one_pass(x, seed, step))

    def one_pass(self, x, seed: tf.Tensor, step: tf.Tensor | None = None) -> objectives.OnePass:
        """Give what an objective sees of a batch x, `[batch, *event_shape]`."""
        x = self._examples(x)
        return objectives.OnePass(x, self.encode(x), self.prior_distribution(), self.decode, seed, step)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Average the loss over the batch (weighted), and add regularizers and `add_loss` terms."""
        for metric in self.term_metrics:
            metric.update_state(y_pred[metric.name], sample_weight)
        loss = y_pred["loss"]
        weight = tf.ones_like(loss) if sample_weight is None else tf.cast(sample_weight, loss.dtype)
        mean = tf.math.divide_no_nan(tf.reduce_sum(weight * loss), tf.reduce_sum(weight))
        total = mean + sum(tf.cast(tf.reduce_sum(extra), loss.dtype) for extra in self.losses)
        return total / tf.distribute.get_strategy().num_replicas_in_sync

    def predict_step(self, data):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return self._reconstruct(x)

    # The distributions, and what is computed from them

    def encode(self, x) -> tfd.Distribution:
        """Give the posterior q(z|x), a plain tfd object: `[..., *event_shape]` -> batch shape `[...]`."""
        x = self._examples(x)
        return fold(self.encoder, x, len(self.event_shape))

    def decode(self, z) -> tfd.Distribution:
        """Give the likelihood p(x|z), a plain tfd object: `[..., latent]` -> batch shape `[...]`.

        With several z for each x, repeat x along them before `log_prob`: the batch shapes must be equal.
        """
        self._expect_built()
        return fold(self.decoder, self._cast(z), 1)

    def prior_distribution(self) -> tfd.Distribution:
        """Give the prior p(z), a plain tfd object, batch shape `[]`."""
        return unwrap(call_prior(self.prior))

    def reconstruct(self, x) -> np.ndarray:
        """Give the mean of p(x|z) at the posterior's mean z: `[..., *event_shape]`, same shape out.

        A distribution without a mean is represented as `sampling.point` says, here and in `generate`.
        """
        return self._reconstruct(x).numpy()

    def _reconstruct(self, x) -> tf.Tensor:
        return sampling.point(self.decode(sampling.point(self.encode(x))))

    def generate(self, num_samples: int, seed: int = 0, *, prior: tfd.Distribution | None = None) -> np.ndarray:
        """Draw z from the prior and give the means of p(x|z): `[num_samples, *event_shape]`.

        Row i depends on (seed, i) alone, so more samples keep the first ones.

        Args:
            num_samples: how many.
            seed: of the draws.
            prior: a distribution to draw z from instead, such as that of `fit_aggregate_prior`.

        Raises:
            ValueError: if `num_samples` is not a whole number of at least 1, or `seed` one from 0 to 2**31 - 1.
        """
        self._expect_built()
        return self._compiled_generate(sampling.row_seeds(num_samples, seed), prior)["x"].numpy()

    @functools.cached_property
    def _compiled_generate(self) -> Callable:
        return tf.function(self.sample_rows, reduce_retracing=True)

    def sample_rows(self, seeds: tf.Tensor, prior: tfd.Distribution | None = None) -> dict[str, tf.Tensor]:
        """Draw `z` from the prior for each row of stateless seeds, int32 `[batch, 2]`; `x` is the mean of p(x|z)."""
        prior = prior or self.prior_distribution()
        spec = tf.TensorSpec(prior.event_shape, prior.dtype)
        z = tf.map_fn(lambda seed: sampling.sample(prior, [], seed), seeds, fn_output_signature=spec)
        return {"z": z, "x": sampling.point(self.decode(z))}

    def log_prob(self, x, num_samples: int = 1000, seed: int = 0) -> tf.Tensor:
        """Estimate log p(x) by importance sampling from the posterior: `[..., *event_shape]` -> `[...]`, in nats.

        The estimate is log of the mean of p(x|z) p(z) / q(z|x) over `num_samples` draws of z: a lower bound in
        expectation, tight as `num_samples` grows. Memory does not grow with `num_samples`.

        Reference: Burda et al., 2016, Importance Weighted Autoencoders, arXiv:1509.00519.

        Raises:
            ValueError: if `num_samples` is not a whole number of at least 1, `seed` one from 0 to 2**31 - 1, or x has
                another shape.
        """
        num_samples, x = as_count(num_samples, "num_samples"), self._examples(x)
        flat = tf.reshape(x, [-1, *self.event_shape])
        log_prob = self._compiled_log_prob(flat, num_samples, tf.constant([3, as_seed(seed)], tf.int32))
        return tf.reshape(log_prob, tf.shape(x)[: x.shape.rank - len(self.event_shape)])

    @functools.cached_property
    def _compiled_log_prob(self) -> Callable:
        # The gradient computes the loop anew: what a loop keeps for it cannot leave a function compiled by XLA.
        @functools.partial(tf.function, jit_compile=self.uses_xla)
        def log_prob(x, num_samples, seed):
            return tf.recompute_grad(lambda x: self._log_prob(x, num_samples, seed))(x)

        return log_prob

    def _log_prob(self, x: tf.Tensor, num_samples: int, seed: tf.Tensor) -> tf.Tensor:
        draws = min(num_samples, max(1, ROWS_PER_DRAW // (x.shape[0] or ROWS_PER_DRAW)))
        return objectives.importance_sampled_log_prob(self.one_pass(x, seed), num_samples, draws_per_step=draws)

    def joint_distribution(self) -> tfd.JointDistribution:
        """Give p(z, x) = p(z) p(x|z) as a `tfd.JointDistributionNamed` of `z` and `x`."""
        self._expect_built()
        return tfd.JointDistributionNamed({"z": self.prior_distribution(), "x": lambda z: self.decode(z)})

    def export(self, path, **kwargs) -> Path:
        """Export a SavedModel for serving as the next version in folder `path`; see `tfp_vae.serving.export`."""
        from tfp_vae import serving  # the one call against the flow of imports: a model is exported by its method

        return serving.export(self, path, **kwargs)

    def _cast(self, x) -> tf.Tensor:
        return tf.cast(x, self.variable_dtype)


def _labels(x, y, sample_weight):
    """Give Keras labels to carry the weights along: without any it drops the weights, silently."""
    return np.zeros(len(x), "int8") if y is None and sample_weight is not None else y


__all__ = ["VAE"]
