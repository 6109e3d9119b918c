"""Calls of networks that end in a distribution layer.

Inputs go by name, with any number of leading axes.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.parts import has_dependent_parts, is_joint, map_joint
from tfp_vae.layers.tensor_like import expect_distribution, unwrap

tfd = tfp.distributions


# The error if the batch of a hierarchy would have to be unfolded.
ONE_AXIS = "A joint distribution whose parts depend on each other has one batch axis only."


def named_inputs(network: keras.layers.Layer) -> dict[str, keras.KerasTensor]:
    """Return a network's inputs by name, an empty dict if it has no `keras.Input`.

    >>> list(named_inputs(keras.Sequential([keras.Input((3,), name="z1"), keras.layers.Dense(4)])))
    ['z1']
    """
    own = getattr(network, "named_inputs", None)  # of a distribution layer
    if own is not None:
        return own
    if not (network.built and getattr(network, "inputs", None)):
        return {}
    struct = _structure(network)
    if _is_by_name(struct):
        return dict(struct)
    return {one.name: one for one in keras.tree.flatten(struct)}


def is_automatic(name: str) -> bool:
    """Return whether Keras chose the name of an input."""
    return name.startswith(("keras_tensor", "input_layer"))


def call_by_name(network: keras.layers.Layer, values: Mapping, main: str | None = None):
    """Call a network with the values that its inputs are named after.

    If there is only one input, with any other name, it takes the value called `main`.

    Raises:
        ValueError: if an input has no value of its name.

    Example:
    >>> network = keras.Sequential([keras.Input((1,), name="b"), keras.layers.Rescaling(2.0)])
    >>> call_by_name(network, {"a": tf.zeros([1, 1]), "b": tf.ones([1, 1])}).numpy()
    array([[2.]], dtype=float32)
    """
    names = names_taken(network, values, main)
    taken = {name: values[name] for name in names}
    if getattr(network, "named_inputs", None):
        return network(taken)
    if len(names) < 2:
        return network(values[names[0]] if names else None)
    struct = _structure(network)
    if _is_by_name(struct):
        return network(taken)
    return network(keras.tree.pack_sequence_as(struct, list(taken.values())))


def names_taken(network: keras.layers.Layer, values: Mapping, main: str | None) -> list[str]:
    """Return the names of the values that `call_by_name` calls a network with."""
    names = list(named_inputs(network))
    if main is not None and (not names or (len(names) == 1 and names[0] not in values)):
        return [main]
    missing = [name for name in names if name not in values]
    if missing:
        raise ValueError(
            f"{network.name!r} has inputs {names}, but there is only {list(values)}. Name each "
            "keras.Input after what it takes, as in keras.Input(shape, "
            f"name={next(iter(values), 'z')!r})."
        )
    return names


def fold(
    network: keras.layers.Layer, values: Mapping, event_ndims: Mapping, main: str | None = None
) -> tfd.Distribution:
    """Call a network on tensors `[..., *event_shape]` by name, and return a plain distribution of
    batch shape `[...]`.

    Keras knows one batch axis, so all leading axes become one, and the batch is unfolded
    afterwards. Values with fewer leading axes than others are repeated along them.

    Args:
        network: a network that ends in a distribution layer.
        values: the network's inputs by name, and maybe others.
        event_ndims: for each value, the number of its axes after the leading ones.
        main: see `call_by_name`.

    Example:
    >>> network = keras.layers.Dense(4)
    >>> model = lambda z: tfd.Normal(network(z)[..., 0], 1.0)
    >>> fold(keras.layers.Lambda(model), {"z": tf.zeros([5, 2, 3])}, {"z": 1}, main="z").batch_shape
    TensorShape([5, 2])
    """
    values = {name: values[name] for name in names_taken(network, values, main)}
    ranks = {name: value.shape.rank - event_ndims[name] for name, value in values.items()}
    if set(ranks.values()) <= {1}:
        return unwrap(call_by_name(network, values, main))
    longest = max(ranks, key=lambda name: ranks[name])
    lead = tf.shape(values[longest])[: ranks[longest]]
    static = values[longest].shape[: ranks[longest]]
    flat = {}
    for name, value in values.items():
        event = tf.shape(value)[ranks[name] :]
        if name != longest:
            value = tf.broadcast_to(value, tf.concat([lead, event], 0))
        flat[name] = tf.reshape(value, tf.concat([[-1], event], 0))
    return unfold(
        unwrap(call_by_name(network, flat, main)), static if static.is_fully_defined() else lead
    )


def unfold(
    distribution: tfd.Distribution, shape, num_axes: int = 1, *, repeat: bool = False
) -> tfd.Distribution:
    """Return a distribution with its batch shape `[n, *rest]` changed to `[*shape, *rest]`.

    The class stays the same.

    Args:
        distribution: a plain tfd object.
        shape: shape of the new axes; one of them may be -1.
        num_axes: number of leading axes that the new axes replace.
        repeat: whether to repeat the distribution along the new axes, which then replace none.

    Raises:
        ValueError: if a part of a joint distribution depends on others.

    >>> unfold(tfd.Independent(tfd.Normal(tf.zeros([6, 2]), 1.), 1), [3, 2])
    <tfp.distributions.Independent 'IndependentNormal' batch_shape=[3, 2] event_shape=[2] dtype=float32>
    """
    if has_dependent_parts(distribution):
        raise ValueError(ONE_AXIS)
    if is_joint(distribution):
        return map_joint(lambda part: unfold(part, shape, num_axes, repeat=repeat), distribution)
    properties = type(distribution).parameter_properties()
    batch = distribution.batch_shape_tensor()
    reshaped = {}
    for key, value in distribution.parameters.items():
        if isinstance(value, tfd.Distribution):
            reshaped[key] = unfold(value, shape, num_axes, repeat=repeat)
        elif (
            key in properties
            and value is not None
            and not isinstance(value, tfp.bijectors.Bijector)
        ):
            event_ndims = properties[key].event_ndims
            if isinstance(event_ndims, int) and np.ndim(value):
                new_batch = tf.concat([shape, batch[num_axes:]], 0)
                reshaped[key] = _unfold(
                    tf.convert_to_tensor(value), event_ndims, batch, new_batch, repeat
                )
    return distribution.copy(**reshaped)


def _unfold(
    value: tf.Tensor, event_ndims: int, batch: tf.Tensor, new_batch: tf.Tensor, repeat: bool
) -> tf.Tensor:
    event = tf.shape(value)[value.shape.rank - event_ndims :]
    whole = tf.broadcast_to(value, tf.concat([batch, event], 0))
    new_shape = tf.concat([new_batch, event], 0)
    return tf.broadcast_to(whole, new_shape) if repeat else tf.reshape(whole, new_shape)


def named_function(names: Sequence[str], function: Callable) -> Callable:
    """Return a function of keyword arguments whose signature lists their names, because TFP's joint
    distributions read it.
    """

    def named(**values):
        return function(**values)

    parameters = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names
    ]
    named.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return named


def _is_by_name(struct) -> bool:
    return isinstance(struct, dict)


def _structure(network: keras.Model):
    """Return a model's inputs as they were given to it: one, a list or a dict."""
    return network.inputs if isinstance(network, keras.Sequential) else network.input


def first_distribution(
    role: str, network: keras.layers.Layer, values: Mapping, main: str | None
) -> tfd.Distribution:
    """Call encoder or decoder for the first time, with errors that name the cause.

    Raises:
        TypeError: if the network does not end in a distribution layer.
        ValueError: if it takes inputs of another name or shape.
    """
    for name, tensor in zip(
        names_taken(network, values, main), named_inputs(network).values(), strict=False
    ):
        given = tuple(values[name].shape[1:])
        shape = tuple(tensor.shape[1:])
        if given != shape:
            source = {"x": "the shape of the data", "condition": "the shape of the condition"}.get(
                name, "the latent shape of the encoder"
            )
            raise ValueError(f"The {role} takes inputs of shape {shape}, but {source} is {given}.")
    output = call_by_name(network, values, main)
    member = {"encoder": "MultivariateNormalDiag", "decoder": "IndependentBernoulli"}[role]
    message = (
        f"The {role} must end in a distribution layer, such as tfp_vae.layers.{member}; its "
        f"output is a {type(output).__name__}."
    )
    return unwrap(expect_distribution(output, message))
