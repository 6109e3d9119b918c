"""Variables of TensorFlow as weights of Keras: those of a `tfd.Distribution`, or of a function."""

import inspect
import types
import weakref
from collections.abc import Callable

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.internals import adopted, is_composite
from tfp_vae.layers.tensor_like import TensorLike
from tfp_vae.layers.tfp_objects import object_from_config, object_to_config

tfd = tfp.distributions

# The weight of each variable: a variable of two distributions stays one weight, and is trained once.
_WEIGHTS: weakref.WeakValueDictionary[int, keras.Variable] = weakref.WeakValueDictionary()
_LAYERS: weakref.WeakValueDictionary[int, "DistributionOfVariables"] = weakref.WeakValueDictionary()


def weight_of(variable: tf.Variable) -> keras.Variable:
    """Return the Keras weight that holds a variable; the same one each time.

    >>> variable = tf.Variable(1.)
    >>> weight = weight_of(variable)
    >>> _ = weight.assign(2.)
    >>> variable.numpy(), weight_of(variable) is weight
    (np.float32(2.0), True)
    """
    if id(variable) not in _WEIGHTS:
        _WEIGHTS[id(variable)] = weight = adopted(variable)
        return weight
    return _WEIGHTS[id(variable)]


def variables_of(distribution: tfd.Distribution) -> list[tf.Variable]:
    """Return the variables that a distribution is made of, each once; none if it is no composite
    tensor, whose parts TensorFlow does not know.
    """
    found = {id(part): part for part in _parts(distribution) if isinstance(part, tf.Variable)}
    return [*found.values()]


def rebuilt(distribution: tfd.Distribution) -> tfd.Distribution:
    """Return a distribution with the present values of its variables, read as Keras reads weights:
    in a `keras.StatelessScope` they are those of the scope.

    A distribution without variables stays the same object.
    """
    if not variables_of(distribution):
        return distribution
    values = [
        tf.convert_to_tensor(weight_of(part)) if isinstance(part, tf.Variable) else part
        for part in _parts(distribution)
    ]
    return tf.nest.pack_sequence_as(distribution, values, expand_composites=True)


def layer_of(distribution: tfd.Distribution) -> "DistributionOfVariables":
    """Return the layer of a distribution; the same one each time, so that it is shared after a
    reload, too.
    """
    if id(distribution) not in _LAYERS:
        _LAYERS[id(distribution)] = layer = DistributionOfVariables(distribution)
        return layer
    return _LAYERS[id(distribution)]


def captured_by(function: Callable) -> list[keras.Variable]:
    """Return weights for the variables that a Python function reads from around it: variables, and
    those inside distributions, bijectors and other modules.

    >>> shift = tf.Variable(1.)
    >>> [weight.shape for weight in captured_by(lambda t: tfd.Normal(t + shift, 1.))]
    [TensorShape([])]
    """
    if not isinstance(function, types.FunctionType):
        return []
    around = inspect.getclosurevars(function)
    weights = {}
    for value in tf.nest.flatten([*around.nonlocals.values(), *around.globals.values()]):
        if isinstance(value, keras.Variable):
            weights[id(value)] = value
        elif isinstance(value, tf.Variable):
            weights[id(value)] = weight_of(value)
        elif isinstance(value, tf.Module) and not isinstance(value, keras.layers.Layer):
            weights |= {id(variable): weight_of(variable) for variable in value.variables}
    return [*weights.values()]


def _parts(distribution: tfd.Distribution) -> list:
    if not is_composite(distribution):
        return []
    return tf.nest.flatten(distribution, expand_composites=True)


@keras.saving.register_keras_serializable(package="tfp_vae")
class DistributionOfVariables(keras.layers.Layer):
    """A `tfd.Distribution` as a layer whose weights are the distribution's variables.

    Training changes the variables themselves. A reloaded layer has variables of its own, under the
    same constraints (bijectors of a `tfp.util.TransformedVariable`).

    Args:
        distribution: a composite tensor, as almost all distributions of TFP are.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: ignored.

    Output:
        The distribution.

    Raises:
        ValueError: when saving, if the distribution cannot be described, such as one with a
            function inside.

    Example:
    >>> scale = tfp.util.TransformedVariable(1., tfp.bijectors.Softplus())
    >>> layer = DistributionOfVariables(tfd.Normal(tf.Variable(0.), scale))
    >>> len(layer.trainable_weights), layer(None).stddev().numpy().round(4)
    (2, np.float32(1.0))
    """

    def __init__(self, distribution: tfd.Distribution, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.distribution = distribution
        self.adopted_weights = [weight_of(variable) for variable in variables_of(distribution)]
        self.built = True

    def call(self, inputs=None):
        return TensorLike(rebuilt(self.distribution))

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "distribution": object_to_config(self.distribution, "distribution"),
        }

    @classmethod
    def from_config(cls, config: dict):
        return cls(**{**config, "distribution": object_from_config(config["distribution"])})
