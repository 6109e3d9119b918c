"""The composition root: encoder, decoder, prior and objective become one Keras model."""

import math
import warnings
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import batch, missing, objectives, priors, replicas
from tfp_vae.batch import num_examples
from tfp_vae.block_model import BlockModel
from tfp_vae.checks import as_seed, expect_kind
from tfp_vae.generative import LatentVariableModel
from tfp_vae.layers.distribution_layer import distribution_layers
from tfp_vae.layers.internals import layers_within
from tfp_vae.layers.parts import map_parts
from tfp_vae.layers.values import check_values
from tfp_vae.layers.vector_quantized import commitment_loss
from tfp_vae.objectives.gradients import with_gradient_of
from tfp_vae.seeds import Stream, seed_of

tfd = tfp.distributions

# If the mean KL(q(z|x) || p(z)), in nats per example, is below this, the latents say almost nothing
# about x.
COLLAPSED_KL = 0.1


@keras.saving.register_keras_serializable(package="tfp_vae")
class VAE(LatentVariableModel, BlockModel):
    """A variational autoencoder: x -> q(z|x) -> z -> p(x|z), trained by `fit` to maximize the
    objective.

    `vae(x)` gives the objective's terms for each example, a dict of `loss`, `elbo`,
    `log_likelihood` and `kl`, each `[batch]`, in nats. Quantized posteriors add a commitment loss.
    `fit` and `evaluate` report their means over the examples, weighted by `sample_weight`; their
    `loss` is Keras's mean over the batches, with regularizers. `predict` gives reconstructions.

    Networks take their inputs by name. If there are several groups or layers of latents
    (`layers.Joint`), z is a dict, and the decoder's `keras.Input`s have the names of its parts. A
    model is conditional if a `keras.Input` of encoder, decoder or prior is named "condition": all
    methods that take x then take a dict of "x" and "condition".

    Reference: Kingma & Welling, 2014, arXiv:1312.6114; Rezende et al., 2014, arXiv:1401.4082.

    Args:
        encoder: Keras model from x, `[batch, *event_shape]`, to a posterior: it ends in a
            distribution layer.
        decoder: Keras model from z, `[batch, *latent_shape]`, to a likelihood of x: it ends in a
            distribution layer.
        prior: a `priors.Prior`, or any Keras layer that returns a distribution and ignores its
            input, such as a `layers.Joint` of priors; or a network from an input named "condition"
            to p(z|condition). None takes `priors.StandardNormal` of the posterior's size.
        objective: an `objectives.Objective`; None takes `objectives.ELBO()`.
        missing: whether values of x may be missing. A missing value is NaN, or has 0 in a "mask"
            next to "x" in a dict of data. The likelihood, which must be independent over the
            values, then covers only the observed values. The encoder gets 0 in place of the missing
            ones, and the mask if a `keras.Input` is named "mask" (or "PART_mask"). `impute` fills
            them in.
        seed: int. Each draw has a stateless seed, made from this one and, in training, from the
            optimizer's step.
        **kwargs: arguments of `keras.Model`, such as `name`.

    Call arguments:
        x: `[batch, *event_shape]`; of a conditional model a dict of it and "condition", `[batch,
            *condition_shape]`.

    Raises:
        TypeError: if a part is of the wrong kind, or encoder or decoder do not end in a
            distribution layer.
        ValueError: if the shapes of encoder, decoder, prior and x do not fit each other, or the
            posterior is not reparameterized.

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
        missing: bool = False,
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(encoder, decoder, prior, missing, **kwargs)
        self.objective = objectives.ELBO() if objective is None else objective
        expect_kind(
            "objective",
            self.objective,
            objectives.Objective,
            "an objective such as tfp_vae.objectives.ELBO()",
        )
        self.num_draws = self.objective.num_draws
        self.seed = as_seed(seed)
        self.term_metrics = [
            keras.metrics.Mean(name=name) for name in ("elbo", "log_likelihood", "kl")
        ]
        shape = batch.input_shape_of(encoder)
        if shape is not None:
            self.build(shape)

    def check(self, posterior: tfd.Distribution, prior: tfd.Distribution) -> None:
        """Check that the objective is defined for these distributions, and build it."""
        if self.encodes_to_points and not self.objective.takes_points:
            raise ValueError(
                f"The posterior Deterministic has no density: {type(self.objective).__name__} is "
                "not defined for it. Pass objective=tfp_vae.objectives.Reconstruction(), or use "
                "another posterior."
            )
        if self.objective.takes_points and self.prior is not None and self.prior.trainable_weights:
            raise ValueError(
                f"The prior {type(self.prior).__name__} has weights that "
                f"{type(self.objective).__name__} never trains. Use StandardNormal, and after "
                "training tfp_vae.fit_aggregate_prior."
            )
        self.objective.check(posterior, prior)
        if not self.objective.built:
            self.objective.build((self.z.size,))

    @property
    def parts(self) -> dict[str, keras.layers.Layer]:
        """Encoder, decoder, prior and objective, by name."""
        return {
            "encoder": self.encoder,
            "decoder": self.decoder,
            "prior": self.prior,
            "objective": self.objective,
        }

    # Saving

    def get_config(self) -> dict:
        # Keras marks a layer as shared only when it serializes it for the second time, but not
        # inside a model that it has copied. So each part is serialized twice.
        for _ in range(2):
            serialized = {
                name: keras.saving.serialize_keras_object(part) for name, part in self.parts.items()
            }
        return {**super().get_config(), **serialized, "missing": self.missing, "seed": self.seed}

    @classmethod
    def from_config(cls, config: dict, custom_objects=None):
        config = dict(config)
        for name in ("encoder", "decoder", "prior", "objective"):
            config[name] = keras.saving.deserialize_keras_object(
                config[name], custom_objects=custom_objects
            )
        return cls(**config)

    # Training: Keras's own fit, evaluate and train step

    def compile(
        self,
        optimizer="adam",
        loss=None,
        *,
        metrics=None,
        weighted_metrics=None,
        jit_compile="auto",
        **kwargs,
    ):
        """Configure training as `keras.Model.compile` does; the loss is the objective's.

        Args:
            optimizer: name or `keras.optimizers.Optimizer`.
            loss: refused.
            metrics: refused.
            weighted_metrics: refused.
            jit_compile: "auto" compiles with XLA, on the CPU too (where Keras's own "auto" does
                not), unless a layer has `supports_jit = False`, or under a distribution strategy.
            **kwargs: `steps_per_execution`, `run_eagerly`, `auto_scale_loss`.

        Raises:
            ValueError: if a loss or metrics are given, or the encoder adds a KL divergence of its
                own to the loss.
        """
        if loss is not None or metrics or weighted_metrics:
            raise ValueError(
                "A VAE's loss is its objective and its metrics are the objective's terms: compile "
                "takes no loss and no metrics. Pass objective=tfp_vae.objectives.ELBO(beta=...) to "
                "VAE(...), or add a loss with add_loss in a layer."
            )
        if any(getattr(layer, "adds_divergence", False) for layer in layers_within(self.encoder)):
            raise ValueError(
                "The encoder has a KLDivergenceRegularizer or KLDivergenceAddLoss, but the VAE's "
                "objective has the KL divergence already: it would count twice. Leave it out, or "
                "train a plain keras.Model."
            )
        self._made_once.clear()
        if jit_compile == "auto":
            jit_compile = self._supports_xla() and not kwargs.get("run_eagerly")
        super().compile(optimizer, jit_compile=jit_compile, **kwargs)

    @property
    def uses_xla(self) -> bool:
        """Whether training, evaluation and `log_prob` are compiled by XLA."""
        return self.jit_compile if self.compiled else self._supports_xla()

    def _supports_xla(self) -> bool:
        return not self.is_distributed and all(layer.supports_jit for layer in layers_within(self))

    def compile_from_config(self, config: dict):
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def fit(self, x=None, y=None, *args, validation_data=None, **kwargs):
        """Train as `keras.Model.fit` does; labels `y` are ignored.

        The data are checked first: arrays whole, a `tf.data.Dataset` by its first batch. You get a
        warning if the posterior has collapsed onto the prior.

        On arrays, and on a `tf.data.Dataset` of known length, many steps run in one call of a
        compiled program: about a tenth of a second's worth, or `steps_per_execution`. The resulting
        weights are the same as with single steps. All layers must come from Keras or this package:
        dense networks become one XLA program, other networks a loop around the fastest kind of
        step. Steps run one by one under a distribution strategy, with `run_eagerly` or
        `jit_compile=False`, or if a callback runs on each batch: a callback of yours with
        `on_train_batch_begin` or `on_train_batch_end`, or one of Keras's own with `save_freq`,
        `update_freq` or `profile_batch`.

        Under a distribution strategy, the batch size is that of all replicas together, and results
        are those of one device with the whole batch, but for the draws. Of several workers, only
        the chief runs Keras's callbacks that write files.

        Args:
            x: `[num_examples, *event_shape]`, or any input that `keras.Model.fit` takes; of a
                conditional model, or an x of several parts, dicts of such arrays by name, or a
                `tf.data.Dataset` of such dicts; of a model with a `table`, a DataFrame. The rows of a
                file larger than memory, as `datasets.load` returns them, are shuffled and read batch
                by batch.
            y: labels, which are ignored with a warning; a conditional model, which takes its
                condition by name, refuses them.
            *args: further arguments of `keras.Model.fit`.
            **kwargs: further arguments of `keras.Model.fit`.
            validation_data: `(x,)`, `(x, y)`, `(x, y, sample_weight)`, or any iterable input.

        Raises:
            ValueError: if the data are empty, not finite, of another shape, or impossible under the
                likelihood; or several workers cannot shuffle them alike.
            tfp_vae.not_finite.TrainingDiverged: a ValueError, if the loss of an epoch is not
                finite; it names the step, the layer and the example where that began.
        """
        if y is x and not self.is_conditional:  # the usual target of an autoencoder
            y = None
        given = self._examples(x, y, kwargs.pop("sample_weight", None))
        if y is not None:
            warnings.warn(
                "The labels y are ignored: a VAE learns from x alone. Leave them out, or name an "
                'input of encoder or decoder "condition" and pass {"x": x, "condition": y}.',
                stacklevel=2,
            )
            given = given._replace(y=None)
        unpack = keras.utils.unpack_x_y_sample_weight
        held_out = None if validation_data is None else self._examples(*unpack(validation_data))
        if held_out is None and kwargs.get("validation_split") and batch.are_arrays(given.x):
            at = math.floor(num_examples(given.x) * (1.0 - kwargs.pop("validation_split")))
            given, held_out = given.cut(None, at), given.cut(at, None)  # as Keras does
        if (examples := self.check_data(given.x)) is not None:
            self._begin_with(examples["x"])
        if held_out is not None:
            self.check_data(held_out.x)
        if kwargs.get("class_weight") is not None:
            raise ValueError(
                "class_weight weighs labels, of which a VAE has none. Pass sample_weight instead."
            )
        size = kwargs.get("batch_size")
        if batch.has_rows(given.x):
            kwargs.pop("batch_size", None)
            given = given.as_dataset(size, shuffle=kwargs.pop("shuffle", True))
        if held_out is not None and batch.has_rows(held_out.x):
            held_out = held_out.as_dataset(kwargs.pop("validation_batch_size", None) or size)
        if batch.is_dataset(given.x):
            kwargs.setdefault("shuffle", False)  # a Dataset shuffles itself, and Keras would warn
        if held_out is not None and held_out.weight is not None:
            held_out = held_out._replace(y=batch.labels(*held_out))
        kwargs |= {"validation_data": held_out, "sample_weight": given.weight}
        history = super().fit(given.x, None, *args, **kwargs)
        self._tell_of_collapse(history)
        return history

    def _examples(self, x, y=None, weight=None) -> batch.Examples:
        """Return what `fit` is given, with the parts of x and the weights as it computes with them."""
        if self.is_conditional:
            batch.expect_no_labels(x, y)
        return batch.Examples(self.in_parts(x), y, batch.as_weights(weight))

    def _tell_of_collapse(self, history: keras.callbacks.History) -> None:
        """Warn if the posterior says next to nothing about x after training."""
        kl = history.history.get("kl", [np.inf])[-1]
        if kl < COLLAPSED_KL and not self.encodes_to_points:
            warnings.warn(
                f"The posterior has collapsed: KL(q(z|x) || p(z)) is {kl:.2g} nats per example, so "
                "z says next to nothing about x. Try a smaller beta, a lower learning rate, or a "
                "weaker decoder.",
                stacklevel=3,
            )

    def _begin_with(self, x) -> None:
        """Show the data to the prior and, before the first step, to the decoder's layers, which may
        set initial values from them.
        """
        if isinstance(self.prior, priors.Prior):
            self.prior.look_at(x)
        if self.compiled and not int(tf.convert_to_tensor(self.optimizer.iterations)):
            for layer in distribution_layers(self.decoder):
                layer.begin_at(self.x.parts(x))

    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        *args,
        **kwargs,
    ):
        """Evaluate as `keras.Model.evaluate` does, with a fixed seed; labels `y` are ignored."""
        x, sample_weight = self.in_parts(x), batch.as_weights(sample_weight)
        # `fit` has already checked its validation data.
        if not kwargs.get("_use_cached_eval_dataset"):
            if self.is_conditional:
                batch.expect_no_labels(x, y)
            self.check_data(x)
        if batch.has_rows(x):
            x = batch.as_dataset(x, batch_size, sample_weight=sample_weight)
            batch_size = sample_weight = None
        return super().evaluate(x, y, batch_size, verbose, sample_weight, *args, **kwargs)

    def check_data(self, data) -> dict | None:
        """Check that data are possible under the likelihood.

        `fit` and `evaluate` do so before they begin.

        Args:
            data: array or tensor `[num_examples, *event_shape]`; a `tf.data.Dataset`, of which the
                first batch is checked; or another iterable, such as a `keras.utils.PyDataset`,
                which is not checked.

        Returns:
            The examples that were checked, by name: "x" and any further data; None if nothing was
            checked.

        Raises:
            TypeError: if the data are of another kind.
            ValueError: if the data are empty, not finite, of another shape, or impossible under the
                likelihood, or the model's weights are not finite.
        """
        examples = batch.examples_of(self.in_parts(data))
        if examples is None:
            return None
        named = batch.by_name(examples)
        if not self.built:
            self.build(map_parts(lambda x: (None, *x.shape[1:]), named["x"]))
        if not all(np.isfinite(weight).all() for weight in self.get_weights()):
            raise ValueError(
                "The model's weights are not finite: its training has diverged. Train it anew."
            )
        x = missing.observed_examples(named["x"], named.get("mask")) if self.missing else named["x"]
        check_values(self.some_likelihood, x)
        self.as_batch(tf.nest.map_structure(lambda value: value[:1], named))
        self._given(named.get("condition"))
        return named

    def call(self, x, training=False):
        seed = seed_of(Stream.EVALUATION, self.seed)
        step = None
        if training:
            step = tf.cast(self.optimizer.iterations, tf.int32) if self.compiled else tf.constant(0)
            seed = tf.random.fold_in(seed_of(Stream.TRAINING, self.seed), step)
        return self.terms(x, replicas.fold_in(seed), step)

    def terms(self, x, seed: tf.Tensor, step: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """Return the objective's terms for each example, `[batch]`, with draws from a stateless
        seed, int32 `[2]`.
        """
        one_pass = self.one_pass(x, seed, step)
        terms = self.objective.terms(one_pass)
        terms = {**terms, "loss": terms["loss"] + commitment_loss(one_pass.posterior)}
        if self.condition is None or self.condition.num_labels is None:
            return terms
        # For an unknown label, a lookup table silently returns some row. The terms of such an
        # example become NaN.
        known = self.condition.is_known(self.condition.expect(x["condition"]))
        return {name: tf.where(known, term, np.nan) for name, term in terms.items()}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Average the loss over the batch (weighted), and add regularizers and `add_loss` terms.

        Under a distribution strategy, the value is the whole batch's, and the gradient that of the
        replica's own examples; both are divided by the number of replicas, whose sum Keras takes.
        """
        loss = y_pred["loss"]
        if sample_weight is not None:  # Keras makes `[batch, 1]` of a pandas Series
            sample_weight = tf.reshape(tf.cast(sample_weight, loss.dtype), tf.shape(loss))
        for metric in self.term_metrics:
            metric.update_state(y_pred[metric.name], sample_weight)
        weight = tf.ones_like(loss) if sample_weight is None else sample_weight
        weighted, weights = tf.reduce_sum(weight * loss), tf.reduce_sum(weight)
        extra = sum(tf.cast(tf.reduce_sum(extra), loss.dtype) for extra in self.losses)
        number = tf.distribute.get_strategy().num_replicas_in_sync
        if number == 1:
            return tf.math.divide_no_nan(weighted, weights) + extra
        extra = tf.cast(extra, loss.dtype) / number
        sums = replicas.total(tf.stack([weighted, weights, extra]))  # at once: each call takes time
        own = tf.math.divide_no_nan(weighted, sums[1]) + extra
        return with_gradient_of(own, (tf.math.divide_no_nan(sums[0], sums[1]) + sums[2]) / number)

    def predict(self, x, batch_size=None, *args, **kwargs):
        """Return reconstructions as `keras.Model.predict` does.

        The conditions of arrays are checked first. Examples do not depend on each other, so arrays go
        in batches as large as is fast, if no size is given.
        """
        if self.is_conditional:
            batch.expect_no_labels(x)
        arrays = self.in_parts(x)
        takes_time = batch.is_dataset(x) and not self.is_conditional  # and is not needed
        examples = None if takes_time else batch.examples_of(arrays)
        if examples is not None:
            self._given(batch.by_name(examples).get("condition"))
        if batch.has_rows(x):
            arrays = batch.as_dataset(x, batch_size)
            batch_size = None
        if batch_size is None and not args and not kwargs.keys() & {"steps", "callbacks"}:
            batch_size = self.most_rows(arrays)
        return self.in_columns(super().predict(arrays, batch_size, *args, **kwargs), x)

    def predict_step(self, data):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return self.reconstruction(x)

    def export(self, path, **kwargs) -> Path:
        """Export a SavedModel for serving as the next version in folder `path`.

        See `tfp_vae.serving.export`.
        """
        # Serving imports this module, so this import is inside the method.
        from tfp_vae import serving

        return serving.export(self, path, **kwargs)


__all__ = ["VAE"]
