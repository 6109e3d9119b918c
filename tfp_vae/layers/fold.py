"""One way to call a network that ends in a distribution layer, whatever the number of leading axes."""

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.tensor_like import unwrap

tfd = tfp.distributions


def fold(network: keras.layers.Layer, inputs: tf.Tensor, event_ndims: int) -> tfd.Distribution:
    """Call a network on `[..., *event_shape]` and give a plain distribution of batch shape `[...]`.

    Keras knows one batch axis, so all leading axes become one, and the batch is unfolded afterwards.

    Example:
    >>> network = keras.layers.Dense(4)
    >>> model = lambda z: tfd.Normal(network(z)[..., 0], 1.0)
    >>> fold(model, tf.zeros([5, 2, 3]), event_ndims=1).batch_shape
    TensorShape([5, 2])
    """
    if inputs.shape.rank == event_ndims + 1:
        return unwrap(network(inputs))
    shape = tf.shape(inputs)
    cut = inputs.shape.rank - event_ndims
    flat = tf.reshape(inputs, tf.concat([[-1], shape[cut:]], 0))
    static = inputs.shape[:cut]
    return tfd.BatchReshape(unwrap(network(flat)), static if static.is_fully_defined() else shape[:cut])


def input_shape_of(network: keras.layers.Layer) -> tuple | None:
    """Give the input shape of a Sequential or Functional model, batch included; None where it is not known yet."""
    return network.input_shape if network.built and getattr(network, "inputs", None) else None


def first_distribution(role: str, network: keras.layers.Layer, inputs: tf.Tensor) -> tfd.Distribution:
    """Call encoder or decoder for the first time, with errors that name the cause.

    Raises:
        TypeError: if the network does not end in a distribution layer.
        ValueError: if it takes inputs of another shape.
    """
    shape, expected = tuple(inputs.shape[1:]), input_shape_of(network)
    if expected is not None and expected[1:] != shape:
        source = "the latent shape of the encoder" if role == "decoder" else "the shape of the data"
        raise ValueError(f"The {role} takes inputs of shape {expected[1:]}, but {source} is {shape}.")
    output = network(inputs)
    if not isinstance(output, tfd.Distribution):
        member = {"encoder": "MultivariateNormalDiag", "decoder": "IndependentBernoulli"}[role]
        raise TypeError(
            f"The {role} must end in a distribution layer, such as tfp_vae.layers.{member}; its output is a "
            f"{type(output).__name__}."
        )
    return unwrap(output)
