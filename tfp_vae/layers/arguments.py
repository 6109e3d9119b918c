"""A layer's arguments in a `.keras` file: functions, nested layers, tfd classes."""

import inspect
import types
from collections.abc import Callable

import keras
import tensorflow_probability as tfp

from tfp_vae.layers.tensor_like import DRAW_SHAPED, is_a

tfd = tfp.distributions


@keras.saving.register_keras_serializable(package="tfp_vae")
class Property:
    """A property of a distribution as a function, for `convert_to_tensor_fn=tfd.Bernoulli.logits`.

    It finds the property inside `tfd.Independent` too.

    >>> Property("logits")(tfd.Independent(tfd.Bernoulli(logits=[1., 2.]), 1)).numpy()
    array([1., 2.], dtype=float32)
    """

    def __init__(self, name: str):
        self.name = name

    def __call__(self, distribution: tfd.Distribution):
        while is_a(distribution, tfd.Independent):
            distribution = distribution.distribution
        return getattr(distribution, self.name)

    def get_config(self) -> dict:
        return {"name": self.name}

    @classmethod
    def from_config(cls, config: dict):
        return cls(**config)


def store(layer: keras.layers.Layer, arguments: dict) -> None:
    """Keep a constructor's arguments on a layer, each under its own name, for `stored`."""
    layer.argument_names = tuple(arguments)
    for name, value in arguments.items():
        setattr(layer, name, value)


def stored(layer: keras.layers.Layer) -> dict:
    """Return the config of the arguments that `store` kept; `rebuild` is the inverse."""
    return {name: to_config(getattr(layer, name), name) for name in layer.argument_names}


def rebuild(cls: type, config: dict):
    """Build a layer from its config, nested objects included."""
    return cls(**{name: from_config(value) for name, value in config.items()})


def as_function(identifier) -> Callable:
    """Turn a name, a property or a callable into a callable."""
    if isinstance(identifier, property) and identifier.fget:
        return Property(identifier.fget.__name__)
    if isinstance(identifier, str) and identifier in DRAW_SHAPED:
        return DRAW_SHAPED[identifier]
    if not callable(identifier):
        raise ValueError(
            f"Expected a function of the distribution or one of {sorted(DRAW_SHAPED)}, received "
            f"{identifier!r}."
        )
    return identifier


def to_config(value, argument: str):
    """Return an argument in the form that a `.keras` file holds.

    The form is a plain value, a name, or the config of a registered object.
    """
    for name, known in DRAW_SHAPED.items():
        if value is known:
            return name
    if isinstance(value, dict):
        return {name: to_config(one, f"{argument}[{name!r}]") for name, one in value.items()}
    if isinstance(value, list):
        return [to_config(one, argument) for one in value]
    if inspect.isclass(value):
        return _class_to_config(value, argument)
    if not callable(value):
        return value
    registered = keras.saving.get_registered_name(
        value if isinstance(value, types.FunctionType) else type(value)
    )
    if keras.saving.get_registered_object(registered) is None and not type(
        value
    ).__module__.startswith("keras."):
        raise ValueError(
            f"{argument}={value!r} cannot be saved. Decorate a named function with "
            '@keras.saving.register_keras_serializable(package="mine"), or subclass DistributionLayer.'
        )
    return keras.saving.serialize_keras_object(value)


def from_config(value):
    """Build an argument from the result of `to_config`."""
    if isinstance(value, dict) and "tfd" in value:
        return as_distribution_class(getattr(tfd, value["tfd"], value))
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        return [from_config(one) for one in value]
    return keras.saving.deserialize_keras_object(value) if isinstance(value, dict) else value


def as_distribution_class(value) -> type[tfd.Distribution]:
    """Check that a value is a class of distributions."""
    if not (inspect.isclass(value) and issubclass(value, tfd.Distribution)):
        raise TypeError(f"Expected a class of distributions such as tfd.Gamma, received {value!r}.")
    return value


def _class_to_config(value: type, argument: str) -> dict:
    if getattr(tfd, value.__name__, None) is not value:
        raise ValueError(
            f"{argument}={value!r} cannot be saved: it is not a class of tfd. Subclass "
            "DistributionLayer for it."
        )
    return {"tfd": value.__name__}
