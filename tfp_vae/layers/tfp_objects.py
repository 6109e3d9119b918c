"""How a `.keras` file holds a `tfd.Distribution`: the name of its class, and its arguments."""

import functools
import inspect

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

tfd = tfp.distributions
tfb = tfp.bijectors

_LIBRARIES = {"distributions": tfd, "bijectors": tfb}


def object_to_config(value, argument: str, numbers: dict[int, int] | None = None):
    """Return plain values, lists and dicts for a distribution, a bijector, or an argument of one.

    Args:
        value: the object.
        argument: its name in messages.
        numbers: the numbers of the variables met so far, by their identities: a variable that
            occurs twice is one variable again when it is built.

    Raises:
        ValueError: if `argument` holds something else, such as a function or a linear operator.
    """
    return _plain(value, argument, {} if numbers is None else numbers)


@functools.singledispatch
def _plain(value, argument: str, numbers: dict[int, int]):
    library, cls = _public_class(value)
    if cls is None:
        raise ValueError(
            f"{argument} cannot be saved, for it holds {value!r}. Pass a Keras layer, or a function "
            "that returns "
            'the distribution, decorated with @keras.saving.register_keras_serializable(package="mine").'
        )
    parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    given = {
        name: item for name, item in value.parameters.items() if item is not defaults.get(name)
    }
    arguments = {name: _plain(item, argument, numbers) for name, item in given.items()}
    return {"tfp": library, "class": cls.__name__, "arguments": arguments}


@_plain.register(type(None) | bool | int | float | str)
def _itself(value, argument: str, numbers: dict[int, int]):
    return value


@_plain.register(list | tuple)
def _list(value, argument: str, numbers: dict[int, int]) -> list:
    return [_plain(item, argument, numbers) for item in value]


@_plain.register(dict)
def _dict(value, argument: str, numbers: dict[int, int]) -> dict:
    return {"dict": {name: _plain(item, argument, numbers) for name, item in value.items()}}


@_plain.register(tf.DType)
def _dtype(value, argument: str, numbers: dict[int, int]) -> dict:
    return {"dtype": value.name}


@_plain.register(tf.Tensor | np.ndarray | np.generic)
def _tensor(value, argument: str, numbers: dict[int, int]) -> dict:
    return keras.saving.serialize_keras_object(tf.convert_to_tensor(value))


@_plain.register(tf.Variable)
def _variable(value, argument: str, numbers: dict[int, int]) -> dict:
    return {
        "variable": numbers.setdefault(id(value), len(numbers)),
        "value": keras.saving.serialize_keras_object(tf.convert_to_tensor(value)),
        "trainable": value.trainable,
    }


@_plain.register(tfp.util.DeferredTensor)
def _deferred(value, argument: str, numbers: dict[int, int]) -> dict:
    # A bijector's `forward`, unless it is a function.
    bijector = getattr(value.transform_fn, "__self__", value.transform_fn)
    return {
        "deferred": _plain(value.pretransformed_input, argument, numbers),
        "bijector": _plain(bijector, argument, numbers),
    }


def _public_class(value) -> tuple[str, type | None]:
    """Return the public class of TFP that makes such an object.

    An object that is not a composite tensor has a private class instead.
    """
    library = "bijectors" if isinstance(value, tfb.Bijector) else "distributions"
    cls = getattr(_LIBRARIES[library], type(value).__name__.lstrip("_"), None)
    return library, cls if inspect.isclass(cls) and issubclass(cls, type(value)) else None


def object_from_config(config, variables: dict[int, tf.Variable] | None = None):
    """Build the object that `object_to_config` described.

    It builds only objects of TFP's own classes, so that a file cannot name any other class.
    `variables` are those built so far, by their numbers.
    """
    variables = {} if variables is None else variables
    if isinstance(config, list):
        return [object_from_config(item, variables) for item in config]
    if not isinstance(config, dict):
        return config
    if config.keys() == {"dict"}:
        return {name: object_from_config(item, variables) for name, item in config["dict"].items()}
    if config.keys() == {"dtype"}:
        return tf.as_dtype(config["dtype"])
    if "variable" in config:
        number = config["variable"]
        if number not in variables:
            value = keras.saving.deserialize_keras_object(config["value"])
            variables[number] = tf.Variable(value, trainable=config["trainable"])
        return variables[number]
    if "deferred" in config:
        return tfp.util.DeferredTensor(
            object_from_config(config["deferred"], variables),
            object_from_config(config["bijector"], variables),
        )
    if "tfp" not in config:
        return keras.saving.deserialize_keras_object(config)
    cls = getattr(_LIBRARIES[config["tfp"]], config["class"])
    if not (inspect.isclass(cls) and issubclass(cls, (tfd.Distribution, tfb.Bijector))):
        raise ValueError(
            f"{config['class']!r} is not a class of distributions or bijectors of TFP: the file is "
            "damaged."
        )
    arguments = {
        name: object_from_config(item, variables) for name, item in config["arguments"].items()
    }
    return cls(**arguments)
