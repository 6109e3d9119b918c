"""The private parts of Keras, TensorFlow and TFP that this package uses.

Each entry tells why it is needed, or which public function would replace it.
"""

import contextlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common.global_state import get_global_attribute, set_global_attribute
from keras.src.backend.common.stateless_scope import get_stateless_scope, in_stateless_scope
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter
from tensorflow.python.util.dispatch import register_dispatchable_type

# `tf.experimental.dispatch_for_api` looks only at annotations of registered classes, and only
# composite tensors are registered by default. A public registration would replace it.
dispatchable = register_dispatchable_type


def layers_within(network: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Return all layers of a network.

    `keras.Model.layers` leaves out layers inside other layers.
    """
    return list(network._flatten_layers())


def nodes_of(layer: keras.layers.Layer) -> list:
    """Return the calls of a layer in functional models.

    `layer.input` and `layer.output` know of one call only.
    """
    return layer._inbound_nodes


def history_of(symbolic) -> Any:
    """Return the call that a symbolic tensor comes from, or None.

    A `keras.KerasTensor` offers no way back.
    """
    return getattr(symbolic, "_keras_history", None)


def take_non_tensors(layer: keras.layers.Layer) -> None:
    """Let a layer be called on objects other than tensors, such as a `tfd.Distribution`.

    Keras has no public switch for it.
    """
    layer._allow_non_tensor_positional_args = True


def as_it_stands(error: Exception) -> None:
    """Keep Keras from adding its list of arguments to this error; its public switch is global."""
    error._keras_call_info_injected = True  # type: ignore[attr-defined]


def graph_aside(name: str) -> tf.Graph:
    """Return a graph for a trace that is thrown away.

    `tf.Graph` supports no composite tensors and captures nothing.
    """
    return tf.__internal__.FuncGraph(name)


def is_seeded() -> bool:
    """Return whether `tf.random.set_seed` was called, which has no counterpart that reads the seed."""
    return graph_aside("seed").seed is not None


def order_of_keras(number: int, batch_size: int, shuffle) -> Iterable[tf.Tensor]:
    """Return the data set of batches of row numbers by which Keras's `fit` visits arrays.

    No public part of Keras tells the order.
    """
    rows = np.arange(number, dtype="int32")
    return ArrayDataAdapter(rows, batch_size=batch_size, shuffle=shuffle).get_tf_dataset()


def eagerly() -> AbstractContextManager:
    """Return to eager execution inside a graph.

    `tf.init_scope` leaves the graph of a `tf.function`, but not a plain `tf.Graph`.
    """
    return tf.__internal__.eager_context.eager_mode()


def plain_class(kind: type) -> type:
    """Return the base class that all distributions of a kind share.

    `tfd.Independent` itself is only the class of those that are composite tensors.
    """
    return kind.__mro__[1]


def without_retracing_warnings(function: Any) -> Any:
    """Let a `tf.function` be traced by several models: TensorFlow counts traces by the line of code,
    and has no public switch.
    """
    function._omit_frequent_tracing_warning = True
    return function


def is_composite(value) -> bool:
    """Return whether a value is a composite tensor, which crosses the border of a `tf.function`.

    `tf.is_tensor` says so of tensors alone, too.
    """
    return isinstance(value, tf.__internal__.CompositeTensor)


def leave_unwatched(variables: Iterable[tf.Variable]) -> None:
    """Let no gradient tape watch variables.

    Those of a loaded SavedModel are as trainable as when it was saved, and `tf.Variable` has no
    public way to change that.
    """
    for variable in variables:
        variable._trainable = False


def unwatched(weight: keras.Variable) -> tf.Tensor:
    """Read a weight by its resource, because a tape watches reads through a `tf.Variable`.

    Under autocast, `weight.value` is a cast copy, which the tape has watched already.
    """
    given = get_stateless_scope().get_current_value(weight) if in_stateless_scope() else None
    value = weight._value if given is None else given
    for variable in getattr(value, "values", [value]):  # one for each replica, all equal
        if isinstance(variable, tf.Variable):
            return tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype)
    return value


def adopted(variable: tf.Variable) -> keras.Variable:
    """Return a Keras variable that holds a given variable of TensorFlow; Keras would make another.

    What Keras makes for it first is small: a number.
    """
    weight = keras.Variable(
        0,
        dtype=variable.dtype.name,
        trainable=variable.trainable,
        name=variable.name.partition(":")[0].replace("/", "_"),
    )
    weight._value, weight._shape = variable, tuple(variable.shape)
    weight.constraint = variable.constraint
    return weight


def global_seed_state() -> keras.Variable | None:
    """Return the state of Keras's global random generator, or None if there is none yet.

    Keras's layers and `keras.random` draw from it if they have no generator of their own.
    """
    generator = get_global_attribute("global_seed_generator")
    return None if generator is None else generator.state


@contextlib.contextmanager
def without_autocast() -> Iterator[None]:
    """Read weights in their own dtypes.

    Inside a layer with another dtype policy, which may call a model, Keras casts the weights. Its
    `AutocastScope(None)` would cast them to float32.
    """
    scope = get_global_attribute("autocast_scope")
    set_global_attribute("autocast_scope", None)
    try:
        yield
    finally:
        set_global_attribute("autocast_scope", scope)
