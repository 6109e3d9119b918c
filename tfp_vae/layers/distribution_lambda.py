"""Features in, distribution out: the base of the family and its most general member."""

import abc
import types
from collections.abc import Callable

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae.layers.tensor_like import DRAW_SHAPED, TensorLike

tfd = tfp.distributions


class DistributionLayer(keras.layers.Layer, abc.ABC):
    """Base of all layers that return a `tfd.Distribution`.

    To add one: subclass, implement `make_distribution(params)`, extend `get_config` by the constructor's arguments,
    decorate with `keras.saving.register_keras_serializable`, name it in `layers.__all__`, and give it a row in
    `tests/test_layers.py`.

    The layer never casts its inputs to the compute dtype: parameters are brought to the variable dtype (float32 under
    mixed precision, float64 under float64), so densities keep their precision.

    Args:
        convert_to_tensor_fn: how the distribution becomes a tensor when a Keras layer, an operator or NumPy needs one:
            a function of the distribution, or one of the names "sample", "mean", "mode", "stddev", "variance".
        validate_args: whether the distribution checks its parameters and arguments (slower).
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(self, convert_to_tensor_fn="sample", validate_args: bool = False, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.convert_to_tensor_fn = _to_function(convert_to_tensor_fn)
        self.validate_args = validate_args

    @abc.abstractmethod
    def make_distribution(self, params) -> tfd.Distribution:
        """Build the distribution, anew for every call, from the previous layer's output."""

    def call(self, params):
        if tf.is_tensor(params) and not isinstance(params, tfd.Distribution) and params.dtype.is_floating:
            params = tf.cast(params, self.variable_dtype)
        return TensorLike(self.make_distribution(params), self.convert_to_tensor_fn)

    def compute_output_spec(self, params):
        start, replay = _from_last_tensor(params)
        if start is params:
            return super().compute_output_spec(params)
        return _Function(lambda tensor: self.call(replay(tensor))).compute_output_spec(start)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "convert_to_tensor_fn": _to_config(self.convert_to_tensor_fn, "convert_to_tensor_fn"),
            "validate_args": self.validate_args,
        }


@keras.saving.register_keras_serializable(package="tfp_vae")
class DistributionLambda(DistributionLayer):
    """Any distribution from any function of the previous layer's output.

    Use it for a distribution that has no layer of its own. A lambda trains and exports; to save the model as `.keras`
    give a function registered with `keras.saving.register_keras_serializable`.

    Reference: Dillon et al., 2017, TensorFlow Distributions, arXiv:1711.10604.

    Args:
        make_distribution_fn: function of the layer's input that returns a `tfd.Distribution`.
        convert_to_tensor_fn: see `DistributionLayer`.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        params: the previous layer's output, `[..., anything]`.

    Output:
        The distribution `make_distribution_fn(params)`, usable as a tensor.

    Raises:
        TypeError: if `make_distribution_fn` does not return a distribution.
        ValueError: when saving, if a function is not registered with Keras.

    Example:
    >>> layer = DistributionLambda(lambda t: tfd.Normal(t[..., 0], 1.), convert_to_tensor_fn="mean")
    >>> layer(tf.constant([[3.], [4.]])).numpy()
    array([3., 4.], dtype=float32)
    """

    def __init__(self, make_distribution_fn: Callable, convert_to_tensor_fn="sample", **kwargs):
        super().__init__(convert_to_tensor_fn, **kwargs)
        self.make_distribution_fn = _to_function(make_distribution_fn)

    def make_distribution(self, params) -> tfd.Distribution:
        return self.make_distribution_fn(params)

    def get_config(self) -> dict:
        config = super().get_config()
        config["make_distribution_fn"] = _to_config(self.make_distribution_fn, "make_distribution_fn")
        return config


class _Function(keras.Operation):
    """A function that Keras can trace for the shape of its output."""

    def __init__(self, function: Callable):
        super().__init__()
        self.call = function


def _from_last_tensor(symbolic):
    """Go back from a symbolic distribution to the tensor it is made of.

    Keras traces each layer on a placeholder, which is a tensor only; a layer that asks the distribution before it
    needs that distribution. So the layers since the last plain tensor are called again, together with it.

    Returns:
        The plain symbolic tensor, and the function from its value to the distribution.
    """
    history = getattr(symbolic, "_keras_history", None)
    if history is None or not isinstance(history.operation, (DistributionLayer, keras.Model)):
        return symbolic, lambda value: value
    arguments = history.operation._inbound_nodes[history.node_index].arguments
    start, replay = _from_last_tensor(arguments.args[0])
    return start, lambda value: history.operation(replay(value))


def _to_function(identifier) -> Callable:
    """Turn a name, a Keras config or a callable into a callable."""
    if isinstance(identifier, dict):
        identifier = keras.saving.deserialize_keras_object(identifier)
    if isinstance(identifier, str) and identifier in DRAW_SHAPED:
        return DRAW_SHAPED[identifier]
    if not callable(identifier):
        raise ValueError(
            f"Expected a function of the distribution or one of {sorted(DRAW_SHAPED)}, received {identifier!r}."
        )
    return identifier


def _to_config(function: Callable, argument: str) -> str | dict:
    """Give what a `.keras` file can hold of a function: a name, or the config of a registered object."""
    for name, known in DRAW_SHAPED.items():
        if function is known:
            return name
    registered = keras.saving.get_registered_name(
        function if isinstance(function, types.FunctionType) else type(function)
    )
    if keras.saving.get_registered_object(registered) is None:
        raise ValueError(
            f"{argument}={function!r} cannot be saved. Decorate a named function with "
            '@keras.saving.register_keras_serializable(package="mine"), or subclass DistributionLayer.'
        )
    return keras.saving.serialize_keras_object(function)
