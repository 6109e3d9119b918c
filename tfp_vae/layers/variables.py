"""Variables of TensorFlow as weights of Keras: those of a `tfd.Distribution`, or of a function."""

import dis
import functools
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
    return _made_once(_WEIGHTS, variable, adopted)


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
    parts = _parts(distribution)
    is_variable = [isinstance(part, tf.Variable) for part in parts]
    if not any(is_variable):
        return distribution
    values = [
        tf.convert_to_tensor(weight_of(part)) if is_one else part
        for part, is_one in zip(parts, is_variable, strict=True)
    ]
    return tf.nest.pack_sequence_as(distribution, values, expand_composites=True)


def layer_of(distribution: tfd.Distribution) -> "DistributionOfVariables":
    """Return the layer of a distribution; the same one each time, so that it is shared after a
    reload, too.
    """
    return _made_once(_LAYERS, distribution, DistributionOfVariables)


def _made_once(known: weakref.WeakValueDictionary, source, make: Callable):
    """Return what was made of an object; what is made holds the object, so its identity stays."""
    made = known.get(id(source))
    if made is None:
        known[id(source)] = made = make(source)
    return made


def captured_by(function: Callable) -> list[keras.Variable]:
    """Return weights for the variables that a Python function reads by name from around it:
    variables, and those inside distributions, bijectors and other modules, also in lists and dicts.

    It looks into nested functions, methods, partials and default arguments, but not into Keras
    layers, whose weights belong to the model that has these layers, nor into other objects.

    >>> shift = tf.Variable(1.)
    >>> [weight.shape for weight in captured_by(lambda t: tfd.Normal(t + shift, 1.))]
    [TensorShape([])]
    """
    weights: dict[int, keras.Variable] = {}
    seen: set[int] = set()
    pending: list = _around(function)
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, keras.Variable):
            weights[id(value)] = value
        elif isinstance(value, tf.Variable):
            weights[id(value)] = weight_of(value)
        else:
            pending += _around(value)
    return [*reversed(weights.values())]


@functools.singledispatch
def _around(value) -> list:
    """Return the values that an object reads, of the kinds that `captured_by` looks into."""
    return []


@_around.register
def _(value: tf.Module) -> list:
    return [*value.variables]


@_around.register
def _(value: keras.layers.Layer) -> list:
    return []


@_around.register
def _(value: list | tuple | set) -> list:
    return [*value]


@_around.register
def _(value: dict) -> list:
    return [*value.values()]


@_around.register
def _(value: functools.partial) -> list:
    return [value.func, *value.args, *value.keywords.values()]


@_around.register
def _(value: types.MethodType) -> list:
    return [value.__func__, value.__self__]


@_around.register
def _(value: types.FunctionType) -> list:
    cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
    loaded = {one.argval for one in dis.get_instructions(value) if one.opname == "LOAD_GLOBAL"}
    named = [value.__globals__[name] for name in loaded if name in value.__globals__]
    # Other functions of a module may be those of a library.
    named = [one for one in named if not isinstance(one, types.FunctionType)]
    return [*cells, *named, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _parts(distribution: tfd.Distribution) -> list:
    if not is_composite(distribution):
        return []
    return tf.nest.flatten(distribution, expand_composites=True)


@keras.saving.register_keras_serializable(package="tfp_vae")
class DistributionOfVariables(keras.layers.Layer):
    """A `tfd.Distribution` as a layer whose weights are the distribution's variables.

    Training changes the variables themselves. A reloaded layer has variables of its own, under the
    same bijectors of a `tfp.util.TransformedVariable`; a variable that two distributions share is
    then two.

    Args:
        distribution: a composite tensor, as almost all distributions of TFP are.
        variables: its variables in the order of the weights; None is the order of their parts.
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

    def __init__(self, distribution: tfd.Distribution, variables: list | None = None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.distribution = distribution
        variables = variables_of(distribution) if variables is None else variables
        self.adopted_weights = [weight_of(variable) for variable in variables]
        self.built = True

    def call(self, inputs=None):
        return TensorLike(rebuilt(self.distribution))

    def get_config(self) -> dict:
        numbers: dict[int, int] = {}
        distribution = object_to_config(self.distribution, "distribution", numbers)
        # Parts that are built anew may come in another order.
        order = [numbers[id(weight.value)] for weight in self.adopted_weights]
        return {**super().get_config(), "distribution": distribution, "order": order}

    @classmethod
    def from_config(cls, config: dict):
        variables: dict[int, tf.Variable] = {}
        distribution = object_from_config(config["distribution"], variables)
        others = {
            name: value for name, value in config.items() if name not in ("distribution", "order")
        }
        return cls(distribution, [variables[number] for number in config["order"]], **others)
