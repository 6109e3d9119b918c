"""Training whose loss is no longer a number: it ends with an error that says where that began.

Nothing is added to the training steps. What an epoch begins with is kept, and an epoch that has gone
wrong is repeated step by step.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfp_vae.layers.distribution_layer import DistributionLayer
from tfp_vae.seeds import Stream, seed_of

# Weights up to this many bytes are kept at the beginning of each epoch, with the optimizer's.
MOST_BYTES = 2**27
# Seconds after which no further step of an epoch is repeated.
SECONDS = 60.0
# What helps, in the order of how often it does.
REMEDIES = (
    "Try a lower learning rate, clipnorm=1.0 in the optimizer, x on a scale of about 1, or a "
    "likelihood whose scale cannot become 0."
)


class TrainingDiverged(ValueError):
    """The loss of an epoch is not finite."""


class StopIfNotFinite(keras.callbacks.Callback):
    """End training by a `TrainingDiverged` error after an epoch whose loss is not finite.

    The model then has the weights from before this epoch. The error names the step, and in it the
    first layer or term that is not finite, and the rows.

    Args:
        batches: function from an epoch to the batches that it was trained on, each as
            `train_step` takes it, with the numbers of its examples or None; None if they cannot be
            had again.
    """

    def __init__(self, batches: Callable[[int], Iterable[tuple[Any, Any]] | None]):
        super().__init__()
        self.batches = batches
        self.before: list[tf.Tensor] | None = None

    def on_epoch_begin(self, epoch, logs=None):
        if self.model.distribute_strategy.num_replicas_in_sync > 1:
            return
        variables = _variables(self.model)
        if sum(math.prod(one.shape) * 4 for one in variables) <= MOST_BYTES:
            self.before = _copies(variables)

    def on_epoch_end(self, epoch, logs=None):
        loss = (logs or {}).get("loss", 0.0)
        if math.isfinite(loss):
            return
        found = ""
        if self.before is not None:
            _assign(self.model, self.before)
            batches = self.batches(epoch)
            if batches is not None:
                found = f" {_repeat(self.model, batches)}"
                _assign(self.model, self.before)
            found += " The model has its weights from before it again."
        raise TrainingDiverged(
            f"Training has diverged: the loss of epoch {epoch + 1} is {loss}.{found} {REMEDIES}"
        )


def with_first(
    callback: keras.callbacks.Callback, others, model: keras.Model
) -> list | keras.callbacks.CallbackList:
    """Return a callback before others, in any form that `fit` takes, so that they never see what it
    refuses.
    """
    if not isinstance(others, keras.callbacks.CallbackList):
        return [callback, *(one for one in keras.tree.flatten(others) if one is not None)]
    callback.set_model(model)
    others.callbacks.insert(0, callback)
    return others


def _variables(vae) -> list[keras.Variable]:
    """Return all that a step changes, but for the metrics."""
    if not vae.optimizer.built:
        vae.optimizer.build(vae.trainable_variables)
    metrics = {id(one) for one in vae.metrics_variables}
    return [one for one in (*vae.variables, *vae.optimizer.variables) if id(one) not in metrics]


def _copies(variables: Iterable[keras.Variable]) -> list[tf.Tensor]:
    return [tf.identity(one.value) for one in variables]


def _assign(vae, values: Iterable[tf.Tensor]) -> None:
    for variable, value in zip(_variables(vae), values, strict=True):
        variable.assign(value)


def _repeat(vae, batches: Iterable[tuple[Any, Any]]) -> str:
    """Repeat the steps of an epoch, and return a sentence on the first that is not finite."""
    step = tf.function(vae.train_step, autograph=False, reduce_retracing=True)
    end = time.monotonic() + SECONDS
    for number, (data, examples) in enumerate(batches, 1):
        before = _copies(_variables(vae))
        vae.reset_metrics()
        loss = float(step(data)["loss"])
        bad = [one.path for one in vae.trainable_variables if not _is_finite(one.value)]
        if not math.isfinite(loss):
            _assign(vae, before)
            x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
            try:
                found = first_not_finite(vae, x, examples)
            except ValueError as error:  # which names a row that the model does not take
                found = str(error).rstrip(".")
            return f"It began in step {number} of the epoch: {found}."
        if bad:
            return (
                f"It began in step {number} of the epoch: the loss is {loss:.4g}, but its gradient "
                f"by {bad[0]} is not finite."
            )
        if time.monotonic() > end:
            return f"The first {number} steps of the epoch are finite."
    return "Repeated, perhaps in another order, all steps of the epoch are finite."


def first_not_finite(vae, x, examples=None) -> str:
    """Return in words the first output of a training step that is not finite, and its rows.

    Args:
        vae: the model, before the step.
        x: the batch.
        examples: the numbers of its examples, `[batch]`; None if they are not known.
    """
    for name, value in _outputs(vae, x):
        finite = np.isfinite(np.asarray(value, "float32"))
        rows = np.flatnonzero(~finite.reshape(len(finite), -1).all(1))
        if rows.size:
            row = rows[0]
            where = (
                f"row {row} of the batch" if examples is None else f"example {int(examples[row])}"
            )
            others = f", and {rows.size - 1} more of {len(finite)}" if rows.size > 1 else ""
            return f"{name} is not finite for {where}{others}"
    return "its terms are finite, so it is a regularizer or a loss of a layer that is not"


def _outputs(vae, x) -> Iterator[tuple[str, Any]]:
    """Yield what a training step computes for each example, in its order, with names."""
    data = vae.as_batch(x)
    for name, part in vae.x.parts(data["x"]).items():
        yield f"the input {name}", part
    step = tf.cast(vae.optimizer.iterations, tf.int32)
    seed = tf.random.fold_in(seed_of(Stream.TRAINING, vae.seed), step)
    inputs = vae.encoder_inputs(data)
    for name, value in _layers_of(vae.encoder, inputs):
        yield f"the output of layer {name} of the encoder", value
    one_pass = vae.one_pass(x, seed, step)
    z = one_pass.sample([])
    for name, part in vae.z.parts(z).items():
        yield f"the draw of {name} from the posterior", part
    given = {"condition": data["condition"]} if "condition" in data else {}
    for name, value in _layers_of(vae.decoder, {**vae.z.parts(z), **given}):
        yield f"the output of layer {name} of the decoder", value
    terms = vae.terms(x, seed, step)
    for name in ("log_likelihood", "kl", "loss"):
        if name in terms:
            yield f"the term {name}", terms[name]


def _layers_of(network: keras.Model, inputs) -> Iterator[tuple[str, Any]]:
    """Yield the outputs of a functional network's layers, by name; none if it is of another kind."""
    try:
        layers = [one for one in network.layers if not isinstance(one, DistributionLayer)]
        known = [one for one in layers if not isinstance(one, keras.layers.InputLayer)]
        given = inputs if isinstance(inputs, list) else _given(network, inputs)
        # Two models: Keras has an output and an input of each layer, but no way to ask for both.
        probe = keras.Model(network.inputs, [one.output for one in known])
        outside = keras.Model(network.inputs, [one.input for one in known])
    except (AttributeError, KeyError, TypeError, ValueError):
        return
    if not known:
        return
    values, inputs = probe(given, training=True), outside(given, training=True)
    if len(known) == 1:  # Keras takes one out of its list
        values, inputs = [values], [inputs]
    for layer, value, taken in zip(known, values, inputs, strict=True):
        if isinstance(layer, keras.Model) and not _is_finite(value):
            yield from _layers_of(layer, [taken])
        for part in tf.nest.flatten(value):
            yield layer.name, part


def _given(network: keras.Model, values: dict) -> list:
    """Return the inputs of a network in its order; one alone takes the only value."""
    names = [tensor.name for tensor in network.inputs]
    if len(names) == 1 and names[0] not in values:
        return [next(iter(values.values()))]
    return [values[name] for name in names]


def _is_finite(value) -> bool:
    return all(
        bool(np.isfinite(np.asarray(one, "float32")).all()) for one in tf.nest.flatten(value)
    )
